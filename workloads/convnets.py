"""Convolutional networks beside ResNet and AlexNet: VGG, MobileNetV2, EfficientNet and ConvNeXt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads._weights import Weights, classified, images, infer, ints, max_pool2, train
from memplan.workloads.registry import Built, workload

VGG = "Simonyan and Zisserman, arXiv 1409.1556"
MOBILENET = "Sandler et al., arXiv 1801.04381"
EFFICIENTNET = "Tan and Le, arXiv 1905.11946"
CONVNEXT = "Liu et al., arXiv 2201.03545"


def vgg(p: Weights, x: jax.Array, stages: Sequence[tuple[int, int]], hidden: int, classes: int) -> jax.Array:
    """Images [B, height, width, 3] to float32 logits [B, classes]; a stage is a number of layers and their width."""
    for stage, (count, width) in enumerate(stages):
        for layer in range(count):
            bias = p(f"bias{stage}_{layer}", width).astype(x.dtype)
            x = jax.nn.relu(p.conv(f"conv{stage}_{layer}", x, width) + bias)
        x = max_pool2(x)
    return p.mlp("head", x.reshape(x.shape[0], -1), hidden, hidden, classes, act=jax.nn.relu).astype(jnp.float32)


VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


@workload("VGG-16 on 8 images of 224 × 224, bfloat16", family="convnet", source=VGG)
def vgg16_infer(tiny: bool = False, batch: int = 8) -> Built:
    sizes = (((1, 4), (1, 8)), 16, 10) if tiny else (VGG16, 4096, 1000)
    return infer(partial(_vgg, sizes), images(batch, 8 if tiny else 224))


@workload(
    "VGG-16, one SGD step on 32 images of 224 × 224, mixed precision",
    family="convnet",
    source=VGG,
    kind="training",
    donate_argnums=(0,),
)
def vgg16_train(tiny: bool = False, batch: int = 32) -> Built:
    sizes = (((1, 4), (1, 8)), 16, 10) if tiny else (VGG16, 4096, 1000)
    return train(classified(partial(_vgg, sizes)), images(batch, 8 if tiny else 224), ints(batch), optimizer="sgd")


def _vgg(sizes: tuple[Sequence[tuple[int, int]], int, int], p: Weights, x: jax.Array) -> jax.Array:
    return vgg(p, x, *sizes)


# Expansion, channels, blocks, stride and kernel of each stage.
Stages = Sequence[tuple[int, int, int, int, int]]
MOBILENET_V2: Stages = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)  # fmt: skip
EFFICIENTNET_B0: Stages = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
TINY_STAGES: Stages = ((1, 4, 1, 1, 3), (2, 6, 2, 2, 3))


def inverted_residual(
    p: Weights, x: jax.Array, width: int, expansion: int, kernel: int, stride: int, efficient: bool
) -> jax.Array:
    """Widens, convolves each channel, and narrows [B, height, width, C]; `efficient` adds gates, with SiLU."""
    act = jax.nn.silu if efficient else jax.nn.relu6
    skip, inputs = x, x.shape[-1]
    if expansion > 1:
        x = act(p.batch_norm("norm1", p.conv("widen", x, inputs * expansion, 1)))
    inner = x.shape[-1]
    x = act(p.batch_norm("norm2", p.conv("each", x, inner, kernel, stride, groups=inner)))
    if efficient:
        squeezed = p.mlp("gate", x.mean((1, 2)), max(1, inputs // 4), inner, act=jax.nn.silu)
        x = x * jax.nn.sigmoid(squeezed)[:, None, None]
    x = p.batch_norm("norm3", p.conv("narrow", x, width, 1))
    return x + skip if stride == 1 and inputs == width else x


def mobile(p: Weights, x: jax.Array, stages: Stages, stem: int, head: int, classes: int, efficient: bool) -> jax.Array:
    """Images [B, height, width, 3] to float32 logits [B, classes]."""
    act = jax.nn.silu if efficient else jax.nn.relu6
    x = act(p.batch_norm("stem_norm", p.conv("stem", x, stem, stride=2)))
    for stage, (expansion, width, count, stride, kernel) in enumerate(stages):
        for block in range(count):
            part = p / f"stage{stage}_{block}"
            x = inverted_residual(part, x, width, expansion, kernel, 1 if block else stride, efficient)
    x = act(p.batch_norm("head_norm", p.conv("head", x, head, 1)))
    return p.dense("classes", x.astype(jnp.float32).mean((1, 2)), classes)


def _mobile(efficient: bool, tiny: bool, p: Weights, x: jax.Array) -> jax.Array:
    if tiny:
        return mobile(p, x, TINY_STAGES, 4, 16, 10, efficient)
    return mobile(p, x, EFFICIENTNET_B0 if efficient else MOBILENET_V2, 32, 1280, 1000, efficient)


def mobilenet_v2(tiny: bool, p: Weights, x: jax.Array) -> jax.Array:
    """Images [B, height, width, 3] to float32 logits [B, classes]; MobileNetV2 unless `tiny`."""
    return _mobile(False, tiny, p, x)


@workload("MobileNetV2 on 32 images of 224 × 224, bfloat16", family="convnet", source=MOBILENET)
def mobilenet_v2_infer(tiny: bool = False, batch: int = 32) -> Built:
    return infer(partial(mobilenet_v2, tiny), images(batch, 16 if tiny else 224))


@workload(
    "MobileNetV2, one Adam step on 64 images of 224 × 224, mixed precision",
    family="convnet",
    source=MOBILENET,
    kind="training",
    donate_argnums=(0, 1),
)
def mobilenet_v2_train(tiny: bool = False, batch: int = 64) -> Built:
    return train(classified(partial(mobilenet_v2, tiny)), images(batch, 16 if tiny else 224), ints(batch))


@workload("EfficientNet-B0 on 32 images of 224 × 224, bfloat16", family="convnet", source=EFFICIENTNET)
def efficientnet_b0_infer(tiny: bool = False, batch: int = 32) -> Built:
    return infer(partial(_mobile, True, tiny), images(batch, 16 if tiny else 224))


@workload(
    "EfficientNet-B0, one SGD step on 32 images of 224 × 224, mixed precision",
    family="convnet",
    source=EFFICIENTNET,
    kind="training",
    donate_argnums=(0,),
)
def efficientnet_b0_train(tiny: bool = False, batch: int = 32) -> Built:
    loss = classified(partial(_mobile, True, tiny))
    return train(loss, images(batch, 16 if tiny else 224), ints(batch), optimizer="sgd")


def convnext(p: Weights, x: jax.Array, depths: Sequence[int], widths: Sequence[int], classes: int) -> jax.Array:
    """Images [B, height, width, 3] to float32 logits [B, classes]."""
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        patch = 2 if stage else 4
        x = p.layer_norm(f"norm{stage}", x) if stage else x
        x = p.conv(f"patch{stage}", x, width, patch, patch, padding="VALID")

        def block(p: Weights, x: jax.Array) -> jax.Array:
            channels = x.shape[-1]
            y = p.layer_norm("norm", p.conv("each", x, channels, 7, groups=channels))
            return x + p.mlp("mlp", y, 4 * channels, channels) * p("scale", channels).astype(x.dtype)

        x = p.layers(f"stage{stage}", block, x, depth)
    pooled = x.astype(jnp.float32).mean((1, 2))
    return p.dense("classes", p.layer_norm("last", pooled), classes)


def _convnext(tiny: bool, p: Weights, x: jax.Array) -> jax.Array:
    if tiny:
        return convnext(p, x, (1, 1), (4, 8), 10)
    return convnext(p, x, (3, 3, 9, 3), (96, 192, 384, 768), 1000)


@workload("ConvNeXt-T on 16 images of 224 × 224, bfloat16", family="convnet", source=CONVNEXT)
def convnext_tiny_infer(tiny: bool = False, batch: int = 16) -> Built:
    return infer(partial(_convnext, tiny), images(batch, 16 if tiny else 224))


@workload(
    "ConvNeXt-T, one Adam step on 32 images of 224 × 224, mixed precision",
    family="convnet",
    source=CONVNEXT,
    kind="training",
    donate_argnums=(0, 1),
)
def convnext_tiny_train(tiny: bool = False, batch: int = 32) -> Built:
    return train(classified(partial(_convnext, tiny)), images(batch, 16 if tiny else 224), ints(batch))
