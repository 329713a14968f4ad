"""A U-Net that removes noise, and one step of sampling with it.

Ho et al., "Denoising diffusion probabilistic models", arXiv 2006.11239: residual blocks with group normalisation, told
the time step; attention at low resolution; every block on the way down leaves its output for one on the way up. The
step is the deterministic one of Song et al., arXiv 2010.02502.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads.registry import Built, sized, workload


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the model and of its input.

    Attributes:
      width: channels at full resolution.
      factors: multiple of `width` at each level; a level has half the resolution of the one before.
      blocks: residual blocks of a level on the way down; there is one more on the way up.
      attended: resolutions with attention.
      groups: of the normalisation.
      heads: attention heads.
      batch: images at once.
      image: height and width of an image.
      dtype: of activations.
    """

    width: int = 128
    factors: tuple[int, ...] = (1, 2, 2, 4)
    blocks: int = 2
    attended: tuple[int, ...] = (16,)
    groups: int = 32
    heads: int = 4
    batch: int = 4
    image: int = 64
    dtype: Any = jnp.bfloat16


def init(key: jax.Array, config: UNetConfig) -> nn.Params:
    """Returns the parameters, float32."""
    keys = iter(jax.random.split(key, 16 * len(config.factors) * (config.blocks + 2)))
    time = 4 * config.width
    channels = config.width
    left = [channels]  # channels of each output that the way up takes, in the order of the way down
    down, up = [], []
    for level, factor in enumerate(config.factors):
        units = []
        for _ in range(config.blocks):
            units.append(_unit_init(next(keys), channels, factor * config.width, time, level, config))
            channels = factor * config.width
            left.append(channels)
        shrink = None
        if level + 1 < len(config.factors):
            shrink = nn.conv_init(next(keys), 3, 3, channels, channels)
            left.append(channels)
        down.append({"units": units, "shrink": shrink})
    middle = [_unit_init(next(keys), channels, channels, time, None, config) for _ in range(2)]
    for level, factor in reversed(list(enumerate(config.factors))):
        units = []
        for _ in range(config.blocks + 1):
            units.append(_unit_init(next(keys), channels + left.pop(), factor * config.width, time, level, config))
            channels = factor * config.width
        grow = nn.conv_init(next(keys), 3, 3, channels, channels) if level else None
        up.append({"units": units, "grow": grow})
    return {
        "time": nn.mlp_init(next(keys), config.width, time) | {"down": nn.dense_init(next(keys), time, time)},
        "first": nn.conv_init(next(keys), 3, 3, 3, config.width),
        "down": down,
        "middle": middle,
        "up": up,
        "norm": nn.norm_init(channels),
        "last": nn.conv_init(next(keys), 3, 3, channels, 3) * 0.1,
    }


def _unit_init(
    key: jax.Array, inputs: int, outputs: int, time: int, level: int | None, config: UNetConfig
) -> nn.Params:
    """Parameters of a residual block and of the attention that follows it, if any (always where `level` is None)."""
    keys = jax.random.split(key, 6)
    params: nn.Params = {
        "norm1": nn.norm_init(inputs),
        "conv1": nn.conv_init(keys[0], 3, 3, inputs, outputs),
        "time": nn.dense_init(keys[1], time, outputs),
        "norm2": nn.norm_init(outputs),
        "conv2": nn.conv_init(keys[2], 3, 3, outputs, outputs) * 0.1,
    }
    if inputs != outputs:
        params["skip"] = nn.conv_init(keys[3], 1, 1, inputs, outputs)
    if level is None or config.image >> level in config.attended:
        params["attention"] = {
            "norm": nn.norm_init(outputs),
            "qkv": nn.dense_init(keys[4], outputs, 3 * outputs),
            "out": nn.dense_init(keys[5], outputs, outputs, 0.1),
        }
    return params


