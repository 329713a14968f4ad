"""Learning from windows: MuZero's loss, and one step of gradient descent.

From a place in a window the dynamics network is unrolled along the actions that were taken; at each step policy, value
and reward are to be what was found there (Schrittwieser et al., 2020, equation 1):

    policy   the policy of the search; and what was done, where that turned out better than the value says
    reward   what the step gained on the champion
    value    what `td_steps` steps gained, and the search's value behind them; at the end of a window what the rest of
             the game gained, which is known

What turned out well is imitated (self-imitation, Oh et al., 2018). Without a search, the policy learns from nothing
else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from memplan.rl_agent.learning.network import Networks, Params, value_of
from memplan.rl_agent.learning.self_play import Trajectories
from memplan.rl_agent.learning.sight import unpacked
from memplan.rl_agent.learning.supports import squeezed, to_categories


@dataclass(frozen=True)
class UpdateOptions:
    """How to learn.

    Attributes:
      batch: places in windows that one step learns from.
      unroll: steps of the dynamics network.
      td_steps: after how many steps a value is bootstrapped.
      learning_rate: of AdamW (Loshchilov and Hutter, 2019).
      weight_decay: of AdamW.
      value_weight: weight of the value's loss; the policy's loss has weight 1.
      imitation: weight of what turned out better than the value says.
    """

    batch: int = 256
    unroll: int = 4
    td_steps: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    value_weight: float = 0.5
    imitation: float = 1.0


class Losses(NamedTuple):
    """Means over a batch, cross-entropies in nats."""

    total: jax.Array
    policy: jax.Array
    value: jax.Array
    reward: jax.Array
    imitation: jax.Array


def make_optimizer(options: UpdateOptions) -> optax.GradientTransformation:
    """Returns AdamW with gradients of bounded norm, its rate warming up."""
    rate = optax.linear_schedule(0.0, options.learning_rate, 100)
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(rate, weight_decay=options.weight_decay))


def value_targets(windows: Trajectories, td_steps: int) -> jax.Array:
    """Returns what is to be predicted of the value at each choice, `[games, window]`."""
    window = windows.value.shape[1]
    made = jnp.sum(windows.is_made, axis=1, keepdims=True)
    behind = jnp.arange(window)[None, :] + td_steps
    is_known = behind >= made  # the rest of the game is known
    there = jnp.minimum(behind, window - 1)
    lead = jnp.take_along_axis(windows.lead, there, axis=1) + jnp.take_along_axis(windows.value, there, axis=1)
    return jnp.where(is_known, windows.end[:, None], lead) - windows.lead[:, :-1]


def losses(
    networks: Networks, options: UpdateOptions, params: Params, windows: Trajectories, place: jax.Array
) -> Losses:
    """Returns the losses at one place in each of a batch of windows.

    Args:
      networks, params: the agent.
      options: how to learn.
      windows: `[batch, window, ...]`.
      place: `[batch]`, choices that were made.
    """
    window = windows.value.shape[1]
    rows = jnp.arange(place.shape[0])
    values = to_categories(value_targets(windows, options.td_steps))
    rewards = to_categories(windows.lead[:, 1:] - windows.lead[:, :-1])
    sight = unpacked(jax.tree.map(lambda x: x[rows, place], windows.sight))
    hidden, said = networks.initial(params, sight)
    policy = value = reward = imitation = jnp.zeros(place.shape[0])
    gains = windows.end[:, None] - windows.lead[:, :-1]
    count = jnp.zeros(place.shape[0])
    for number in range(options.unroll + 1):
        at = place + number
        inside = jnp.minimum(at, window - 1)
        is_there = (at < window) & windows.is_made[rows, inside]
        wanted = windows.policy[rows, inside].astype(jnp.float32)
        logits = said.policy
        if number == 0:
            logits = jnp.where(windows.legal[rows, inside], logits, -1e9)
        weight = jnp.where(is_there, 1.0, 0.0)
        policy += weight * optax.softmax_cross_entropy(logits, wanted)
        value += weight * optax.softmax_cross_entropy(said.value, values[rows, inside])
        surprise = squeezed(jnp.maximum(gains[rows, inside] - jax.lax.stop_gradient(value_of(said)), 0.0))
        action = windows.action[rows, inside].astype(jnp.int32)
        imitation += weight * surprise * optax.softmax_cross_entropy_with_integer_labels(logits, action)
        count += weight
        if number < options.unroll:
            hidden, gained, said = networks.following(params, _half_gradient(hidden), action)
            reward += weight * optax.softmax_cross_entropy(gained, rewards[rows, inside])
    mean = [jnp.mean(part / jnp.maximum(count, 1.0)) for part in (policy, value, reward, imitation)]
    total = mean[0] + options.value_weight * mean[1] + mean[2] + options.imitation * mean[3]
    return Losses(total, *mean)


def _half_gradient(x: jax.Array) -> jax.Array:
    """Halves the gradient at the start of each step, as MuZero does, so that long unrolls do not weigh more."""
    return 0.5 * x + 0.5 * jax.lax.stop_gradient(x)


def update(
    networks: Networks,
    options: UpdateOptions,
    optimizer: optax.GradientTransformation,
    params: Params,
    memory: optax.OptState,
    windows: Trajectories,
    place: jax.Array,
    axis: str | None = None,
) -> tuple[Params, optax.OptState, Losses]:
    """Returns parameters and optimizer state after one step, and the losses before it.

    `axis` names the axis of devices over which the batch is shared, if it is.
    """

    def loss(params: Params) -> tuple[jax.Array, Losses]:
        said = losses(networks, options, params, windows, place)
        return said.total, said

    gradient, said = jax.grad(loss, has_aux=True)(params)
    if axis is not None:
        gradient, said = jax.lax.pmean((gradient, said), axis)
    step, memory = optimizer.update(gradient, memory, params)
    return optax.apply_updates(params, step), memory, said
