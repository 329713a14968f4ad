"""One step of gradient descent on a stacked LSTM language model, through its loop over time."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import lstm as model
from memplan.workloads import train_blocks as blocks
from memplan.workloads.lstm import LstmConfig
from memplan.workloads.train_step import Built, TrainStep, sgd_step

_CONFIGS = {
    "tiny": LstmConfig(layers=2, width=8, vocab=16, batch=2, length=16, dtype=jnp.float32),
    "small": LstmConfig(layers=2, width=128, vocab=256, batch=32, length=64, dtype=jnp.float32),
    "real": LstmConfig(length=256),
}


def loss(config: LstmConfig, params: nn.Params, tokens: jax.Array) -> jax.Array:
    """Mean cross-entropy of each of `tokens` [B, T + 1] given those before it."""
    cells = nn.cast(params["cells"], config.dtype)
    inputs = params["embed"].astype(config.dtype)[tokens[:, :-1].T]

    def step(states: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> tuple[Any, jax.Array]:
        after = []
        for cell, (h, c) in zip(cells, states, strict=True):
            x, c = model.cell(cell, x, h, c)
            after.append((x, c))
        return after, x

    shape = (config.batch, config.width)
    start = [(jnp.zeros(shape, config.dtype), jnp.zeros(shape)) for _ in cells]
    _, outputs = blocks.scan(step, start, inputs)
    return nn.cross_entropy(nn.dense(params["out"], outputs), tokens[:, 1:].T)


def _build(size: str) -> Built:
    config = _CONFIGS[size]
    tokens = jax.ShapeDtypeStruct((config.batch, config.length + 1), jnp.int32)
    return sgd_step(partial(loss, config), nn.abstract(model.init, config), tokens)


lstm = TrainStep("lstm", "stacked LSTM through a loop over time, SGD", _build, donate_argnums=(0,))
