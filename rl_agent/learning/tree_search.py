"""How a move is chosen: a search in what the networks imagine, or in the game itself, by mctx."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mctx

from memplan.compiler.errors import PlannerError
from memplan.rl_agent.game.arrays import GameArrays
from memplan.rl_agent.game.environment import step_to_choice
from memplan.rl_agent.game.moves import NUM_ACTIONS
from memplan.rl_agent.game.state import State
from memplan.rl_agent.learning.network import Networks, Params, value_of
from memplan.rl_agent.learning.sight import Champion, Sight, lead_of, look
from memplan.rl_agent.learning.supports import from_logits

SEARCHES = ("gumbel", "muzero", "none")
MODELS = ("learned", "game")


@dataclass(frozen=True)
class TreeSearchOptions:
    """How a move is chosen.

    Attributes:
      method: `gumbel`, Gumbel MuZero (Danihelka et al., "Policy improvement by planning with Gumbel", 2022); `muzero`,
        with noise at the root (Schrittwieser et al., 2020); `none`, drawn from the network's policy.
      simulations: of each search.
      model: what the search looks ahead with: the `learned` dynamics, or the `game` itself.
      patience: how often a game in a window may be set back by drop-backup before it is given up. The others of its
        batch wait for it.
    """

    method: str = "gumbel"
    simulations: int = 8
    model: str = "learned"
    patience: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (("method", self.method, SEARCHES), ("model", self.model, MODELS)):
            if value not in known:
                raise PlannerError(f"{name} {value!r} of the search: must be one of {', '.join(known)}")
        if self.simulations < 1:
            raise PlannerError(f"{self.simulations} simulations: a search needs at least one")


class Choice(NamedTuple):
    """What a search says of a batch of states.

    Attributes:
      action: `[batch]` int32.
      policy: `[batch, 3]` the improved policy.
      value: `[batch]` of the root, by the search.
    """

    action: jax.Array
    policy: jax.Array
    value: jax.Array


class World(NamedTuple):
    """Games of one problem as they are.

    Attributes:
      arrays: the problem's game.
      champion: the game that is to be beaten.
      states: `[batch, ...]`.
    """

    arrays: GameArrays
    champion: Champion
    states: State

    def look(self) -> Sight:
        """Returns what is seen, `[batch, ...]`."""
        return jax.vmap(look, (None, 0, None))(self.arrays, self.states, self.champion)

    def lead(self) -> jax.Array:
        """Returns how far ahead of the champion each game is, `[batch]`."""
        return jax.vmap(lead_of, (None, 0, None))(self.arrays, self.states, self.champion)


def choose(
    networks: Networks,
    options: TreeSearchOptions,
    params: Params,
    key: jax.Array,
    sight: Sight,
    legal: jax.Array,
    world: World | None = None,
    heat: float | jax.Array = 1.0,
) -> Choice:
    """Searches for the best action in each of a batch of states.

    Args:
      networks, params: the agent.
      options: how to search.
      key: for noise.
      sight: what is seen, `[batch, ...]`, not packed.
      legal: `[batch, 3]`; states without legal action, games that are over, get any.
      world: what is seen of, for the model `game`.
      heat: of the noise that makes choices differ, one number or `[batch, 1]`: 0 for the best action.
    """
    hidden, said = networks.initial(params, sight)
    is_barred = ~legal & jnp.any(legal, axis=-1, keepdims=True)
    value = value_of(said)
    if options.method == "none":
        logits = jnp.where(is_barred, -1e9, said.policy)
        noise = heat * jax.random.gumbel(key, logits.shape)
        return Choice(jnp.argmax(logits + noise, axis=-1), jax.nn.softmax(logits), value)
    if options.model == "game":
        assert world is not None
        embedding, recurrent = world.states, partial(_by_game, networks, world)
    else:
        embedding, recurrent = hidden, partial(_by_dynamics, networks)
    common: dict[str, Any] = {
        "params": params,
        "root": mctx.RootFnOutput(prior_logits=said.policy, value=value, embedding=embedding),
        "recurrent_fn": recurrent,
        "num_simulations": options.simulations,
        "invalid_actions": is_barred,
    }
    if options.method == "gumbel":
        output = mctx.gumbel_muzero_policy(
            rng_key=key, max_num_considered_actions=NUM_ACTIONS, gumbel_scale=heat, **common
        )
    else:
        output = mctx.muzero_policy(rng_key=key, temperature=heat, dirichlet_fraction=0.25 * heat, **common)
    return Choice(output.action, output.action_weights, output.search_tree.summary().value)


def _by_dynamics(
    networks: Networks, params: Params, key: jax.Array, action: jax.Array, hidden: jax.Array
) -> tuple[mctx.RecurrentFnOutput, jax.Array]:
    """One step of the search in what the networks imagine."""
    del key
    hidden, reward, said = networks.following(params, hidden, action)
    output = mctx.RecurrentFnOutput(
        reward=from_logits(reward),
        discount=jnp.ones(action.shape),
        prior_logits=said.policy,
        value=value_of(said),
    )
    return output, hidden


def _by_game(
    networks: Networks, world: World, params: Params, key: jax.Array, action: jax.Array, states: State
) -> tuple[mctx.RecurrentFnOutput, State]:
    """One step of the search in the game itself."""
    del key
    before = world._replace(states=states)
    after = before._replace(states=jax.vmap(step_to_choice, (None, 0, 0))(world.arrays, states, action))
    _, said = networks.initial(params, after.look())
    done = after.states.done
    output = mctx.RecurrentFnOutput(
        reward=after.lead() - before.lead(),
        discount=jnp.ones(action.shape),
        prior_logits=jnp.where(after.states.legal | done[:, None], said.policy, -1e9),
        value=jnp.where(done, 0.0, value_of(said)),
    )
    return output, after.states
