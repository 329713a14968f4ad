"""`jax.lax.fft` as matrix products: complex and real transforms, and their inverses, of any length.

The spectrum of a decomposition is put in order at the end, which is one transposition. The transform of a real signal
needs only the frequencies up to N/2. The last digit of frequency is the most significant one, so half of the last step
is left out. A length with a large prime factor becomes a convolution with a chirp (Bluestein, "A linear filtering
approach to the computation of the discrete Fourier transform", 1970), in which no spectrum is put in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memplan.passes.fft.choice import FftTarget, decompose
from memplan.passes.fft.decomposition import Decomposition, roots
from memplan.passes.fft.steps import Arithmetic, backward, complex_product, digits_of, forward, samples_of


def fft(
    x: jax.Array, kind: lax.FftType, lengths: Sequence[int], arithmetic: Arithmetic, target: FftTarget
) -> jax.Array:
    """Returns what `jax.lax.fft` does, up to rounding.

    Args:
      x: `[..., n1, n2, …]`, complex, or real for RFFT.
      kind: FFT, IFFT, RFFT or IRFFT.
      lengths: of the transformed axes, the last ones of `x` (for IRFFT, those of the result).
      arithmetic: to be used.
      target: that it runs on.
    """
    if kind == lax.FftType.RFFT:
        y = _rfft(x, lengths[-1], arithmetic, target)
        return _all_axes(y, lengths[:-1], False, arithmetic, target, first=2)
    if kind == lax.FftType.IRFFT:
        y = _all_axes(x, lengths[:-1], True, arithmetic, target, first=2)
        return _irfft(y, lengths[-1], arithmetic, target)
    return _all_axes(x, lengths, kind == lax.FftType.IFFT, arithmetic, target, first=1)


def _all_axes(
    x: jax.Array, lengths: Sequence[int], inverse: bool, arithmetic: Arithmetic, target: FftTarget, first: int
) -> jax.Array:
    """Transforms complex numbers along axes, the last of which is number `first` from the end."""
    for number, length in enumerate(reversed(lengths)):
        axis = x.ndim - first - number
        moved = jnp.moveaxis(x, axis, -1)
        x = jnp.moveaxis(_complex(moved, length, inverse, arithmetic, target), -1, axis)
    return x


def _complex(x: jax.Array, length: int, inverse: bool, arithmetic: Arithmetic, target: FftTarget) -> jax.Array:
    """Returns the transform of complex numbers `[…, n]`."""
    parts = jnp.stack([x.real, x.imag], -2)
    # The inverse is the transform with the parts swapped, going in and coming out, divided by the length.
    if inverse:
        parts = parts[..., ::-1, :]
    rows = math.prod(x.shape[:-1])
    chosen = decompose(length, rows, target, real=False, terms=arithmetic.terms)
    if chosen is None:
        parts = _chirped(parts, length, arithmetic, target)
    else:
        spectrum = forward(_digits(parts, chosen), chosen, arithmetic)
        parts = _ordered(spectrum, len(chosen.factors))
    if inverse:
        parts = parts[..., ::-1, :] / length
    return lax.complex(parts[..., 0, :], parts[..., 1, :])


def _rfft(x: jax.Array, length: int, arithmetic: Arithmetic, target: FftTarget) -> jax.Array:
    """Returns the frequencies up to half of the length of real signals `[…, n]`."""
    chosen = decompose(length, math.prod(x.shape[:-1]), target, real=False, terms=arithmetic.terms)
    if chosen is None:
        parts = _chirped(jnp.stack([x, jnp.zeros_like(x)], -2), length, arithmetic, target)
    else:
        kept = range(_last_kept(chosen))
        spectrum = forward(_digits(x[..., None, :], chosen), chosen, arithmetic, real=True, kept=kept)
        parts = _ordered(spectrum, len(chosen.factors))
    return lax.complex(parts[..., 0, : length // 2 + 1], parts[..., 1, : length // 2 + 1])


def _irfft(x: jax.Array, length: int, arithmetic: Arithmetic, target: FftTarget) -> jax.Array:
    """Returns the real signals `[…, length]` of frequencies up to half of it, `[…, length // 2 + 1]`."""
    # The frequencies that are not there are the conjugates of those that are, and add the same to the real part.
    weight = np.full(length // 2 + 1, 2.0)
    weight[0] = 1.0
    if length % 2 == 0:
        weight[-1] = 1.0
    parts = jnp.stack([x.real, x.imag], -2) * weight.astype(arithmetic.accumulate)
    chosen = decompose(length, math.prod(x.shape[:-1]), target, real=False, terms=arithmetic.terms)
    if chosen is None:
        whole = jnp.pad(parts, [(0, 0)] * (parts.ndim - 1) + [(0, length - length // 2 - 1)])
        return _chirped(whole[..., ::-1, :], length, arithmetic, target)[..., 1, :] / length
    factors = chosen.factors
    kept = range(_last_kept(chosen))
    padding = len(kept) * (length // factors[-1]) - parts.shape[-1]
    padded = jnp.pad(parts, [(0, 0)] * (parts.ndim - 1) + [(0, padding)])
    digits = padded.reshape(*padded.shape[:-1], len(kept), *reversed(factors[:-1]))
    spectrum = _reversed(digits, len(factors))
    y = backward(spectrum, chosen, arithmetic, real=True, kept=kept)
    return samples_of(y, len(factors), length)[..., 0, :]


def _last_kept(decomposition: Decomposition) -> int:
    """Returns how many values of the last digit hold the frequencies up to half of the length."""
    block = decomposition.length // decomposition.factors[-1]
    return (decomposition.length // 2) // block + 1


def _digits(parts: jax.Array, decomposition: Decomposition) -> jax.Array:
    return digits_of(parts, decomposition, decomposition.factors[0])


def _ordered(spectrum: jax.Array, order: int) -> jax.Array:
    """Returns a spectrum `[…, k1, …, kp]` in the order of frequencies `[…, k]`."""
    natural = _reversed(spectrum, order)
    return natural.reshape(*natural.shape[: natural.ndim - order], -1)


def _reversed(x: jax.Array, order: int) -> jax.Array:
    """Returns an array with its last axes in the opposite order."""
    kept = range(x.ndim - order)
    return x.transpose(*kept, *range(x.ndim - 1, x.ndim - order - 1, -1))


def _chirped(parts: jax.Array, length: int, arithmetic: Arithmetic, target: FftTarget) -> jax.Array:
    """Returns the transform `[…, 2, length]` of complex numbers of any length, by Bluestein's algorithm."""
    rows = math.prod(parts.shape[:-2])
    padded = 1 << (2 * length - 2).bit_length()
    chosen = decompose(padded, rows, target, real=False, samples=length, terms=arithmetic.terms)
    assert chosen is not None
    # exp(-πi·n²/length): the square is taken modulo 2·length, in integers, so that no digit of the angle is lost.
    chirp = roots(2 * length)[np.arange(length, dtype=np.int64) ** 2 % (2 * length)]
    kernel = np.zeros(padded, np.complex128)
    kernel[:length] = np.conj(chirp)
    kernel[padded - length + 1 :] = np.conj(chirp[1:][::-1])
    spectrum = np.fft.fft(kernel)[chosen.frequencies()]
    order = len(chosen.factors)

    def constant(values: np.ndarray) -> jax.Array:
        return jnp.asarray(np.stack([values.real, values.imag]).astype(arithmetic.accumulate))

    x = complex_product(parts.astype(arithmetic.accumulate), constant(chirp), parts.ndim - 2)
    digits = digits_of(x, chosen, chosen.rows(length))
    transformed = forward(digits, chosen, arithmetic)
    product = complex_product(transformed, constant(spectrum), transformed.ndim - order - 1)
    y = samples_of(backward(product, chosen, arithmetic, chosen.rows(length)), order, length)
    return complex_product(y, constant(chirp), y.ndim - 2)
