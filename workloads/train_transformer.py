"""One Adam step of a GPT-2-style decoder, its layers unrolled or in a loop over stacked parameters."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import train_blocks as blocks
from memplan.workloads import transformer as model
from memplan.workloads.train_step import Built, TrainStep, adam_step, sgd_step
from memplan.workloads.transformer import TransformerConfig

_CONFIGS = {
    "tiny": TransformerConfig(layers=4, width=16, heads=2, vocab=32, batch=2, length=16, dtype=jnp.float32),
    "small": TransformerConfig(layers=8, width=128, heads=4, vocab=1024, batch=8, length=128, dtype=jnp.float32),
    "real": TransformerConfig(layers=12),
}


def block(params: nn.Params, x: jax.Array, heads: int, mask: jax.Array | None = None) -> jax.Array:
    """Attention and the feed-forward block: [B, T, C] to [B, T, C]."""
    q, k, v = model.project_qkv(params, x, heads)
    return model.finish_block(params, x, nn.attention(q, k, v, mask))


def loss(config: TransformerConfig, params: nn.Params, tokens: jax.Array) -> jax.Array:
    """Mean cross-entropy of each of `tokens` [B, T + 1] given those before it."""
    given, wanted = tokens[:, :-1], tokens[:, 1:]
    x = params["embed"].astype(config.dtype)[given] + params["positions"].astype(config.dtype)
    mask = nn.causal_mask(config.length)

    def run(params: nn.Params, x: jax.Array) -> jax.Array:
        return block(params, x, config.heads, mask)

    if isinstance(params["blocks"], list):
        x = blocks.chain([partial(run, layer) for layer in params["blocks"]], x)
    else:
        x, _ = blocks.scan(lambda x, layer: (run(layer, x), None), x, params["blocks"])
    return nn.cross_entropy(model.logits_of(params, x), wanted)


def _build(stacked: bool, size: str) -> Built:
    config = _CONFIGS[size]
    params: Any = nn.abstract(model.init, config)
    if stacked:
        params = jax.eval_shape(model.stack_blocks, params)
    tokens = jax.ShapeDtypeStruct((config.batch, config.length + 1), jnp.int32)
    return adam_step(partial(loss, config), params, tokens)


def decoder(layers: int, optimizer: str) -> Built:
    """Returns one step of `adam` or `sgd` on a decoder of the size `small` with so many layers, as `(fun, args)`."""
    config = replace(_CONFIGS["small"], layers=layers)
    tokens = jax.ShapeDtypeStruct((config.batch, config.length + 1), jnp.int32)
    make = {"adam": adam_step, "sgd": sgd_step}[optimizer]
    return make(partial(loss, config), nn.abstract(model.init, config), tokens)


transformer = TrainStep("transformer", "GPT-2-style decoder, Adam", partial(_build, False))
transformer_scan = TrainStep(
    "transformer_scan", "GPT-2-style decoder, its layers in a loop, Adam", partial(_build, True)
)
