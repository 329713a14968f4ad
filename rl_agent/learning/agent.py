"""The agent: its networks, and the functions that JAX compiles for it.

They are compiled once for all problems of one padding, and trainers in one process whose options agree share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from memplan.rl_agent.learning import self_play
from memplan.rl_agent.learning.network import Networks, NetworkSizes, Params
from memplan.rl_agent.learning.options import TrainOptions
from memplan.rl_agent.learning.self_play import AgentStep, Trajectories
from memplan.rl_agent.learning.sight import unpacked
from memplan.rl_agent.learning.tree_search import TreeSearchOptions, choose
from memplan.rl_agent.learning.update import UpdateOptions, make_optimizer, update


@dataclass(frozen=True, eq=False)
class Agent:
    """An agent but for its parameters.

    Attributes:
      networks: as pure functions.
      optimizer: of their parameters.
      mesh: the devices, each of which plays a part of the windows and learns from a part of the batch.
      decide: `self_play.decide` of parameters, a key for each device, and the rest, on all devices.
      decide_alone: the same on one device, of one key and any number of games.
      learn: `update.update` of parameters, optimizer state, windows and places, on all devices.
      review: the policy and the value of searches that are repeated: of parameters, a key, sights and legal actions.
      survey: `self_play.survey` of parameters and the rest.
    """

    networks: Networks
    optimizer: optax.GradientTransformation
    mesh: Mesh
    decide: Callable[..., AgentStep]
    decide_alone: Callable[..., AgentStep]
    learn: Callable[..., Any]
    review: Callable[..., tuple[jax.Array, jax.Array]]
    survey: Callable[..., tuple[jax.Array, jax.Array]]

    @property
    def num_devices(self) -> int:
        """How many devices share the work."""
        return int(self.mesh.size)

    def shared(self, tree: Any) -> Any:
        """Returns a tree of arrays with a copy on each device, as compiled functions return it."""
        return jax.device_put(jax.tree.map(jnp.asarray, tree), NamedSharding(self.mesh, PartitionSpec()))


def agent_of(options: TrainOptions) -> Agent:
    """Returns the agent of some options, the same one for all options that compile the same."""
    devices = jax.devices()
    count = math.gcd(len(devices), options.windows, options.update.batch)
    return _agent(options.sizes, options.loyalty, options.search, options.update, tuple(devices[:count]))


@cache
def _agent(
    sizes: NetworkSizes, loyalty: float, search: TreeSearchOptions, updates: UpdateOptions, devices: tuple[Any, ...]
) -> Agent:
    networks, optimizer = Networks(sizes, loyalty), make_optimizer(updates)
    mesh = Mesh(devices, ("batch",))
    part, whole = PartitionSpec("batch"), PartitionSpec()

    def decide(params: Params, key: jax.Array, *rest: Any) -> AgentStep:
        return self_play.decide(networks, search, params, key[0], *rest)

    def learn(params: Params, memory: Any, windows: Trajectories, place: jax.Array) -> Any:
        return update(networks, updates, optimizer, params, memory, windows, place, "batch")

    def review(params: Params, key: jax.Array, sight: Any, legal: jax.Array) -> tuple[jax.Array, jax.Array]:
        said = choose(networks, search, params, key, unpacked(sight), legal)
        return said.policy.astype(jnp.float16), said.value

    def decide_on_one(params: Params, keys: jax.Array, *rest: Any) -> AgentStep:
        return decide_alone(params, keys[0], *rest)

    inputs = (whole, part, whole, whole, part, part, part)
    whence = (whole, whole, part, part)
    decide_alone = jax.jit(partial(self_play.decide, networks, search))
    decide_on_all = jax.jit(jax.shard_map(decide, mesh=mesh, in_specs=inputs, out_specs=part, check_vma=False))
    return Agent(
        networks=networks,
        optimizer=optimizer,
        mesh=mesh,
        decide=decide_on_one if len(devices) == 1 else decide_on_all,
        decide_alone=decide_alone,
        learn=jax.jit(jax.shard_map(learn, mesh=mesh, in_specs=whence, out_specs=whole, check_vma=False)),
        review=jax.jit(review),
        survey=jax.jit(partial(self_play.survey, networks)),
    )
