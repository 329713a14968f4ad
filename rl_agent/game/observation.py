"""What a player sees of a game: pictures and features of fixed sizes, all in JAX.

Everything is a share: of the fast memory, of the program's operations, of the latency with everything at home, or of
the supply that a copy needs. So what is learned on one problem means something on another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memplan.rl_agent.game.arrays import GameArrays, forever
from memplan.rl_agent.game.moves import ACTIONS, DROP, FORCED, NEVER, NONE
from memplan.rl_agent.game.state import ChainStates, State, read_move, read_seconds

# What is seen of each of the next moves.
ITEM_FEATURES = (
    "size",  # of the fast memory
    "benefit",  # of the latency with everything at home, if its memory time counts fully
    "lifetime",  # of all operations
    "distance",  # operations until then, as a share of all, both logarithms
    "reads",
    "writes",
    "is_whole",  # a loop or conditional, or an argument that may stay from run to run
    "is_last",  # the end of a chain
    "is_first",  # the first of its chain
    "is_covered",  # an item around is in fast memory
    "is_forced",
    "prefetch",  # supply that a copy into fast memory takes, of the latency with everything at home
    "is_open",  # its buffer is in fast memory
    "is_dirty",  # its buffer is in fast memory, and home does not have the value
    "is_kept",  # its buffer is in fast memory, and nothing else was placed there since
    "gap",  # operations since it was used last
    "is_there",  # 0 for moves behind the end of the game
)

# What is seen of the whole game.
FACTS = (
    "progress",
    "total",  # saved so far, of the latency with everything at home
    "backups",  # of all moves
    "is_replayed",
    "can_copy",
    "can_stay",
    "can_drop",
    "room_at",  # where a new residency would lie, -1 for nowhere
    "starts_before",  # operations between a new residency's start and the move
    "taken",  # share of the fast memory that is taken now
    "is_late",  # the operation would wait for COPY
    "wait",  # for it and the copy home of a dirty value, all repetitions, of the latency with everything at home
)


@dataclass(frozen=True)
class View:
    """How much a player sees.

    Attributes:
      before, after: operations around the move at hand, in the picture of the fast memory.
      columns: into how many parts the picture divides the fast memory.
      slots: of supply, before the move at hand.
      items: of the next moves, the one at hand included.
    """

    before: int = 24
    after: int = 8
    columns: int = 32
    slots: int = 32
    items: int = 8


class GameObservation(NamedTuple):
    """What a player sees, float32 from -1 to 1.

    Attributes:
      board: `[before + after, columns]`: which share of a part of the fast memory a residency that starts at that time
        cannot have.
      supply: `[slots, 2]` of each slot before the move at hand: how much of the supply for its copy into fast memory is
        left there, at most 1; and whether copies move there already.
      items: `[items, len(ITEM_FEATURES)]`.
      facts: `[len(FACTS)]`.
    """

    board: jax.Array
    supply: jax.Array
    items: jax.Array
    facts: jax.Array


def observe(arrays: GameArrays, state: State, view: View) -> GameObservation:
    """Returns what a player sees of a state; `view` gives shapes and must be static under `jax.jit`."""
    number = jnp.minimum(state.move, arrays.moves.shape[0] - 1)
    now = read_move(arrays, number)
    board = _board(arrays, state, now.start, view)
    numbers = state.move + lax.iota(jnp.int32, view.items)
    items = jax.vmap(lambda number: _item(arrays, state, number, now.start))(numbers)
    units, operations = arrays.num_units, jnp.maximum(arrays.num_operations, 1.0)
    home = jnp.maximum(arrays.home_latency, 1e-30)
    in_use = jnp.sum((state.busy_until > now.start.astype(state.busy_until.dtype)) & _exists(arrays))
    facts = jnp.stack(
        [
            state.move / jnp.maximum(arrays.num_moves, 1),
            state.total / home,
            state.backups / jnp.maximum(arrays.num_moves, 1),
            state.move < state.replay_until,
            *(state.legal[action] for action in range(state.legal.shape[0])),
            jnp.where(state.offset == NONE, -1.0, state.offset / units),
            (now.start - state.start) / operations,
            in_use / units,
            state.is_late,
            (state.wait + state.eviction_wait) * read_seconds(arrays, number).awaited_repetitions / home,
        ]
    ).astype(jnp.float32)
    seen = GameObservation(board, _supply(state, now.done, now.prefetch, view), items, facts)
    return GameObservation(*(jnp.clip(part, -1.0, 1.0) for part in seen))


def _exists(arrays: GameArrays) -> jax.Array:
    """Whether a unit can be used at all, `[units]`."""
    start = jnp.asarray(arrays.busy_until)
    return start != forever(arrays.busy_until.dtype)


def _board(arrays: GameArrays, state: State, now: jax.Array, view: View) -> jax.Array:
    units, times = state.busy_until.shape[0], arrays.bottom.shape[1]
    time = now + jnp.arange(-view.before, view.after, dtype=jnp.int32)
    kept = jnp.asarray(arrays.bottom)[0, jnp.clip(time, 0, times - 1)]
    unit = lax.iota(jnp.int32, units)
    is_taken = (state.busy_until[None, :] > time[:, None]) | (unit[None, :] < kept[:, None])
    is_taken |= (time[:, None] < 0) | (time[:, None] > arrays.num_operations)
    group = -(-units // view.columns)
    padded = jnp.pad(is_taken.astype(jnp.float32), ((0, 0), (0, group * view.columns - units)), constant_values=1.0)
    return padded.reshape(len(time), view.columns, group).mean(-1)


def _supply(state: State, done: jax.Array, prefetch: jax.Array, view: View) -> jax.Array:
    slot = done - view.slots + lax.iota(jnp.int32, view.slots)
    known = jnp.clip(slot, 0, state.left.shape[0] - 1)
    left = jnp.where(slot >= 0, state.left[known], 0)
    share = jnp.clip(left / jnp.maximum(prefetch, 1), 0.0, 1.0)
    return jnp.stack([share, (slot >= 0) & (state.owner[known] != NONE)], axis=1).astype(jnp.float32)


def _item(arrays: GameArrays, state: State, number: jax.Array, now: jax.Array) -> jax.Array:
    is_there = number < arrays.num_moves
    number = jnp.minimum(number, arrays.moves.shape[0] - 1)
    move = read_move(arrays, number)
    seconds = read_seconds(arrays, number)
    row = ChainStates(*(column[move.row].astype(jnp.int32) for column in state.chains))
    operations = jnp.maximum(arrays.num_operations, 1.0)
    is_open = ~move.is_first & (row.opened != NONE)
    is_covered = (move.parent != NONE) & (move.parent < state.move)
    is_covered &= (state.history[jnp.maximum(move.parent, 0)] & ACTIONS) != DROP
    home = jnp.maximum(arrays.home_latency, 1e-30)
    prefetch = jnp.where(move.prefetch >= NEVER, 1.0, jnp.minimum(move.prefetch * arrays.tick / home, 1.0))
    features = [
        move.size / arrays.num_units,
        seconds.saved_seconds * seconds.repetitions / home,
        (move.end - move.start) / operations,
        jnp.log1p(jnp.maximum(move.start - now, 0)) / jnp.log1p(operations),
        move.reads,
        move.writes,
        ~move.is_operation & ~move.is_last,
        move.is_last,
        move.is_first,
        is_covered,
        (state.history[number] & FORCED) != 0,
        prefetch,
        is_open,
        is_open & (row.written != NONE),
        is_open & (row.limit == forever(state.busy_until.dtype)),
        jnp.where(is_open, jnp.maximum(move.start - row.end, 0) / operations, 1.0),
        is_there,
    ]
    return jnp.where(is_there, jnp.stack([jnp.asarray(x, jnp.float32) for x in features]), 0.0)
