"""The rules in JAX, first half of a step: the state after a move, without what is possible next."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memplan.compiler.hardware.roofline import durations
from memplan.rl_agent.game.arrays import GameArrays, MoveRow, forever
from memplan.rl_agent.game.moves import CLOSED, COPY, DROP, EVICTION, FORCED, NO_COPY, NONE, PASSED, PREFETCH
from memplan.rl_agent.game.room import FoundCopy
from memplan.rl_agent.game.state import ChainStates, State, is_covered, own_chain, read_move, read_seconds


class _Effects(NamedTuple):
    """What a step does, bool scalars.

    Attributes:
      is_back: it sets the game back.
      is_played: it makes a move.
      is_fast: the move's value is in fast memory.
      evicts, prefetches: it makes a copy home, and into fast memory.
      waits: the latter is late.
      opens: it places a residency.
      goes_on: a residency goes on.
      drops: the value is served at home.
    """

    is_back: jax.Array
    is_played: jax.Array
    is_fast: jax.Array
    evicts: jax.Array
    prefetches: jax.Array
    waits: jax.Array
    opens: jax.Array
    goes_on: jax.Array
    drops: jax.Array


class _Service(NamedTuple):
    """What a move changes at its operation: fields of `State`, and the seconds `saved`, float32, less waits."""

    saved: jax.Array
    demand: jax.Array
    taken: jax.Array
    demand_seconds: jax.Array
    left: jax.Array
    duration: jax.Array


def advanced(arrays: GameArrays, state: State, action: jax.Array) -> State:
    """Returns the state after a move or a backup, without what is possible next; if the game is over, as it is."""
    move = read_move(arrays, state.move)
    own = own_chain(arrays, state, move)
    effects = _effects(state, move, own, action)
    service = _service(arrays, state, move, effects)
    left, owner, issued = _booked(arrays, state, move, effects, service.left)
    busy_until, held_until = _placed(arrays, state, move, own, effects)
    number = lax.iota(jnp.int32, state.history.shape[0])
    history = jnp.where(
        (number == state.move) & effects.is_played, action.astype(jnp.int8) | (state.history & FORCED), state.history
    )
    # A backup forgets all but the history.
    is_back = effects.is_back
    history = jnp.where((number == own.opened) & is_back, history | FORCED, history)
    following = jnp.where(is_back, 0, state.move + effects.is_played)
    leads = effects.prefetches & state.leads
    return state._replace(
        move=following,
        reward=jnp.where(is_back, -state.total, service.saved),
        done=following >= arrays.num_moves,
        total=jnp.where(is_back, 0.0, state.total + service.saved),
        backups=state.backups + is_back,
        history=history,
        replay_until=jnp.where(is_back, own.opened, state.replay_until),
        left=jnp.where(is_back, jnp.asarray(arrays.idle), left),
        owner=jnp.where(is_back, jnp.int8(NONE), owner),
        issued=jnp.where(is_back, jnp.int8(NONE), issued),
        busy_until=jnp.where(is_back, jnp.asarray(arrays.busy_until), busy_until),
        held_until=jnp.where(is_back, jnp.asarray(arrays.busy_until), held_until),
        chains=_chains(state, move, own, effects),
        duration=jnp.where(is_back, jnp.asarray(arrays.duration), service.duration),
        stays=jnp.where(is_back, 0, state.stays + (effects.opens & move.is_stay)),
        lead_done=jnp.where(is_back, NONE, jnp.where(leads, move.done, state.lead_done)),
        lead_first=jnp.where(is_back, NONE, jnp.where(leads, state.prefetch.first, state.lead_first)),
        demand=service.demand,
        taken=service.taken,
        demand_seconds=service.demand_seconds,
    )


def _effects(state: State, move: MoveRow, own: ChainStates, action: jax.Array) -> _Effects:
    is_back = state.is_dead
    is_played = ~state.done & ~is_back
    is_decided = is_played & ~is_covered(state, move)
    is_fast = action != DROP
    prefetches = is_decided & (action == COPY)
    return _Effects(
        is_back=is_back,
        is_played=is_played,
        is_fast=is_fast,
        # A dirty value is brought home, where the value is wanted.
        evicts=is_decided & move.reads & (own.opened != NONE) & (own.written != NONE) & (action != NO_COPY),
        prefetches=prefetches,
        waits=prefetches & state.is_late,
        opens=is_decided & is_fast & ((action == COPY) | ~move.reads),
        goes_on=is_decided & (action == NO_COPY) & move.reads,
        drops=is_decided & (action == DROP),
    )


def _service(arrays: GameArrays, state: State, move: MoveRow, effects: _Effects) -> _Service:
    """Serves the accesses of a move at an operation: what that saves, less the waits for copies, and its supply."""
    seconds, is_fast = read_seconds(arrays, state.move), effects.is_fast
    first = move.is_first_access
    demand, taken = jnp.where(first, move.demand, state.demand), jnp.where(first, move.taken, state.taken)
    before = jnp.where(first, seconds.demand_seconds, state.demand_seconds)
    idle_before = jnp.maximum(durations(move.floor, demand, jnp) - taken, 0)
    demand = jnp.where(is_fast, demand - move.saving, demand)
    taken = jnp.where(is_fast, taken - move.traffic, taken)
    after = jnp.where(is_fast, before - seconds.saved_seconds, before)
    floor = seconds.floor_seconds
    saved = (durations(floor, before, jnp) - durations(floor, after, jnp)) * seconds.repetitions
    waited = jnp.where(effects.waits, state.wait * seconds.awaited_repetitions, 0.0) + jnp.where(
        effects.evicts, state.eviction_wait * seconds.awaited_repetitions, 0.0
    )
    is_served = move.is_operation & effects.is_played
    lasts = durations(move.floor, demand, jnp)
    idle = jnp.maximum(lasts - taken, 0)
    slot = lax.iota(jnp.int32, state.left.shape[0])
    passed = jnp.where(is_served, move.slot, NONE)
    left = jnp.where((slot == passed) & (state.left != CLOSED), idle + move.carried, state.left)
    carried = jnp.where(passed != NONE, move.trips * (idle - idle_before), 0)
    return _Service(
        saved=jnp.where(is_served, saved, 0.0) - waited,
        demand=demand,
        taken=taken,
        demand_seconds=after,
        left=jnp.where((slot == move.carrier) & (left != CLOSED), left + carried, left),
        duration=jnp.where(slot == passed, lasts, state.duration),
    )


def _booked(
    arrays: GameArrays, state: State, move: MoveRow, effects: _Effects, left: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `left`, `owner` and `issued` after the copies of a move."""
    slot = lax.iota(jnp.int32, left.shape[0])
    booked = (left, state.owner, state.issued)
    booked = _with_copy(arrays, booked, slot, state.eviction, effects.evicts, EVICTION)
    is_usual = effects.prefetches & ~state.is_late
    left, owner, issued = _with_copy(arrays, booked, slot, state.prefetch, is_usual, PREFETCH)
    # A late copy has its slots to itself, and nothing may be in flight where the program waits for it.
    is_closed = slot >= jnp.minimum(state.prefetch.first, move.before)
    is_closed &= (slot < move.done) & effects.waits & (left >= 0)
    left = jnp.where(is_closed, 0, left)
    # Nothing is in flight over a loop that has copies of its own.
    left = jnp.where((slot == move.carrier) & (effects.evicts | effects.prefetches), CLOSED, left)
    return left, jnp.where(is_closed, arrays.queue[PREFETCH].astype(jnp.int8), owner), issued


