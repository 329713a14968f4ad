"""Transformers over images: ViT and Swin.

Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929; Liu et al., "Swin transformer", arXiv 2103.14030:
attention within windows, which every other layer shifts by half their side, and patches that merge between stages.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memplan.workloads import _layers as nn
from memplan.workloads._weights import Weights, classified, images, infer, ints, train
from memplan.workloads.registry import Built, workload

VIT = "Dosovitskiy et al., arXiv 2010.11929"
SWIN = "Liu et al., arXiv 2103.14030"


def vit(tiny: bool, scanned: bool, p: Weights, x: jax.Array) -> jax.Array:
    """Images [B, height, width, 3] to float32 logits [B, classes]; ViT-B/16 with a mean of tokens unless `tiny`."""
    layers, width, heads, patch, classes = (2, 16, 2, 4, 10) if tiny else (12, 768, 12, 16, 1000)
    x = p.conv("patch", x, width, patch, patch, padding="VALID").reshape(x.shape[0], -1, width)
    x = x + p("positions", x.shape[1], width).astype(x.dtype)
    x = p.layers("block", lambda p, x: p.transformer(x, heads, 4 * width), x, layers, scanned)
    return p.dense("classes", p.layer_norm("norm", x).astype(jnp.float32).mean(1), classes)


@workload("ViT-B/16 on 16 images of 224 × 224, bfloat16", family="vision-transformer", source=VIT)
def vit_b16_infer(tiny: bool = False, batch: int = 16) -> Built:
    return infer(partial(vit, tiny, False), images(batch, 8 if tiny else 224))


@workload(
    "ViT-B/16, its layers in a loop, on 16 images of 224 × 224, bfloat16", family="vision-transformer", source=VIT
)
def vit_b16_scan_infer(tiny: bool = False, batch: int = 16) -> Built:
    return infer(partial(vit, tiny, True), images(batch, 8 if tiny else 224))


@workload(
    "ViT-B/16, its layers in a loop, one SGD step on 32 images of 224 × 224, mixed precision",
    family="vision-transformer",
    source=VIT,
    kind="training",
    donate_argnums=(0,),
)
def vit_b16_scan_train(tiny: bool = False, batch: int = 32) -> Built:
    return train(classified(partial(vit, tiny, True)), images(batch, 8 if tiny else 224), ints(batch), optimizer="sgd")


def windows(x: jax.Array, side: int) -> jax.Array:
    """[B, height, width, C] to its windows [B × number of windows, side × side, C]."""
    b, h, w, c = x.shape
    return x.reshape(b, h // side, side, w // side, side, c).swapaxes(2, 3).reshape(-1, side * side, c)


def from_windows(x: jax.Array, side: int, shape: tuple[int, ...]) -> jax.Array:
    """Undoes `windows` of an array of this shape."""
    b, h, w, c = shape
    return x.reshape(b, h // side, w // side, side, side, c).swapaxes(2, 3).reshape(shape)


def shift_mask(height: int, width: int, side: int) -> np.ndarray[Any, Any]:
    """Which tokens of a shifted window were neighbours before the shift: bool [number of windows, side², side²]."""
    regions = np.zeros((height, width), int)
    for start in (height - side, height - side // 2):
        regions[start:] += 3
    for start in (width - side, width - side // 2):
        regions[:, start:] += 1
    cut = regions.reshape(height // side, side, width // side, side).swapaxes(1, 2).reshape(-1, side * side)
    return cut[:, :, None] == cut[:, None, :]


def window_attention(p: Weights, x: jax.Array, heads: int, side: int, shift: int) -> jax.Array:
    """Attention within windows of [B, height, width, C], cut after a roll by `shift`."""
    b, h, w, c = x.shape
    cut = windows(jnp.roll(x, (-shift, -shift), (1, 2)), side)
    q, k, v = (nn.split_heads(part, heads) for part in jnp.split(p.dense("qkv", cut, 3 * c), 3, axis=-1))
    places = np.arange(side)
    apart = places[:, None] - places[None] + side - 1
    pair = (apart[:, None, :, None] * (2 * side - 1) + apart[None, :, None, :]).reshape(side**2, side**2)
    bias = p("bias_table", (2 * side - 1) ** 2, heads)[pair].transpose(2, 0, 1).astype(jnp.float32)
    logits = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=jnp.float32) * (c // heads) ** -0.5 + bias
    if shift:
        seen = jnp.asarray(shift_mask(h, w, side))[:, None]
        logits = jnp.where(seen, logits.reshape(b, -1, *logits.shape[1:]), -1e30).reshape(logits.shape)
    weights = jax.nn.softmax(logits).astype(x.dtype)
    y = p.dense("out", nn.merge_heads(jnp.einsum("bhts,bshd->bthd", weights, v)), c)
    return jnp.roll(from_windows(y, side, x.shape), (shift, shift), (1, 2))


def swin(tiny: bool, p: Weights, x: jax.Array) -> jax.Array:
    """Images [B, height, width, 3] to float32 logits [B, classes]; Swin-T unless `tiny`."""
    depths, width, side, classes = ((2, 2), 8, 2, 10) if tiny else ((2, 2, 6, 2), 96, 7, 1000)
    x = p.layer_norm("patch_norm", p.conv("patch", x, width, 4, 4, padding="VALID"))
    for stage, depth in enumerate(depths):
        if stage:
            b, h, w, c = x.shape
            x = x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(b, h // 2, w // 2, 4 * c)
            x = p.dense(f"merge{stage}", p.layer_norm(f"merge_norm{stage}", x), 2 * c, bias=False)
        heads = x.shape[-1] // (4 if tiny else 32)
        for layer in range(depth):
            part, shift = p / f"stage{stage}_{layer}", side // 2 if layer % 2 and x.shape[1] > side else 0
            x = x + window_attention(part / "attention", part.layer_norm("norm1", x), heads, side, shift)
            x = x + part.mlp("mlp", part.layer_norm("norm2", x), 4 * x.shape[-1], x.shape[-1])
    return p.dense("classes", p.layer_norm("norm", x).astype(jnp.float32).mean((1, 2)), classes)


@workload("Swin-T on 16 images of 224 × 224, bfloat16", family="vision-transformer", source=SWIN)
def swin_tiny_infer(tiny: bool = False, batch: int = 16) -> Built:
    return infer(partial(swin, tiny), images(batch, 32 if tiny else 224))


@workload(
    "Swin-T, one Adam step on 16 images of 224 × 224, mixed precision",
    family="vision-transformer",
    source=SWIN,
    kind="training",
    donate_argnums=(0, 1),
)
def swin_tiny_train(tiny: bool = False, batch: int = 16) -> Built:
    return train(classified(partial(swin, tiny)), images(batch, 32 if tiny else 224), ints(batch))
