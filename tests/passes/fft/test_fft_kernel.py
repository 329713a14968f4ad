"""The fused kernel, interpreted, against convolutions in double precision and JAX's gradients; and that it compiles."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from memplan.compiler.errors import MemplanError
from memplan.ops import fft_conv
from memplan.passes.fft import kernel_form as kernel_forms
from memplan.passes.fft.kernel import fused, reason_against
from memplan.passes.fft.kernel_form import LONGEST, kernel_form, tables
from memplan.passes.fft.steps import Arithmetic

HIGHEST = Arithmetic.highest(jnp.float32)
PLATFORMS = ("tpu", "gpu")


def exact(u: Any, k: Any) -> np.ndarray:
    """The convolution by numpy, in double precision."""
    u, k = np.asarray(u, np.float64), np.asarray(k, np.float64)
    m = u.shape[-1] + k.shape[-1] - 1
    return np.fft.irfft(np.fft.rfft(u, m) * np.fft.rfft(k, m), m)[..., : u.shape[-1]]


def gated_by_jax(u: Any, k: Any, before: Any, after: Any) -> Any:
    n, m = u.shape[-1], u.shape[-1] + k.shape[-1] - 1
    y = jnp.fft.irfft(jnp.fft.rfft(u * before, m) * jnp.fft.rfft(k, m), m)[..., :n]
    return y * after


def drawn(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def error(found: Any, wanted: Any) -> float:
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def run(
    u: Any, k: Any, before: Any = None, after: Any = None, platform: Any = "tpu", arithmetic: Arithmetic = HIGHEST
) -> Any:
    assert reason_against(u, k, before, after, False, platform) == ""
    return interpreted(u, k, before, after, arithmetic=arithmetic, platform=platform)


@functools.partial(jax.jit, static_argnames=("arithmetic", "platform"))
def interpreted(u: Any, k: Any, before: Any, after: Any, arithmetic: Arithmetic, platform: Any) -> Any:
    return fused(u, k, before, after, arithmetic=arithmetic, platform=platform, interpret=True)


def test_the_transform_of_a_form_is_at_quarter_frequencies() -> None:
    found = tables(8, 4)
    u = drawn(0, 32)
    spectrum = ((found.first @ u.reshape(8, 4)) * found.twiddle) @ found.second
    times, frequencies = np.arange(32), np.arange(32) + 0.25
    wanted = np.exp(-2j * np.pi * np.outer(frequencies, times) / 32) @ u
    np.testing.assert_allclose(spectrum.T.ravel(), wanted, atol=1e-5)


@settings(max_examples=examples(3, 5))
@given(
    st.sampled_from([1, 7, 200, 256]),
    st.integers(1, 300),
    st.sampled_from([(1, 1), (2, 3), (1, 8)]),
    st.booleans(),
    st.sampled_from(PLATFORMS),
    st.integers(0, 99),
)
@pytest.mark.slow
def test_any_lengths_and_rows(n: int, taps: int, rows: tuple[int, int], shared: bool, platform: str, seed: int) -> None:
    u = drawn(seed, *rows, n)
    k = drawn(seed + 1, taps) if shared else drawn(seed + 1, rows[1], taps)
    found = run(u, k, platform=platform)
    assert found.shape == u.shape
    assert np.abs(found - exact(u, k)).max() < 1e-6 * np.linalg.norm(u) * np.linalg.norm(k)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("n", [1024, 32768])
def test_precisions_up_to_the_longest(n: int, platform: str) -> None:
    n = min(n, LONGEST[platform])
    u, k = drawn(0, 2, 2, n), drawn(1, 2, n)
    wanted = exact(u, k)
    assert error(run(u, k, platform=platform), wanted) < 8e-7
    assert 1e-3 < error(run(u, k, platform=platform, arithmetic=Arithmetic.narrow()), wanted) < 1e-2


# Gates as large as the signals, shared by the batch, by the channels, by both, and one number for each signal.
GATES = {"own": (2, 8, 40), "batch": (8, 40), "channels": (2, 1, 40), "both": (40,), "numbers": (2, 8, 1)}


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two signals of 8 rows at a time, so that the kernel loops over a tile, and less is compiled."""
    monkeypatch.setattr(kernel_forms, "_GROUP_ROWS", 16)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(
    ("before", "after", "channels"),
    [("own", "batch", 8), ("channels", "numbers", 3), ("both", "own", 3)],
)
@pytest.mark.slow
def test_gates_and_gradients(before: str, after: str, channels: int) -> None:
    def gate(seed: int, name: str) -> np.ndarray:
        return drawn(seed, *(channels if size == 8 else size for size in GATES[name]))

    arguments = drawn(0, 2, channels, 40), drawn(1, channels, 30), gate(2, before), gate(3, after)
    np.testing.assert_allclose(run(*arguments), gated_by_jax(*arguments), rtol=1e-4, atol=2e-5)

    def gradients(convolve: Any) -> Any:
        return jax.jit(jax.grad(lambda *args: jnp.sum(jnp.sin(convolve(*args))), (0, 1, 2, 3)))(*arguments)

    for ours, theirs in zip(gradients(run), gradients(gated_by_jax), strict=True):
        assert ours.shape == theirs.shape
        assert error(ours, theirs) < 1e-5


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_filter_gets_its_gradient_from_all_tiles(platform: str) -> None:
    """A batch of 5 is 5 tiles on a TPU, one after another; on a GPU each signal has a part of the sum."""
    u, k, weights = drawn(0, 5, 8, 4000), drawn(1, 8, 4000), drawn(2, 5, 8, 4000)
    assert kernel_form(4000, 5, 8, HIGHEST, "tpu").grid == (1, 5)
    ours = jax.jit(jax.grad(lambda k: jnp.sum(run(u, k, platform=platform) * weights)))(k)
    ones = np.ones(1, np.float32)
    theirs = jax.jit(jax.grad(lambda k: jnp.sum(gated_by_jax(u, k, ones, ones) * weights)))(k)
    assert error(ours, theirs) < 2e-6


