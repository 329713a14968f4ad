"""Attention and memory: stored patterns, random features, products of axes, periods, and microbatches."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads import _optimizers as optimizers
from memplan.workloads._weights import Weights, floats, infer, ints, predicted, squared, train
from memplan.workloads.registry import Built, workload

FAMILY = "attention"


def retrieve(patterns: jax.Array, states: jax.Array, sharpness: float, steps: int) -> jax.Array:
    """Moves states [B, C] towards stored patterns [N, C], as a modern Hopfield network does (arXiv 2008.02217)."""

    def step(_: int, states: jax.Array) -> jax.Array:
        logits = jnp.einsum("bc,nc->bn", states, patterns, preferred_element_type=jnp.float32)
        return jax.nn.softmax(sharpness * logits).astype(states.dtype) @ patterns

    return lax.fori_loop(0, steps, step, states)


@workload(
    "modern Hopfield network, 3 retrievals of 256 states from 100,000 patterns of 512, bfloat16",
    family=FAMILY,
    source="Ramsauer et al., arXiv 2008.02217 (modern Hopfield networks)",
)
def hopfield(tiny: bool = False) -> Built:
    count, width, rows = (6, 4, 2) if tiny else (100_000, 512, 256)
    inputs = floats(count, width, dtype=jnp.bfloat16), floats(rows, width, dtype=jnp.bfloat16)
    return partial(retrieve, sharpness=width**-0.5, steps=3), inputs


def remember(p: Weights, x: jax.Array, indices: int, steps: int) -> tuple[jax.Array, jax.Array]:
    """A state [B, C] that names an index and takes its embedding in, again and again.

    Returns:
      the last state and the probabilities of each step, [steps, B, indices].
    """
    table = p("table", indices, x.shape[-1]).astype(x.dtype)
    mix, bias = p("mix", x.shape[-1], x.shape[-1]).astype(x.dtype), p("bias", x.shape[-1]).astype(x.dtype)

    def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        weights = jax.nn.softmax(jnp.einsum("bc,nc->bn", x, table, preferred_element_type=jnp.float32))
        return jax.nn.sigmoid(x @ mix + bias) + weights.astype(x.dtype) @ table, weights.max(-1)

    return lax.scan(step, x, None, length=steps)


@workload(
    "Tensor Brain, 8 rounds of naming one of 65,536 indices of 512, 64 states, bfloat16",
    family=FAMILY,
    source="Tresp et al., arXiv 2109.13392 (Tensor Brain)",
)
def tensor_brain(tiny: bool = False) -> Built:
    indices, width, rows, steps = (8, 4, 2, 2) if tiny else (65_536, 512, 64, 8)
    return infer(partial(remember, indices=indices, steps=steps), floats(rows, width, dtype=jnp.bfloat16))


def random_attention(weights: jax.Array, x: jax.Array) -> jax.Array:
    """Averages of tokens [T, C] by what the last one attends to, for each random matrix [M, C, C]: [M, C]."""
    logits = jnp.einsum("tc,mcd,d->mt", x, weights, x[-1])
    return jax.nn.softmax(logits / x.shape[-1] ** 0.5) @ x


@workload(
    "random features of one attention layer, 4096 random heads on 256 rows of 32 tokens of 64, float32",
    family=FAMILY,
    source="Fu et al., arXiv 2307.11353 (one attention layer by random features)",
)
def random_features(tiny: bool = False) -> Built:
    heads, rows, length, width = (3, 2, 4, 4) if tiny else (4096, 256, 32, 64)

    def fun(weights: jax.Array, x: jax.Array, readout: jax.Array) -> jax.Array:
        return jax.vmap(partial(random_attention, weights))(x).reshape(rows, -1) @ readout

    return fun, (floats(heads, width, width), floats(rows, length, width), floats(heads * width))


def kronecker_attention(
    q: jax.Array, keys: tuple[jax.Array, jax.Array], values: tuple[jax.Array, jax.Array], block: int
) -> jax.Array:
    """Attention of each token to pairs of tokens: n³ logits, a block of queries at a time.

    Args:
      q: [n, C] queries.
      keys: [n, C] twice; the key of a pair is the product of both.
      values: likewise.
      block: queries at once; it divides n.

    Returns:
      [n, C].
    """
    (k1, k2), (v1, v2) = keys, values

    def attend(queries: jax.Array) -> jax.Array:
        logits = jnp.einsum("qc,ic,jc->qij", queries, k1, k2, preferred_element_type=jnp.float32) / q.shape[-1]
        weights = jax.nn.softmax(logits, axis=(1, 2)).astype(v1.dtype)
        return jnp.einsum("qij,ic,jc->qc", weights, v1, v2)

    return lax.map(attend, q.reshape(-1, block, q.shape[-1])).reshape(q.shape)


@workload(
    "attention of 512 tokens of 64 to all pairs of tokens, 8 heads, blocks of 16 queries, bfloat16",
    family=FAMILY,
    source="Alman and Song, arXiv 2310.04064 (Kronecker attention)",
)
def kronecker_pairs(tiny: bool = False) -> Built:
    heads, n, width, block = (2, 4, 4, 2) if tiny else (8, 512, 64, 16)

    def fun(q: jax.Array, keys: tuple[jax.Array, jax.Array], values: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jax.vmap(partial(kronecker_attention, block=block))(q, keys, values)

    x = floats(heads, n, width, dtype=jnp.bfloat16)
    return fun, (x, (x, x), (x, x))


def first_harmonics(x: jax.Array, count: int) -> tuple[np.ndarray[Any, Any], jax.Array]:
    """Returns the first `count` frequencies of [B, T, C], and their mean amplitudes [B, count]."""
    amplitudes = jnp.abs(jnp.fft.rfft(x.astype(jnp.float32), axis=1)).mean(-1)
    return np.arange(1, count + 1), amplitudes[:, 1 : count + 1]


def times_block(p: Weights, x: jax.Array, top: int, hidden: int) -> jax.Array:
    """Folds [B, T, C] by its strongest periods into pictures, convolves them, and sums them by strength.

    A period decides a shape, and shapes are static: all the harmonics up to 2 × `top` are folded, and the weights of
    those outside of the `top` strongest are zero.
    """
    b, length, width = x.shape
    frequencies, strengths = first_harmonics(x, 2 * top)
    least = lax.top_k(strengths, top)[0][:, -1:]
    weights = jax.nn.softmax(jnp.where(strengths >= least, strengths, -jnp.inf)).astype(x.dtype)
    total = jnp.zeros_like(x)
    for number, frequency in enumerate(frequencies):
        period = math.ceil(length / frequency)
        folded = jnp.pad(x, ((0, 0), (0, -length % period), (0, 0))).reshape(b, -1, period, width)
        y = sum(p.conv(f"in{kernel}", folded, hidden, kernel) for kernel in (1, 3, 5))
        y = sum(p.conv(f"out{kernel}", jax.nn.gelu(y), width, kernel) for kernel in (1, 3, 5))
        total = total + weights[:, number, None, None] * y.reshape(b, -1, width)[:, :length]
    return x + total


@workload(
    "TimesNet, 2 blocks of 64 that fold 32 × 96 steps by 5 periods, one Adam step, mixed precision",
    family=FAMILY,
    source="Wu et al., arXiv 2210.02186 (TimesNet)",
    kind="training",
    donate_argnums=(0, 1),
)
def timesnet_train(tiny: bool = False) -> Built:
    batch, length, width, hidden, top = (2, 8, 4, 4, 2) if tiny else (32, 96, 64, 64, 5)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        x = p.dense("embed", x, width)
        for layer in range(2):
            part = p / f"block{layer}"
            x = part.layer_norm("norm", times_block(part, x, top, hidden))
        return p.dense("out", x, 7)

    return train(squared(apply), floats(batch, length, 7, dtype=jnp.bfloat16), floats(batch, length, 7))


def at_points(plane: jax.Array, points: jax.Array) -> jax.Array:
    """Bilinear values of a plane [R, R, C] at points [N, 2] of the unit square, its corners at the pixels: [N, C]."""
    places = points * (plane.shape[0] - 1)
    low = jnp.clip(jnp.floor(places).astype(jnp.int32), 0, plane.shape[0] - 2)
    share = (places - low).astype(plane.dtype)
    total = jnp.zeros((points.shape[0], plane.shape[-1]), plane.dtype)
    for i in (0, 1):
        for j in (0, 1):
            weight = (share[:, 0] if i else 1 - share[:, 0]) * (share[:, 1] if j else 1 - share[:, 1])
            total = total + weight[:, None] * plane[low[:, 0] + i, low[:, 1] + j]
    return total


@workload(
    "transformer of 6 blocks of 256 over the pixels of 16 tri-planes 3 × 32 × 32 × 16, bfloat16",
    family=FAMILY,
    source="Cardace et al., arXiv 2310.01140 (tri-planes)",
)
def tri_plane(tiny: bool = False) -> Built:
    batch, side, channels, width, layers = (2, 4, 2, 8, 1) if tiny else (16, 32, 16, 256, 6)

    def apply(p: Weights, planes: jax.Array, points: jax.Array) -> tuple[jax.Array, jax.Array]:
        read = jax.vmap(
            lambda one, points: sum(
                at_points(one[k], points[:, list(axes)]) for k, axes in enumerate(((0, 1), (0, 2), (1, 2)))
            )
        )(planes, points)
        # The transformer sees each channel of the planes as one token (section 4).
        tokens = planes.transpose(0, 1, 4, 2, 3).reshape(batch, 3 * channels, side * side)
        x = p.layers("block", lambda p, x: p.transformer(x, 4, 4 * width), p.dense("embed", tokens, width), layers)
        return p.dense("classes", x.max(1), 10), p.mlp("field", read, width, 1)

    planes = floats(batch, 3, side, side, channels, dtype=jnp.bfloat16)
    return infer(apply, planes, floats(batch, 16 if tiny else 2048, 3))


@workload(
    "latent diffusion transformer over 5 layers of an image at once, 12 blocks of 768 on 5 × 256 tokens, bfloat16",
    family=FAMILY,
    source="Yang et al., arXiv 2411.17864 (LayerDecomp)",
)
def layer_decomp(tiny: bool = False) -> Built:
    layers, width, heads, side, pictures = (1, 8, 2, 4, 2) if tiny else (12, 768, 12, 32, 5)

    def apply(p: Weights, latents: jax.Array, time: jax.Array) -> jax.Array:
        b, k, h, w, c = latents.shape
        tokens = p.conv("patch", latents.reshape(b * k, h, w, c), width, 2, 2, padding="VALID")
        x = tokens.reshape(b, k, -1, width) + p("picture", k, 1, width).astype(latents.dtype)
        x = x + p("positions", x.shape[2], width).astype(latents.dtype)
        x = x.reshape(b, -1, width) + p.mlp("time", time[:, None], width, width)[:, None]
        x = p.layers("block", lambda p, x: p.transformer(x, heads, 4 * width), x, layers)
        pixels = p.dense("out", p.layer_norm("norm", x), 4 * c).reshape(b, k, h // 2, w // 2, 2, 2, c)
        return pixels.swapaxes(4, 3).reshape(latents.shape)

    latents = floats(2, pictures, side, side, 4, dtype=jnp.bfloat16)
    return infer(apply, latents, floats(2, dtype=jnp.bfloat16))


def microbatched(loss: Any, params: Any, tokens: jax.Array, count: int) -> Any:
    """The mean loss and gradient of [B, T] tokens, their rows in so many microbatches, one after another in a loop."""
    parts = tokens.reshape(count, -1, tokens.shape[-1])

    def add(total: Any, part: jax.Array) -> tuple[Any, None]:
        new = jax.value_and_grad(loss)(params, part)
        return jax.tree.map(lambda a, b: a + b / count, total, new), None

    start = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params))
    return lax.scan(add, start, parts)[0]


@workload(
    "GPT blocks of a Megatron stage, 4 of 1024, 8 microbatches of 2 × 512 tokens, one SGD step, mixed precision",
    family=FAMILY,
    source="Narayanan et al., arXiv 2104.04473 (Megatron-LM)",
    kind="training",
    donate_argnums=(0,),
)
def megatron_train(tiny: bool = False) -> Built:
    layers, width, heads, vocab, batch, length, count = (
        (1, 8, 2, 8, 4, 4, 2) if tiny else (4, 1024, 16, 8192, 16, 512, 8)
    )

    def apply(p: Weights, tokens: jax.Array) -> jax.Array:
        mask = nn.causal_mask(tokens.shape[1])
        x = p.embed("embed", tokens, vocab, width)
        x = p.layers("block", lambda p, x: p.transformer(x, heads, 4 * width, mask), x, layers)
        return p.dense("head", p.layer_norm("norm", x), vocab)

    tokens = ints(batch, length + 1)
    _, (params, _) = train(predicted(apply), tokens, optimizer="sgd")

    def step(params: Any, tokens: jax.Array) -> tuple[Any, jax.Array]:
        value, grads = microbatched(lambda p, t: predicted(apply)(Weights(p, train=True), t), params, tokens, count)
        return optimizers.sgd(params, grads, rate=1e-2), value

    return step, (params, tokens)
