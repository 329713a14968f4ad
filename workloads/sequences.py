"""Sequence models beside attention: WaveNet's dilated convolutions, RWKV's recurrence, and M2-BERT's Monarch matrices.

Van den Oord et al., "WaveNet", arXiv 1609.03499; Peng et al., "RWKV", arXiv 2305.13048; Fu et al., "Monarch Mixer",
arXiv 2310.12109, whose long convolutions are computed by FFT and whose feed-forward blocks are block-diagonal.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads._weights import Weights, infer, ints, predicted, train, waves
from memplan.workloads.hyena import fft_conv
from memplan.workloads.registry import Built, workload

WAVENET = "van den Oord et al., arXiv 1609.03499"
RWKV = "Peng et al., arXiv 2305.13048"
M2 = "Fu et al., arXiv 2310.12109 (Monarch Mixer)"


def wavenet(tiny: bool, p: Weights, samples: jax.Array) -> jax.Array:
    """Quantised samples [B, T] int32 to the float32 logits of each next one, [B, T, 256]."""
    dilations = (1, 2) if tiny else tuple(1 << layer for layer in range(10)) * 3
    width, skipped = (4, 8) if tiny else (128, 256)
    x, skips = p.embed("embed", samples, 256, width), jnp.zeros((), jnp.bfloat16)
    for layer, dilation in enumerate(dilations):
        part = p / f"layer{layer}"
        y = part.conv("gated", x, 2 * width, 2, dilation=dilation, padding=[(dilation, 0)])
        y = jnp.tanh(y[..., :width]) * jax.nn.sigmoid(y[..., width:])
        skips = skips + part.dense("skip", y, skipped)
        x = x + part.dense("out", y, width)
    return p.mlp("head", jax.nn.relu(skips), skipped, 256, act=jax.nn.relu).astype(jnp.float32)


@workload("WaveNet, 30 layers of 128, on 2 × 8192 samples, bfloat16", family="audio", source=WAVENET)
def wavenet_infer(tiny: bool = False, batch: int = 2) -> Built:
    return infer(partial(wavenet, tiny), ints(batch, 16 if tiny else 8192))


@workload(
    "WaveNet, 30 layers of 128, one Adam step on 2 × 8192 samples, mixed precision",
    family="audio",
    source=WAVENET,
    kind="training",
    donate_argnums=(0, 1),
)
def wavenet_train(tiny: bool = False, batch: int = 2) -> Built:
    return train(predicted(partial(wavenet, tiny)), ints(batch, 17 if tiny else 8193))


def weighted_sums(rate: jax.Array, bonus: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Averages of values, weighted by keys and faded with their age: one loop over time (RWKV, section 3.1.2).

    Args:
      rate: [C] float32, positive: how fast a weight fades.
      bonus: [C] float32, added to the key of the present step.
      keys: [B, T, C] logarithms of weights.
      values: [B, T, C].

    Returns:
      [B, T, C] float32. The sums are kept over their largest weight, so that nothing overflows.
    """

    def step(state: Any, now: Any) -> Any:
        above, below, largest = state
        key, value = now
        top = jnp.maximum(largest, bonus + key)
        old, new = jnp.exp(largest - top), jnp.exp(bonus + key - top)
        out = (old * above + new * value) / (old * below + new)
        top = jnp.maximum(largest - rate, key)
        old, new = jnp.exp(largest - rate - top), jnp.exp(key - top)
        return (old * above + new * value, old * below + new, top), out

    start = jnp.zeros_like(keys[:, 0], jnp.float32)
    inputs = (keys.astype(jnp.float32).swapaxes(0, 1), values.astype(jnp.float32).swapaxes(0, 1))
    return lax.scan(step, (start, start, start - 1e30), inputs)[1].swapaxes(0, 1)