def test_narrow_arguments() -> None:
    u, k = jnp.asarray(drawn(0, 2, 2, 100), jnp.bfloat16), jnp.asarray(drawn(1, 2, 100), jnp.bfloat16)
    found, slopes = jax.jit(jax.value_and_grad(lambda u: jnp.sum(run(u, k).astype(jnp.float32))))(u)
    assert (found.dtype, slopes.dtype) == (jnp.float32, jnp.bfloat16)
    assert error(run(u, k), exact(u, k)) < float(jnp.finfo(jnp.bfloat16).eps)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.slow
def test_maps() -> None:
    u, k = drawn(0, 3, 2, 64), drawn(1, 2, 64)
    mapped = jax.vmap(run, (0, None))(u, k)
    np.testing.assert_allclose(mapped, exact(u, k), rtol=1e-4, atol=1e-4)
    slopes = jax.jit(jax.vmap(jax.grad(lambda u, k: jnp.sum(run(u, k) ** 2), 1), (0, None)))(u, k)
    one = jax.jit(jax.grad(lambda k: jnp.sum(run(u[1], k) ** 2)))(k)
    assert error(slopes[1], one) < 1e-6


def shaped(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("u", "k", "after", "platform", "reason"),
    [
        (shaped(2, 40000), shaped(3), None, "tpu", "40,000 samples are more than 32,768"),
        (shaped(2, 16384), shaped(3), None, "gpu", "16,384 samples are more than 8,192"),
        (shaped(2, 8, dtype=np.float64), shaped(3), None, "tpu", "floats of 16 and 32 bits, not float64"),
        (shaped(2, 3, 8), shaped(2, 1, 8), None, "tpu", "shared along leading axes only"),
        (shaped(2, 8), shaped(8), shaped(5, 1, 8), "tpu", "gates must not be larger than the result"),
    ],
)
def test_what_it_does_not_take(u: Any, k: Any, after: Any, platform: Any, reason: str) -> None:
    assert reason in reason_against(u, k, None, after, False, platform)


