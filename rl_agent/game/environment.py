"""The game in JAX: pure functions, to be compiled and mapped over batches. The rules are those of `reference.py`.

    state = init(arrays)
    state = step(arrays, state, action)      state.legal, state.reward, state.done

`arrays` may be one game for a whole batch of states, `jax.vmap(step, (None, 0, 0))`, or a batch of games of one
padding, `jax.vmap(step)`. An action that is not legal is made into the first legal one. After the end nothing changes.

A move that is forced has exactly one legal action: what is repeated after a backup, what an item around decides, the
end of a chain. `step_to_choice` makes those by itself.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memplan.rl_agent.game.arrays import COLUMNS, GameArrays, MoveRow, forever
from memplan.rl_agent.game.guide import LOST
from memplan.rl_agent.game.moves import CLOSED, NEVER, NONE, PASSED
from memplan.rl_agent.game.reference import COPY, DROP, EVICTION, LEADING, NO_COPY, NUM_ACTIONS, PREFETCH
from memplan.rl_agent.game.room import (
    Copy,
    choose_offset,
    find_copy,
    find_late_eviction,
    late_copy,
    most_kept,
    set_throughout,
)

# Bits of the history: the action, and whether it was forced by a backup.
ACTIONS, FORCED = 3, 4


class Chains(NamedTuple):
    """What is known of the chains that are being decided, `[rows]` each: see `reference.Chain`.

    A row means nothing until the first move of its chain. Beside what the reference knows: the units `[offset, top)` of
    the residency that may go on.
    """

    opened: jax.Array
    offset: jax.Array
    top: jax.Array
    end: jax.Array
    limit: jax.Array
    written: jax.Array
    ready: jax.Array


class State(NamedTuple):
    """A game being played. What has no shape is a scalar, int32 unless said otherwise.

    Attributes:
      move: number of the next move.
      legal: `[3]` bool, which actions are legal; none when the game is over.
      reward: float32, seconds of latency that the last step saved.
      done: bool, whether all moves are made.
      total: float32, seconds that all steps saved.
      backups: how often the game was set back.
      is_dead: bool, whether the next step sets the game back.
      history: `[moves]` int8: the action, of this try or of the one before, with the bit `FORCED` where a backup says
        that it must be DROP.
      replay_until: moves before this one repeat the history.
      left: `[slots]` ticks of supply that are left, or `CLOSED`, or `PASSED`.
      owner: `[slots]` int8, queue whose copies move there, or -1.
      issued: `[slots]` int8, which way a copy goes that is issued before it and has ticks of it, or -1.
      busy_until, held_until: `[units]`, see `GameArrays`: times until which a unit is taken, and its value wanted.
      chains: see `Chains`.
      duration: `[slots]` ticks of each operation, as decided so far.
      stays: how many arguments stay from run to run.
      lead_done, lead_first: slots at which the last late copy that others may follow is awaited and issued, or -1.
      demand, taken: ticks of memory time, and of the link's channel, of the operation at hand, as decided so far.
      demand_seconds: float32, the first of them in seconds.
      prefetch, eviction: the copies that COPY makes, and that COPY or DROP make to bring a dirty value home.
      eviction_wait: float32, seconds that an operation waits for the latter each time.
      is_late, leads: bool, whether that of COPY is late, and whether others may follow it.
      wait: float32, seconds that the operation waits for it each time.
      start, offset: time and units of a new residency, if the next move opens one.
    """

    move: jax.Array
    legal: jax.Array
    reward: jax.Array
    done: jax.Array
    total: jax.Array
    backups: jax.Array
    is_dead: jax.Array
    history: jax.Array
    replay_until: jax.Array
    left: jax.Array
    owner: jax.Array
    issued: jax.Array
    busy_until: jax.Array
    held_until: jax.Array
    chains: Chains
    duration: jax.Array
    stays: jax.Array
    lead_done: jax.Array
    lead_first: jax.Array
    demand: jax.Array
    taken: jax.Array
    demand_seconds: jax.Array
    prefetch: Copy
    eviction: Copy
    eviction_wait: jax.Array
    is_late: jax.Array
    leads: jax.Array
    wait: jax.Array
    start: jax.Array
    offset: jax.Array


_FLAGS = ("reads", "writes", "is_operation", "is_last", "is_stay", "is_long", "is_first_access", "is_first")


def read_move(arrays: GameArrays, number: jax.Array) -> MoveRow:
    """Returns the row of a move, its flags as bool."""
    row = jnp.asarray(arrays.moves)[number]
    return MoveRow(*(row[i] != 0 if name in _FLAGS else row[i] for i, name in enumerate(COLUMNS)))


def init(arrays: GameArrays) -> State:
    """Returns the state before the first move."""
    moves = arrays.moves.shape[0]
    zero, none = jnp.int32(0), jnp.int32(NONE)
    no_copy = Copy(none, none, none)
    state = State(
        move=zero,
        legal=jnp.zeros(NUM_ACTIONS, jnp.bool_),
        reward=jnp.float32(0.0),
        done=jnp.asarray(arrays.num_moves) == 0,
        total=jnp.float32(0.0),
        backups=zero,
        is_dead=jnp.bool_(False),
        history=jnp.full(moves, DROP, jnp.int8),
        replay_until=zero,
        left=jnp.asarray(arrays.idle),
        owner=jnp.full_like(arrays.idle, NONE, jnp.int8),
        issued=jnp.full_like(arrays.idle, NONE, jnp.int8),
        busy_until=jnp.asarray(arrays.busy_until),
        held_until=jnp.asarray(arrays.busy_until),
        chains=Chains(*(jnp.asarray(arrays.no_rows) for _ in Chains._fields)),
        duration=jnp.asarray(arrays.duration),
        stays=zero,
        lead_done=none,
        lead_first=none,
        demand=zero,
        taken=zero,
        demand_seconds=jnp.float32(0.0),
        prefetch=no_copy,
        eviction=no_copy,
        eviction_wait=jnp.float32(0.0),
        is_late=jnp.bool_(False),
        leads=jnp.bool_(False),
        wait=jnp.float32(0.0),
        start=zero,
        offset=none,
    )
    return _with_choices(arrays, state)


def legal(arrays: GameArrays, state: State) -> jax.Array:
    """Returns which actions are legal, `[3]` bool: as `state.legal`."""
    del arrays
    return state.legal


def step(arrays: GameArrays, state: State, action: jax.Array) -> State:
    """Returns the state after a move.

    Args:
      arrays: the game.
      state: of it.
      action: integer scalar: COPY, NO_COPY or DROP. If it is not legal, the first legal one is made instead.
    """
    action = jnp.asarray(action, jnp.int32)
    is_legal = (action >= 0) & (action < NUM_ACTIONS) & state.legal[jnp.clip(action, 0, NUM_ACTIONS - 1)]
    action = jnp.where(is_legal, action, jnp.argmax(state.legal).astype(jnp.int32))
    # The barrier keeps the compiler from computing the new state again for everything that is made of it.
    return _with_choices(arrays, lax.optimization_barrier(_advanced(arrays, state, action)))


def step_to_choice(arrays: GameArrays, state: State, action: jax.Array) -> State:
    """Returns the state after a move and all forced moves behind it; the reward is that of all of them."""

    def is_forced(state: State) -> jax.Array:
        return ~state.done & (jnp.sum(state.legal) == 1)

    def follow(before: State) -> State:
        after = step(arrays, before, jnp.argmax(before.legal))
        return after._replace(reward=before.reward + after.reward)

    return lax.while_loop(is_forced, follow, step(arrays, state, action))


def init_to_choice(arrays: GameArrays) -> State:
    """Returns the state at the first move that is not forced."""
    state = init(arrays)
    is_forced = jnp.sum(state.legal) == 1
    return lax.cond(is_forced, lambda: step_to_choice(arrays, state, jnp.argmax(state.legal)), lambda: state)


def _own(arrays: GameArrays, state: State, move: MoveRow) -> Chains:
    """Returns what is known of the chain of a move, int32."""
    known = Chains(*(column[move.row].astype(jnp.int32) for column in state.chains))
    none, zero = jnp.int32(NONE), jnp.int32(0)
    fresh = Chains(none, zero, zero, zero, jnp.int32(forever(arrays.no_rows.dtype)), none, move.ready)
    return jax.tree.map(lambda new, old: jnp.where(move.is_first, new, old), fresh, known)


def _advanced(arrays: GameArrays, state: State, action: jax.Array) -> State:
    """Returns the state after a move or a backup, without what is possible next; if the game is over, as it is."""
    move = read_move(arrays, state.move)
    own = _own(arrays, state, move)
    is_back = state.is_dead
    is_played = ~state.done & ~is_back
    is_decided = is_played & ~_is_covered(state, move)
    is_fast = action != DROP

    # A dirty value is brought home, where somebody wants it.
    evictions = is_decided & move.reads & (own.opened != NONE) & (own.written != NONE) & (action != NO_COPY)
    prefetches = is_decided & (action == COPY)
    opens = is_decided & is_fast & ((action == COPY) | ~move.reads)
    goes_on = is_decided & (action == NO_COPY) & move.reads
    is_home = is_decided & (action == DROP)
    evicted = jnp.asarray(arrays.awaited)[state.eviction.last]

    # Supply.
    seconds = jnp.asarray(arrays.seconds)[state.move]
    first = move.is_first_access
    demand, taken = jnp.where(first, move.demand, state.demand), jnp.where(first, move.taken, state.taken)
    before = jnp.where(first, seconds[1], state.demand_seconds)
    idle_before = jnp.maximum(jnp.maximum(move.floor, demand) - taken, 0)
    demand = jnp.where(is_fast, demand - move.saving, demand)
    taken = jnp.where(is_fast, taken - move.traffic, taken)
    after = jnp.where(is_fast, before - seconds[2], before)
    saved = (jnp.maximum(seconds[0], before) - jnp.maximum(seconds[0], after)) * seconds[3]
    waits = prefetches & state.is_late
    waited = jnp.where(waits, state.wait * seconds[4], 0.0) + jnp.where(
        evictions, state.eviction_wait * seconds[4], 0.0
    )
    saved = jnp.where(move.is_operation & is_played, saved, 0.0) - waited
    idle = jnp.maximum(jnp.maximum(move.floor, demand) - taken, 0)
    slot = lax.iota(jnp.int32, state.left.shape[0])
    passed = jnp.where(move.is_operation & is_played, move.slot, NONE)
    left = jnp.where((slot == passed) & (state.left != CLOSED), idle + move.carried, state.left)
    is_carrier = slot == move.carrier
    carried = jnp.where(passed != NONE, move.trips * (idle - idle_before), 0)
    left = jnp.where(is_carrier & (left != CLOSED), left + carried, left)
    duration = jnp.where(slot == passed, jnp.maximum(move.floor, demand), state.duration)
    booked = (left, state.owner, state.issued)
    booked = _booked(arrays, booked, slot, state.eviction, evictions, EVICTION)
    left, owner, issued = _booked(arrays, booked, slot, state.prefetch, prefetches & ~state.is_late, PREFETCH)
    # A late copy has its slots to itself, and nothing may be in flight where the program waits for it.
    is_closed = (slot >= jnp.minimum(state.prefetch.first, move.before)) & (slot < move.done) & waits & (left >= 0)
    left = jnp.where(is_closed, 0, left)
    # Nothing is in flight over a loop that has copies of its own.
    left = jnp.where(is_carrier & (evictions | prefetches), CLOSED, left)
    owner = jnp.where(is_closed, arrays.queue[PREFETCH].astype(jnp.int8), owner)

    # Room.
    offset = jnp.where(opens, state.offset, own.offset)
    top = jnp.where(opens, state.offset + move.size, own.top)
    small = state.busy_until.dtype
    unit = lax.iota(small, state.busy_until.shape[0])
    is_own = (unit >= own.offset.astype(small)) & (unit < own.top.astype(small)) & (own.opened != NONE)
    is_freed = is_own & (opens | is_home) & (state.busy_until <= own.end.astype(small))
    held_until = jnp.where(is_freed, 0, state.held_until)
    busy_until = jnp.where(is_own & evictions, jnp.maximum(state.busy_until, evicted.astype(small)), state.busy_until)
    is_new = (unit >= offset.astype(small)) & (unit < top.astype(small)) & (opens | goes_on)
    busy_until = jnp.where(is_new, move.end.astype(small), busy_until)
    held_until = jnp.where(is_new, move.held.astype(small), held_until)

    # Chains.
    chains = state.chains
    meets = opens & (chains.offset < top.astype(small)) & (offset.astype(small) < chains.top)
    limit = jnp.where(meets, jnp.minimum(chains.limit, state.start.astype(small)), chains.limit)
    written = jnp.where(evictions | opens | is_home, NONE, own.written)
    ready = jnp.where(evictions, state.eviction.last + 1, own.ready)
    row = Chains(
        opened=jnp.where(opens, state.move, jnp.where(is_home, NONE, own.opened)),
        offset=offset,
        top=top,
        end=jnp.where(opens | goes_on, move.end, own.end),
        limit=jnp.where(opens, forever(small), own.limit),
        written=jnp.where(move.writes & is_fast, move.slot, written),
        ready=jnp.where(is_home & move.writes, move.slot + 1, ready),
    )
    is_row = (lax.iota(small, limit.shape[0]) == move.row.astype(small)) & is_decided
    chains = Chains(
        *(
            jnp.where(is_row, value.astype(small), column)
            for value, column in zip(row, chains._replace(limit=limit), strict=True)
        )
    )

    # A backup forgets all but the history.
    number = lax.iota(jnp.int32, state.history.shape[0])
    history = jnp.where(
        (number == state.move) & is_played, action.astype(jnp.int8) | (state.history & FORCED), state.history
    )
    history = jnp.where((number == own.opened) & is_back, history | FORCED, history)
    reward = jnp.where(is_back, -state.total, saved)
    following = jnp.where(is_back, 0, state.move + is_played)
    return state._replace(
        move=following,
        reward=reward,
        done=following >= arrays.num_moves,
        total=jnp.where(is_back, 0.0, state.total + saved),
        backups=state.backups + is_back,
        history=history,
        replay_until=jnp.where(is_back, own.opened, state.replay_until),
        left=jnp.where(is_back, jnp.asarray(arrays.idle), left),
        owner=jnp.where(is_back, jnp.int8(NONE), owner),
        issued=jnp.where(is_back, jnp.int8(NONE), issued),
        busy_until=jnp.where(is_back, jnp.asarray(arrays.busy_until), busy_until),
        held_until=jnp.where(is_back, jnp.asarray(arrays.busy_until), held_until),
        chains=chains,
        duration=jnp.where(is_back, jnp.asarray(arrays.duration), duration),
        stays=jnp.where(is_back, 0, state.stays + (opens & move.is_stay)),
        lead_done=jnp.where(is_back, NONE, jnp.where(prefetches & state.leads, move.done, state.lead_done)),
        lead_first=jnp.where(
            is_back, NONE, jnp.where(prefetches & state.leads, state.prefetch.first, state.lead_first)
        ),
        demand=demand,
        taken=taken,
        demand_seconds=after,
    )


def _booked(
    arrays: GameArrays,
    before: tuple[jax.Array, jax.Array, jax.Array],
    slot: jax.Array,
    copy: Copy,
    is_made: jax.Array,
    way: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns supply, owners and what is issued, of all slots, after a copy one way, if it is made."""
    left, owner, issued = before
    is_within = (slot >= copy.first) & (slot <= copy.last) & (left != PASSED) & is_made
    remaining = jnp.where(slot == copy.last, left - copy.rest, 0)
    return (
        jnp.where(is_within, remaining, left),
        jnp.where(is_within, arrays.queue[way].astype(jnp.int8), owner),
        jnp.where((slot == copy.first) & is_made, jnp.int8(way), issued),
    )


