"""The real TPU compiler in a worker process: answers, refusals, deaths, time limits, the cache."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.backends import order_hook
from memplan.backends.tpu import compile as tpu_compile
from memplan.backends.tpu.compile import CompiledModule, CompileError, TpuCompiler
from memplan.compiler import cache as caches
from memplan.compiler.cache import Cache, CacheWarning
from memplan.compiler.frontends import hlo_text
from memplan.compiler.ir.graph import Computation, Graph

pytestmark = pytest.mark.tpu

needs_hook = pytest.mark.skipif(
    not order_hook.is_supported("tpu"), reason="jax before 0.12 shows no module that is compiled for a TPU"
)


def _step(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.tanh(x @ w) @ w


def _branches(x: jax.Array, w: jax.Array) -> Any:
    """A loop beside independent branches: much of the order is free."""

    def body(carry: tuple[jax.Array, jax.Array], t: jax.Array) -> Any:
        u, v = carry
        following = v + u * 2
        return (following, u.at[0].add(t)), (following.sum(), u[1])

    branches = [jnp.tanh((x * (i + 1)) @ w) @ w[:, :128] for i in range(4)]
    return jax.lax.scan(body, (x, x @ w), jnp.arange(6.0)), x * 2, branches


def _bytecode(function: Callable[..., Any], size: int, dtype: Any) -> bytes:
    arguments = [jax.ShapeDtypeStruct((size, size), dtype)] * 2
    lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",))
    stream = io.BytesIO()
    lowered.compiler_ir("stablehlo").operation.write_bytecode(stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def module() -> bytes:
    return _bytecode(_step, 256, jnp.bfloat16)


@pytest.fixture(scope="module")
def branches() -> bytes:
    return _bytecode(_branches, 512, jnp.float32)


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


@pytest.mark.slow
def test_a_damaged_cache_entry_is_compiled_again(
    module: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TpuCompiler(tmp_path) as first:
        text = first.compile(module, "v5e:2x2").text
        (entry,) = tmp_path.glob("*.gz")
        entry.write_bytes(entry.read_bytes()[:-20])
        monkeypatch.setattr(caches, "_said", set())
        with pytest.warns(CacheWarning, match="damaged entry"):
            again = first.compile(module, "v5e:2x2")
    assert not again.cached
    assert again.text == text


KEPT = CompiledModule("HloModule kept\n\nENTRY %main { … }\n" * 20, 1.5, cached=True, memory={"temp_size_in_bytes": 8})


def test_what_is_kept_is_found_as_it_was(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.store("entry", tpu_compile._encoded(KEPT))
    assert cache.load("entry", tpu_compile._decoded) == KEPT


@pytest.mark.filterwarnings("ignore::memplan.compiler.cache.CacheWarning")
def test_no_damage_to_an_entry_is_taken_for_a_module(tmp_path: Path) -> None:
    cache, random = Cache(tmp_path), np.random.default_rng(0)
    whole = tpu_compile._encoded(KEPT)
    for number in range(2000):
        damaged = bytearray(whole)
        if number % 2:
            del damaged[random.integers(len(whole)) :]
        else:
            damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
        (tmp_path / "entry").write_bytes(damaged)
        # What does not belong to the content, such as the time in the header of gzip, may change.
        assert cache.load("entry", tpu_compile._decoded) in (None, KEPT), number


@pytest.mark.filterwarnings("ignore::memplan.compiler.cache.CacheWarning")
@pytest.mark.parametrize(
    "entry",
    [
        b"", b"\n", b"null\nHloModule x", b"[]\nHloModule x", b"1.5\nHloModule x", b"{}\nHloModule x",
        b'{"seconds": "1.5"}\nHloModule x', b'{"seconds": null}\nHloModule x', b'{"seconds": true}\nHloModule x',
        b'{"seconds": NaN}\nHloModule x', b'{"seconds": -1}\nHloModule x', b'{"seconds": 1.5}\n', b'{"seconds": 1.5}',
        b'{"seconds": 1.5}\nHloModule \xff', b'{"seconds": 1.5, "memory": []}\nHloModule x',
        b'{"seconds": 1.5, "memory": {"temp": "8"}}\nHloModule x', b'{"seconds": 1.5, "sha256": "00"}\nHloModule x',
        b'{"seconds": 1.5, "sha256": null}\nHloModule x', b"[" * 100_000 + b"\nHloModule x",
    ],
)  # fmt: skip
def test_an_entry_of_wrong_content_is_none(tmp_path: Path, entry: bytes) -> None:
    cache = Cache(tmp_path)
    for content in (entry, gzip.compress(entry)):
        cache.store("entry", content)
        assert cache.load("entry", tpu_compile._decoded) is None
        assert not (tmp_path / "entry").exists()


@pytest.mark.slow
def test_a_compile_works_without_a_cache(module: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder should be, and where temporary files would be, is a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    monkeypatch.setattr(caches, "_said", set())
    with TpuCompiler(tmp_path / "file" / "cache") as compiler:
        with pytest.warns(CacheWarning, match="there is no cache in") as said:
            assert [compiler.compile(module, "v5e:2x2").cached for _ in range(2)] == [False, False]
        assert len(said) == 1


def test_a_refusal_is_an_error_and_the_worker_goes_on(compiler: TpuCompiler, module: bytes) -> None:
    with pytest.raises(CompileError, match="refused") as caught:
        compiler.compile(module, "v5e:2x2", {"xla_no_such_option": "1"})
    assert caught.value.reason == "refused"
    with pytest.raises(CompileError, match="refused"):
        compiler.compile(b"no module", "v5e:2x2")
    assert compiler.compile(module, "v5e:2x2").text


@pytest.mark.slow
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


def test_the_sizes_that_the_compiler_states_are_kept(compiler: TpuCompiler, module: bytes) -> None:
    compiled = compiler.compile(module, "v5e:2x2", {"xla_msa_enable": "false"})
    assert compiled.memory is not None
    assert compiled.memory["argument_size_in_bytes"] == 2 * 256 * 256 * 2
    assert compiled.memory["output_size_in_bytes"] == 256 * 256 * 2
    assert compiled.memory["alias_size_in_bytes"] == 0
    assert {"temp_size_in_bytes", "generated_code_size_in_bytes", "peak_memory_in_bytes"} <= set(compiled.memory)
    again = compiler.compile(module, "v5e:2x2", {"xla_msa_enable": "false"})
    assert again.cached
    assert again.memory == compiled.memory


def test_what_was_kept_before_there_were_orders_and_sizes_is_still_found(module: bytes, tmp_path: Path) -> None:
    versions = [version("jaxlib"), version("libtpu")]
    rest = json.dumps(["v5e:2x2", [["xla_msa_enable", "false"]], versions]).encode()
    key = hashlib.sha256(hashlib.sha256(module).digest() + rest).hexdigest()
    (tmp_path / f"{key}.hlo.txt.gz").write_bytes(gzip.compress(b'{"seconds": 1.5}\nHloModule old'))
    with TpuCompiler(tmp_path) as compiler:
        found = compiler.compile(module, "v5e:2x2", {"xla_msa_enable": "false"}, order={})
        assert compiler._worker is None
    assert (found.text, found.seconds, found.cached, found.memory) == ("HloModule old", 1.5, True, None)


def test_what_another_process_compiles_is_waited_for(module: bytes, tmp_path: Path) -> None:
    """The test is the other process: it holds the lock of the entry while it compiles, then writes the entry."""
    with TpuCompiler(tmp_path) as compiler, ThreadPoolExecutor() as pool:
        entry = tmp_path / f"{compiler._key(module, {'topology': 'v5e:2x2', 'options': {}})}.hlo.txt.gz"
        with Cache(tmp_path).locked(entry.name, 60.0):
            asked = pool.submit(compiler.compile, module, "v5e:2x2")
            with pytest.raises(TimeoutError):
                asked.result(0.5)
            entry.write_bytes(gzip.compress(b'{"seconds": 1.5}\nHloModule theirs'))
        assert asked.result().text == "HloModule theirs"
        assert compiler._worker is None


@pytest.mark.parametrize("topology", ["v9:2x2", "v5e:3x7", "nonsense"])
def test_a_topology_that_does_not_exist_is_an_error_of_one_line(
    compiler: TpuCompiler, module: bytes, topology: str
) -> None:
    with pytest.raises(CompileError, match=f"knows no topology '{topology}'") as caught:
        compiler.compile(module, topology)
    assert caught.value.reason == "refused"
    assert "\n" not in str(caught.value)


def test_an_older_jax_sees_and_sets_no_order(module: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_hook, "version", lambda package: "0.10.2")
    with TpuCompiler(tmp_path) as compiler:
        for ask in (
            lambda: compiler.before_assignment(module, "v5e:2x2"),
            lambda: compiler.compile(module, "v5e:2x2", order={"main": ["x"]}),
        ):
            with pytest.raises(CompileError, match=r"needs jax 0\.12 or newer") as caught:
                ask()
            assert caught.value.reason == "unsupported"
            assert "\n" not in str(caught.value)
        assert compiler._worker is None


def _computing(computation: Computation) -> list[str]:
    """Returns the names of what computes, in order: not of views and copies, which the compiler still moves."""
    return [i.name for i in computation.instructions if i.opcode in ("fusion", "convolution", "dot")]


def _breadth_first(graph: Graph) -> list[str]:
    """Returns the entry's instructions by their distance from the arguments; the compiler itself goes depth first."""
    distance: list[int] = []
    for instruction in graph.entry_computation.instructions:
        before = (*instruction.operands, *instruction.control_predecessors)
        distance.append(1 + max((distance[i] for i in before), default=0))
    names = list(graph.entry_computation.index)
    return [names[i] for i in sorted(range(len(names)), key=lambda i: distance[i])]


