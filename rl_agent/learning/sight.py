"""What the agent sees: the game's observation, and a *champion*, a finished game of the problem that it is to beat.

Values are gains on the champion. So they are small numbers near zero, whatever a program's latency is and however far
training has come. The champion is a baseline that removes that variance (Williams, 1992). It is also a difference of
potentials, which leaves the best games as they are (Ng, Harada and Russell, "Policy invariance under reward
transformations", 1999). This is our addition to MuZero.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from memplan.rl_agent.game.arrays import GameArrays
from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.moves import ACTIONS, NUM_ACTIONS
from memplan.rl_agent.game.observation import FACTS, View, observe
from memplan.rl_agent.game.state import State

# Where facts say which actions are legal.
LEGAL = np.array([FACTS.index(name) for name in ("can_copy", "can_stay", "can_drop")])

VIEW = View(before=24, after=8, columns=16, slots=16, items=8)


class Champion(NamedTuple):
    """The champion of a problem: the finished game that others are to beat, usually the best one so far.

    Attributes:
      history: `[moves]` int8, its actions.
      totals: `[moves + 1]` float32, seconds saved before each move, and at the end.
      had_to_drop: `[moves]` bool, where DROP was all that was legal.
    """

    history: NDArray[np.int8] | jax.Array
    totals: NDArray[np.float32] | jax.Array
    had_to_drop: NDArray[np.bool_] | jax.Array


class Sight(NamedTuple):
    """A sight: what the agent sees of a game and of its champion, float32, or quantized: see `packed`.

    Attributes:
      board, supply: see `GameObservation`.
      items: as in `GameObservation`; and for each what the champion did there, and what that saved.
      facts: as in `GameObservation`; and how far ahead of the champion this game is.
      guided: `[3]` one at the champion's action, if it is legal.
    """

    board: jax.Array
    supply: jax.Array
    items: jax.Array
    facts: jax.Array
    guided: jax.Array


def trace(host: Host, history: NDArray[np.int8]) -> Champion:
    """Returns a champion from the actions of a finished game as it was after its last backup.

    Args:
      host: the game.
      history: `[moves]`.
    """
    totals, had_to_drop = host.trace(history)
    return Champion(history & np.int8(ACTIONS), totals, had_to_drop)


def lead_of(arrays: GameArrays, state: State, champion: Champion) -> jax.Array:
    """Returns how much more than the champion a game has saved so far, of the latency with everything at home."""
    there = jnp.asarray(champion.totals)[jnp.minimum(state.move, champion.totals.shape[0] - 1)]
    return (state.total - there) / jnp.maximum(arrays.home_latency, 1e-30)


def look(arrays: GameArrays, state: State, champion: Champion) -> Sight:
    """Returns the sight of a state, everything within [-1, 1]."""
    seen = observe(arrays, state, VIEW)
    history, totals = jnp.asarray(champion.history), jnp.asarray(champion.totals)
    home = jnp.maximum(arrays.home_latency, 1e-30)
    last = history.shape[0] - 1
    numbers = jnp.minimum(state.move + lax.iota(jnp.int32, VIEW.items), last)
    is_there = seen.items[:, -1:]
    did = jax.nn.one_hot(history[numbers], NUM_ACTIONS) * is_there
    saved = ((totals[numbers + 1] - totals[numbers]) / home)[:, None] * is_there
    lead = lead_of(arrays, state, champion)
    ahead = jnp.stack([lead, jnp.sign(lead) * jnp.log1p(jnp.abs(lead) * 1e3) / 7.0])
    items = jnp.concatenate([seen.items, did, jnp.clip(saved * 10.0, -1.0, 1.0)], axis=-1)
    facts = jnp.concatenate([seen.facts, jnp.clip(ahead, -1.0, 1.0)])
    return Sight(seen.board, seen.supply, items, facts, did[0] * state.legal)


def packed(sight: Sight) -> Sight:
    """Returns a sight in a quarter of the room: pictures as bytes, the rest as half precision."""
    half = jnp.float16
    board = jnp.round(sight.board * 255).astype(jnp.uint8)
    supply, items, facts = (part.astype(half) for part in (sight.supply, sight.items, sight.facts))
    return Sight(board, supply, items, facts, sight.guided.astype(half))


def unpacked(sight: Sight) -> Sight:
    """Returns a packed sight as float32."""
    single = jnp.float32
    board = sight.board.astype(single) / 255
    rest = (part.astype(single) for part in (sight.supply, sight.items, sight.facts, sight.guided))
    return Sight(board, *rest)
