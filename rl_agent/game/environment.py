"""The game in JAX: pure functions, to be compiled and mapped over batches. The rules are those of `reference.py`.

A step has two halves: `advance.py` makes a move, `choices.py` finds what is possible at the next one.

    state = init(arrays)
    state = step(arrays, state, action)      state.legal, state.reward, state.done

`arrays` may be one game for a whole batch of states, `jax.vmap(step, (None, 0, 0))`, or a batch of games of one
padding, each array stacked, `jax.vmap(step)`. An action that is not legal is replaced by the first legal one. After the
end nothing changes.

A move that is forced has exactly one legal action: a move that is repeated after a backup, a move inside of an item
that is in fast memory as a whole, the end of a chain. `step_to_choice` makes forced moves by itself.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from memplan.rl_agent.game.advance import advanced
from memplan.rl_agent.game.arrays import GameArrays
from memplan.rl_agent.game.choices import with_choices
from memplan.rl_agent.game.moves import DROP, NONE, NUM_ACTIONS
from memplan.rl_agent.game.room import FoundCopy
from memplan.rl_agent.game.state import ChainStates, State


def init(arrays: GameArrays) -> State:
    """Returns the state before the first move."""
    moves = arrays.moves.shape[0]
    zero, none = jnp.int32(0), jnp.int32(NONE)
    no_copy = FoundCopy(none, none, none)
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
        chains=ChainStates(*(jnp.asarray(arrays.no_rows) for _ in ChainStates._fields)),
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
    return with_choices(arrays, state)


def step(arrays: GameArrays, state: State, action: jax.Array) -> State:
    """Returns the state after a move.

    Args:
      arrays: the game.
      state: of the game.
      action: integer scalar: COPY, NO_COPY or DROP. If it is not legal, the first legal one is made instead.
    """
    action = jnp.asarray(action, jnp.int32)
    is_legal = (action >= 0) & (action < NUM_ACTIONS) & state.legal[jnp.clip(action, 0, NUM_ACTIONS - 1)]
    action = jnp.where(is_legal, action, jnp.argmax(state.legal).astype(jnp.int32))
    # The barrier keeps the compiler from computing the new state again for everything that is made of it.
    return with_choices(arrays, lax.optimization_barrier(advanced(arrays, state, action)))


def step_to_choice(arrays: GameArrays, state: State, action: jax.Array) -> State:
    """Returns the state after a move and all forced moves behind it; the reward is the sum of theirs."""

    # The first move is made within the loop, so that a step is compiled once.
    def is_going_on(made: tuple[State, jax.Array]) -> jax.Array:
        state, is_first = made
        return is_first | _is_forced(state)

    def follow(made: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        before, is_first = made
        after = step(arrays, before, jnp.where(is_first, action, jnp.argmax(before.legal)))
        reward = jnp.where(is_first, after.reward, before.reward + after.reward)
        return after._replace(reward=reward), jnp.bool_(False)

    return lax.while_loop(is_going_on, follow, (state, jnp.bool_(True)))[0]


def init_to_choice(arrays: GameArrays) -> State:
    """Returns the state at the first move that is not forced; its reward is that of the moves before."""

    def follow(before: State) -> State:
        after = step(arrays, before, jnp.argmax(before.legal))
        return after._replace(reward=before.reward + after.reward)

    return lax.while_loop(_is_forced, follow, init(arrays))


def _is_forced(state: State) -> jax.Array:
    return ~state.done & (jnp.sum(state.legal) == 1)
