"""One Adam step of a vision transformer.

Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929, with the mean of all tokens in place of a class
token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import train_blocks as blocks
from memplan.workloads import transformer as model
from memplan.workloads.registry import workload
from memplan.workloads.train_step import Built, TrainStep, adam_step
from memplan.workloads.train_transformer import block


@dataclass(frozen=True)
class VitConfig:
    """Sizes of the model and of its input.

    Attributes:
      layers: number of blocks.
      width: features of a token.
      heads: attention heads.
      classes: number of labels.
      batch: images at once.
      image: height and width of an image.
      patch: height and width of what becomes a token; it divides `image`.
      dtype: of activations.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    classes: int = 1000
    batch: int = 32
    image: int = 224
    patch: int = 16
    dtype: Any = jnp.bfloat16

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return (self.image // self.patch) ** 2


_CONFIGS = {
    "tiny": VitConfig(layers=2, width=16, heads=2, classes=8, batch=2, image=16, patch=4, dtype=jnp.float32),
    "small": VitConfig(layers=8, width=128, heads=4, classes=100, batch=16, image=64, patch=8, dtype=jnp.float32),
    "real": VitConfig(),
}


def init(key: jax.Array, config: VitConfig) -> nn.Params:
    """Returns the parameters, float32."""
    patch_key, position_key, block_key, head_key = jax.random.split(key, 4)
    layers = model.TransformerConfig(layers=config.layers, width=config.width, vocab=1, length=1)
    return {
        "patch": nn.conv_init(patch_key, config.patch, config.patch, 3, config.width),
        "positions": jax.random.normal(position_key, (config.tokens, config.width)) * 0.01,
        "blocks": model.init(block_key, layers)["blocks"],
        "norm": nn.norm_init(config.width),
        "head": nn.dense_init(head_key, config.width, config.classes),
    }


def loss(config: VitConfig, params: nn.Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of `labels` [B] given images [B, height, width, 3]."""
    x = nn.conv2d(params["patch"], images.astype(config.dtype), config.patch, "VALID")
    x = x.reshape(config.batch, config.tokens, config.width) + params["positions"].astype(config.dtype)
    x = blocks.chain([partial(block, layer, heads=config.heads) for layer in params["blocks"]], x)
    pooled = nn.layer_norm(params["norm"], x).astype(jnp.float32).mean(1)
    return nn.cross_entropy(nn.dense(params["head"], pooled), labels)


def _build(size: str) -> Built:
    config = _CONFIGS[size]
    images = jax.ShapeDtypeStruct((config.batch, config.image, config.image, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((config.batch,), jnp.int32)
    return adam_step(partial(loss, config), nn.abstract(init, config), images, labels)


vit = TrainStep("vit", "vision transformer, Adam", _build)


@workload(
    "ViT-B/16, one Adam step on 32 images of 224 × 224, bfloat16 over float32 parameters",
    family="vision-transformer",
    source="Dosovitskiy et al., arXiv 2010.11929",
    kind="training",
    donate_argnums=(0, 1),
)
def vit_train(tiny: bool = False) -> Built:
    return vit.build("tiny" if tiny else "real")
