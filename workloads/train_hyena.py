"""One Adam step of a Hyena language model."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import hyena as model
from memplan.workloads import train_blocks as blocks
from memplan.workloads.hyena import HyenaConfig
from memplan.workloads.registry import workload
from memplan.workloads.train_step import Built, TrainStep, adam_step

_CONFIGS = {
    "tiny": HyenaConfig(
        layers=2, width=8, vocab=16, batch=2, length=16, frequencies=2, filter_width=8, dtype=jnp.float32
    ),
    "small": HyenaConfig(
        layers=4, width=64, vocab=512, batch=4, length=512, frequencies=4, filter_width=32, dtype=jnp.float32
    ),
    "real": HyenaConfig(),
}


def block(params: nn.Params, x: jax.Array, config: HyenaConfig) -> jax.Array:
    """The Hyena operator and the feed-forward block: [B, T, C] to [B, T, C]."""
    x = x + model.operator(params, nn.layer_norm(params["norm1"], x), config)
    return x + nn.mlp(params["mlp"], nn.layer_norm(params["norm2"], x))


def loss(config: HyenaConfig, params: nn.Params, tokens: jax.Array) -> jax.Array:
    """Mean cross-entropy of each of `tokens` [B, T + 1] given those before it."""
    x = params["embed"].astype(config.dtype)[tokens[:, :-1]]
    x = blocks.chain([partial(block, layer, config=config) for layer in params["blocks"]], x)
    x = nn.layer_norm(params["norm"], x)
    logits = jnp.einsum("btc,vc->btv", x, params["embed"].astype(x.dtype), preferred_element_type=jnp.float32)
    return nn.cross_entropy(logits, tokens[:, 1:])


def _build(size: str) -> Built:
    config = _CONFIGS[size]
    tokens = jax.ShapeDtypeStruct((config.batch, config.length + 1), jnp.int32)
    return adam_step(partial(loss, config), nn.abstract(model.init, config), tokens)


hyena = TrainStep("hyena", "Hyena language model with FFT convolutions, Adam", _build)


@workload(
    "Hyena, 4 blocks of 512, one Adam step on 4 × 4096 tokens, bfloat16 over float32 parameters",
    family="long-convolution",
    source="Poli et al., arXiv 2302.10866",
    kind="training",
    donate_argnums=(0, 1),
)
def hyena_train(tiny: bool = False) -> Built:
    return hyena.build("tiny" if tiny else "real")
