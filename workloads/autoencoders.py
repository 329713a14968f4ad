"""Diffusion in a latent space: the autoencoder, and a transformer that removes noise.

Kingma and Welling, "Auto-encoding variational Bayes", arXiv 1312.6114; Rombach et al., "Latent diffusion", arXiv
2112.10752, whose autoencoder shrinks images eightfold; Peebles and Xie, "DiT", arXiv 2212.09748.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads._weights import Weights, images, infer, ints, train, upsample2
from memplan.workloads.registry import Built, workload

VAE = "Rombach et al., arXiv 2112.10752"
DIT = "Peebles and Xie, arXiv 2212.09748"


def residual(p: Weights, x: jax.Array, width: int, groups: int) -> jax.Array:
    """Two convolutions after group norms, beside [B, height, width, C]."""
    y = p.conv("conv1", jax.nn.silu(p.group_norm("norm1", x, groups)), width)
    y = p.conv("conv2", jax.nn.silu(p.group_norm("norm2", y, groups)), width)
    return y + (x if x.shape[-1] == width else p.conv("skip", x, width, 1))


def encode(tiny: bool, p: Weights, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Images [B, height, width, 3] to the means and log-variances of latents [B, height ÷ 8, width ÷ 8, 4]."""
    widths, groups = ((4, 8), 2) if tiny else ((128, 256, 512, 512), 32)
    x = p.conv("first", x, widths[0])
    for level, width in enumerate(widths):
        x = residual(p / f"block{level}", x, width, groups)
        x = p.conv(f"shrink{level}", x, width, stride=2) if level + 1 < len(widths) else x
    moments = p.conv("last", jax.nn.silu(p.group_norm("norm", x, groups)), 8).astype(jnp.float32)
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    return mean, jnp.clip(log_variance, -30, 20)


def decode(tiny: bool, p: Weights, x: jax.Array) -> jax.Array:
    """Latents [B, height, width, 4] to images eight times as large, [B, 8 × height, 8 × width, 3]."""
    widths, groups = ((8, 4), 2) if tiny else ((512, 512, 256, 128), 32)
    x = p.conv("first", x, widths[0])
    for level, width in enumerate(widths):
        x = residual(p / f"block{level}", x, width, groups)
        x = p.conv(f"grow{level}", upsample2(x), width) if level + 1 < len(widths) else x
    return p.conv("last", jax.nn.silu(p.group_norm("norm", x, groups)), 3)


def vae_loss(tiny: bool, p: Weights, x: jax.Array, seed: jax.Array) -> jax.Array:
    """Squared error of a decoded sample, and a millionth of its latents' divergence from a normal distribution."""
    mean, log_variance = encode(tiny, p / "encoder", x)
    z = mean + jnp.exp(log_variance / 2) * jax.random.normal(jax.random.key(seed), mean.shape)
    error = decode(tiny, p / "decoder", z.astype(x.dtype)).astype(jnp.float32) - x
    divergence = (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).sum((1, 2, 3)) / 2
    return jnp.square(error).mean() + 1e-6 * divergence.mean()


@workload(
    "autoencoder of latent diffusion, decodes a latent to 512 × 512 pixels, bfloat16", family="diffusion", source=VAE
)
def vae_decode(tiny: bool = False, batch: int = 1) -> Built:
    return infer(partial(decode, tiny), images(batch, 4 if tiny else 64, 4))


@workload(
    "autoencoder of latent diffusion, one Adam step on 2 images of 256 × 256, mixed precision",
    family="diffusion",
    source=VAE,
    kind="training",
    donate_argnums=(0, 1),
)
def vae_train(tiny: bool = False, batch: int = 2) -> Built:
    return train(partial(vae_loss, tiny), images(batch, 8 if tiny else 256), ints())


def dit(tiny: bool, p: Weights, x: jax.Array, time: jax.Array, label: jax.Array) -> jax.Array:
    """Noisy latents [B, side, side, 4] at times [B], of classes [B], to their noise; DiT-B/2 unless `tiny`."""
    layers, width, heads = (2, 16, 2) if tiny else (12, 768, 12)
    b, side, _, channels = x.shape
    tokens = p.conv("patch", x, width, 2, 2, padding="VALID").reshape(b, -1, width)
    tokens = tokens + p("positions", tokens.shape[1], width).astype(x.dtype)
    rates = jnp.exp(-jnp.log(10_000.0) * jnp.arange(128) / 128)
    angles = time.astype(jnp.float32)[:, None] * rates
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(x.dtype)
    told = p.mlp("time", waves, width, width, act=jax.nn.silu) + p.embed("label", label, 1001, width, x.dtype)

    def modulated(p: Weights, name: str, y: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
        return p.layer_norm(name, y) * (1 + scale[:, None]) + shift[:, None]

    def block(p: Weights, y: jax.Array) -> jax.Array:
        a, b, c, d, e, f = jnp.split(p.dense("modulate", jax.nn.silu(told), 6 * width), 6, axis=-1)
        y = y + c[:, None] * p.attention("attention", modulated(p, "norm1", y, a, b), heads)
        return y + f[:, None] * p.mlp("mlp", modulated(p, "norm2", y, d, e), 4 * width, width)

    tokens = p.layers("block", block, tokens, layers)
    pixels = p.dense("last", p.layer_norm("norm", tokens), 4 * channels)
    pixels = pixels.reshape(b, side // 2, side // 2, 2, 2, channels).swapaxes(2, 3)
    return pixels.reshape(x.shape).astype(jnp.float32)


def dit_loss(tiny: bool, p: Weights, x: jax.Array, time: jax.Array, label: jax.Array, seed: jax.Array) -> jax.Array:
    """Mean squared error of the noise that is predicted; `seed` decides the noise."""
    noise = jax.random.normal(jax.random.key(seed), x.shape)
    share = jnp.square(jnp.cos(time.astype(jnp.float32) / 1000 * jnp.pi / 2))[:, None, None, None]
    noisy = jnp.sqrt(share) * x.astype(jnp.float32) + jnp.sqrt(1 - share) * noise
    return jnp.square(dit(tiny, p, noisy.astype(x.dtype), time, label) - noise).mean()


@workload("DiT-B/2, noise of 16 latents of 32 × 32, bfloat16", family="diffusion", source=DIT)
def dit_infer(tiny: bool = False, batch: int = 16) -> Built:
    return infer(partial(dit, tiny), images(batch, 4 if tiny else 32, 4), ints(batch), ints(batch))


@workload(
    "DiT-B/2, one SGD step on 16 latents of 32 × 32, mixed precision",
    family="diffusion",
    source=DIT,
    kind="training",
    donate_argnums=(0,),
)
def dit_train(tiny: bool = False, batch: int = 16) -> Built:
    latents = images(batch, 4 if tiny else 32, 4)
    return train(partial(dit_loss, tiny), latents, ints(batch), ints(batch), ints(), optimizer="sgd")
