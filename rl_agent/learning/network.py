"""The networks of MuZero: representation, dynamics and prediction (Schrittwieser et al., 2020, section 3).

    sight ── representation ──► hidden ── prediction ──► policy, value
                                  │
                       action ── dynamics ──► hidden', reward ── prediction ──► …

They are small, since two cores must play and learn at once: what a player sees is described by features already. The
policy starts near what the champion does (`sight.py`), as a residual that is learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from memplan.rl_agent.game.moves import NUM_ACTIONS
from memplan.rl_agent.learning.sight import Sight
from memplan.rl_agent.learning.supports import ATOMS, from_logits

Params = Any


class Prediction(NamedTuple):
    """What the networks say of a state.

    Attributes:
      policy: `[batch, 3]` logits.
      value: `[batch, ATOMS]` logits of what is gained on the champion from here on, of the latency at home.
    """

    policy: jax.Array
    value: jax.Array


@dataclass(frozen=True)
class NetworkSizes:
    """Widths.

    Attributes:
      hidden: of the hidden state.
      trunk: of the layers in between.
      blocks: residual blocks of the representation.
    """

    hidden: int = 96
    trunk: int = 128
    blocks: int = 2


class _ResidualBlock(nn.Module):
    """A residual block with layer normalization before it (Xiong et al., "On layer normalization", 2020)."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(nn.Dense(self.width)(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1], kernel_init=nn.initializers.variance_scaling(0.1, "fan_in", "normal"))(y)


class Representation(nn.Module):
    """From what is seen to a hidden state, `[batch, hidden]`."""

    sizes: NetworkSizes

    @nn.compact
    def __call__(self, sight: Sight) -> jax.Array:
        batch = sight.facts.shape[0]
        board = nn.relu(nn.Dense(64)(sight.board.reshape(batch, -1) * 2.0 - 1.0))
        supply = nn.relu(nn.Dense(32)(sight.supply.reshape(batch, -1)))
        items = nn.relu(nn.Dense(32)(sight.items))
        first = sight.items[:, 0]
        parts = [board, supply, items.reshape(batch, -1), first, sight.facts]
        x = nn.Dense(self.sizes.trunk)(jnp.concatenate(parts, axis=-1))
        for number in range(self.sizes.blocks):
            x = _ResidualBlock(self.sizes.trunk, name=f"_Block_{number}")(x)  # as checkpoints call its parameters
        return nn.LayerNorm()(nn.Dense(self.sizes.hidden)(nn.relu(x)))


class Dynamics(nn.Module):
    """From a hidden state and an action to the next one, and logits of the reward, `[batch, ATOMS]`."""

    sizes: NetworkSizes

    @nn.compact
    def __call__(self, hidden: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        taken = jax.nn.one_hot(action, NUM_ACTIONS)
        x = nn.relu(nn.Dense(self.sizes.trunk)(jnp.concatenate([hidden, taken], axis=-1)))
        following = nn.LayerNorm()(hidden + nn.Dense(self.sizes.hidden)(x))
        reward = nn.Dense(ATOMS, kernel_init=nn.initializers.zeros)(nn.relu(nn.Dense(64)(x)))
        return following, reward


class Predict(nn.Module):
    """From a hidden state to policy and value."""

    sizes: NetworkSizes

    @nn.compact
    def __call__(self, hidden: jax.Array) -> Prediction:
        x = nn.relu(nn.Dense(self.sizes.trunk)(hidden))
        zeros = nn.initializers.zeros
        return Prediction(nn.Dense(NUM_ACTIONS, kernel_init=zeros)(x), nn.Dense(ATOMS, kernel_init=zeros)(x))


class Networks:
    """The three networks, as pure functions of their parameters.

    Args:
      sizes: their widths.
      loyalty: logit by which the champion's action is preferred at first.
    """

    def __init__(self, sizes: NetworkSizes, loyalty: float):
        self.sizes, self.loyalty = sizes, loyalty
        self._represent, self._dynamics, self._predict = Representation(sizes), Dynamics(sizes), Predict(sizes)

    def init(self, key: jax.Array, sight: Sight) -> Params:
        """Returns parameters for sights of these shapes, `[batch, ...]`."""
        keys = jax.random.split(key, 3)
        action = jnp.zeros(sight.facts.shape[0], jnp.int32)
        represent, hidden = _init(self._represent, keys[0], sight)
        dynamics, _ = _init(self._dynamics, keys[1], hidden, action)
        predict, _ = _init(self._predict, keys[2], hidden)
        return {"represent": represent, "dynamics": dynamics, "predict": predict}

    def initial(self, params: Params, sight: Sight) -> tuple[jax.Array, Prediction]:
        """Returns the hidden states of sights, and what is predicted there."""
        hidden = self._represent.apply(params["represent"], sight)
        said = self._predict.apply(params["predict"], hidden)
        return hidden, said._replace(policy=said.policy + self.loyalty * sight.guided)

    def following(
        self, params: Params, hidden: jax.Array, action: jax.Array
    ) -> tuple[jax.Array, jax.Array, Prediction]:
        """Returns hidden states after actions, logits of the rewards, and what is predicted there."""
        hidden, reward = self._dynamics.apply(params["dynamics"], hidden, action)
        return hidden, reward, self._predict.apply(params["predict"], hidden)


def _init(module: nn.Module, key: jax.Array, *inputs: Any) -> tuple[Params, Any]:
    output, params = module.init_with_output(key, *inputs)
    return params, output


def value_of(said: Prediction) -> jax.Array:
    """Returns predicted values, `[batch]`."""
    return from_logits(said.value)
