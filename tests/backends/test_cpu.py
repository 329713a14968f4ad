"""XLA on the CPU: modules and the memory that they are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from memplan.backends import order_hook
from memplan.backends.cpu import compile_for_cpu
from memplan.compiler.errors import MemplanError
from memplan.compiler.ir import Graph

X = jax.ShapeDtypeStruct((64, 256), jnp.float32)


def wide(x: jax.Array) -> jax.Array:
    branches = [jnp.sin(x * i).reshape(-1)[:, None] * jnp.ones((1, 8)) for i in range(6)]
    return sum((jnp.cumsum(branch, 0).sum(0) for branch in branches), jnp.zeros(8))


def test_module_and_memory() -> None:
    module = compile_for_cpu(wide, (X,))
    assert isinstance(module.graph, Graph)
    assert module.proto == b""
    parameter = next(a for a in module.assignment.allocations if a.parameter == 0)
    assert parameter.size == 64 * 256 * 4
    statistics = jax.jit(wide).lower(X).compile().memory_analysis()
    assert module.assignment.temporary == statistics.temp_size_in_bytes


@pytest.mark.slow
def test_what_jax_has_in_its_persistent_cache_is_compiled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from test_cpu import X, compile_for_cpu, jax, wide

plain = jax.jit(lambda *given: wide(*given))
plain.lower(X).compile()
print(compile_for_cpu(wide, (X,)).assignment.total)
plain.lower(X).compile()
"""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    totals = [
        subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert totals[0] == totals[1]
    assert list(tmp_path.glob("*-cache")), "nothing was cached, so nothing was tested"


def test_another_order_needs_less() -> None:
    usual, ours = compile_for_cpu(wide, (X,)), compile_for_cpu(wide, (X,), rule=order_hook.memory_order)
    assert ours.assignment.total < 0.6 * usual.assignment.total


def test_donated_arguments_are_results() -> None:
    def add(x: jax.Array) -> jax.Array:
        return x + 1

    assert compile_for_cpu(add, (X,), (0,)).assignment.total == X.size * 4
    assert compile_for_cpu(add, (X,)).assignment.total == 2 * X.size * 4


def test_what_does_not_compile_is_one_clear_error() -> None:
    with pytest.raises(MemplanError, match="it does not compile: TypeError"):
        compile_for_cpu(lambda x: jnp.dot(x, x), (X,))
