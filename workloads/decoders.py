"""Decoders with rotary positions, grouped queries and gated feed-forward blocks: Llama and Gemma.

Grattafiori et al., "The Llama 3 herd of models", arXiv 2407.21783, the sizes of Llama 3.2 1B; Gemma team, "Gemma",
arXiv 2403.08295, the sizes of Gemma 2B. A prefill reads prompts and fills the caches of keys and values. A decoding
step reads one token for each sequence; its caches are contiguous, or pages of a common pool (Kwon et al.,
"PagedAttention", arXiv 2309.06180), or its products are of int8 (Dettmers et al., "LLM.int8()", arXiv 2208.07339,
without its outliers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads._weights import Weights, infer, ints, predicted, train
from memplan.workloads.registry import Built, sized, workload

LLAMA = "Grattafiori et al., arXiv 2407.21783 (Llama 3)"
GEMMA = "Gemma team, arXiv 2403.08295"
PAGED = "Kwon et al., arXiv 2309.06180 (PagedAttention)"
INT8 = "Dettmers et al., arXiv 2208.07339 (LLM.int8)"


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the model and of its input.

    Attributes:
      layers: number of blocks.
      width: features of the stream.
      heads: of queries.
      kv_heads: of keys and values; they divide `heads`.
      head: features of a head.
      hidden: features inside the feed-forward block.
      vocab: number of tokens.
      base: of the rotary positions.
      act: what gates the feed-forward block.
      batch: sequences at once.
      length: tokens of a prompt, or places of a cache.
      page: places of a page.
      scanned: whether the layers are one loop.
      int8: whether dense layers multiply int8.
    """

    layers: int = 16
    width: int = 2048
    heads: int = 32
    kv_heads: int = 8
    head: int = 64
    hidden: int = 8192
    vocab: int = 128256
    base: float = 500_000.0
    act: Callable[[jax.Array], jax.Array] = jax.nn.silu
    batch: int = 1
    length: int = 2048
    page: int = 16
    scanned: bool = False
    int8: bool = False


TINY = DecoderConfig(layers=2, width=16, heads=4, kv_heads=2, head=4, hidden=32, vocab=32, batch=2, length=8, page=4)
GEMMA_2B = DecoderConfig(
    layers=18, width=2048, heads=8, kv_heads=1, head=256, hidden=16384, vocab=256000, base=10_000.0, act=jax.nn.gelu
)

SMALL = DecoderConfig(layers=8, width=1024, heads=16, hidden=4096, vocab=32000, batch=4, length=1024)


def rotate(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Turns pairs of features of [B, T, H, D] by angles that grow with positions [B or 1, T] (arXiv 2104.09864)."""
    half = x.shape[-1] // 2
    angles = positions[..., None].astype(jnp.float32) * base ** (-jnp.arange(half) / half)
    sin, cos = (f(angles)[:, :, None, :].astype(x.dtype) for f in (jnp.sin, jnp.cos))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def dense_int8(p: Weights, name: str, x: jax.Array, width: int) -> jax.Array:
    """[…, C] to […, width] by a product of int8, each row of `x` and each column of the weights with its own scale."""
    part = p / name
    w, scale = part("w", x.shape[-1], width, dtype=jnp.int8), part("scale", width)
    largest = jnp.abs(x).max(-1, keepdims=True).astype(jnp.float32) / 127 + 1e-9
    rounded = jnp.round(x.astype(jnp.float32) / largest).astype(jnp.int8)
    product = jnp.matmul(rounded, w, preferred_element_type=jnp.int32)
    return (product * (largest * scale.astype(jnp.float32))).astype(x.dtype)


def dense(p: Weights, name: str, x: jax.Array, width: int, c: DecoderConfig) -> jax.Array:
    """[…, C] to […, width], without bias."""
    return dense_int8(p, name, x, width) if c.int8 else p.dense(name, x, width, bias=False)


def grouped_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention of [B, T, H, D] to keys and values [B, S, K, D], H a multiple of K (arXiv 2305.13245)."""
    b, t, heads, width = q.shape
    groups = q.reshape(b, t, k.shape[2], heads // k.shape[2], width)
    logits = jnp.einsum("btkgd,bskd->bkgts", groups, k, preferred_element_type=jnp.float32) * width**-0.5
    weights = jax.nn.softmax(jnp.where(mask, logits, -1e30)).astype(q.dtype)
    return jnp.einsum("bkgts,bskd->btkgd", weights, v).reshape(b, t, heads, width)


Remember = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def block(p: Weights, x: jax.Array, positions: jax.Array, mask: jax.Array, c: DecoderConfig, remember: Remember) -> Any:
    """A layer on the stream [B, T, C]; `remember` takes its new keys and values and gives those to attend to."""
    y = p.rms_norm("norm1", x)
    q, k, v = (
        nn.split_heads(dense(p, name, y, heads * c.head, c), heads)
        for name, heads in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads))
    )
    q, k = rotate(q, positions, c.base), rotate(k, positions, c.base)
    k, v = remember(k, v)
    x = x + dense(p, "out", nn.merge_heads(grouped_attention(q, k, v, mask)), c.width, c)
    y = p.rms_norm("norm2", x)
    return x + dense(p, "down", c.act(dense(p, "gate", y, c.hidden, c)) * dense(p, "up", y, c.hidden, c), c.width, c)


