"""The real TPU compiler in a worker process: answers, refusals, deaths, time limits, the cache."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from memplan.compiler.backends.tpu import compile as tpu_compile
from memplan.compiler.backends.tpu.compile import CompileError, TpuCompiler

pytestmark = pytest.mark.tpu


def _step(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.tanh(x @ w) @ w


@pytest.fixture(scope="module")
def module() -> bytes:
    arguments = [jax.ShapeDtypeStruct((256, 256), jnp.bfloat16)] * 2
    lowered = jax.jit(_step).trace(*arguments).lower(lowering_platforms=("tpu",))
    stream = io.BytesIO()
    lowered.compiler_ir("stablehlo").operation.write_bytecode(stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TpuCompiler]:
    with TpuCompiler(tmp_path_factory.mktemp("cache")) as compiler:
        yield compiler


def test_compiles_with_the_options_given_and_remembers(compiler: TpuCompiler, module: bytes) -> None:
    default = compiler.compile(module, "v5e:2x2")
    assert not default.cached
    assert "is_scheduled=true" in default.text
    assert "S(1)}" in default.text
    again = compiler.compile(module, "v5e:2x2")
    assert again.cached
    assert again.text == default.text
    assert again.seconds == default.seconds
    slow = compiler.compile(module, "v5e:2x2", {"xla_msa_enable": "false"})
    assert not slow.cached
    assert "S(1)}" not in slow.text


def test_a_damaged_cache_entry_is_compiled_again(compiler: TpuCompiler, module: bytes, tmp_path: Path) -> None:
    with TpuCompiler(tmp_path) as first:
        text = first.compile(module, "v5e:2x2").text
        (entry,) = tmp_path.glob("*.gz")
        entry.write_bytes(entry.read_bytes()[:-20])
        again = first.compile(module, "v5e:2x2")
    assert not again.cached
    assert again.text == text


def test_a_refusal_is_an_error_and_the_worker_goes_on(compiler: TpuCompiler, module: bytes) -> None:
    with pytest.raises(CompileError, match="refused") as caught:
        compiler.compile(module, "v5e:2x2", {"xla_no_such_option": "1"})
    assert caught.value.reason == "refused"
    with pytest.raises(CompileError, match="refused"):
        compiler.compile(b"no module", "v5e:2x2")
    assert compiler.compile(module, "v5e:2x2").text


def test_a_death_is_reported_and_the_next_compile_starts_another_worker(module: bytes, tmp_path: Path) -> None:
    with TpuCompiler(tmp_path, use_cache=False) as compiler:
        compiler.compile(module, "v5e:2x2")
        assert compiler._worker is not None
        os.kill(compiler._worker._process.pid, signal.SIGSEGV)
        with pytest.raises(CompileError) as caught:
            compiler.compile(module, "v5e:2x2")
        assert caught.value.reason == "crashed"
        assert compiler.compile(module, "v5e:2x2").text


def test_a_compile_that_takes_too_long_is_ended(module: bytes, tmp_path: Path) -> None:
    with TpuCompiler(tmp_path, use_cache=False, timeout=0.01) as compiler:
        with pytest.raises(CompileError, match=r"within 0\.01 s") as caught:
            compiler.compile(module, "v5e:2x2")
        assert caught.value.reason == "timeout"
        assert compiler._worker is None


def test_without_libtpu_it_says_what_to_install(module: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpu_compile, "find_spec", lambda name: None)
    with (
        TpuCompiler(tmp_path, use_cache=False) as compiler,
        pytest.raises(CompileError, match=r"pip install 'memplan\[tpu\]'") as caught,
    ):
        compiler.compile(module, "v5e:2x2")
    assert caught.value.reason == "missing"
