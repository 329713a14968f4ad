"""Attention in blocks, and an estimate of where it pays.

For each block of the batch and of the queries, all scores are computed if they fit. Otherwise one block of keys follows
another, and three things are kept: the largest score so far, the sum of exponentials relative to it, and the weighted
sum of the values (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867; for attention:
Rabe and Staats, "Self-attention does not need O(n²) memory", arXiv 2112.05682, and Dao et al., "FlashAttention", arXiv
2205.14135). It is written in `jax.lax`, so that XLA compiles it for any platform. Nothing of a block is kept for a
backward pass, which computes it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memplan.passes.attention_scores import Part, Scores, operand_cuts, taken
from memplan.passes.base import Context
from memplan.passes.fft.choice import FFT_TARGETS, TPU, FftTarget

# The values of the variables that the scores are computed from.
Leaves = Mapping[Any, jax.Array]

# How often the whole scores go to or from slow memory without blocks: XLA:TPU fuses the first product with the largest
# score, and the rest of the softmax with the second product, so they are written once and read once.
_PASSES = 2

# The scores of one block may take this part of the fast memory: around them are queries, keys, values and sums.
_PART_OF_FAST = 0.7

# The least queries and keys of a block, if there are as many: smaller products waste a matrix unit. Queries are cut
# first, then rows, then keys. By the estimates for a TPU v5e, 4 x 16 x 2048 x 2048 scores gain 2.6 times in blocks of 4
# x 16 x 128 x 2048 and 2.3 times in blocks of 1 x 16 x 512 x 2048; 1 x 8 x 4096 x 4096 scores gain 6.6 times in blocks
# of 1 x 8 x 512 x 4096 and 1.3 times in blocks of 1 x 1 x 1024 x 1024, where sums are carried from block to block.
_LEAST = 128


@dataclass(frozen=True)
class Sizes:
    """The sizes of blocks.

    Attributes:
      rows: of the batch.
      queries, keys: of the scores.
    """

    rows: int
    queries: int
    keys: int


@dataclass(frozen=True)
class Attention:
    """Attention as it was found in a program.

    Attributes:
      scores: that the softmax is taken of.
      dot: the product of queries and keys.
      key_axis: of the scores, along which the softmax goes.
      query_axis: of the scores, the longest one that only queries have; None if there is none.
      row_axis: of the scores, the first one that queries, keys and values all have; None if there is none.
      product: of probabilities and values.
      side: which operand of the product the probabilities are.
      order: `order[i]` is the axis of the scores that is axis i of that operand; some of length one may be missing.
      weights: dtype of that operand.
    """

    scores: Scores
    dot: Any
    key_axis: int
    query_axis: int | None
    row_axis: int | None
    product: Any
    side: int
    order: tuple[int, ...]
    weights: Any

    @property
    def key_side(self) -> int:
        """Which operand of `dot` the keys are."""
        ((_, cuts),) = [found for found in self.scores.products({self.key_axis: "key"}) if found[0] is self.dot]
        ((side, _),) = [found for found in enumerate(operand_cuts(self.dot, cuts)) if found[1]]
        return side

    @property
    def cuts(self) -> dict[int, str]:
        """The axes of the scores that are cut."""
        axes = ((self.key_axis, "key"), (self.query_axis, "query"), (self.row_axis, "row"))
        return {axis: name for axis, name in axes if axis is not None}

    @property
    def operands(self) -> list[Any]:
        """The variables that `attend` takes the values of: the leaves of the scores, then the values."""
        return [*self.scores.leaves(self.cuts), self.product.invars[1 - self.side]]

    @property
    def sizes(self) -> Sizes:
        """The numbers of rows, queries and keys."""
        shape = self.scores.atom.aval.shape
        rows, queries = (1 if axis is None else shape[axis] for axis in (self.row_axis, self.query_axis))
        return Sizes(rows, queries, shape[self.key_axis])


def reason_against(found: Attention, context: Context) -> str:
    """Returns why blocks are estimated not to pay; "" if they are estimated to pay."""
    target = FFT_TARGETS[context.platform]
    if context.platform != "tpu":
        return f"on a {context.platform}, blocks were not measured to be faster"
    scores = _bytes(found.scores.atom.aval)
    if scores <= target.fast_bytes:
        return f"its scores, {scores:,} bytes, fit the fast memory"
    chosen = blocks(found, target)
    if chosen is None:
        return "its queries and keys have no divisors that would be good sizes of blocks"
    # Operands that are not cut along the queries, such as keys and values, are read once for each block of queries.
    rounds = found.sizes.queries // chosen.queries
    moved = rounds * _bytes(found.operands[-1].aval) + _bytes(found.product.outvars[0].aval)
    for leaf, cuts in found.scores.leaves(found.cuts).items():
        moved += _bytes(leaf.aval) * (1 if "query" in cuts else rounds)
    if moved >= _PASSES * scores:
        return f"blocks would move {moved:,} bytes, whole scores {_PASSES * scores:,}"
    return ""


def blocks(found: Attention, target: FftTarget) -> Sizes | None:
    """Returns blocks whose scores fit, in the fewest pieces; None if no divisors of the sizes give good blocks."""
    whole = found.sizes
    each = 4 * math.prod(found.scores.atom.aval.shape) // (whole.rows * whole.queries * whole.keys)
    most = int(target.fast_bytes * _PART_OF_FAST) // each
    rows, keys = whole.rows, whole.keys
    queries = _divisor(whole.queries, most // (rows * keys))
    if queries < min(whole.queries, _LEAST):
        queries = _divisor(whole.queries, _LEAST)
        rows = _divisor(whole.rows, most // (queries * keys)) or 1
        keys = _divisor(whole.keys, most // (rows * queries))
    good = 2 * queries > min(whole.queries, _LEAST) and 2 * keys > min(whole.keys, _LEAST)
    return Sizes(rows, queries, keys) if good else None


def _divisor(size: int, most: int) -> int:
    return max((divisor for divisor in range(1, min(size, most) + 1) if size % divisor == 0), default=0)


def _bytes(aval: Any) -> int:
    return math.prod(aval.shape) * np.dtype(aval.dtype).itemsize


def attend(found: Attention, values: Sequence[jax.Array], sizes: Sizes | None = None) -> jax.Array:
    """Returns the result of the product of probabilities and values, computed in blocks.

    Args:
      found: the attention.
      values: of `found.operands`.
      sizes: of blocks, which divide the whole sizes; None for those of `blocks` on a TPU.
    """
    sizes = sizes or blocks(found, TPU) or found.sizes
    leaves = dict(zip(found.operands[:-1], values[:-1], strict=True))

    @jax.checkpoint
    def of_block(row: Any, query: Any) -> jax.Array:
        parts = {"row": Part(row * sizes.rows, sizes.rows), "query": Part(query * sizes.queries, sizes.queries)}
        if sizes.keys == found.sizes.keys:
            return _whole(found, leaves, values[-1], parts)
        return _online(found, leaves, values[-1], parts, sizes.keys)

    def of_rows(row: Any) -> jax.Array:
        count = found.sizes.queries // sizes.queries
        return _side_by_side(found, found.query_axis, lambda query: of_block(row, query), count)

    return _side_by_side(found, found.row_axis, of_rows, found.sizes.rows // sizes.rows)


def _side_by_side(found: Attention, axis: int | None, work: Callable[[Any], jax.Array], count: int) -> jax.Array:
    """Returns the results of blocks, concatenated along the axis of the result that is a given axis of the scores."""
    if count == 1:
        return work(0)
    place = _out_axes(found).index(axis)
    stacked = jnp.moveaxis(lax.map(work, jnp.arange(count)), 0, place)
    shape = stacked.shape
    return stacked.reshape(*shape[:place], count * shape[place + 1], *shape[place + 2 :])


def _whole(found: Attention, leaves: Leaves, values: jax.Array, parts: Mapping[str, Part]) -> jax.Array:
    """Returns the result for a block that has all keys.

    It is computed as programs do it, probabilities first: XLA has fusions for that.
    """
    here = {**parts, "key": Part(0, found.sizes.keys)}
    scores = found.scores.part(here, found.cuts, leaves)
    powers = jnp.exp(scores - lax.stop_gradient(jnp.max(scores, found.key_axis, keepdims=True)))
    weights = powers / jnp.sum(powers, found.key_axis, keepdims=True)
    return _weighted(found, weights, taken(values, _value_cuts(found), here), found.product.outvars[0].aval.dtype)


def _online(
    found: Attention, leaves: Leaves, values: jax.Array, parts: Mapping[str, Part], key_block: int
) -> jax.Array:
    """Returns the result for a block of rows and queries, one block of keys after another."""
    dtype = found.product.outvars[0].aval.dtype
    wide = jnp.promote_types(found.scores.atom.aval.dtype, jnp.float32)
    shape, result = list(found.scores.atom.aval.shape), list(found.product.outvars[0].aval.shape)
    shape[found.key_axis] = 1
    for axis, name in found.cuts.items():
        if name in parts:
            shape[axis] = parts[name].size
            result[_out_axes(found).index(axis)] = parts[name].size

    def of_keys(carry: tuple[jax.Array, ...], number: Any) -> tuple[tuple[jax.Array, ...], None]:
        peak, total, summed = carry
        here = {**parts, "key": Part(number * key_block, key_block)}
        scores = found.scores.part(here, found.cuts, leaves).astype(wide)
        new_peak = lax.stop_gradient(jnp.maximum(peak, jnp.max(scores, found.key_axis, keepdims=True)))
        # Where all scores so far are minus infinity, there is no largest score to be relative to.
        base = jnp.where(jnp.isfinite(new_peak), new_peak, 0.0)
        powers, fading = jnp.exp(scores - base), jnp.exp(peak - base)
        new = _weighted(found, powers, taken(values, _value_cuts(found), here), summed.dtype)
        total = total * fading + jnp.sum(powers, found.key_axis, keepdims=True)
        return (new_peak, total, summed * _beside(found, fading) + new), None

    start = (
        jnp.full(shape, -jnp.inf, wide),
        jnp.zeros(shape, wide),
        jnp.zeros(result, jnp.promote_types(dtype, jnp.float32)),
    )
    count = found.sizes.keys // key_block
    (_, total, summed), _ = lax.scan(jax.checkpoint(of_keys), start, jnp.arange(count))
    return (summed / _beside(found, total)).astype(dtype)


def _weighted(found: Attention, weights: jax.Array, values: jax.Array, dtype: Any) -> jax.Array:
    """Returns the product of weights, in the order of the scores' axes, and values."""
    params = found.product.params
    operands = [_ordered(weights.astype(found.weights), found.order), values]
    return lax.dot_general(
        *(operands if found.side == 0 else reversed(operands)),
        dimension_numbers=params["dimension_numbers"],
        precision=params["precision"],
        preferred_element_type=dtype,
    )