def _with_copy(
    arrays: GameArrays,
    before: tuple[jax.Array, jax.Array, jax.Array],
    slot: jax.Array,
    copy: FoundCopy,
    is_made: jax.Array,
    way: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `left`, `owner` and `issued` of all slots after a copy one way, if it is made."""
    left, owner, issued = before
    is_within = (slot >= copy.first) & (slot <= copy.last) & (left != PASSED) & is_made
    remaining = jnp.where(slot == copy.last, left - copy.rest, 0)
    return (
        jnp.where(is_within, remaining, left),
        jnp.where(is_within, arrays.queue[way].astype(jnp.int8), owner),
        jnp.where((slot == copy.first) & is_made, jnp.int8(way), issued),
    )


def _placed(
    arrays: GameArrays, state: State, move: MoveRow, own: ChainStates, effects: _Effects
) -> tuple[jax.Array, jax.Array]:
    """Returns `busy_until` and `held_until` after a move."""
    small = state.busy_until.dtype
    unit = lax.iota(small, state.busy_until.shape[0])
    is_own = (unit >= own.offset.astype(small)) & (unit < own.top.astype(small)) & (own.opened != NONE)
    is_freed = is_own & (effects.opens | effects.drops) & (state.busy_until <= own.end.astype(small))
    held_until = jnp.where(is_freed, 0, state.held_until)
    evicted = jnp.asarray(arrays.awaited)[state.eviction.last].astype(small)
    busy_until = jnp.where(is_own & effects.evicts, jnp.maximum(state.busy_until, evicted), state.busy_until)
    offset, top = _units(state, move, own, effects)
    is_new = (unit >= offset.astype(small)) & (unit < top.astype(small)) & (effects.opens | effects.goes_on)
    busy_until = jnp.where(is_new, move.end.astype(small), busy_until)
    return busy_until, jnp.where(is_new, move.held.astype(small), held_until)


def _units(state: State, move: MoveRow, own: ChainStates, effects: _Effects) -> tuple[jax.Array, jax.Array]:
    """Returns the units `[offset, top)` of the chain's residency after a move."""
    offset = jnp.where(effects.opens, state.offset, own.offset)
    return offset, jnp.where(effects.opens, state.offset + move.size, own.top)


def _chains(state: State, move: MoveRow, own: ChainStates, effects: _Effects) -> ChainStates:
    """Returns what is known of all chains after a move."""
    chains, small, opens, drops = state.chains, state.busy_until.dtype, effects.opens, effects.drops
    offset, top = _units(state, move, own, effects)
    meets = opens & (chains.offset < top.astype(small)) & (offset.astype(small) < chains.top)
    limit = jnp.where(meets, jnp.minimum(chains.limit, state.start.astype(small)), chains.limit)
    written = jnp.where(effects.evicts | opens | drops, NONE, own.written)
    ready = jnp.where(effects.evicts, state.eviction.last + 1, own.ready)
    row = ChainStates(
        opened=jnp.where(opens, state.move, jnp.where(drops, NONE, own.opened)),
        offset=offset,
        top=top,
        end=jnp.where(opens | effects.goes_on, move.end, own.end),
        limit=jnp.where(opens, forever(small), own.limit),
        written=jnp.where(move.writes & effects.is_fast, move.slot, written),
        ready=jnp.where(drops & move.writes, move.slot + 1, ready),
    )
    is_decided = opens | effects.goes_on | drops
    is_row = (lax.iota(small, limit.shape[0]) == move.row.astype(small)) & is_decided
    return ChainStates(
        *(
            jnp.where(is_row, value.astype(small), column)
            for value, column in zip(row, chains._replace(limit=limit), strict=True)
        )
    )