@pytest.mark.slow
def test_the_option() -> None:
    u, k, gate = drawn(0, 2, 8, 100), drawn(1, 8, 100), drawn(2, 100)
    with pytest.raises(MemplanError, match="kernel is 'cuda', not one of auto, pallas, xla"):
        fft_conv(u, k, kernel="cuda")  # type: ignore[arg-type]
    # Here there is a CPU, which has no kernel.
    for choice in ("auto", "pallas", "xla"):
        found = fft_conv(u, k, pre_gate=gate, post_gate=gate, kernel=choice)
        assert error(found, exact(u * gate, k) * gate) < 1e-6
    with pytest.warns(UserWarning, match="leaves it to XLA: its transform has a length of its own"):
        fft_conv(u, k, fft_length=256, kernel="pallas")


def lowered(platform: str, **options: Any) -> str:
    u, k = jax.ShapeDtypeStruct((2, 8, 1024), jnp.float32), jax.ShapeDtypeStruct((8, 1024), jnp.float32)
    fun = functools.partial(fft_conv, **options)
    with h100() if platform == "cuda" else contextlib.nullcontext():
        return jax.jit(fun).trace(u, k).lower(lowering_platforms=(platform,)).as_text()


def h100() -> Any:
    """Says for which GPU Triton's code is made where there is none."""
    sharding = pytest.importorskip("jax.sharding")
    if not hasattr(sharding, "AbstractDevice"):
        pytest.skip("this jax lowers for a GPU only where there is one")
    device = sharding.AbstractDevice("NVIDIA H100 80GB HBM3", None, "gpu")
    return sharding.use_abstract_mesh(sharding.AbstractMesh((), (), abstract_device=device))


@pytest.mark.parametrize(("platform", "call"), [("tpu", "tpu_custom_call"), ("cuda", "triton")])
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
def test_it_lowers_for_other_platforms(platform: str, call: str) -> None:
    assert call in lowered(platform, kernel="pallas")
    assert call not in lowered(platform, kernel="auto")


def on_tpu(n: int, precision: Any) -> tuple[Any, tuple[Any, ...]]:
    """Loss and gradients of a gated convolution, and the shapes of its arguments."""

    def loss(*args: Any) -> Any:
        u, k, before, after = args
        return jnp.sum(fft_conv(u, k, pre_gate=before, post_gate=after, precision=precision, kernel="pallas") ** 2)

    signals, filters = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 8, n), (8, n)))
    return jax.value_and_grad(loss, (0, 1, 2, 3)), (signals, filters, signals, signals)


@pytest.mark.tpu
@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize(
    "target",
    ["tpu-v4", "tpu-v5e", "tpu-v6e"],
)
@pytest.mark.slow
def test_it_compiles_for_tpus(target: str) -> None:
    """Forwards and backwards, within the 16 MiB that a TPU v4 has."""
    from memplan.backends.tpu.compile import TpuCompiler
    from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
    from memplan.cli.programs import Program, lower_for_tpu

    with TpuCompiler() as compiler:
        for n, precision in (
            (1000, "default"),
            (32768, "default"),
            *([(4096, "highest")] if target == "tpu-v5e" else []),
        ):
            fun, args = on_tpu(n, precision)
            text = compiler.compile(lower_for_tpu(Program("a convolution", fun, args)), TOPOLOGY_OF_TARGET[target]).text
            calls = [line for line in text.splitlines() if "tpu_custom_call" in line]
            assert len(calls) == 2
            for call in calls:
                used = re.search(r'"used_scoped_memory_configs":\[\{[^}]*"size":"(\d+)"', call)
                assert used is not None
                assert int(used[1]) <= 16 << 20


def test_the_bench_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from memplan.cli.bench import fft as bench_fft

    monkeypatch.setattr(bench_fft, "_LEAST_SECONDS", 0.0)
    bench_fft.command("64,16", "cpu", 1, 2, True, tmp_path / "fft.json")
    rows = json.loads((tmp_path / "fft.json").read_text())["rows"]
    assert [(row["samples"], row["unchanged"]) for row in rows] == [(16, True), (64, True)]
    assert capsys.readouterr().out.count("| yes |") == 2
