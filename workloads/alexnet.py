"""AlexNet: five convolutions and three dense layers, trained with dropout.

Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012: overlapping pools, local
response normalisation, and the groups of the two-card original in the second, fourth and fifth convolution. The
mallocGame paper (arXiv 2305.07440) shows a mapping of this network.
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
class AlexNetConfig:
    """Sizes of the model and of its input.

    Attributes:
      channels: of the five convolutions; even.
      hidden: features of the two hidden dense layers.
      classes: number of labels.
      batch: images at once.
      image: height and width of an image; 67 is the least.
      dropout: share of the hidden features that a training step drops.
      dtype: of activations.
    """

    channels: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256)
    hidden: int = 4096
    classes: int = 1000
    batch: int = 32
    image: int = 227
    dropout: float = 0.5
    dtype: Any = jnp.bfloat16


# Kernel, stride, padding, groups, and whether normalisation and a pool follow.
CONVOLUTIONS = (
    (11, 4, 0, 1, True, True),
    (5, 1, 2, 2, True, True),
    (3, 1, 1, 1, False, False),
    (3, 1, 1, 2, False, False),
    (3, 1, 1, 2, False, True),
)


def init(key: jax.Array, config: AlexNetConfig) -> nn.Params:
    """Returns the parameters, float32."""
    keys = jax.random.split(key, 8)
    convs, inputs = [], 3
    for conv_key, outputs, (kernel, _, _, groups, *_) in zip(keys[:5], config.channels, CONVOLUTIONS, strict=True):
        w = nn.conv_init(conv_key, kernel, kernel, inputs // groups, outputs)
        convs.append({"w": w, "b": jnp.zeros((outputs,))})
        inputs = outputs
    sizes = (_side(config) ** 2 * inputs, config.hidden, config.hidden, config.classes)
    dense = [nn.dense_init(k, i, o, 1.4) for k, i, o in zip(keys[5:], sizes[:-1], sizes[1:], strict=True)]
    return {"convs": convs, "dense": dense}


def _side(config: AlexNetConfig) -> int:
    """Returns the height and width after the last pool."""
    side = config.image
    for kernel, stride, padding, _, _, pool in CONVOLUTIONS:
        side = (side + 2 * padding - kernel) // stride + 1
        side = (side - 3) // 2 + 1 if pool else side
    return side


def local_response_norm(x: jax.Array) -> jax.Array:
    """Divides by the energy of five neighbouring channels of [B, height, width, C]; float32 inside."""
    wide = x.astype(jnp.float32)
    sides = ((0, 0), (0, 0), (0, 0), (2, 2))
    energy = lax.reduce_window(jnp.square(wide), 0.0, lax.add, (1, 1, 1, 5), (1, 1, 1, 1), sides)
    return (wide * (2.0 + 1e-4 * energy) ** -0.75).astype(x.dtype)


def apply(params: nn.Params, images: jax.Array, config: AlexNetConfig, key: jax.Array | None = None) -> jax.Array:
    """Images [B, height, width, 3] to float32 logits [B, classes]; drops features if given a random key."""
    x = images.astype(config.dtype)
    for conv, (_, stride, padding, groups, norm, pool) in zip(params["convs"], CONVOLUTIONS, strict=True):
        x = lax.conv_general_dilated(
            x,
            conv["w"].astype(x.dtype),
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        x = jax.nn.relu(x + conv["b"].astype(x.dtype))
        x = local_response_norm(x) if norm else x
        x = nn.max_pool(x) if pool else x
    x = x.reshape(x.shape[0], -1)
    *hidden, last = params["dense"]
    for index, layer in enumerate(hidden):
        if key is not None:
            kept = jax.random.bernoulli(jax.random.fold_in(key, index), 1 - config.dropout, x.shape)
            x = jnp.where(kept, x / (1 - config.dropout), 0)
        x = jax.nn.relu(nn.dense(layer, x))
    return nn.dense(last, x).astype(jnp.float32)


def train_step(
    params: nn.Params,
    velocity: nn.Params,
    images: jax.Array,
    labels: jax.Array,
    seed: jax.Array,
    config: AlexNetConfig,
    rate: float = 0.01,
) -> tuple[nn.Params, nn.Params, jax.Array]:
    """One step of momentum, `seed` (an int32 scalar) choosing what is dropped; returns `(params, velocity, loss)`."""

    def loss(params: nn.Params) -> jax.Array:
        return nn.cross_entropy(apply(params, images, config, jax.random.key(seed)), labels)

    value, grads = jax.value_and_grad(loss)(params)
    grads = jax.tree.map(lambda g, p: g + 5e-4 * p, grads, params)
    params, velocity = optimizers.momentum(params, velocity, grads, rate)
    return params, velocity, value


TINY = AlexNetConfig(channels=(4, 8, 8, 8, 4), hidden=16, classes=3, batch=4, image=67, dropout=0.25, dtype=jnp.float32)


@workload(
    "AlexNet, one momentum step with dropout on 32 images of 227 × 227, bfloat16 over float32 parameters",
    family="convnet",
    source="Krizhevsky et al. 2012",
    kind="training",
    donate_argnums=(0, 1),
)
def alexnet_train(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(AlexNetConfig(), TINY, tiny, batch)

    def alexnet_train(
        params: nn.Params, velocity: nn.Params, images: jax.Array, labels: jax.Array, seed: jax.Array
    ) -> tuple[nn.Params, nn.Params, jax.Array]:
        return train_step(params, velocity, images, labels, seed, config)

    params = nn.abstract(init, config)
    images = jax.ShapeDtypeStruct((config.batch, config.image, config.image, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((config.batch,), jnp.int32)
    seed = jax.ShapeDtypeStruct((), jnp.int32)
    return alexnet_train, (params, jax.eval_shape(optimizers.momentum_init, params), images, labels, seed)