@needs_hook
def test_the_order_is_seen_before_memory_spaces_are_assigned(compiler: TpuCompiler, branches: bytes) -> None:
    before = compiler.before_assignment(branches, "v5e:2x2")
    assert compiler.before_assignment(branches, "v5e:2x2").cached
    assert before.memory is None
    assert "is_scheduled=true" in before.text
    assert "S(1)" not in before.text
    final = hlo_text.parse(compiler.compile(branches, "v5e:2x2").text)
    scheduled = hlo_text.parse(before.text)
    assert scheduled.entry == final.entry
    assert _computing(scheduled.entry_computation) == _computing(final.entry_computation)


@needs_hook
def test_an_order_is_what_memory_spaces_are_assigned_for(compiler: TpuCompiler, branches: bytes) -> None:
    scheduled = hlo_text.parse(compiler.before_assignment(branches, "v5e:2x2").text)
    default = compiler.compile(branches, "v5e:2x2")
    names = [i.name for i in scheduled.entry_computation.instructions]
    same = compiler.compile(branches, "v5e:2x2", order={scheduled.entry: names})
    assert not same.cached
    assert same.text == default.text

    other = _breadth_first(scheduled)
    compiled = compiler.compile(branches, "v5e:2x2", order={scheduled.entry: other})
    entry, before = (hlo_text.parse(text).entry_computation for text in (compiled.text, default.text))
    computing = _computing(entry)
    assert computing == [name for name in other if name in set(computing)]
    assert computing != _computing(before)
    assert sorted(computing) == sorted(_computing(before))
    assert compiled.memory != default.memory
    assert compiler.compile(branches, "v5e:2x2", order={scheduled.entry: other}).cached


@needs_hook
@pytest.mark.slow
def test_an_order_that_does_not_fit_is_refused_and_the_worker_goes_on(compiler: TpuCompiler, module: bytes) -> None:
    scheduled = hlo_text.parse(compiler.before_assignment(module, "v5e:2x2").text)
    names = [i.name for i in scheduled.entry_computation.instructions]
    for order, reason in (
        ({"main.99": names}, "no computation 'main.99'"),
        ({scheduled.entry: names[1:]}, "leaves out"),
        ({scheduled.entry: names[::-1]}, "before its operand"),
    ):
        with pytest.raises(CompileError, match=reason) as caught:
            compiler.compile(module, "v5e:2x2", order=order)
        assert caught.value.reason == "order"
        assert "\n" not in str(caught.value)
    with pytest.raises(CompileError, match="refused") as caught:
        compiler.before_assignment(module, "v5e:2x2", {"xla_no_such_option": "1"})
    assert caught.value.reason == "refused"
    assert compiler.compile(module, "v5e:2x2").text
