"""The steps of a decomposition, carried out by JAX.

A signal is an array `[…, parts, n1, …, np]`: its samples' digits of time, most significant first, for each part of a
complex number. Step by step the digits become those of frequency. The axes before them are rows, which are all
multiplied by the same matrices. XLA may lay out the digits as is best for its matrix unit, so nothing here transposes.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memplan.passes.fft.choice import EXACT_TERMS
from memplan.passes.fft.decomposition import Decomposition


@dataclass(frozen=True)
class Arithmetic:
    """How products are computed.

    Attributes:
      storage: dtype of matrices and of what lies between steps.
      accumulate: dtype of sums.
      precision: of the products, as for `jax.lax.dot_general`.
      terms: how many a result may be summed of, over all steps.
    """

    storage: Any
    accumulate: Any
    precision: jax.lax.Precision
    terms: float = math.inf

    @staticmethod
    def highest(dtype: Any) -> Arithmetic:
        """Returns arithmetic that is as exact as the dtype of the signal, at least float32."""
        wide = jnp.promote_types(dtype, jnp.float32)
        return Arithmetic(wide, wide, jax.lax.Precision.HIGHEST, EXACT_TERMS)

    @staticmethod
    def narrow() -> Arithmetic:
        """Returns the arithmetic of TPUs' matrix units: bfloat16, summed in float32."""
        return Arithmetic(jnp.bfloat16, jnp.float32, jax.lax.Precision.DEFAULT)

    @staticmethod
    def fast(dtype: Any) -> Arithmetic:
        """Returns float32 arithmetic in which products may lose digits, as a GPU's TF32 does."""
        wide = jnp.promote_types(dtype, jnp.float32)
        return Arithmetic(wide, wide, jax.lax.Precision.DEFAULT)


def digits_of(x: jax.Array, decomposition: Decomposition, rows: int) -> jax.Array:
    """Returns samples `[…, n]` as digits `[…, rows, n2, …, np]`, zeros added at the end."""
    padding = rows * decomposition.tail - x.shape[-1]
    if padding:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, padding)])
    return x.reshape(*x.shape[:-1], rows, *decomposition.factors[1:])


def samples_of(x: jax.Array, order: int, count: int) -> jax.Array:
    """Returns digits of time `[…, n1, …, np]` as the first `count` samples `[…, count]`."""
    kept = x.shape[: x.ndim - order]
    return x.reshape(*kept, math.prod(x.shape[len(kept) :]))[..., :count]


def forward(
    x: jax.Array,
    decomposition: Decomposition,
    arithmetic: Arithmetic,
    real: bool = False,
    half: bool = False,
    kept: Sequence[int] | None = None,
) -> jax.Array:
    """Returns the spectrum `[…, 2, k1, …, kp]` of a signal `[…, parts, n1, …, np]`.

    Args:
      x: the signal; it may have fewer than `N1` values of the first digit: the others are zero.
      decomposition: of the length.
      arithmetic: to be used.
      real: whether the signal is real, and has one part.
      half: whether only the first `decomposition.half` values of k1 are wanted: those of a real signal tell the others.
      kept: values of the last digit of frequency that are wanted; None for all.
    """
    order = len(decomposition.factors)
    rows = x.shape[x.ndim - order]
    for step in range(order):
        is_last = step == order - 1
        dtype = arithmetic.accumulate if is_last else arithmetic.storage
        matrix = decomposition.forward(step, rows, real, half)
        if is_last and kept is not None:
            matrix = matrix[..., list(kept)]
        x = _apply(x, matrix, step, decomposition, arithmetic, dtype)
        if not is_last and step + 1 in decomposition.ends:
            x = _twiddle(x, decomposition.twiddles(decomposition.ends.index(step + 1), half), order)
    return x


def backward(
    x: jax.Array,
    decomposition: Decomposition,
    arithmetic: Arithmetic,
    rows: int | None = None,
    real: bool = False,
    half: bool = False,
    dtype: Any = None,
    kept: Sequence[int] | None = None,
) -> jax.Array:
    """Returns the signal `[…, parts, n1, …, np]` of a spectrum `[…, 2, k1, …, kp]`.

    Args:
      x: the spectrum.
      decomposition: of the length.
      arithmetic: to be used.
      rows: how many values of the first digit of time are wanted; None for all.
      real: whether the signal is real: it has one part then.
      half: whether the spectrum has only the first `decomposition.half` values of k1.
      dtype: of the result; by default that of sums.
      kept: values of the last digit of frequency that `x` has, the others are zero; None for all.
    """
    order = len(decomposition.factors)
    for step in reversed(range(order)):
        if step < order - 1 and step + 1 in decomposition.ends:
            x = _twiddle(x, np.conj(decomposition.twiddles(decomposition.ends.index(step + 1), half)), order)
        result = arithmetic.storage if step else dtype or arithmetic.accumulate
        matrix = decomposition.backward(step, rows, real, half)
        if step == order - 1 and kept is not None:
            matrix = matrix[..., list(kept), :, :]
        x = _apply(x, matrix, step, decomposition, arithmetic, result)
    return x


def _twiddle(x: jax.Array, factors: np.ndarray, order: int) -> jax.Array:
    """Multiplies digits `[…, 2, digits]` by complex factors, which miss the digits of earlier groups."""
    axis = x.ndim - order - 1
    factors = factors.reshape((1,) * (order - factors.ndim) + factors.shape)
    real, imaginary = (jnp.asarray(part.astype(x.dtype)) for part in (factors.real, factors.imag))
    return complex_product(x, jnp.stack([real, imaginary]), axis)


def complex_product(x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
    """Returns the product of complex numbers; their parts are on an axis of `x`, the same from the end of `y`."""
    from_end = axis - x.ndim
    a, b = jnp.split(x, 2, from_end)
    c, d = jnp.split(y, 2, from_end)
    return jnp.concatenate([a * c - b * d, a * d + b * c], from_end)


def _apply(
    x: jax.Array, matrix: np.ndarray, step: int, decomposition: Decomposition, arithmetic: Arithmetic, dtype: Any
) -> jax.Array:
    """Multiplies the digit of a step, and the parts, by the step's matrices."""
    order = len(decomposition.factors)
    start = max(end for end in (0, *decomposition.ends) if end <= step)
    digits, into, part, out = string.ascii_lowercase[:order], "x", "y", "z"
    before, after, known = digits[:step], digits[step + 1 :], digits[start:step]
    spec = f"...{part}{digits},{known}{part}{digits[step]}{out}{into}->...{out}{before}{into}{after}"
    product = jnp.einsum(
        spec,
        x.astype(arithmetic.storage),
        jnp.asarray(matrix.astype(arithmetic.storage)),
        precision=arithmetic.precision,
        preferred_element_type=arithmetic.accumulate,
    )
    return product.astype(dtype)
