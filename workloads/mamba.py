"""A Mamba model: selective state spaces, computed by a parallel scan over time.

Gu and Dao, "Mamba: linear-time sequence modeling with selective state spaces", arXiv 2312.00752. The recurrence
`h[t] = a[t] h[t−1] + b[t]` of every channel and state is an associative scan (section 3.3), float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads.registry import Built, sized, workload


@dataclass(frozen=True)
class MambaConfig:
    """Sizes of the model and of its input.

    Attributes:
      layers: number of blocks.
      width: features of the residual stream; a block is twice as wide inside.
      states: of each inner channel.
      rank: of the projection that gives the step sizes.
      batch: sequences at once.
      length: time steps.
      dtype: of activations outside the scan.
    """

    layers: int = 2
    width: int = 512
    states: int = 16
    rank: int = 32
    batch: int = 4
    length: int = 512
    dtype: Any = jnp.bfloat16


def init(key: jax.Array, config: MambaConfig) -> nn.Params:
    """Returns the parameters, float32."""
    return {"blocks": [_block_init(k, config) for k in jax.random.split(key, config.layers)]}


def _block_init(key: jax.Array, config: MambaConfig) -> nn.Params:
    keys = jax.random.split(key, 5)
    inner = 2 * config.width
    return {
        "norm": jnp.ones((config.width,)),
        "in": nn.dense_init(keys[0], config.width, 2 * inner),
        "short": jax.random.normal(keys[1], (4, inner)) / 2,
        "select": nn.dense_init(keys[2], inner, config.rank + 2 * config.states),
        "step": nn.dense_init(keys[3], config.rank, inner, 0.1),
        "log_rate": jnp.log(jnp.broadcast_to(jnp.arange(1.0, config.states + 1), (inner, config.states))),
        "skip": jnp.ones((inner,)),
        "out": nn.dense_init(keys[4], inner, config.width, 1 / math.sqrt(config.layers)),
    }


def linear_scan(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `h` with `h[t] = a[t] h[t−1] + b[t]` and `h[−1] = 0` along axis 1 of [B, T, …]."""

    def compose(first: tuple[jax.Array, jax.Array], then: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return first[0] * then[0], then[0] * first[1] + then[1]

    return lax.associative_scan(compose, (a, b), axis=1)[1]


def selective_scan(params: nn.Params, x: jax.Array, config: MambaConfig) -> jax.Array:
    """The state space that its input steers: [B, T, inner] to [B, T, inner], float32 inside."""
    selected = nn.dense(params["select"], x).astype(jnp.float32)
    step, write, read = jnp.split(selected, [config.rank, config.rank + config.states], axis=-1)
    step = jax.nn.softplus(nn.dense(params["step"], step))
    wide = x.astype(jnp.float32)
    decay = jnp.exp(-step[..., None] * jnp.exp(params["log_rate"].astype(jnp.float32)))
    states = linear_scan(decay, (step * wide)[..., None] * write[:, :, None, :])
    y = jnp.einsum("btcn,btn->btc", states, read) + wide * params["skip"].astype(jnp.float32)
    return y.astype(x.dtype)


def apply(params: nn.Params, x: jax.Array, config: MambaConfig) -> jax.Array:
    """Embedded tokens [B, T, C] to [B, T, C]."""
    for block in params["blocks"]:
        inner, gate = jnp.split(nn.dense(block["in"], nn.rms_norm(block["norm"], x)), 2, axis=-1)
        inner = jax.nn.silu(nn.causal_depthwise_conv(block["short"], inner))
        x = x + nn.dense(block["out"], selective_scan(block, inner, config) * jax.nn.silu(gate))
    return x


TINY = MambaConfig(layers=1, width=4, states=3, rank=2, batch=2, length=11, dtype=jnp.float32)


@workload(
    "2 Mamba blocks of 512, 16 states, on 4 × 512 steps by parallel scan, bfloat16",
    family="state-space",
    source="Gu and Dao, arXiv 2312.00752",
)
def mamba(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(MambaConfig(), TINY, tiny, batch)

    def mamba(params: nn.Params, x: jax.Array) -> jax.Array:
        return apply(params, x, config)

    x = jax.ShapeDtypeStruct((config.batch, config.length, config.width), config.dtype)
    return mamba, (nn.abstract(init, config, dtype=config.dtype), x)
