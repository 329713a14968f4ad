"""The state of a game in JAX, and how its rows are read."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from memplan.rl_agent.game.arrays import GameArrays, MoveRow, MoveSeconds, forever
from memplan.rl_agent.game.moves import ACTIONS, DROP, NONE
from memplan.rl_agent.game.room import FoundCopy


class ChainStates(NamedTuple):
    """What is known of the chains that are being decided, `[rows]` each: see `residencies.ChainState`.

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
      chains: see `ChainStates`.
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
    chains: ChainStates
    duration: jax.Array
    stays: jax.Array
    lead_done: jax.Array
    lead_first: jax.Array
    demand: jax.Array
    taken: jax.Array
    demand_seconds: jax.Array
    prefetch: FoundCopy
    eviction: FoundCopy
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
    return MoveRow(*(row[i] != 0 if name in _FLAGS else row[i] for i, name in enumerate(MoveRow._fields)))


def read_seconds(arrays: GameArrays, number: jax.Array) -> MoveSeconds:
    """Returns the seconds of a move."""
    row = jnp.asarray(arrays.seconds)[number]
    return MoveSeconds(*(row[i] for i in range(len(MoveSeconds._fields))))


def own_chain(arrays: GameArrays, state: State, move: MoveRow) -> ChainStates:
    """Returns what is known of the chain of a move, int32."""
    known = ChainStates(*(column[move.row].astype(jnp.int32) for column in state.chains))
    none, zero = jnp.int32(NONE), jnp.int32(0)
    fresh = ChainStates(none, zero, zero, zero, jnp.int32(forever(arrays.no_rows.dtype)), none, move.ready)
    return jax.tree.map(lambda new, old: jnp.where(move.is_first, new, old), fresh, known)


def is_covered(state: State, move: MoveRow) -> jax.Array:
    """Whether an item around is in fast memory as a whole."""
    return (move.parent != NONE) & (state.history[jnp.maximum(move.parent, 0)] & ACTIONS != DROP)
