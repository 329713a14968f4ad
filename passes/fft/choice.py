"""Chooses the fastest decomposition by a model of what its steps cost on a target.

The model is that of Fu et al., "FlashFFTConv", arXiv 2311.05908, section 3.2: a step costs its arithmetic, at the
rate of the matrix unit if the factor is large enough for it, and the movement of its result, at the bandwidth of the
memory that holds it. Three things are added here: products are padded to the tiles of the unit, zeros at the end of a
signal are not multiplied, and the matrices themselves are read from memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from memplan.compiler.hardware.roofline import duration
from memplan.passes.fft.decomposition import Decomposition

MAX_ORDER = 4

# No side of a matrix is larger than this: beyond it, another step is always cheaper.
_MAX_FACTOR = 2048

# The largest sum of the factors of a transform that is to be as exact as one by butterflies. A factor is the number of
# terms of a sum, and each term adds to the error; measured in float32, the error is 1.3 times that of `jnp.fft` with
# 320 terms and 2.1 times with 512.
EXACT_TERMS = 400

# The most bytes of all matrices of a step together; larger ones are split into groups.
_MAX_TABLE = 32 << 20


@dataclass(frozen=True)
class FftTarget:
    """What products and movements cost on a chip.

    Attributes:
      matrix_rate: multiplications and additions in the matrix unit, per second.
      tile: rows and columns of the unit; smaller products take as long as one of this size.
      vector_rate: multiplications and additions outside the matrix unit, per second.
      bandwidth: of the slow memory, bytes per second.
      fast_bandwidth: of the fast memory.
      fast_bytes: its size.
      item: bytes of a number between steps.
    """

    matrix_rate: float
    tile: int
    vector_rate: float
    bandwidth: float
    fast_bandwidth: float
    fast_bytes: int
    item: int


# The rates of a TPU v5e (Google Cloud, "TPU v5e": 197 TFLOP/s in bfloat16, 819 GB/s, matrix units of 128 x 128). Other
# TPUs lead to the same choices, which depend on the tile and on the ratio of arithmetic to bandwidth.
TPU = FftTarget(197e12, 128, 3e12, 819e9, 8e12, 96 << 20, 2)

# Assumption: a core or two with vector instructions, all data in caches where it fits.
CPU = FftTarget(1e11, 8, 2e10, 1e10, 5e10, 16 << 20, 4)

# What is assumed of each platform of JAX.
FFT_TARGETS = {"tpu": TPU, "gpu": CPU, "cpu": CPU}


@lru_cache(maxsize=512)
def decompose(
    length: int,
    rows: int,
    target: FftTarget,
    real: bool = True,
    samples: int | None = None,
    terms: float = math.inf,
) -> Decomposition | None:
    """Returns the cheapest decomposition of a length; None if it has a prime factor too large for a matrix.

    Args:
      length: of the transform, exactly.
      rows: how many signals there are.
      target: that it runs on.
      real: whether they are real.
      samples: how many samples are not zero; None for all.
      terms: at most, of all sums of a result together, where the length allows it.
    """
    found = [Decomposition(groups) for factors in _factorizations(length) if (groups := _grouped(factors, target))]
    exact = [decomposition for decomposition in found if sum(decomposition.factors) <= terms]
    return min(exact or found, key=lambda d: seconds(d, rows, target, real, samples), default=None)


@lru_cache(maxsize=512)
def decompose_at_least(
    length: int, rows: int, target: FftTarget, samples: int, terms: float = math.inf
) -> Decomposition:
    """Returns the cheapest decomposition of a length that is not below the one given, for real signals.

    Args:
      length: least length of the transform.
      rows: how many signals there are.
      target: that it runs on.
      samples: how many samples are not zero.
      terms: at most, of all sums of a result together.
    """
    found: list[Decomposition] = []
    for exponent in range(length.bit_length()):
        first = -(-length >> exponent)
        first += first % 2  # so that nothing but k1 = 0 and k1 = N1/2 is its own conjugate
        if first > _MAX_FACTOR:
            continue
        for tail in _factorizations(1 << exponent, MAX_ORDER - 1) if exponent else [()]:
            if first + sum(tail) <= terms and (groups := _grouped((first, *tail), target)):
                found.append(Decomposition(groups))
    if not found:
        raise ValueError(f"a transform of {length:,} samples is too long for {MAX_ORDER} steps")
    return min(found, key=lambda d: seconds(d, rows, target, True, samples))


def seconds(decomposition: Decomposition, rows: int, target: FftTarget, real: bool, samples: int | None) -> float:
    """Returns about how many seconds a transform takes; its inverse takes as long."""
    factors, length = decomposition.factors, decomposition.length
    numbers = rows * 2 * length * ((decomposition.half / factors[0]) if real else 1.0)
    total = 0.0
    for step, factor in enumerate(factors):
        inner = factor * 2
        if step == 0:
            filled = decomposition.rows(samples) if samples is not None else factor
            inner = filled * (1 if real else 2)
        outer = 2 * (decomposition.half if real and step == 0 else factor)
        products = numbers / outer * _tiled(inner, target.tile) * _tiled(outer, target.tile)
        moved = (numbers + (numbers if step else rows * inner * decomposition.tail)) * target.item
        bandwidth = target.fast_bandwidth if moved <= target.fast_bytes else target.bandwidth
        total += duration(2.0 * products / target.matrix_rate, moved / bandwidth)
        # The result of a step must be transposed for the next one.
        total += moved / bandwidth
        total += _table(factors, step, decomposition) * target.item / target.bandwidth
        if step < len(factors) - 1 and step + 1 in decomposition.ends:
            total += 3.0 * numbers / target.vector_rate + 2.0 * moved / bandwidth
    return total


def _tiled(size: int, tile: int) -> int:
    return -(-size // tile) * tile


def _table(factors: tuple[int, ...], step: int, decomposition: Decomposition) -> int:
    """Returns how many numbers the matrices of a step have."""
    start = max(end for end in (0, *decomposition.ends) if end <= step)
    return 4 * factors[step] ** 2 * math.prod(factors[start:step])


def _grouped(factors: tuple[int, ...], target: FftTarget) -> tuple[tuple[int, ...], ...] | None:
    """Returns factors in as few groups as the size of their matrices allows; None if one alone is too large."""
    groups: list[list[int]] = [[]]
    for factor in factors:
        if 4 * factor**2 * target.item > _MAX_TABLE:
            return None
        if 4 * factor**2 * math.prod(groups[-1]) * target.item > _MAX_TABLE:
            groups.append([])
        groups[-1].append(factor)
    return tuple(map(tuple, groups))


def _factorizations(length: int, order: int = MAX_ORDER) -> Iterator[tuple[int, ...]]:
    """Yields all ways to write a length as a product of up to `order` factors from 2 up, in every order."""
    if 2 <= length <= _MAX_FACTOR or length == 1:
        yield (length,)
    if order > 1:
        for factor in range(2, min(_MAX_FACTOR, length // 2) + 1):
            if length % factor == 0:
                yield from ((factor, *rest) for rest in _factorizations(length // factor, order - 1))
