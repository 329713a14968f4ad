"""A stacked LSTM language model over one loop of time steps.

Hochreiter and Schmidhuber, "Long short-term memory", 1997; stacked and trained as in Zaremba et al., arXiv 1409.2329.
The layers run together in one `lax.scan`, so the loop's weights are read again at every step. Training differentiates
through the loop and clips the gradients' norm, and updates by plain gradient descent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads import _optimizers as optimizers
from memplan.workloads.registry import Built, sized, workload


@dataclass(frozen=True)
class LstmConfig:
    """Sizes of the model and of its input.

    Attributes:
      layers: stacked cells.
      width: features of the embedding and of every cell.
      vocab: number of tokens.
      batch: sequences at once.
      length: time steps.
      dtype: of the hidden state and of products; the cell state is float32.
    """

    layers: int = 2
    width: int = 1024
    vocab: int = 16384
    batch: int = 64
    length: int = 64
    dtype: Any = jnp.bfloat16


def init(key: jax.Array, config: LstmConfig) -> nn.Params:
    """Returns the parameters, float32; each cell's product gives the input, forget, cell and output gates."""
    embed_key, out_key, *cell_keys = jax.random.split(key, 2 + config.layers)
    return {
        "embed": jax.random.normal(embed_key, (config.vocab, config.width)) * 0.05,
        "cells": [nn.dense_init(k, 2 * config.width, 4 * config.width) for k in cell_keys],
        "out": nn.dense_init(out_key, config.width, config.vocab),
    }


def cell(params: nn.Params, x: jax.Array, h: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One cell for one step.

    Args:
      x: [B, C] input.
      h: [B, C] the cell's output of the step before.
      c: [B, C] float32 state of the step before.

    Returns:
      the new `h` and `c`.
    """
    gates = nn.dense(params, jnp.concatenate([x, h], axis=-1)).astype(jnp.float32)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f + 1.0) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(x.dtype), c


def features(params: nn.Params, tokens: jax.Array, config: LstmConfig) -> jax.Array:
    """Token ids [B, T] to the last cell's outputs, [T, B, C]."""
    cells = nn.cast(params["cells"], config.dtype)
    inputs = params["embed"].astype(config.dtype)[tokens.T]
    batch = tokens.shape[0]
    h = jnp.zeros((config.layers, batch, config.width), config.dtype)
    c = jnp.zeros((config.layers, batch, config.width), jnp.float32)

    def step(state: tuple[jax.Array, jax.Array], x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        hs, cs = [], []
        for layer, layer_params in enumerate(cells):
            x, state_of_layer = cell(layer_params, x, state[0][layer], state[1][layer])
            hs.append(x)
            cs.append(state_of_layer)
        return (jnp.stack(hs), jnp.stack(cs)), x

    return lax.scan(step, (h, c), inputs)[1]


def loss(params: nn.Params, tokens: jax.Array, config: LstmConfig) -> jax.Array:
    """Mean cross-entropy of each of `tokens` [B, T + 1] given those before it."""
    logits = nn.dense(params["out"], features(params, tokens[:, :-1], config))
    return nn.cross_entropy(logits, tokens[:, 1:].T)


def train_step(
    params: nn.Params, tokens: jax.Array, config: LstmConfig, rate: float = 1.0
) -> tuple[nn.Params, jax.Array]:
    """One step of gradient descent, the gradients' norm clipped to 1; returns `(params, loss)`."""
    value, grads = jax.value_and_grad(loss)(params, tokens, config)
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
    grads = jax.tree.map(lambda g: g / jnp.maximum(norm, 1.0), grads)
    return optimizers.sgd(params, grads, rate), value


TINY = LstmConfig(layers=2, width=5, vocab=7, batch=3, length=4, dtype=jnp.float32)


@workload(
    "2 LSTM layers of 1024 over 64 × 64 tokens in one loop, bfloat16",
    family="recurrent",
    source="Zaremba et al., arXiv 1409.2329",
)
def lstm(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(LstmConfig(), TINY, tiny, batch)

    def lstm(params: nn.Params, tokens: jax.Array) -> jax.Array:
        return nn.dense(params["out"], features(params, tokens, config)[-1])

    tokens = jax.ShapeDtypeStruct((config.batch, config.length), jnp.int32)
    return lstm, (nn.abstract(init, config, dtype=config.dtype), tokens)


@workload(
    "2 LSTM layers of 1024, one SGD step through the loop over 64 × 64 tokens, bfloat16 over float32 parameters",
    family="recurrent",
    source="Zaremba et al., arXiv 1409.2329",
    kind="training",
    donate_argnums=(0,),
)
def lstm_train(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(LstmConfig(), TINY, tiny, batch)

    def lstm_train(params: nn.Params, tokens: jax.Array) -> tuple[nn.Params, jax.Array]:
        return train_step(params, tokens, config)

    tokens = jax.ShapeDtypeStruct((config.batch, config.length + 1), jnp.int32)
    return lstm_train, (nn.abstract(init, config), tokens)
