"""One Adam step of a wide perceptron on a small batch: its optimizer state is much larger than its activations.

The temporaries of such a step are gradients: all are needed until their norm is known, by which they are clipped.
Recomputing activations saves nothing. Computing gradients again from activations does, at a low cost for a small batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import train_blocks as blocks
from memplan.workloads.registry import workload
from memplan.workloads.train_step import Built, TrainStep, adam_step


@dataclass(frozen=True)
class WideMlpConfig:
    """Sizes of the model and of its input.

    Attributes:
      layers: number of square layers.
      width: features of every layer, of the input and of the output.
      batch: rows at once.
      dtype: of activations.
    """

    layers: int = 12
    width: int = 6144
    batch: int = 64
    dtype: Any = jnp.bfloat16


_CONFIGS = {
    "tiny": WideMlpConfig(layers=4, width=32, batch=2, dtype=jnp.float32),
    "small": WideMlpConfig(layers=8, width=768, batch=16, dtype=jnp.float32),
    "real": WideMlpConfig(),
}


def init(key: jax.Array, config: WideMlpConfig) -> list[nn.Params]:
    """Returns the parameters, float32."""
    return [nn.dense_init(k, config.width, config.width) for k in jax.random.split(key, config.layers)]


def loss(params: list[nn.Params], x: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean squared error of rows [B, C] against `wanted`."""

    def block(layer: nn.Params, x: jax.Array) -> jax.Array:
        return x + jax.nn.gelu(nn.dense(layer, x))

    x = blocks.chain([partial(block, layer) for layer in params], x)
    return jnp.square(x - wanted).astype(jnp.float32).mean()


def _build(size: str) -> Built:
    config = _CONFIGS[size]
    x = jax.ShapeDtypeStruct((config.batch, config.width), config.dtype)
    return adam_step(loss, nn.abstract(init, config), x, x, clipped=True)


wide_mlp = TrainStep("wide_mlp", "wide perceptron on few rows, Adam with clipped gradients", _build)


@workload(
    "12 layers of 6144 on 64 rows, one Adam step with clipped gradients, mixed precision",
    family="perceptron",
    source="residual perceptron, gradients clipped by their norm",
    kind="training",
    donate_argnums=(0, 1),
)
def wide_mlp_train(tiny: bool = False) -> Built:
    return wide_mlp.build("tiny" if tiny else "real")
