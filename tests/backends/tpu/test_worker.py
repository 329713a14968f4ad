"""What the worker makes of modules that cannot be printed and of sizes that are not stated."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from memplan.backends.tpu import worker
from memplan.backends.tpu.compile import CompileError, TpuCompiler
from memplan.backends.tpu.worker import Refusal


class Module:
    """A module as jaxlib 0.10.2 has it where a SparseCore takes part."""

    def to_string(self) -> str:
        raise RuntimeError("INTERNAL: async-update instruction should have 1 operands but sees 3\nSource location:")


def test_a_module_that_cannot_be_printed_is_refused_in_one_line() -> None:
    with pytest.raises(Refusal, match="sees 3: a newer jax may print it") as caught:
        worker._printed(lambda: [Module()])
    assert caught.value.reason == "unprintable"
    assert "\n" not in str(caught.value)


def test_the_caller_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    answer = {"ok": False, "reason": "unprintable", "error": "no: a newer jax may print it"}
    compiler = TpuCompiler(tmp_path)
    compiler._worker = SimpleNamespace(ask=lambda *_: (answer, b""), close=lambda: None)  # type: ignore[assignment]
    with pytest.raises(CompileError, match="cannot be printed: no: a newer jax may print it") as caught:
        compiler.compile(b"module", "v5p:2x2x1")
    assert caught.value.reason == "unprintable"
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


def test_sizes_are_those_that_are_numbers_of_bytes() -> None:
    stats = SimpleNamespace(temp_size_in_bytes=7, peak_memory_in_bytes=9, indefinite_allocations=[1], odd_in_bytes="?")
    executable = SimpleNamespace(get_compiled_memory_stats=lambda: stats)
    assert worker._sizes(executable) == {"temp_size_in_bytes": 7, "peak_memory_in_bytes": 9}


def test_where_no_sizes_are_stated_there_are_none() -> None:
    def missing() -> Any:
        raise RuntimeError("UNIMPLEMENTED")

    assert worker._sizes(SimpleNamespace(get_compiled_memory_stats=missing)) is None
