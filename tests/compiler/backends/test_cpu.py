"""XLA on the CPU: modules and the memory that they are given."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from memplan.compiler.backends import order_hook
from memplan.compiler.backends.cpu import compile_for_cpu
from memplan.compiler.errors import MemplanError
from memplan.compiler.ir import Graph

X = jax.ShapeDtypeStruct((64, 256), jnp.float32)


def wide(x: jax.Array) -> jax.Array:
    branches = [jnp.sin(x * i).reshape(-1)[:, None] * jnp.ones((1, 8)) for i in range(6)]
    return sum((jnp.cumsum(branch, 0).sum(0) for branch in branches), jnp.zeros(8))


def test_module_and_memory() -> None:
    module = compile_for_cpu(wide, (X,))
    assert isinstance(module.graph, Graph)
    parameter = next(a for a in module.assignment.allocations if a.parameter == 0)
    assert parameter.size == 64 * 256 * 4
    statistics = jax.jit(wide).lower(X).compile().memory_analysis()
    assert module.assignment.temporary == statistics.temp_size_in_bytes


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
