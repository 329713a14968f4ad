"""Layers that several workloads share: plain functions over dictionaries of arrays.

A layer is a pair: `…_init(key, sizes…) -> params` and a function of `(params, x)`. Parameters are float32 when made;
a layer computes in the dtype of its input, and casts its parameters to it. In the shapes, `B` is the batch, `T` a
length, `C` a number of channels or features, `H` a number of heads, `D` a head's width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Params = dict[str, Any]


def abstract(init: Callable[..., Any], *args: Any, dtype: Any = None) -> Any:
    """Returns the shapes of `init(key, *args)` without making an array.

    Args:
      init: a function of a random key and `args`.
      dtype: if given, what every floating-point leaf is stored as.

    Returns:
      the pytree of `jax.ShapeDtypeStruct`.
    """

    def make() -> Any:
        tree = init(jax.random.key(0), *args)
        return tree if dtype is None else cast(tree, dtype)

    return jax.eval_shape(make)


def cast(tree: Any, dtype: Any) -> Any:
    """Returns `tree` with every floating-point leaf in `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def dense_init(key: jax.Array, fan_in: int, fan_out: int, scale: float = 1.0) -> Params:
    """Returns `w` [fan_in, fan_out], of variance scale² ÷ fan_in, and `b` [fan_out], zero."""
    w = jax.random.normal(key, (fan_in, fan_out)) * (scale / math.sqrt(fan_in))
    return {"w": w, "b": jnp.zeros((fan_out,))}


def dense(params: Params, x: jax.Array) -> jax.Array:
    """[…, fan_in] to […, fan_out]."""
    return x @ params["w"].astype(x.dtype) + params["b"].astype(x.dtype)


def conv_init(key: jax.Array, *shape: int) -> jax.Array:
    """Returns a kernel [spatial…, C_in, C_out] of variance 2 ÷ fan-in (He et al., arXiv 1502.01852)."""
    return jax.random.normal(key, shape) * math.sqrt(2.0 / math.prod(shape[:-1]))


def conv2d(w: jax.Array, x: jax.Array, stride: int = 1, padding: str | list[tuple[int, int]] = "SAME") -> jax.Array:
    """[B, height, width, C_in] to [B, height ÷ stride, width ÷ stride, C_out], kernel [kh, kw, C_in, C_out]."""
    return lax.conv_general_dilated(
        x, w.astype(x.dtype), (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def max_pool(x: jax.Array, padding: int = 0) -> jax.Array:
    """Maximum of 3 × 3 windows at stride 2: [B, height, width, C], about halved."""
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), sides)


def causal_depthwise_conv(w: jax.Array, x: jax.Array) -> jax.Array:
    """Each channel's own short filter over the past: [B, T, C] to [B, T, C], filter [taps, C], latest tap last."""
    taps, channels = w.shape
    return lax.conv_general_dilated(
        x,
        w.astype(x.dtype)[:, None, :],
        window_strides=(1,),
        padding=[(taps - 1, 0)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=channels,
    )


def norm_init(channels: int) -> Params:
    """Returns the `scale` (ones) and `bias` (zeros) of a normalisation, [channels] each."""
    return {"scale": jnp.ones((channels,)), "bias": jnp.zeros((channels,))}


def _normalize(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns `x` in float32 with zero mean and unit variance over `axes`."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    return centred * lax.rsqrt(variance + 1e-5)


def layer_norm(params: Params, x: jax.Array) -> jax.Array:
    """Normalises the last axis (Ba et al., arXiv 1607.06450); float32 inside."""
    return (_normalize(x, (-1,)) * params["scale"] + params["bias"]).astype(x.dtype)


def rms_norm(scale: jax.Array, x: jax.Array) -> jax.Array:
    """Divides the last axis by its root mean square (Zhang and Sennrich, arXiv 1910.07467); float32 inside."""
    wide = x.astype(jnp.float32)
    return (wide * lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-5) * scale).astype(x.dtype)


def group_norm(params: Params, x: jax.Array, groups: int) -> jax.Array:
    """Normalises groups of channels of [B, height, width, C] (Wu and He, arXiv 1803.08494); float32 inside."""
    *outer, channels = x.shape
    grouped = _normalize(x.reshape(*outer, groups, channels // groups), (1, 2, 4))
    return (grouped.reshape(x.shape) * params["scale"] + params["bias"]).astype(x.dtype)


def attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al., arXiv 1706.03762), softmax in float32.

    Args:
      q: [B, T, H, D] queries.
      k: [B, S, H, D] keys.
      v: [B, S, H, D] values.
      mask: bool, broadcast to [B, H, T, S]; False hides a key from a query.

    Returns:
      [B, T, H, D] in the dtype of `q`.
    """
    logits = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = jnp.where(mask, logits, -1e30)
    weights = jax.nn.softmax(logits, axis=-1).astype(q.dtype)
    return jnp.einsum("bhts,bshd->bthd", weights, v)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """[…, T, C] to […, T, heads, C ÷ heads]."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def merge_heads(x: jax.Array) -> jax.Array:
    """[…, T, H, D] to […, T, H × D]."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def causal_mask(length: int) -> jax.Array:
    """Returns [length, length] bool: query t (row) sees the keys 0…t."""
    return jnp.tril(jnp.ones((length, length), bool))


def mlp_init(key: jax.Array, width: int, hidden: int) -> Params:
    """Returns the two dense layers of a transformer's feed-forward block."""
    up, down = jax.random.split(key)
    return {"up": dense_init(up, width, hidden), "down": dense_init(down, hidden, width)}


def mlp(params: Params, x: jax.Array) -> jax.Array:
    """[…, width] to […, width], through GELU at the hidden width."""
    return dense(params["down"], jax.nn.gelu(dense(params["up"], x)))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean negative log-likelihood, a float32 scalar, of `labels` […] int under `logits` […, classes]."""
    logits = logits.astype(jnp.float32)
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - label_logits).mean()