def rwkv(tiny: bool, scanned: bool, p: Weights, tokens: jax.Array) -> jax.Array:
    """Token ids [B, T] to float32 logits [B, T, vocab]; RWKV-4 169M unless `tiny`."""
    layers, width, vocab = (2, 8, 16) if tiny else (12, 768, 50277)

    def mixed(p: Weights, name: str, x: jax.Array) -> jax.Array:
        past = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        share = jax.nn.sigmoid(p(f"mix_{name}", width)).astype(x.dtype)
        return x * share + past * (1 - share)

    def block(p: Weights, x: jax.Array) -> jax.Array:
        y = p.layer_norm("norm1", x)
        r, k, v = (p.dense(name, mixed(p, name, y), width, False) for name in ("r", "k", "v"))
        rate = jnp.exp(p("rate", width).astype(jnp.float32))
        summed = weighted_sums(rate, p("bonus", width).astype(jnp.float32), k, v).astype(x.dtype)
        x = x + p.dense("out", jax.nn.sigmoid(r) * summed, width, False)
        y = p.layer_norm("norm2", x)
        k = jnp.square(jax.nn.relu(p.dense("channel_k", mixed(p, "channel_k", y), 4 * width, False)))
        gate = jax.nn.sigmoid(p.dense("channel_r", mixed(p, "channel_r", y), width, False))
        return x + gate * p.dense("channel_v", k, width, False)

    x = p.layer_norm("norm0", p.embed("embed", tokens, vocab, width))
    x = p.layer_norm("norm", p.layers("block", block, x, layers, scanned))
    return p.dense("head", x, vocab, False).astype(jnp.float32)


@workload(
    "RWKV-4 169M, logits of 4 × 512 tokens, a loop over time in each layer, bfloat16", family="recurrent", source=RWKV
)
def rwkv_infer(tiny: bool = False, batch: int = 4) -> Built:
    return infer(partial(rwkv, tiny, False), ints(batch, 8 if tiny else 512))


@workload(
    "RWKV-4 169M, its layers in a loop around loops over time, one Adam step on 4 × 512 tokens, mixed precision",
    family="recurrent",
    source=RWKV,
    kind="training",
    donate_argnums=(0, 1),
)
def rwkv_scan_train(tiny: bool = False, batch: int = 4) -> Built:
    return train(predicted(partial(rwkv, tiny, True)), ints(batch, 9 if tiny else 513))


def block_diagonal(p: Weights, name: str, x: jax.Array, width: int, count: int) -> jax.Array:
    """[…, C] to […, width] by so many dense blocks, each from and to its own share of the features."""
    w = p(name, count, x.shape[-1] // count, width // count).astype(x.dtype)
    parts = x.reshape(*x.shape[:-1], count, -1)
    return jnp.einsum("...gc,gcd->...gd", parts, w).reshape(*x.shape[:-1], width)


def m2_bert(tiny: bool, p: Weights, tokens: jax.Array) -> jax.Array:
    """Token ids [B, T] to float32 logits [B, T, vocab]: bidirectional gated long convolutions in place of attention."""
    layers, width, count, vocab = (2, 8, 2, 16) if tiny else (12, 768, 4, 30522)
    length = tokens.shape[1]
    time = waves(jnp.linspace(-1, 1, length)[:, None], 4)

    def block(p: Weights, x: jax.Array) -> jax.Array:
        projected = nn.causal_depthwise_conv(p("short", 3, 3 * width), p.dense("project", x, 3 * width))
        gate, value, query = jnp.split(projected, 3, axis=-1)
        u = (gate * value).astype(jnp.float32).swapaxes(1, 2)
        decay = jnp.exp(-jnp.geomspace(1.0, 100.0, width) * jnp.linspace(0, 1, length)[:, None])
        ahead, back = ((p.mlp(name, time, 32, width, act=jnp.sin) * decay).T for name in ("ahead", "back"))
        y = fft_conv(u, ahead) + fft_conv(u[..., ::-1], back)[..., ::-1]
        x = p.layer_norm("norm1", x + p.dense("out", query * y.swapaxes(1, 2).astype(x.dtype), width))
        hidden = jax.nn.gelu(block_diagonal(p, "up", x, 4 * width, count))
        return p.layer_norm("norm2", x + block_diagonal(p, "down", hidden, width, count))

    x = p.layers("block", block, p.embed("embed", tokens, vocab, width), layers)
    return p.dense("head", x, vocab).astype(jnp.float32)


@workload("M2-BERT-base, 12 blocks of 768 on 4 × 1024 tokens, bfloat16", family="long-convolution", source=M2)
def m2_bert_infer(tiny: bool = False, batch: int = 4) -> Built:
    return infer(partial(m2_bert, tiny), ints(batch, 8 if tiny else 1024))


@workload(
    "M2-BERT-base, 12 blocks of 768, one SGD step on 4 × 512 tokens, mixed precision",
    family="long-convolution",
    source=M2,
    kind="training",
    donate_argnums=(0,),
)
def m2_bert_train(tiny: bool = False, batch: int = 4) -> Built:
    return train(predicted(partial(m2_bert, tiny)), ints(batch, 9 if tiny else 513), optimizer="sgd")
