"""Transforms as matrix products against numpy's, in double precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from thorough import examples

from memplan.passes.fft.choice import CPU, TPU
from memplan.passes.fft.steps import Arithmetic
from memplan.passes.fft.transform import fft

EXACT = Arithmetic.highest(jnp.float32)


def drawn(seed: int, *shape: int) -> Any:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(np.complex64)


def by_numpy(x: Any, kind: lax.FftType, lengths: tuple[int, ...]) -> np.ndarray:
    axes = tuple(range(-len(lengths), 0))
    wide = x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)
    functions = {
        lax.FftType.FFT: np.fft.fftn,
        lax.FftType.IFFT: np.fft.ifftn,
        lax.FftType.RFFT: np.fft.rfftn,
        lax.FftType.IRFFT: np.fft.irfftn,
    }
    return functions[kind](wide, lengths, axes)


def check(x: Any, kind: lax.FftType, lengths: tuple[int, ...], machine: Any = CPU, times: float = 2.0) -> None:
    wanted = by_numpy(x, kind, lengths)
    # As one program: by themselves, its operations would be compiled one by one.
    found = np.asarray(jax.jit(lambda x: fft(x, kind, lengths, EXACT, machine))(x))
    assert found.shape == wanted.shape
    ours = np.linalg.norm(found - wanted)
    theirs = np.linalg.norm(np.asarray(lax.fft(jnp.asarray(x), kind, lengths)) - wanted)
    assert ours <= times * theirs + 2e-7 * np.linalg.norm(wanted)


def given_input(kind: lax.FftType, seed: int, batch: tuple[int, ...], lengths: tuple[int, ...]) -> Any:
    if kind == lax.FftType.RFFT:
        return drawn(seed, *batch, *lengths).real
    if kind == lax.FftType.IRFFT:
        return drawn(seed, *batch, *lengths[:-1], lengths[-1] // 2 + 1)
    return drawn(seed, *batch, *lengths)


KINDS = st.sampled_from([lax.FftType.FFT, lax.FftType.IFFT, lax.FftType.RFFT, lax.FftType.IRFFT])


@settings(max_examples=examples(6, 40))
@given(
    KINDS,
    st.lists(st.integers(1, 3), max_size=2),
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
    st.integers(0, 99),
)
def test_any_axes_and_lengths(kind: lax.FftType, batch: list[int], lengths: list[int], seed: int) -> None:
    check(given_input(kind, seed, tuple(batch), tuple(lengths)), kind, tuple(lengths))


@pytest.mark.parametrize("kind", [lax.FftType.FFT, lax.FftType.IFFT, lax.FftType.RFFT, lax.FftType.IRFFT])
@pytest.mark.parametrize(
    "length", [1000, 4099, *(pytest.param(n, marks=pytest.mark.slow) for n in (256, 4096, 2 * 2063))]
)
@pytest.mark.parametrize("machine", [CPU, TPU], ids=["cpu", "tpu"])
def test_long_ones_and_large_primes(kind: lax.FftType, length: int, machine: Any) -> None:
    # Matrices of a TPU are large: each sum has many terms, and a little more is lost than in many small steps.
    check(given_input(kind, 0, (3,), (length,)), kind, (length,), machine, times=2.0 if machine is CPU else 3.0)


def test_what_has_no_meaning_in_a_spectrum_is_ignored_as_numpy_does() -> None:
    x = drawn(0, 2, 9)
    assert x[0, 0].imag
    assert x[0, 8].imag
    check(x, lax.FftType.IRFFT, (16,))
    check(x, lax.FftType.IRFFT, (17,))
