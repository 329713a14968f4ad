"""One Adam step of a Mamba model, which regresses embedded tokens."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import mamba as model
from memplan.workloads import train_blocks as blocks
from memplan.workloads.mamba import MambaConfig
from memplan.workloads.registry import workload
from memplan.workloads.train_step import Built, TrainStep, adam_step

_CONFIGS = {
    "tiny": MambaConfig(layers=2, width=8, states=2, rank=2, batch=2, length=8, dtype=jnp.float32),
    "small": MambaConfig(layers=3, width=64, states=8, rank=8, batch=4, length=128, dtype=jnp.float32),
    "real": MambaConfig(layers=4),
}


def block(params: nn.Params, x: jax.Array, config: MambaConfig) -> jax.Array:
    """A Mamba block: [B, T, C] to [B, T, C]."""
    inner, gate = jnp.split(nn.dense(params["in"], nn.rms_norm(params["norm"], x)), 2, axis=-1)
    inner = jax.nn.silu(nn.causal_depthwise_conv(params["short"], inner))
    return x + nn.dense(params["out"], model.selective_scan(params, inner, config) * jax.nn.silu(gate))


def loss(config: MambaConfig, params: nn.Params, x: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean squared error of the stream [B, T, C] against `wanted`."""
    x = blocks.chain([partial(block, layer, config=config) for layer in params["blocks"]], x)
    return jnp.square(x - wanted).astype(jnp.float32).mean()


def _build(size: str) -> Built:
    config = _CONFIGS[size]
    x = jax.ShapeDtypeStruct((config.batch, config.length, config.width), config.dtype)
    return adam_step(partial(loss, config), nn.abstract(model.init, config), x, x)


mamba = TrainStep("mamba", "Mamba with a parallel scan over time, Adam", _build)


@workload(
    "4 Mamba blocks of 512, one Adam step on 4 × 512 steps, bfloat16 over float32 parameters",
    family="state-space",
    source="Gu and Dao, arXiv 2312.00752",
    kind="training",
    donate_argnums=(0, 1),
)
def mamba_train(tiny: bool = False) -> Built:
    return mamba.build("tiny" if tiny else "real")
