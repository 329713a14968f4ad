"""ResNet-50: bottleneck blocks of convolutions with batch normalisation.

He et al., "Deep residual learning for image recognition", arXiv 1512.03385, with the stride in the 3 × 3 convolution
(v1.5); batch normalisation from Ioffe and Szegedy, arXiv 1502.03167. Inference uses the running statistics. Training
uses those of the batch, moves the running ones, and takes one step of gradient descent with momentum and weight decay.
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
class ResNetConfig:
    """Sizes of the model and of its input.

    Attributes:
      stages: number of blocks of each stage; a stage has twice the channels of the one before.
      width: channels after the first convolution; a block's output is four times its stage's width.
      classes: number of labels.
      batch: images at once.
      image: height and width of an image.
      dtype: of activations.
    """

    stages: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    classes: int = 1000
    batch: int = 8
    image: int = 224
    dtype: Any = jnp.bfloat16


def init(key: jax.Array, config: ResNetConfig) -> tuple[nn.Params, nn.Params]:
    """Returns the parameters and the running statistics, float32, as two trees."""
    stem_key, head_key, *keys = jax.random.split(key, 2 + sum(config.stages))
    params: nn.Params = {"stem": nn.conv_init(stem_key, 7, 7, 3, config.width), "norm": nn.norm_init(config.width)}
    stats: nn.Params = {"norm": _stats_init(config.width)}
    blocks: list[nn.Params] = []
    block_stats: list[nn.Params] = []
    channels = config.width
    for stage, count in enumerate(config.stages):
        width = config.width << stage
        for index in range(count):
            block, of_block = _block_init(keys[len(blocks)], channels, width, project=index == 0)
            blocks.append(block)
            block_stats.append(of_block)
            channels = 4 * width
    params |= {"blocks": blocks, "head": nn.dense_init(head_key, channels, config.classes)}
    return params, stats | {"blocks": block_stats}


def _stats_init(channels: int) -> nn.Params:
    return {"mean": jnp.zeros((channels,)), "variance": jnp.ones((channels,))}


def _block_init(key: jax.Array, channels: int, width: int, project: bool) -> tuple[nn.Params, nn.Params]:
    keys = jax.random.split(key, 4)
    shapes = {"1": (1, 1, channels, width), "2": (3, 3, width, width), "3": (1, 1, width, 4 * width)}
    if project:
        shapes["skip"] = (1, 1, channels, 4 * width)
    params: nn.Params = {}
    stats: nn.Params = {}
    for conv_key, (name, shape) in zip(keys, shapes.items(), strict=False):
        params[f"conv{name}"] = nn.conv_init(conv_key, *shape)
        params[f"norm{name}"] = nn.norm_init(shape[-1])
        stats[f"norm{name}"] = _stats_init(shape[-1])
    return params, stats


def batch_norm(params: nn.Params, stats: nn.Params, x: jax.Array, train: bool) -> tuple[jax.Array, nn.Params]:
    """Normalises each channel of [B, height, width, C]; returns the result and the moved statistics."""
    if train:
        wide = x.astype(jnp.float32)
        mean = wide.mean((0, 1, 2))
        variance = jnp.square(wide).mean((0, 1, 2)) - jnp.square(mean)
        stats = {
            "mean": 0.9 * stats["mean"] + 0.1 * lax.stop_gradient(mean),
            "variance": 0.9 * stats["variance"] + 0.1 * lax.stop_gradient(variance),
        }
    else:
        mean, variance = stats["mean"], stats["variance"]
    scale = lax.rsqrt(variance + 1e-5) * params["scale"]
    return x * scale.astype(x.dtype) + (params["bias"] - mean * scale).astype(x.dtype), stats


def block(params: nn.Params, stats: nn.Params, x: jax.Array, stride: int, train: bool) -> tuple[jax.Array, nn.Params]:
    """A bottleneck block: [B, height, width, C] to [B, height ÷ stride, width ÷ stride, 4 × width]."""
    moved: nn.Params = {}

    def conv(name: str, x: jax.Array, stride: int = 1) -> jax.Array:
        y = nn.conv2d(params[f"conv{name}"], x, stride)
        y, moved[f"norm{name}"] = batch_norm(params[f"norm{name}"], stats[f"norm{name}"], y, train)
        return y

    skip = conv("skip", x, stride) if "convskip" in params else x
    y = jax.nn.relu(conv("1", x))
    y = jax.nn.relu(conv("2", y, stride))
    return jax.nn.relu(conv("3", y) + skip), moved


def apply(
    params: nn.Params, stats: nn.Params, images: jax.Array, config: ResNetConfig, train: bool
) -> tuple[jax.Array, nn.Params]:
    """Images [B, height, width, 3] to float32 logits [B, classes] and the moved statistics."""
    x = nn.conv2d(params["stem"], images.astype(config.dtype), 2, [(3, 3), (3, 3)])
    x, stem_stats = batch_norm(params["norm"], stats["norm"], x, train)
    x = nn.max_pool(jax.nn.relu(x), padding=1)
    strides = [1 if stage == 0 or index else 2 for stage, count in enumerate(config.stages) for index in range(count)]
    moved = []
    for block_params, block_stats, stride in zip(params["blocks"], stats["blocks"], strides, strict=True):
        x, of_block = block(block_params, block_stats, x, stride, train)
        moved.append(of_block)
    logits = nn.dense(params["head"], x.astype(jnp.float32).mean((1, 2)))
    return logits, {"norm": stem_stats, "blocks": moved}


def loss(
    params: nn.Params, stats: nn.Params, images: jax.Array, labels: jax.Array, config: ResNetConfig
) -> tuple[jax.Array, nn.Params]:
    """Returns the mean cross-entropy, a float32 scalar, and the moved statistics."""
    logits, stats = apply(params, stats, images, config, train=True)
    return nn.cross_entropy(logits, labels), stats


def train_step(
    params: nn.Params,
    stats: nn.Params,
    velocity: nn.Params,
    images: jax.Array,
    labels: jax.Array,
    config: ResNetConfig,
    rate: float = 0.1,
) -> tuple[nn.Params, nn.Params, nn.Params, jax.Array]:
    """One step of momentum; returns `(params, stats, velocity, loss)`."""
    (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats, images, labels, config)
    grads = jax.tree.map(lambda g, p: g + 1e-4 * p, grads, params)
    params, velocity = optimizers.momentum(params, velocity, grads, rate)
    return params, stats, velocity, value


TINY = ResNetConfig(stages=(1, 2), width=4, classes=5, batch=4, image=32, dtype=jnp.float32)


@workload(
    "ResNet-50 on 8 images of 224 × 224, bfloat16",
    family="convnet",
    source="He et al., arXiv 1512.03385",
)
def resnet50_infer(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(ResNetConfig(), TINY, tiny, batch)

    def resnet50_infer(params: nn.Params, stats: nn.Params, images: jax.Array) -> jax.Array:
        return apply(params, stats, images, config, train=False)[0]

    params, stats = nn.abstract(init, config)
    images = jax.ShapeDtypeStruct((config.batch, config.image, config.image, 3), config.dtype)
    return resnet50_infer, (jax.eval_shape(lambda p: nn.cast(p, config.dtype), params), stats, images)


@workload(
    "ResNet-50, one momentum step on 16 images of 224 × 224, bfloat16 over float32 parameters",
    family="convnet",
    source="He et al., arXiv 1512.03385",
    kind="training",
    donate_argnums=(0, 1, 2),
)
def resnet50_train(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(ResNetConfig(batch=16), TINY, tiny, batch)

    def resnet50_train(
        params: nn.Params, stats: nn.Params, velocity: nn.Params, images: jax.Array, labels: jax.Array
    ) -> tuple[nn.Params, nn.Params, nn.Params, jax.Array]:
        return train_step(params, stats, velocity, images, labels, config)

    params, stats = nn.abstract(init, config)
    velocity = jax.eval_shape(optimizers.momentum_init, params)
    images = jax.ShapeDtypeStruct((config.batch, config.image, config.image, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((config.batch,), jnp.int32)
    return resnet50_train, (params, stats, velocity, images, labels)