def _has_bit(flags: jax.Array, bit: jax.Array) -> jax.Array:
    """Whether a bit of some uint8 is set."""
    return (flags >> bit.astype(jnp.uint8)) & 1 != 0


def _is_covered(state: State, move: MoveRow) -> jax.Array:
    """Whether an item around is in fast memory as a whole."""
    return (move.parent != NONE) & (state.history[jnp.maximum(move.parent, 0)] & ACTIONS != DROP)


def _with_choices(arrays: GameArrays, state: State) -> State:
    """Returns the state with what is possible at its move."""
    number = jnp.clip(state.move, 0, arrays.moves.shape[0] - 1)
    move = read_move(arrays, number)
    own = _own(arrays, state, move)
    past, is_forced = state.history[number] & ACTIONS, (state.history[number] & FORCED) != 0
    times = jnp.asarray(arrays.slot_time)

    def lasts(until: jax.Array) -> jax.Array:
        return (until <= own.end) | (
            (until <= own.limit) & (most_kept(jnp.asarray(arrays.bottom), own.end, until) <= own.offset)
        )

    small = arrays.no_rows.dtype
    is_open = own.opened != NONE
    is_dirty = move.reads & is_open & (own.written != NONE)
    low = own.written + 1
    reach = arrays.window.shape[0]
    high = jnp.minimum(move.done, low + reach)
    eviction = find_copy(
        state.left, state.owner, state.issued == EVICTION, arrays.window, arrays.queue[EVICTION],
        low, high, move.eviction, arrays.limits[1], is_late=False,
    )  # fmt: skip
    tick, seconds, can_wait = arrays.facts[1], jnp.asarray(arrays.seconds)[number], arrays.limits[2] != 0
    late_eviction = find_late_eviction(
        state.left, state.owner, state.duration, arrays.window,
        low, high, arrays.limits[1], move.eviction, seconds[6] / tick,
    )  # fmt: skip
    is_covered = _is_covered(state, move)
    is_eviction_late = is_dirty & ~is_covered & ~state.done & ~eviction.exists & late_eviction.copy.exists & can_wait
    eviction = jax.tree.map(lambda late, usual: jnp.where(is_eviction_late, late, usual), late_eviction.copy, eviction)
    can_evict = is_dirty & eviction.exists & lasts(jnp.asarray(arrays.awaited)[eviction.last])
    can_drop = ~is_dirty | can_evict
    ready = jnp.where(is_dirty, eviction.last + 1, own.ready)
    prefetch = find_copy(
        state.left, state.owner, state.issued == PREFETCH, arrays.window, arrays.queue[PREFETCH],
        ready, move.done, move.prefetch, arrays.limits[0], is_late=True,
    )  # fmt: skip
    may_prefetch = move.reads & ~move.is_last & can_drop

    # A late copy: with that which it follows, or from when its place and all slots before the use are free; or from the
    # use itself.
    units, latency = state.busy_until.shape[0], arrays.limits[0]
    unit = lax.iota(jnp.int32, units)
    at_place = (unit >= move.place) & (unit < move.place + move.size) & (move.place >= 0)
    until = jnp.max(jnp.where(at_place, state.busy_until, 0)).astype(jnp.int32)
    low = jnp.maximum(ready, move.done - reach)
    late = late_copy(
        state.left, (state.owner == NONE) & (times >= until), state.duration, arrays.window,
        low, move.done, latency, move.prefetch, seconds[5] / tick,
    )  # fmt: skip
    follows = (state.lead_done == move.done) & (state.lead_first >= low)
    lacking = jnp.where(follows, move.prefetch - latency, late.lacking)
    may_wait = may_prefetch & can_wait & (low <= move.done) & (move.prefetch < NEVER)

    # Room, for each of the starts.
    is_new = ~move.reads & ~move.is_last & (~move.is_stay | (state.stays < arrays.limits[3]))
    first = jnp.stack([prefetch.first, jnp.where(follows, state.lead_first, late.first), move.done])
    starts = jnp.where(move.reads, times[jnp.maximum(first, 0)], move.start)
    may = jnp.stack(
        [
            jnp.where(move.reads, may_prefetch & prefetch.exists, is_new),
            may_wait & (lacking < move.worth),
            may_wait & (move.prefetch < move.worth),
        ]
    )
    bottom = jnp.asarray(arrays.bottom)
    kept, lasting = (
        jax.vmap(partial(most_kept, bottom), (0, None))(starts, end).astype(small) for end in (move.end, move.lasting)
    )
    # A bit for each start, and for each start with good units: where a residency fits is found for all at once.
    count = len(starts)

    # A loop, so that the compiler makes the state once and not anew for each start.
    def with_start(i: jax.Array, flags: jax.Array) -> jax.Array:
        at = starts[i].astype(small)
        is_free = (state.busy_until <= at) & (unit >= kept[i])
        is_good = is_free & (state.held_until <= at) & (unit >= lasting[i])
        is_good &= jnp.asarray(arrays.wanted_from)[starts[i]] >= move.end.astype(small)
        bit = i.astype(jnp.uint8)
        return flags | is_free.astype(jnp.uint8) << bit | is_good.astype(jnp.uint8) << (count + bit)

    flags = lax.fori_loop(0, count, with_start, jnp.zeros(units, jnp.uint8))
    is_offset = set_throughout(flags, move.size)
    somewhere = lax.reduce(is_offset, np.uint8(0), lax.bitwise_or, (0,))
    fits = may & _has_bit(somewhere, lax.iota(jnp.uint8, count) + jnp.where(move.place == LOST, count, 0))
    chosen = jnp.argmax(fits)
    is_late = jnp.any(fits) & (chosen > 0)
    start = starts[chosen]
    is_good = _has_bit(is_offset, count + chosen)
    offset = choose_offset(
        jnp.where(move.place == LOST, is_good, _has_bit(is_offset, chosen)), is_good, move.place, move.is_long
    )
    offset = jnp.where(jnp.any(fits), offset, NONE)
    prefetch = Copy(
        jnp.where(is_late, first[chosen], prefetch.first),
        jnp.where(is_late, move.done - 1, prefetch.last),
        jnp.where(is_late, 0, prefetch.rest),
    )
    wait = jnp.where(chosen == 1, jnp.where(follows, seconds[5], late.wait * tick), latency * tick + seconds[5])
    leads = is_late & (chosen == 1) & (follows | ((late.first < move.done) & (late.lacking > LEADING * reach)))
    can_stay = jnp.where(move.reads, is_open & (own.limit == forever(small)) & lasts(move.end), jnp.any(fits))
    possible = jnp.stack([move.reads & jnp.any(fits), can_stay & ~move.is_last, can_drop])
    is_stuck = ~jnp.any(possible) & ~is_covered & ~state.done
    only = jnp.where(
        state.move < state.replay_until,
        past.astype(jnp.int32),
        jnp.where(is_covered, NO_COPY, jnp.where((is_forced & can_drop) | is_stuck, DROP, NONE)),
    )
    possible = jnp.where(only != NONE, lax.iota(jnp.int32, NUM_ACTIONS) == only, possible)
    return state._replace(
        legal=possible & ~state.done,
        is_dead=is_stuck,
        prefetch=prefetch,
        eviction=eviction,
        eviction_wait=jnp.where(is_eviction_late, late_eviction.wait * tick, 0.0),
        is_late=is_late,
        leads=leads,
        wait=jnp.where(is_late, wait, 0.0),
        start=start,
        offset=offset,
    )
