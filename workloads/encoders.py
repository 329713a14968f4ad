"""Transformers with an encoder: BERT and T5.

Devlin et al., "BERT", arXiv 1810.04805: bidirectional blocks that normalise after each part, trained to find masked
tokens. Raffel et al., "T5", arXiv 1910.10683: an encoder and a decoder with relative positions and root-mean-square
norms.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads._weights import Weights, infer, ints, train
from memplan.workloads.registry import Built, workload

BERT = "Devlin et al., arXiv 1810.04805"
T5 = "Raffel et al., arXiv 1910.10683"


def bert(tiny: bool, scanned: bool, p: Weights, tokens: jax.Array) -> jax.Array:
    """Token ids [B, T] to the stream after the last block, [B, T, C]; BERT-base unless `tiny`."""
    layers, width, heads, vocab = (2, 16, 2, 32) if tiny else (12, 768, 12, 30522)
    x = p.embed("embed", tokens, vocab, width) + p("positions", tokens.shape[1], width).astype(jnp.bfloat16)
    x = p.layer_norm("norm", x)

    def block(p: Weights, x: jax.Array) -> jax.Array:
        x = p.layer_norm("norm1", x + p.attention("attention", x, heads))
        return p.layer_norm("norm2", x + p.mlp("mlp", x, 4 * width, width))

    return p.layers("block", block, x, layers, scanned)


def masked_loss(
    tiny: bool, scanned: bool, p: Weights, tokens: jax.Array, places: jax.Array, wanted: jax.Array
) -> jax.Array:
    """Mean cross-entropy of the `wanted` [B, M] tokens at `places` [B, M], which `tokens` [B, T] mask."""
    x = jnp.take_along_axis(bert(tiny, scanned, p, tokens), places[..., None], axis=1)
    x = p.layer_norm("head_norm", jax.nn.gelu(p.dense("head", x, x.shape[-1])))
    table = p("embed", 32 if tiny else 30522, x.shape[-1]).astype(x.dtype)
    return nn.cross_entropy(jnp.einsum("bmc,vc->bmv", x, table, preferred_element_type=jnp.float32), wanted)


def _bert_train(tiny: bool, scanned: bool, batch: int, optimizer: str) -> Built:
    length, masked = (8, 2) if tiny else (512, 76)
    inputs = ints(batch, length), ints(batch, masked), ints(batch, masked)
    return train(partial(masked_loss, tiny, scanned), *inputs, optimizer=optimizer)


@workload("BERT-base on 8 × 512 tokens, bfloat16", family="encoder", source=BERT)
def bert_base_infer(tiny: bool = False, batch: int = 8) -> Built:
    return infer(partial(bert, tiny, False), ints(batch, 8 if tiny else 512))


@workload("BERT-base, its layers in a loop, on 8 × 512 tokens, bfloat16", family="encoder", source=BERT)
def bert_base_scan_infer(tiny: bool = False, batch: int = 8) -> Built:
    return infer(partial(bert, tiny, True), ints(batch, 8 if tiny else 512))


@workload(
    "BERT-base, one Adam step on 8 × 512 tokens, mixed precision",
    family="encoder",
    source=BERT,
    kind="training",
    donate_argnums=(0, 1),
)
def bert_base_train(tiny: bool = False, batch: int = 8) -> Built:
    return _bert_train(tiny, False, batch, "adam")


@workload(
    "BERT-base, its layers in a loop, one SGD step on 8 × 512 tokens, mixed precision",
    family="encoder",
    source=BERT,
    kind="training",
    donate_argnums=(0,),
)
def bert_base_scan_train(tiny: bool = False, batch: int = 8) -> Built:
    return _bert_train(tiny, True, batch, "sgd")


def bucket(distance: jax.Array, buckets: int = 32, largest: int = 128) -> jax.Array:
    """Numbers signed distances between tokens: near ones by one, far ones by their logarithm (T5, section 2.1)."""
    half = buckets // 2
    size = jnp.abs(distance)
    scaled = jnp.log(jnp.maximum(size, 1) / (half // 2)) / math.log(largest / (half // 2)) * (half - half // 2)
    far = jnp.minimum(half // 2 + scaled.astype(jnp.int32), half - 1)
    return jnp.where(distance > 0, half, 0) + jnp.where(size < half // 2, size, far)


def biased_attention(p: Weights, x: jax.Array, source: jax.Array, heads: int, bias: jax.Array | float) -> jax.Array:
    """Attention of [B, T, C] to [B, S, C] whose unscaled logits have a bias [H, T, S] added."""
    q, k, v = (
        nn.split_heads(p.dense(n, y, x.shape[-1], False), heads)
        for n, y in zip("qkv", (x, source, source), strict=True)
    )
    logits = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=jnp.float32) + bias
    weights = jax.nn.softmax(logits).astype(x.dtype)
    return p.dense("out", nn.merge_heads(jnp.einsum("bhts,bshd->bthd", weights, v)), x.shape[-1], False)


def t5(tiny: bool, p: Weights, tokens: jax.Array, targets: jax.Array) -> jax.Array:
    """Tokens [B, S] and the targets so far [B, T] to the float32 logits [B, T, vocab]; T5-base unless `tiny`."""
    layers, width, heads, vocab = (2, 16, 2, 32) if tiny else (12, 768, 12, 32128)

    def positions(side: str, length: int) -> jax.Array:
        places = jnp.arange(length)
        table = p(f"{side}_bias", 32, heads)[bucket(places[None] - places[:, None])]
        return table.astype(jnp.float32).transpose(2, 0, 1)

    def feed(p: Weights, x: jax.Array) -> jax.Array:
        return x + p.mlp("mlp", p.rms_norm("norm_mlp", x), 4 * width, width, act=jax.nn.relu)

    def encode(bias: jax.Array, p: Weights, x: jax.Array) -> jax.Array:
        y = p.rms_norm("norm", x)
        return feed(p, x + biased_attention(p / "self", y, y, heads, bias))

    def decode(bias: jax.Array, context: jax.Array, p: Weights, x: jax.Array) -> jax.Array:
        y = p.rms_norm("norm", x)
        x = x + biased_attention(p / "self", y, y, heads, bias)
        return feed(p, x + biased_attention(p / "cross", p.rms_norm("norm_cross", x), context, heads, 0.0))

    x = p.embed("embed", tokens, vocab, width)
    x = p.layers("encoder", partial(encode, positions("encoder", tokens.shape[1])), x, layers)
    context = p.rms_norm("encoder_norm", x)
    length = targets.shape[1]
    bias = positions("decoder", length) + jnp.where(nn.causal_mask(length), 0.0, -1e30)
    x = p.layers("decoder", partial(decode, bias, context), p.embed("embed", targets, vocab, width), layers)
    table = p("embed", vocab, width).astype(x.dtype)
    x = p.rms_norm("decoder_norm", x) * width**-0.5
    return jnp.einsum("btc,vc->btv", x, table, preferred_element_type=jnp.float32)


def t5_loss(tiny: bool, p: Weights, tokens: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean cross-entropy of each of the targets [B, T + 1] given `tokens` [B, S] and those before it."""
    return nn.cross_entropy(t5(tiny, p, tokens, targets[:, :-1]), targets[:, 1:])


@workload("T5-base, logits of 128 targets given 512 tokens, 8 sequences, bfloat16", family="encoder", source=T5)
def t5_base_infer(tiny: bool = False, batch: int = 8) -> Built:
    source, target = (8, 4) if tiny else (512, 128)
    return infer(partial(t5, tiny), ints(batch, source), ints(batch, target))


@workload(
    "T5-base, one SGD step on 8 × (512 + 128) tokens, mixed precision",
    family="encoder",
    source=T5,
    kind="training",
    donate_argnums=(0,),
)
def t5_base_train(tiny: bool = False, batch: int = 8) -> Built:
    source, target = (8, 4) if tiny else (512, 128)
    return train(partial(t5_loss, tiny), ints(batch, source), ints(batch, target + 1), optimizer="sgd")