def time_features(params: nn.Params, time: jax.Array, width: int, dtype: Any) -> jax.Array:
    """Time steps [B] to sines and cosines, through two dense layers: [B, 4 × width]."""
    rates = jnp.exp(-jnp.log(10_000.0) * jnp.arange(width // 2) / (width // 2))
    angles = time.astype(jnp.float32)[:, None] * rates
    x = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(dtype)
    return nn.dense(params["down"], jax.nn.silu(nn.dense(params["up"], x)))


def unit(params: nn.Params, x: jax.Array, time: jax.Array, config: UNetConfig) -> jax.Array:
    """A residual block and its attention: [B, height, width, C_in] to [B, height, width, C_out]."""
    y = nn.conv2d(params["conv1"], jax.nn.silu(nn.group_norm(params["norm1"], x, config.groups)))
    y = y + nn.dense(params["time"], jax.nn.silu(time))[:, None, None, :]
    y = nn.conv2d(params["conv2"], jax.nn.silu(nn.group_norm(params["norm2"], y, config.groups)))
    x = y + (nn.conv2d(params["skip"], x) if "skip" in params else x)
    if "attention" not in params:
        return x
    attention = params["attention"]
    batch, height, width, channels = x.shape
    pixels = nn.group_norm(attention["norm"], x, config.groups).reshape(batch, height * width, channels)
    q, k, v = (nn.split_heads(part, config.heads) for part in jnp.split(nn.dense(attention["qkv"], pixels), 3, axis=-1))
    attended = nn.dense(attention["out"], nn.merge_heads(nn.attention(q, k, v)))
    return x + attended.reshape(x.shape)


def apply(params: nn.Params, images: jax.Array, time: jax.Array, config: UNetConfig) -> jax.Array:
    """Predicts the noise in images [B, height, width, 3] at time steps [B]; float32, like the images."""
    embedded = time_features(params["time"], time, config.width, config.dtype)
    x = nn.conv2d(params["first"], images.astype(config.dtype))
    left = [x]
    for level in params["down"]:
        for block in level["units"]:
            x = unit(block, x, embedded, config)
            left.append(x)
        if level["shrink"] is not None:
            x = nn.conv2d(level["shrink"], x, stride=2)
            left.append(x)
    for block in params["middle"]:
        x = unit(block, x, embedded, config)
    for level in params["up"]:
        for block in level["units"]:
            x = unit(block, jnp.concatenate([x, left.pop()], axis=-1), embedded, config)
        if level["grow"] is not None:
            x = nn.conv2d(level["grow"], x.repeat(2, axis=1).repeat(2, axis=2))
    x = jax.nn.silu(nn.group_norm(params["norm"], x, config.groups))
    return nn.conv2d(params["last"], x).astype(jnp.float32)


def signal_share(time: jax.Array) -> jax.Array:
    """The share of the signal's variance left at time step `time` of 1000, by the cosine schedule of 2102.09672."""
    return jnp.square(jnp.cos((time.astype(jnp.float32) / 1000 + 0.008) / 1.008 * jnp.pi / 2))


def sample_step(
    params: nn.Params, images: jax.Array, time: jax.Array, next_time: jax.Array, config: UNetConfig
) -> jax.Array:
    """Moves noisy images [B, height, width, 3] from time steps [B] to the less noisy `next_time` [B]."""
    noise = apply(params, images, time, config)
    share, next_share = (signal_share(t)[:, None, None, None] for t in (time, next_time))
    clean = jnp.clip((images - jnp.sqrt(1 - share) * noise) / jnp.sqrt(share), -1, 1)
    return jnp.sqrt(next_share) * clean + jnp.sqrt(1 - next_share) * noise


TINY = UNetConfig(
    width=8, factors=(1, 2), blocks=1, attended=(8,), groups=4, heads=2, batch=2, image=16, dtype=jnp.float32
)


@workload(
    "diffusion U-Net, 128 to 512 channels, one sampling step on 4 images of 64 × 64, images donated, bfloat16",
    family="diffusion",
    source="Ho et al., arXiv 2006.11239",
    donate_argnums=(1,),
)
def unet(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(UNetConfig(), TINY, tiny, batch)

    def unet(params: nn.Params, images: jax.Array, time: jax.Array, next_time: jax.Array) -> jax.Array:
        return sample_step(params, images, time, next_time, config)

    images = jax.ShapeDtypeStruct((config.batch, config.image, config.image, 3), jnp.float32)
    time = jax.ShapeDtypeStruct((config.batch,), jnp.int32)
    return unet, (nn.abstract(init, config, dtype=config.dtype), images, time, time)
