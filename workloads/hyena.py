"""A Hyena model: gating and long convolutions, computed by FFT, in place of attention.

Poli et al., "Hyena hierarchy: towards larger convolutional language models", arXiv 2302.10866, of order two. The long
filters are implicit: a small network with sine activations maps each position's encoding to the filters' taps, and an
exponential window decays them (section 3.3). Projections are bfloat16, the transforms float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads.registry import Built, sized, workload


@dataclass(frozen=True)
class HyenaConfig:
    """Sizes of the model and of its input.

    Attributes:
      layers: number of blocks.
      width: features of the residual stream.
      vocab: number of tokens.
      batch: sequences at once.
      length: tokens of a sequence, and taps of a filter.
      frequencies: sines and cosines, each, in a position's encoding.
      filter_width: hidden features of the network that makes the filters.
      dtype: of activations outside the long convolutions.
    """

    layers: int = 4
    width: int = 512
    vocab: int = 16384
    batch: int = 4
    length: int = 4096
    frequencies: int = 8
    filter_width: int = 64
    dtype: Any = jnp.bfloat16


def init(key: jax.Array, config: HyenaConfig) -> nn.Params:
    """Returns the parameters, float32."""
    embed_key, *layer_keys = jax.random.split(key, 1 + config.layers)
    return {
        "embed": jax.random.normal(embed_key, (config.vocab, config.width)) * 0.02,
        "blocks": [_block_init(k, config) for k in layer_keys],
        "norm": nn.norm_init(config.width),
    }


def _block_init(key: jax.Array, config: HyenaConfig) -> nn.Params:
    keys = jax.random.split(key, 7)
    return {
        "norm1": nn.norm_init(config.width),
        "project": nn.dense_init(keys[0], config.width, 3 * config.width),
        "short": jax.random.normal(keys[1], (3, 3 * config.width)) / math.sqrt(3),
        "filter": {
            "first": nn.dense_init(keys[2], 1 + 2 * config.frequencies, config.filter_width),
            "second": nn.dense_init(keys[3], config.filter_width, config.filter_width),
            "last": nn.dense_init(keys[4], config.filter_width, config.width),
        },
        "skip": jnp.ones((config.width,)),
        "out": nn.dense_init(keys[5], config.width, config.width),
        "norm2": nn.norm_init(config.width),
        "mlp": nn.mlp_init(keys[6], config.width, 4 * config.width),
    }


def long_filters(params: nn.Params, config: HyenaConfig) -> jax.Array:
    """Returns the filters [width, length], float32."""
    time = jnp.linspace(0.0, 1.0, config.length)[:, None]
    angles = 2 * jnp.pi * time * jnp.arange(1, config.frequencies + 1)
    x = jnp.concatenate([time, jnp.sin(angles), jnp.cos(angles)], axis=-1)
    x = jnp.sin(nn.dense(params["first"], x))
    x = jnp.sin(nn.dense(params["second"], x))
    decay = jnp.geomspace(1.0, 100.0, config.width)
    return (nn.dense(params["last"], x) * jnp.exp(-decay * time)).T


def fft_conv(u: jax.Array, k: jax.Array) -> jax.Array:
    """Causal convolution of each channel: u [B, C, T] with k [C, T] to [B, C, T], float32.

    `y[t] = Σ_s k[s] u[t − s]`, by real transforms of twice the length so that nothing wraps around.
    """
    length = u.shape[-1]
    spectrum = jnp.fft.rfft(u, n=2 * length) * jnp.fft.rfft(k, n=2 * length)
    return jnp.fft.irfft(spectrum, n=2 * length)[..., :length]


def operator(params: nn.Params, x: jax.Array, config: HyenaConfig) -> jax.Array:
    """The Hyena operator of order two: [B, T, C] to [B, T, C]."""
    projected = nn.causal_depthwise_conv(params["short"], nn.dense(params["project"], x))
    gate, value, query = jnp.split(projected, 3, axis=-1)
    u = (gate * value).astype(jnp.float32).swapaxes(1, 2)
    y = fft_conv(u, long_filters(params["filter"], config)) + params["skip"][:, None] * u
    return nn.dense(params["out"], query * y.swapaxes(1, 2).astype(x.dtype))


def apply(params: nn.Params, tokens: jax.Array, config: HyenaConfig) -> jax.Array:
    """Token ids [B, T] to the float32 logits of token T, [B, vocab]."""
    x = params["embed"].astype(config.dtype)[tokens]
    for block in params["blocks"]:
        x = x + operator(block, nn.layer_norm(block["norm1"], x), config)
        x = x + nn.mlp(block["mlp"], nn.layer_norm(block["norm2"], x))
    last = nn.layer_norm(params["norm"], x[:, -1])
    return jnp.einsum("bc,vc->bv", last, params["embed"].astype(last.dtype), preferred_element_type=jnp.float32)


TINY = HyenaConfig(layers=2, width=6, vocab=11, batch=2, length=16, frequencies=2, filter_width=8, dtype=jnp.float32)


@workload(
    "Hyena, 4 blocks of 512 on 4 × 4096 tokens, bfloat16 with float32 FFT convolutions",
    family="long-convolution",
    source="Poli et al., arXiv 2302.10866",
)
def hyena(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(HyenaConfig(), TINY, tiny, batch)

    def hyena(params: nn.Params, tokens: jax.Array) -> jax.Array:
        return apply(params, tokens, config)

    # The network that makes the filters, and the skip beside them, are part of the float32 convolution.
    params = nn.abstract(init, config, dtype=config.dtype)
    whole = nn.abstract(init, config)
    for block, wide in zip(params["blocks"], whole["blocks"], strict=True):
        block |= {"filter": wide["filter"], "skip": wide["skip"]}
    return hyena, (params, jax.ShapeDtypeStruct((config.batch, config.length), jnp.int32))