def _value_cuts(found: Attention) -> dict[int, str]:
    """Returns which axes of the values are cut."""
    contracted, _ = found.product.params["dimension_numbers"]
    cuts = {contracted[1 - found.side][0]: "key"}
    if found.row_axis is not None:
        place = _out_axes(found).index(found.row_axis)
        cuts.update(operand_cuts(found.product, {place: "row"})[1 - found.side])
    return cuts


def _out_axes(found: Attention) -> list[int | None]:
    """Returns for each axis of the result the axis of the scores, None for an axis that only the values have."""
    rank = len(found.product.outvars[0].aval.shape)
    axes: list[int | None] = []
    for axis in range(rank):
        cuts = operand_cuts(found.product, {axis: "axis"})[found.side]
        axes.append(found.order[next(iter(cuts))] if cuts else None)
    return axes


def _beside(found: Attention, x: jax.Array) -> jax.Array:
    """Returns one number for each row of the scores, broadcastable to the result."""
    out = _out_axes(found)
    ordered = _ordered(x, [axis for axis in out if axis is not None])
    return jnp.expand_dims(ordered, [place for place, axis in enumerate(out) if axis is None])


def _ordered(x: jax.Array, order: Sequence[int]) -> jax.Array:
    """Returns an array with its axes in an order, from which some of length one are missing."""
    missing = [axis for axis in range(x.ndim) if axis not in order]
    return x.transpose(*missing, *order).reshape([x.shape[axis] for axis in order])