def logits_of(p: Weights, x: jax.Array, c: DecoderConfig) -> jax.Array:
    """[…, C] to the float32 logits […, vocab], by the tied embedding."""
    table = p("embed", c.vocab, c.width).astype(x.dtype)
    return jnp.einsum("...c,vc->...v", p.rms_norm("norm", x), table, preferred_element_type=jnp.float32)


def features(c: DecoderConfig, p: Weights, tokens: jax.Array) -> jax.Array:
    """Token ids [B, T] to the stream after the last block, [B, T, C]."""
    x = p.embed("embed", tokens, c.vocab, c.width)
    positions, mask = jnp.arange(tokens.shape[1])[None], nn.causal_mask(tokens.shape[1])
    return p.layers("block", lambda p, x: block(p, x, positions, mask, c, lambda k, v: (k, v)), x, c.layers, c.scanned)


def logits(c: DecoderConfig, p: Weights, tokens: jax.Array) -> jax.Array:
    """Token ids [B, T] to the float32 logits [B, T, vocab]."""
    return logits_of(p, features(c, p, tokens), c)


def prefill(c: DecoderConfig, p: Weights, tokens: jax.Array) -> tuple[list[Any], jax.Array]:
    """Token ids [B, T] to the caches of all layers and the float32 logits of the token after them, [B, vocab]."""
    caches: list[Any] = []

    def remember(k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        caches.append({"k": k, "v": v})
        return k, v

    x = p.embed("embed", tokens, c.vocab, c.width)
    positions, mask = jnp.arange(tokens.shape[1])[None], nn.causal_mask(tokens.shape[1])
    for layer in range(c.layers):
        x = block(p / f"block{layer}", x, positions, mask, c, remember)
    return caches, logits_of(p, x[:, -1], c)


def decode(
    c: DecoderConfig, p: Weights, caches: list[Any], tokens: jax.Array, lengths: jax.Array
) -> tuple[list[Any], jax.Array]:
    """Reads a token for each sequence.

    Args:
      c: sizes.
      p: parameters.
      caches: keys and values of each layer, [B, S, K, D].
      tokens: [B] int32.
      lengths: [B] int32, how much of each cache is filled.

    Returns:
      the caches with the token's keys and values, and the float32 logits of the next token, [B, vocab].
    """
    filled: list[Any] = []
    rows, mask = jnp.arange(len(tokens)), jnp.arange(c.length) <= lengths[:, None]
    x = p.embed("embed", tokens[:, None], c.vocab, c.width)
    for layer, cache in enumerate(caches):

        def remember(k: jax.Array, v: jax.Array, cache: Any = cache) -> tuple[jax.Array, jax.Array]:
            new = {"k": k[:, 0], "v": v[:, 0]}
            filled.append({kind: cache[kind].at[rows, lengths].set(new[kind]) for kind in "kv"})
            return filled[-1]["k"], filled[-1]["v"]

        x = block(p / f"block{layer}", x, lengths[:, None], mask[:, None, None, None], c, remember)
    return filled, logits_of(p, x[:, 0], c)


def paged_decode(
    c: DecoderConfig, p: Weights, pools: list[Any], table: jax.Array, tokens: jax.Array, lengths: jax.Array
) -> tuple[list[Any], jax.Array]:
    """As `decode`, the caches in pages [number of pages, page, K, D] of a pool; `table` [B, S ÷ page] numbers them."""
    filled: list[Any] = []
    mask = jnp.arange(c.length) <= lengths[:, None]
    rows = table[jnp.arange(len(tokens)), lengths // c.page]
    x = p.embed("embed", tokens[:, None], c.vocab, c.width)
    for layer, pool in enumerate(pools):

        def remember(k: jax.Array, v: jax.Array, pool: Any = pool) -> tuple[jax.Array, jax.Array]:
            new = {"k": k[:, 0], "v": v[:, 0]}
            filled.append({kind: pool[kind].at[rows, lengths % c.page].set(new[kind]) for kind in "kv"})
            k, v = (filled[-1][kind][table].reshape(len(tokens), c.length, *k.shape[2:]) for kind in "kv")
            return k, v

        x = block(p / f"block{layer}", x, lengths[:, None], mask[:, None, None, None], c, remember)
    return filled, logits_of(p, x[:, 0], c)


def _caches(c: DecoderConfig, *outer: int) -> list[Any]:
    shape = jax.ShapeDtypeStruct((*outer, c.kv_heads, c.head), jnp.bfloat16)
    return [{"k": shape, "v": shape} for _ in range(c.layers)]


def _scanned(c: DecoderConfig) -> DecoderConfig:
    return replace(c, scanned=True)


def _decode(c: DecoderConfig) -> Built:
    return infer(partial(decode, c), _caches(c, c.batch, c.length), ints(c.batch), ints(c.batch))


@workload("Llama 3.2 1B, prefill of a prompt of 2048 tokens, bfloat16", family="decoder", source=LLAMA)
def llama_prefill(tiny: bool = False, batch: int | None = None) -> Built:
    c = sized(DecoderConfig(), TINY, tiny, batch)
    return infer(partial(prefill, c), ints(c.batch, c.length))


@workload("Llama 3.2 1B, its layers in a loop, features of 2048 tokens, bfloat16", family="decoder", source=LLAMA)
def llama_scan_features(tiny: bool = False, batch: int | None = None) -> Built:
    c = _scanned(sized(DecoderConfig(), TINY, tiny, batch))
    return infer(partial(features, c), ints(c.batch, c.length))


@workload(
    "Llama 3.2 1B, a token for each of 16 sequences, caches of 2048 places, bfloat16",
    family="decoder",
    source=LLAMA,
    donate_argnums=(1,),
)
def llama_decode(tiny: bool = False, batch: int | None = None) -> Built:
    return _decode(sized(DecoderConfig(batch=16), TINY, tiny, batch))


@workload(
    "Llama 3.2 1B, a token for each of 16 sequences, 2048 places in pages of 16 of a pool, bfloat16",
    family="decoder",
    source=PAGED,
    donate_argnums=(1,),
)
def llama_paged_decode(tiny: bool = False, batch: int | None = None) -> Built:
    c = sized(DecoderConfig(batch=16), TINY, tiny, batch)
    pages = c.length // c.page
    pools = _caches(c, c.batch * pages, c.page)
    return infer(partial(paged_decode, c), pools, ints(c.batch, pages), ints(c.batch), ints(c.batch))


@workload(
    "Llama 3.2 1B with weights and products of int8, a token for each of 16 sequences, caches of 2048 places",
    family="decoder",
    source=INT8,
    donate_argnums=(1,),
)
def llama_int8_decode(tiny: bool = False, batch: int | None = None) -> Built:
    return _decode(replace(sized(DecoderConfig(batch=16), TINY, tiny, batch), int8=True))


@workload(
    "Llama-like, 8 layers of 1024, one Adam step on 4 × 1024 tokens, mixed precision",
    family="decoder",
    source=LLAMA,
    kind="training",
    donate_argnums=(0, 1),
)
def llama_train(tiny: bool = False, batch: int | None = None) -> Built:
    c = sized(SMALL, TINY, tiny, batch)
    return train(predicted(partial(logits, c)), ints(c.batch, c.length + 1), clipped=True)


@workload(
    "Llama-like, 8 layers of 1024 in a loop, one Adam step on 4 × 1024 tokens, mixed precision",
    family="decoder",
    source=LLAMA,
    kind="training",
    donate_argnums=(0, 1),
)
def llama_scan_train(tiny: bool = False, batch: int | None = None) -> Built:
    c = _scanned(sized(SMALL, TINY, tiny, batch))
    return train(predicted(partial(logits, c)), ints(c.batch, c.length + 1), clipped=True)


@workload("Gemma 2B, prefill of a prompt of 1024 tokens, bfloat16", family="decoder", source=GEMMA)
def gemma_prefill(tiny: bool = False, batch: int | None = None) -> Built:
    c = sized(GEMMA_2B, TINY, tiny, batch)
    return infer(partial(prefill, c), ints(c.batch, c.length // 2))


@workload(
    "Gemma 2B, a token for each of 8 sequences, caches of 2048 places, bfloat16",
    family="decoder",
    source=GEMMA,
    donate_argnums=(1,),
)
def gemma_decode(tiny: bool = False, batch: int | None = 8) -> Built:
    return _decode(sized(GEMMA_2B, TINY, tiny, batch))
