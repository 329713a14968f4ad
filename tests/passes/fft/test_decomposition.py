"""The matrices of decompositions, against numpy's transforms, in double precision."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.passes.fft.decomposition import Decomposition, roots


@pytest.mark.parametrize("period", [1, 2, 3, 4, 5, 7, 8, 12, 64, 100, 4096])
def test_roots_are_exact_where_they_can_be(period: int) -> None:
    found = roots(period)
    np.testing.assert_allclose(found, np.exp(-2j * np.pi * np.arange(period) / period), atol=3e-16 * period)
    for quarter in range(4):
        if period * quarter % 4 == 0:
            assert found[period * quarter // 4] == (-1j) ** quarter
    np.testing.assert_allclose(np.abs(found), 1.0, atol=2.3e-16)


def transformed(x: np.ndarray, decomposition: Decomposition, real: bool) -> np.ndarray:
    """Returns the spectrum `[2, k1, …, kp]` of `[parts, n1, …, np]`, by the matrices."""
    order = len(decomposition.factors)
    letters = "abcdefg"[:order]
    for step in range(order):
        start = max(end for end in (0, *decomposition.ends) if end <= step)
        rows = x.shape[1] if step == 0 else None
        spec = f"y{letters},{letters[start:step]}y{letters[step]}zx->z{letters[:step]}x{letters[step + 1 :]}"
        x = np.einsum(spec, x, decomposition.forward(step, rows, real, real))
        if step + 1 in decomposition.ends[:-1]:
            factors = decomposition.twiddles(decomposition.ends.index(step + 1), real)
            product = (x[0] + 1j * x[1]) * factors
            x = np.stack([product.real, product.imag])
    return x


def undone(x: np.ndarray, decomposition: Decomposition, rows: int | None, real: bool) -> np.ndarray:
    order = len(decomposition.factors)
    letters = "abcdefg"[:order]
    for step in reversed(range(order)):
        if step + 1 in decomposition.ends[:-1]:
            factors = np.conj(decomposition.twiddles(decomposition.ends.index(step + 1), real))
            product = (x[0] + 1j * x[1]) * factors
            x = np.stack([product.real, product.imag])
        start = max(end for end in (0, *decomposition.ends) if end <= step)
        spec = f"y{letters},{letters[start:step]}y{letters[step]}zx->z{letters[:step]}x{letters[step + 1 :]}"
        x = np.einsum(spec, x, decomposition.backward(step, rows, real, real))
    return x


@st.composite
def decompositions(draw: st.DrawFn) -> Decomposition:
    factors = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    cuts = draw(st.sets(st.integers(1, len(factors) - 1))) if len(factors) > 1 else set()
    ends = [0, *sorted(cuts), len(factors)]
    return Decomposition(tuple(tuple(factors[low:high]) for low, high in itertools.pairwise(ends)))


@given(decompositions(), st.data())
def test_complex_signals_with_zeros_at_the_end(decomposition: Decomposition, data: st.DataObject) -> None:
    length, factors = decomposition.length, decomposition.factors
    samples = data.draw(st.integers(1, length))
    generator = np.random.default_rng(data.draw(st.integers(0, 100)))
    x = generator.standard_normal(length) + 1j * generator.standard_normal(length)
    x[samples:] = 0.0
    rows = decomposition.rows(samples)
    digits = np.stack([x.real, x.imag]).reshape(2, *factors)[:, :rows]
    spectrum = transformed(digits, decomposition, real=False)
    frequencies = decomposition.frequencies()
    assert sorted(frequencies.ravel()) == list(range(length))
    np.testing.assert_allclose(spectrum[0] + 1j * spectrum[1], np.fft.fft(x)[frequencies], atol=1e-12 * length)
    np.testing.assert_allclose(undone(spectrum, decomposition, rows, real=False), digits, atol=1e-13 * length)


@given(decompositions(), st.data())
def test_real_signals_need_half_of_the_spectrum(decomposition: Decomposition, data: st.DataObject) -> None:
    length, factors = decomposition.length, decomposition.factors
    samples = data.draw(st.integers(1, length))
    x = np.random.default_rng(data.draw(st.integers(0, 100))).standard_normal(length)
    x[samples:] = 0.0
    rows = decomposition.rows(samples)
    digits = x.reshape(1, *factors)[:, :rows]
    spectrum = transformed(digits, decomposition, real=True)
    assert spectrum.shape == (2, factors[0] // 2 + 1, *factors[1:])
    wanted = np.fft.fft(x)[decomposition.frequencies(half=True)]
    np.testing.assert_allclose(spectrum[0] + 1j * spectrum[1], wanted, atol=1e-12 * length)
    np.testing.assert_allclose(undone(spectrum, decomposition, rows, real=True), digits, atol=1e-13 * length)
    assert math.prod(spectrum.shape) <= length + 2 * decomposition.tail
