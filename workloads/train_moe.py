"""One step of gradient descent on a transformer with mixtures of experts, which regresses embedded tokens."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import moe as model
from memplan.workloads import train_blocks as blocks
from memplan.workloads.moe import MoeConfig
from memplan.workloads.registry import workload
from memplan.workloads.train_step import Built, TrainStep, sgd_step

_CONFIGS = {
    "tiny": MoeConfig(layers=2, width=8, hidden=16, heads=2, experts=2, batch=2, length=8, dtype=jnp.float32),
    "small": MoeConfig(layers=4, width=128, hidden=256, heads=4, experts=4, batch=4, length=128, dtype=jnp.float32),
    "real": MoeConfig(layers=4),
}


def block(
    params: nn.Params, state: tuple[jax.Array, jax.Array], mask: jax.Array, config: MoeConfig
) -> tuple[jax.Array, jax.Array]:
    """Attention and the mixture: adds to the stream [B, T, C], and to the sum of balance losses."""
    x, balance = state
    q, k, v = jnp.split(nn.dense(params["qkv"], nn.layer_norm(params["norm1"], x)), 3, axis=-1)
    q, k, v = (nn.split_heads(part, config.heads) for part in (q, k, v))
    x = x + nn.dense(params["out"], nn.merge_heads(nn.attention(q, k, v, mask)))
    mixed, added = model.mixture(params, nn.layer_norm(params["norm2"], x), config.capacity)
    return x + mixed, balance + added


def loss(config: MoeConfig, params: nn.Params, x: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean squared error of the stream [B, T, C] against `wanted`, and a hundredth of the mean balance loss."""
    mask = nn.causal_mask(config.length)
    layers = [partial(block, layer, mask=mask, config=config) for layer in params["blocks"]]
    x, balance = blocks.chain(layers, (x, jnp.zeros(())))
    return jnp.square(x - wanted).astype(jnp.float32).mean() + 0.01 * balance / config.layers


def _build(size: str) -> Built:
    config = _CONFIGS[size]
    x = jax.ShapeDtypeStruct((config.batch, config.length, config.width), config.dtype)
    return sgd_step(partial(loss, config), nn.abstract(model.init, config), x, x)


moe = TrainStep("moe", "transformer with top-2 mixtures of experts, SGD", _build, donate_argnums=(0,))


@workload(
    "4 blocks of 1024 with top-2 mixtures of 8 experts, one SGD step on 8 × 512 tokens, mixed precision",
    family="mixture-of-experts",
    source="Lepikhin et al., arXiv 2006.16668",
    kind="training",
    donate_argnums=(0,),
)
def moe_train(tiny: bool = False) -> Built:
    return moe.build("tiny" if tiny else "real")
