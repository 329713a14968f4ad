"""The rules in JAX, second half of a step: what is possible at the next move."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memplan.rl_agent.game.arrays import GameArrays, MoveRow, MoveSeconds, forever
from memplan.rl_agent.game.moves import (
    ACTIONS,
    DROP,
    EVICTION,
    FORCED,
    LEADING,
    LOST,
    NEVER,
    NO_COPY,
    NONE,
    NUM_ACTIONS,
    PREFETCH,
)
from memplan.rl_agent.game.room import (
    FoundCopy,
    LateCopy,
    choose_offset,
    find_copy,
    find_late_eviction,
    late_copy,
    most_kept,
    set_throughout,
)
from memplan.rl_agent.game.state import ChainStates, State, is_covered, own_chain, read_move, read_seconds


class _Eviction(NamedTuple):
    """How a dirty value can be brought home at a move.

    Attributes:
      copy: in time or late; none if there is no such copy.
      is_late: bool.
      wait: float32, seconds that the operation waits for it each time.
      can_drop: bool, whether DROP is possible, since the value is home or gets there.
      ready: int32, slot from which home has the value.
    """

    copy: FoundCopy
    is_late: jax.Array
    wait: jax.Array
    can_drop: jax.Array
    ready: jax.Array


class _Starts(NamedTuple):
    """Three ways in which a residency may begin, the preferred ones first.

    They are: with a copy in time, or the production of the value; with a late copy before the use; with a late copy at
    the use itself.

    Attributes:
      time: `[3]` int32.
      first: `[3]` int32, slot of the copy.
      may: `[3]` bool, whether there is such a copy.
      prefetch: the copy in time.
      late: the late copy before the use.
      follows: bool, whether the latter follows another late copy.
    """

    time: jax.Array
    first: jax.Array
    may: jax.Array
    prefetch: FoundCopy
    late: LateCopy
    follows: jax.Array


class _Room(NamedTuple):
    """Where a residency can be placed.

    Attributes:
      exists: bool, whether there is room at all.
      chosen: int32, number of the start.
      offset: int32 units, -1 for none.
    """

    exists: jax.Array
    chosen: jax.Array
    offset: jax.Array


def with_choices(arrays: GameArrays, state: State) -> State:
    """Returns the state with what is possible at its move."""
    number = jnp.clip(state.move, 0, arrays.moves.shape[0] - 1)
    move, seconds = read_move(arrays, number), read_seconds(arrays, number)
    own, covered = own_chain(arrays, state, move), is_covered(state, move)
    eviction = _eviction(arrays, state, move, seconds, own, covered)
    starts = _starts(arrays, state, move, seconds, eviction)
    room = _room(arrays, state, move, starts)

    chosen, late = room.chosen, starts.late
    is_late = room.exists & (chosen > 0)
    reach = arrays.window.shape[0]
    usual = starts.prefetch
    prefetch = FoundCopy(
        jnp.where(is_late, starts.first[chosen], usual.first),
        jnp.where(is_late, move.done - 1, usual.last),
        jnp.where(is_late, 0, usual.rest),
    )
    moving, latency = seconds.prefetch_seconds, arrays.latency[PREFETCH]
    before_use = jnp.where(starts.follows, moving, late.wait * arrays.tick)
    wait = jnp.where(chosen == 1, before_use, latency * arrays.tick + moving)
    lacks = (late.first < move.done) & (late.lacking > LEADING * reach)
    leads = is_late & (chosen == 1) & (starts.follows | lacks)

    is_whole = own.limit == forever(arrays.no_rows.dtype)
    stays = (own.opened != NONE) & is_whole & _lasts(arrays, own, move.end)
    can_stay = jnp.where(move.reads, stays, room.exists)
    possible = jnp.stack([move.reads & room.exists, can_stay & ~move.is_last, eviction.can_drop])
    is_stuck = ~jnp.any(possible) & ~covered & ~state.done
    only = _only(state, number, covered, eviction.can_drop, is_stuck)
    possible = jnp.where(only != NONE, lax.iota(jnp.int32, NUM_ACTIONS) == only, possible)
    return state._replace(
        legal=possible & ~state.done,
        is_dead=is_stuck,
        prefetch=prefetch,
        eviction=eviction.copy,
        eviction_wait=eviction.wait,
        is_late=is_late,
        leads=leads,
        wait=jnp.where(is_late, wait, 0.0),
        start=starts.time[chosen],
        offset=room.offset,
    )


def _only(state: State, number: jax.Array, covered: jax.Array, can_drop: jax.Array, is_stuck: jax.Array) -> jax.Array:
    """Returns the one legal action of a forced move, int32; -1 if it is not forced."""
    past, is_forced = state.history[number] & ACTIONS, (state.history[number] & FORCED) != 0
    drops = jnp.where((is_forced & can_drop) | is_stuck, DROP, NONE)
    return jnp.where(state.move < state.replay_until, past.astype(jnp.int32), jnp.where(covered, NO_COPY, drops))


def _lasts(arrays: GameArrays, own: ChainStates, until: jax.Array) -> jax.Array:
    """Whether the residency of a chain can last until some time."""
    return (until <= own.end) | (
        (until <= own.limit) & (most_kept(jnp.asarray(arrays.bottom), own.end, until) <= own.offset)
    )


def _eviction(
    arrays: GameArrays, state: State, move: MoveRow, seconds: MoveSeconds, own: ChainStates, covered: jax.Array
) -> _Eviction:
    is_dirty = move.reads & (own.opened != NONE) & (own.written != NONE)
    low = own.written + 1
    high = jnp.minimum(move.done, low + arrays.window.shape[0])
    latency = arrays.latency[EVICTION]
    usual = find_copy(
        state.left, state.owner, state.issued == EVICTION, arrays.window, arrays.queue[EVICTION],
        low, high, move.eviction, latency, is_late=False,
    )  # fmt: skip
    late = find_late_eviction(
        state.left, state.owner, state.duration, arrays.window,
        low, high, latency, move.eviction, seconds.eviction_seconds / arrays.tick,
    )  # fmt: skip
    can_wait = arrays.can_wait != 0
    is_late = is_dirty & ~covered & ~state.done & ~usual.exists & late.copy.exists & can_wait
    copy = jax.tree.map(lambda late, usual: jnp.where(is_late, late, usual), late.copy, usual)
    can_evict = is_dirty & copy.exists & _lasts(arrays, own, jnp.asarray(arrays.awaited)[copy.last])
    return _Eviction(
        copy=copy,
        is_late=is_late,
        wait=jnp.where(is_late, late.wait * arrays.tick, 0.0),
        can_drop=~is_dirty | can_evict,
        ready=jnp.where(is_dirty, copy.last + 1, own.ready),
    )


def _starts(arrays: GameArrays, state: State, move: MoveRow, seconds: MoveSeconds, eviction: _Eviction) -> _Starts:
    times, latency = jnp.asarray(arrays.slot_time), arrays.latency[PREFETCH]
    prefetch = find_copy(
        state.left, state.owner, state.issued == PREFETCH, arrays.window, arrays.queue[PREFETCH],
        eviction.ready, move.done, move.prefetch, latency, is_late=True,
    )  # fmt: skip
    may_prefetch = move.reads & ~move.is_last & eviction.can_drop

    # A late copy begins with the copy that it follows, or when its place and all slots before the use are free; or it
    # begins at the use itself.
    unit = lax.iota(jnp.int32, state.busy_until.shape[0])
    at_place = (unit >= move.place) & (unit < move.place + move.size) & (move.place >= 0)
    until = jnp.max(jnp.where(at_place, state.busy_until, 0)).astype(jnp.int32)
    low = jnp.maximum(eviction.ready, move.done - arrays.window.shape[0])
    late = late_copy(
        state.left, (state.owner == NONE) & (times >= until), state.duration, arrays.window,
        low, move.done, latency, move.prefetch, seconds.prefetch_seconds / arrays.tick,
    )  # fmt: skip
    follows = (state.lead_done == move.done) & (state.lead_first >= low)
    lacking = jnp.where(follows, move.prefetch - latency, late.lacking)
    may_wait = may_prefetch & (arrays.can_wait != 0) & (low <= move.done) & (move.prefetch < NEVER)

    is_new = ~move.reads & ~move.is_last & (~move.is_stay | (state.stays < arrays.most_stays))
    first = jnp.stack([prefetch.first, jnp.where(follows, state.lead_first, late.first), move.done])
    may = jnp.stack(
        [
            jnp.where(move.reads, may_prefetch & prefetch.exists, is_new),
            may_wait & (lacking < move.worth),
            may_wait & (move.prefetch < move.worth),
        ]
    )
    time = jnp.where(move.reads, times[jnp.maximum(first, 0)], move.start)
    return _Starts(time, first, may, prefetch, late, follows)


def _room(arrays: GameArrays, state: State, move: MoveRow, starts: _Starts) -> _Room:
    small = arrays.no_rows.dtype
    units = state.busy_until.shape[0]
    unit = lax.iota(jnp.int32, units)
    bottom = jnp.asarray(arrays.bottom)
    kept, lasting = (
        jax.vmap(partial(most_kept, bottom), (0, None))(starts.time, end).astype(small)
        for end in (move.end, move.lasting)
    )
    # A bit for each start, and for each start with good units: where a residency fits is found for all at once.
    count = len(starts.time)

    # This is a loop so that the compiler makes the state once, and not for each start.
    def with_start(i: jax.Array, flags: jax.Array) -> jax.Array:
        at = starts.time[i].astype(small)
        is_free = (state.busy_until <= at) & (unit >= kept[i])
        is_good = is_free & (state.held_until <= at) & (unit >= lasting[i])
        is_good &= jnp.asarray(arrays.wanted_from)[starts.time[i]] >= move.end.astype(small)
        bit = i.astype(jnp.uint8)
        return flags | is_free.astype(jnp.uint8) << bit | is_good.astype(jnp.uint8) << (count + bit)

    flags = lax.fori_loop(0, count, with_start, jnp.zeros(units, jnp.uint8))
    is_offset = set_throughout(flags, move.size)
    somewhere = lax.reduce(is_offset, np.uint8(0), lax.bitwise_or, (0,))
    is_lost = move.place == LOST
    fits = starts.may & _has_bit(somewhere, lax.iota(jnp.uint8, count) + jnp.where(is_lost, count, 0))
    chosen = jnp.argmax(fits)
    is_good = _has_bit(is_offset, count + chosen)
    is_usable = jnp.where(is_lost, is_good, _has_bit(is_offset, chosen))
    offset = choose_offset(is_usable, is_good, move.place, move.is_long)
    exists = jnp.any(fits)
    return _Room(exists, chosen, jnp.where(exists, offset, NONE))


def _has_bit(flags: jax.Array, bit: jax.Array) -> jax.Array:
    """Whether a bit of some uint8 is set."""
    return (flags >> bit.astype(jnp.uint8)) & 1 != 0
