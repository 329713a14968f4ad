"""`memplan.ops.fft_conv` against convolutions in double precision, and its gradients against JAX's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from thorough import examples

import memplan.ops
from memplan.compiler.errors import MemplanError
from memplan.ops import fft_conv
from memplan.passes.fft import convolution
from memplan.passes.fft.choice import CPU, TPU

# As one program: by themselves, its operations would be compiled one by one.
compiled = jax.jit(fft_conv, static_argnames=("precision", "max_frequency", "fft_length"))


def exact(u: Any, k: Any) -> np.ndarray:
    """The convolution by numpy, in double precision."""
    u, k = np.asarray(u, np.float64), np.asarray(k, np.float64)
    m = u.shape[-1] + k.shape[-1] - 1
    return np.fft.irfft(np.fft.rfft(u, m) * np.fft.rfft(k, m), m)[..., : u.shape[-1]]


def by_jax(u: Any, k: Any) -> Any:
    m = u.shape[-1] + k.shape[-1] - 1
    return jnp.fft.irfft(jnp.fft.rfft(u, m) * jnp.fft.rfft(k, m), m)[..., : u.shape[-1]]


def drawn(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def error(found: Any, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@settings(max_examples=examples(6, 40))
@given(
    st.integers(1, 150), st.integers(1, 150), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 99)
)
def test_any_lengths_and_rows(n: int, taps: int, batch: int, channels: int, shared: bool, seed: int) -> None:
    u = drawn(seed, batch, channels, n)
    k = drawn(seed + 1, taps) if shared else drawn(seed + 1, channels, taps)
    found = compiled(u, k)
    assert found.shape == u.shape
    assert found.dtype == jnp.float32
    # Where terms cancel, what is left is small beside them.
    assert np.abs(found - exact(u, k)).max() < 1e-6 * np.linalg.norm(u) * np.linalg.norm(k)


@pytest.mark.parametrize("n", [256, 1024, 4096, 16384])
def test_highest_precision_is_within_twice_the_error_of_jax(n: int) -> None:
    u, k = drawn(0, 2, 2, n), drawn(1, 2, n)
    wanted = exact(u, k)
    assert error(compiled(u, k), wanted) <= 2 * error(by_jax(u, k), wanted)


def test_double_precision() -> None:
    with jax.enable_x64(True):
        u, k = drawn(0, 2, 1000, dtype=np.float64), drawn(1, 2, 300, dtype=np.float64)
        found = compiled(u, k)
        assert found.dtype == jnp.float64
        assert error(found, exact(u, k)) <= 2 * error(by_jax(u, k), exact(u, k)) < 1e-14


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_arguments_are_convolved_in_float32(dtype: Any) -> None:
    u, k = jnp.asarray(drawn(0, 2, 200), dtype), jnp.asarray(drawn(1, 2, 200), dtype)
    found = fft_conv(u, k)
    assert found.dtype == dtype
    assert error(found, exact(u, k)) < float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize(("n", "taps"), [(20000, 5), (20000, 63), (5000, 17), (4099, 2)])
def test_short_filters_slide(n: int, taps: int) -> None:
    u, k = drawn(0, 2, n), drawn(1, 2, taps)
    assert convolution._form(n, taps, 2, CPU, None).blocks > 1
    assert error(compiled(u, k), exact(u, k)) < 1e-6


def on_tpu(u: Any, k: Any, **options: Any) -> Any:
    """What a TPU would run, here: its decomposition and its arithmetic."""
    settings = {"precision": "highest", "max_frequency": None, "fft_length": None, "dtype": jnp.float32, **options}
    return convolution.convolve(u, k, target=TPU, **settings)


@pytest.mark.slow
def test_the_form_of_a_tpu() -> None:
    u, k = drawn(0, 2, 3, 1024), drawn(1, 3, 1024)
    assert error(on_tpu(u, k), exact(u, k)) < 1e-6
    bfloat16 = error(on_tpu(u, k, precision="default"), exact(u, k))
    assert 1e-4 < bfloat16 < 1e-2
    text = (
        jax.jit(lambda u, k: fft_conv(u, k, precision="default"))
        .trace(u, k)
        .lower(lowering_platforms=("tpu",))
        .as_text()
    )
    assert "bf16" in text
    assert "fft" not in text.replace("fft_conv", "")


def test_groups_with_twiddles_between(monkeypatch: pytest.MonkeyPatch) -> None:
    from memplan.passes.fft import choice

    monkeypatch.setattr(choice, "_MAX_TABLE", 4096)
    choice.decompose_at_least.cache_clear()
    choice.decompose.cache_clear()
    u, k = drawn(0, 2, 700), drawn(1, 2, 700)
    assert len(convolution._form(700, 700, 2, CPU, None).decomposition.groups) > 1
    assert error(fft_conv(u, k), exact(u, k)) < 1e-6
    choice.decompose_at_least.cache_clear()
    choice.decompose.cache_clear()


@pytest.mark.parametrize("max_frequency", [0.05, 0.3, 0.77, 1.0])
def test_frequency_sparse_filters(max_frequency: float) -> None:
    u, k = drawn(0, 3, 2, 200), drawn(1, 2, 200)
    m = 512
    spectrum = np.fft.rfft(k.astype(np.float64), m)
    spectrum[..., int(max_frequency * (m // 2)) + 1 :] = 0.0
    wanted = np.fft.irfft(np.fft.rfft(u.astype(np.float64), m) * spectrum, m)[..., :200]
    assert error(compiled(u, k, max_frequency=max_frequency, fft_length=m), wanted) < 1e-6


def test_blocks_of_frequencies_are_skipped() -> None:
    u = jax.ShapeDtypeStruct((4, 2048), jnp.float32)

    def products(max_frequency: float) -> float:
        convolve = jax.jit(lambda u, k: on_tpu(u, k, max_frequency=max_frequency, fft_length=4096))
        return convolve.lower(u, u).compile().cost_analysis()["flops"]

    assert products(0.1) < 0.85 * products(1.0)


def test_gates() -> None:
    u, k, before, after = drawn(0, 2, 3, 100), drawn(1, 3, 40), drawn(2, 2, 3, 100), drawn(3, 3, 100)
    wanted = exact(u * before, k) * after
    assert error(fft_conv(u, k, pre_gate=before, post_gate=after), wanted) < 1e-6


@pytest.mark.slow
def test_gradients_and_maps() -> None:
    u, k = drawn(0, 2, 3, 50), drawn(1, 3, 20)

    def gradients(convolve: Any) -> Any:
        return jax.jit(jax.grad(lambda u, k: jnp.sum(jnp.sin(convolve(u, k))), (0, 1)))(u, k)

    for ours, theirs in zip(gradients(fft_conv), gradients(by_jax), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    check_grads(lambda u, k: fft_conv(u, k, pre_gate=u), (u, k), order=2, modes=("fwd", "rev"), atol=0.05, rtol=0.05)
    mapped = jax.jit(jax.vmap(fft_conv, (1, 0), 1))(u, k)
    np.testing.assert_allclose(mapped, compiled(u, k), rtol=1e-4, atol=1e-5)


def test_only_the_arguments_are_kept_for_the_backward_pass() -> None:
    from jax._src.ad_checkpoint import saved_residuals  # the public function prints them only

    def kept(rows: int) -> int:
        u, k = drawn(0, rows, 512), drawn(1, rows, 512)
        return sum(aval.size for aval, _ in saved_residuals(lambda u, k: jnp.sum(fft_conv(u, k) ** 2), u, k))

    # The matrices are constants: they do not grow. The signal, the filter and the result do.
    assert kept(20) - kept(10) <= 10 * 3 * 512


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "low"}, "precision is 'low', not one of highest, default"),
        ({"u": np.ones((2, 8), np.complex64)}, "takes real floating-point arrays, not complex64"),
        ({"u": np.ones((2, 8), np.int32), "k": np.ones(3, np.int32)}, "takes real floating-point arrays, not int32"),
        ({"u": np.ones((2, 0), np.float32)}, "needs a last axis that is not empty"),
        ({"k": np.ones((3, 4), np.float32)}, "does not broadcast"),
        ({"fft_length": 9}, "a transform of 9 is too short for 8 samples and 4 taps"),
        ({"fft_length": 4099}, "4,099 is no product of small factors"),
        ({"max_frequency": 0.5}, "max_frequency needs fft_length"),
        ({"max_frequency": 1.5, "fft_length": 16}, "max_frequency is 1.5, not above 0 and up to 1"),
    ],
)
def test_mistakes(arguments: dict[str, Any], message: str) -> None:
    given = {"u": np.ones((2, 8), np.float32), "k": np.ones(4, np.float32), **arguments}
    with pytest.raises(MemplanError, match=message):
        fft_conv(given.pop("u"), given.pop("k"), **given)


def test_the_public_name() -> None:
    assert memplan.ops.fft_conv is convolution.fft_conv
