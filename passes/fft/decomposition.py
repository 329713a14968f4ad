"""The discrete Fourier transform as a chain of matrix products.

A length `N = N1·N2·…·Np` splits into p steps (Cooley and Tukey, "An algorithm for the machine calculation of complex
Fourier series", 1965; as matrix products over all rows at once: Fu et al., "FlashFFTConv", arXiv 2311.05908, section
3, where the order p is that of the *Monarch decomposition*). With time and frequency written as digits,

    n = (n1·N2 + n2)·N3 + n3            k = k1 + N1·(k2 + N2·k3)

step j turns the digit `nj` into `kj`. What it multiplies by depends on the digits of the frequency that are known by
then:

    X[k1 … kj, n(j+1) …] = sum over nj of  exp(-2πi·nj·(k1 + N1·k2 + … )/(N1·…·Nj)) · X[k1 … k(j-1), nj …]

so the twiddle factors between the steps are part of the matrices: there is one matrix for each value of the digits
before, and nothing is done element by element. Where that would be too many matrices, the steps are in *groups*:
between two groups the twiddle factors are multiplied by, and the matrices of a group know nothing of the digits of
the groups before.

The spectrum comes out with the digits in the order `k1, k2, …`, which is not that of the frequencies. A convolution
does not care, and never puts them in order.

Complex numbers are pairs of real ones, on an axis of their own. A matrix of complex numbers is a real one of twice
the size. **Real signals** have a spectrum of which one half follows from the other (`X[N-k] = conj(X[k])`): only `k1
≤ N1/2` is computed. **Zeros** at the end of a signal, and results that nobody wants at the end of another, are rows
and columns of the first and last matrices that are left out.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Complexes = NDArray[np.complex128]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Decomposition:
    """A transform of a length, as steps.

    Attributes:
      groups: the factors `N1, …, Np` of the length, in groups between which there are twiddle factors.
    """

    groups: tuple[tuple[int, ...], ...]

    @property
    def factors(self) -> tuple[int, ...]:
        """`N1, …, Np`."""
        return tuple(factor for group in self.groups for factor in group)

    @property
    def length(self) -> int:
        """The product of the factors."""
        return math.prod(self.factors)

    @property
    def tail(self) -> int:
        """The product of all factors but the first: how many samples a value of the first digit of time stands for."""
        return self.length // self.factors[0]

    @property
    def half(self) -> int:
        """How many values of the first digit of frequency a real signal needs."""
        return self.factors[0] // 2 + 1

    @property
    def ends(self) -> tuple[int, ...]:
        """How many steps there are up to the end of each group."""
        return tuple(itertools.accumulate(len(group) for group in self.groups))

    def rows(self, samples: int) -> int:
        """How many values of the first digit of time hold the first `samples` samples."""
        return -(-samples // self.tail)

    def forward(self, step: int, rows: int | None = None, real: bool = False, half: bool = False) -> Floats:
        """Returns the matrices of a step, `[digits of k before it in its group, parts in, nj, parts out, kj]`.

        Args:
          step: from 0.
          rows: of the first step, how many values of its digit of time are not zero; None for all.
          real: whether the signal is real: the first step has one part in.
          half: whether only `half` values of k1 are wanted.
        """
        matrix = self._matrix(step, half)
        if step > 0:
            return _parts(matrix)
        parts = _parts(matrix[: self.factors[0] if rows is None else rows])
        return parts[:1] if real else parts

    def backward(self, step: int, rows: int | None = None, real: bool = False, half: bool = False) -> Floats:
        """Returns the matrices that undo a step, `[digits of k before it in its group, parts in, kj, parts out, nj]`.

        All of them together are the inverse transform, the division by the length included (in the last one).

        Args:
          step: from 0; the steps are undone from the last to the first.
          rows: of the first step, how many values of its digit of time are wanted; None for all.
          real: whether the signal is real: the first step has one part out.
          half: whether the spectrum has only `half` values of k1, which stand for all of a real signal's.
        """
        matrix: Complexes = np.conj(np.swapaxes(self._matrix(step, half), -1, -2))
        if step > 0:
            return _parts(matrix)
        matrix = matrix[:, : self.factors[0] if rows is None else rows] / self.length
        if half:
            # What is left out of the spectrum is the conjugate of what is there: it adds the same to the real part.
            weight = np.full(self.half, 2.0)
            weight[0] = 1.0
            if self.factors[0] % 2 == 0:
                weight[-1] = 1.0
            matrix = matrix * weight[:, None]
        parts = _parts(matrix)
        return parts[:, :, :1] if real else parts

    def twiddles(self, group: int, half: bool = False) -> Complexes:
        """Returns the factors after a group, `[digits of k of the group, digits of n after it]`.

        Args:
          group: from 0, not the last.
          half: whether there are only `half` values of the first digit of the first group.
        """
        factors = self.groups[group]
        after = self.factors[self.ends[group] :]
        known = _frequencies(factors, self.half if half and group == 0 else factors[0])
        times = np.arange(math.prod(after)).reshape(after)
        period = math.prod(factors) * math.prod(after)
        # The product is below the period, so no remainder is needed.
        return roots(period)[known.reshape(*known.shape, *(1,) * len(after)) * times]

    def frequencies(self, half: bool = False) -> NDArray[np.int64]:
        """Returns the frequency of each entry of a spectrum, `[k1, …, kp]`."""
        return _frequencies(self.factors, self.half if half else self.factors[0])

    def _matrix(self, step: int, half: bool) -> Complexes:
        """Returns the complex matrices of a step, `[digits of k before it in its group, nj, kj]`."""
        number = next(i for i, end in enumerate(self.ends) if step < end)
        group = self.groups[number]
        inner = step - (self.ends[number] - len(group))
        frequency = _frequencies(group[: inner + 1], self.half if half and number == 0 else group[0])
        size, period = group[inner], math.prod(group[: inner + 1])
        turns = (np.arange(size)[:, None] * frequency[..., None, :]) % period
        return roots(period)[turns]


def _frequencies(factors: tuple[int, ...], first: int) -> NDArray[np.int64]:
    """Returns `k1 + N1·(k2 + N2·(…))` for all digits, `[k1, k2, …]`, with `first` values of k1."""
    frequency = np.arange(first)
    scale = factors[0]
    for factor in factors[1:]:
        frequency = frequency[..., None] + np.arange(factor) * scale
        scale *= factor
    return frequency


@lru_cache(maxsize=64)
def roots(period: int) -> Complexes:
    """Returns exp(-2πi·j/period) for all j, exact where they are 0 or ±1, the others to the last digit or so."""
    eighths = np.arange(period) * 8
    octant, angle = eighths // period, (eighths % period) * (math.pi / 4 / period)
    # Of an angle in an octant, by the symmetries: the smaller the angle, the better sine and cosine are known.
    mirrored = np.where(octant % 2 == 1, math.pi / 4 - angle, angle)
    cosine, sine = np.cos(mirrored), np.sin(mirrored)
    odd = octant % 2 == 1
    real, imaginary = np.where(odd, sine, cosine), np.where(odd, cosine, sine)
    quadrant = octant // 2
    turned = (real + 1j * imaginary) * np.array([1, 1j, -1, -1j])[quadrant]
    roots = np.conj(turned)
    roots.flags.writeable = False
    return roots


def _parts(matrix: Complexes) -> Floats:
    """Returns complex matrices `[…, n, k]` as real ones, `[…, parts in, n, parts out, k]`."""
    from_real = np.stack([matrix.real, matrix.imag], -2)
    from_imaginary = np.stack([-matrix.imag, matrix.real], -2)
    return np.stack([from_real, from_imaginary], -4)
