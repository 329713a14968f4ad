"""One momentum step of ResNet-50, as `resnet50_train`, with its blocks marked."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import _optimizers as optimizers
from memplan.workloads import resnet as model
from memplan.workloads import train_blocks as blocks
from memplan.workloads.resnet import ResNetConfig
from memplan.workloads.train_step import Built, TrainStep

_CONFIGS = {
    "tiny": ResNetConfig(stages=(1, 1), width=4, classes=8, batch=2, image=16, dtype=jnp.float32),
    "small": ResNetConfig(width=8, classes=100, batch=8, image=64, dtype=jnp.float32),
    "real": ResNetConfig(batch=64),
}


def loss(
    config: ResNetConfig, params: nn.Params, stats: nn.Params, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, nn.Params]:
    """Returns the mean cross-entropy, a float32 scalar, and the moved statistics."""
    x = nn.conv2d(params["stem"], images.astype(config.dtype), 2, [(3, 3), (3, 3)])
    x, stem_stats = model.batch_norm(params["norm"], stats["norm"], x, train=True)
    x = nn.max_pool(jax.nn.relu(x), padding=1)
    strides = [1 if stage == 0 or index else 2 for stage, count in enumerate(config.stages) for index in range(count)]

    def run(index: int) -> Any:
        def block(state: tuple[jax.Array, list[nn.Params]]) -> tuple[jax.Array, list[nn.Params]]:
            x, moved = state
            x, of_block = model.block(params["blocks"][index], stats["blocks"][index], x, strides[index], train=True)
            return x, [*moved, of_block]

        return block

    x, moved = blocks.chain([run(index) for index in range(len(strides))], (x, []))
    logits = nn.dense(params["head"], x.astype(jnp.float32).mean((1, 2)))
    return nn.cross_entropy(logits, labels), {"norm": stem_stats, "blocks": moved}


def _build(size: str) -> Built:
    config = _CONFIGS[size]

    def step(params: nn.Params, velocity: Any, stats: nn.Params, *batch: Any) -> tuple[Any, ...]:
        (value, stats), grads = blocks.value_and_grad(partial(loss, config), has_aux=True)(params, stats, *batch)
        params, velocity = optimizers.momentum(params, velocity, grads, rate=0.1)
        return params, velocity, stats, value

    params, stats = nn.abstract(model.init, config)
    images = jax.ShapeDtypeStruct((config.batch, config.image, config.image, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((config.batch,), jnp.int32)
    return step, (params, jax.eval_shape(optimizers.momentum_init, params), stats, images, labels)


resnet50 = TrainStep("resnet50", "ResNet-50 with batch normalisation, momentum", _build, donate_argnums=(0, 1, 2))
