"""MLP-Mixer: dense layers over patches and over channels in turn.

Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision", arXiv 2105.01601; the sizes of Mixer-B/16. The
transpositions between the two mixings make copies that a compiler cannot avoid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads.registry import Built, sized, workload


@dataclass(frozen=True)
class MixerConfig:
    """Sizes of the model and of its input.

    Attributes:
      layers: number of blocks.
      width: features of a patch.
      patch_hidden: hidden features of the mixing over patches.
      hidden: hidden features of the mixing over channels.
      patch: height and width of a patch.
      classes: number of labels.
      batch: images at once.
      image: height and width of an image; a multiple of `patch`.
      dtype: of activations.
    """

    layers: int = 12
    width: int = 768
    patch_hidden: int = 384
    hidden: int = 3072
    patch: int = 16
    classes: int = 1000
    batch: int = 16
    image: int = 224
    dtype: Any = jnp.bfloat16

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image // self.patch) ** 2


def init(key: jax.Array, config: MixerConfig) -> nn.Params:
    """Returns the parameters, float32."""
    stem_key, head_key, *layer_keys = jax.random.split(key, 2 + config.layers)
    return {
        "stem": nn.conv_init(stem_key, config.patch, config.patch, 3, config.width),
        "blocks": [_block_init(k, config) for k in layer_keys],
        "norm": nn.norm_init(config.width),
        "head": nn.dense_init(head_key, config.width, config.classes),
    }


def _block_init(key: jax.Array, config: MixerConfig) -> nn.Params:
    patch_key, channel_key = jax.random.split(key)
    return {
        "norm1": nn.norm_init(config.width),
        "patches": nn.mlp_init(patch_key, config.patches, config.patch_hidden),
        "norm2": nn.norm_init(config.width),
        "channels": nn.mlp_init(channel_key, config.width, config.hidden),
    }


def apply(params: nn.Params, images: jax.Array, config: MixerConfig) -> jax.Array:
    """Images [B, height, width, 3] to float32 logits [B, classes]."""
    x = nn.conv2d(params["stem"], images.astype(config.dtype), config.patch, "VALID")
    x = x.reshape(x.shape[0], -1, config.width)
    for block in params["blocks"]:
        x = x + nn.mlp(block["patches"], nn.layer_norm(block["norm1"], x).swapaxes(1, 2)).swapaxes(1, 2)
        x = x + nn.mlp(block["channels"], nn.layer_norm(block["norm2"], x))
    return nn.dense(params["head"], nn.layer_norm(params["norm"], x).astype(jnp.float32).mean(1))


TINY = MixerConfig(layers=1, width=6, patch_hidden=5, hidden=7, patch=4, classes=3, batch=2, image=8, dtype=jnp.float32)


@workload(
    "Mixer-B/16, 12 blocks of 768, on 16 images of 224 × 224, bfloat16",
    family="mixer",
    source="Tolstikhin et al., arXiv 2105.01601",
)
def mlp_mixer(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(MixerConfig(), TINY, tiny, batch)

    def mlp_mixer(params: nn.Params, images: jax.Array) -> jax.Array:
        return apply(params, images, config)

    images = jax.ShapeDtypeStruct((config.batch, config.image, config.image, 3), config.dtype)
    return mlp_mixer, (nn.abstract(init, config, dtype=config.dtype), images)
