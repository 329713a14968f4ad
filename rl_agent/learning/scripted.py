"""Players without a network: rules of thumb, to start from and to compare with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from memplan.rl_agent.game.arrays import GameArrays
from memplan.rl_agent.game.environment import ACTIONS, State, init, step
from memplan.rl_agent.game.reference import COPY, DROP, NO_COPY

# Each always does the first of these that is legal.
RULES = ((DROP, NO_COPY, COPY), (NO_COPY, DROP, COPY), (NO_COPY, COPY, DROP), (COPY, NO_COPY, DROP))


def _played(arrays: GameArrays, rule: jax.Array) -> State:
    def move(state: State) -> State:
        return step(arrays, state, rule[jnp.argmax(state.legal[rule])])

    return lax.while_loop(lambda state: ~state.done, move, init(arrays))


@jax.jit
def _all(arrays: GameArrays) -> State:
    return jax.vmap(_played, (None, 0))(arrays, jnp.asarray(RULES))


def scripted(arrays: GameArrays) -> tuple[jax.Array, jax.Array]:
    """Returns the history and the total of the best game that the rules of thumb play."""
    states = _all(arrays)
    best = jnp.argmax(states.total)
    return states.history[best] & ACTIONS, states.total[best]
