"""`memplan.jit` under a memory limit: each signature fits, and the function is what it was."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compile_counter import compiles
from training_programs import mlp, threshold_planner

from memplan.backends.fit.compilers import CpuFitCompiler
from memplan.backends.fit.result import CannotFitError
from memplan.backends.jit import jit
from memplan.compiler.errors import MemplanError


@pytest.fixture(autouse=True)
def planner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.backends.fit.fit.planner_of", lambda effort: threshold_planner)


def limit_for(step: Any, args: Any, share: float) -> int:
    stats = jax.jit(step).lower(*args).compile().memory_analysis()
    fixed = stats.argument_size_in_bytes + stats.output_size_in_bytes
    return int(fixed + share * stats.temp_size_in_bytes)


@pytest.mark.slow
def test_a_step_runs_within_its_limit_with_the_same_values() -> None:
    step, args = mlp(layers=6, batch=128)
    limited = jit(step, memory_limit=limit_for(step, args, 0.6))
    for _ in range(2):
        for ours, theirs in zip(jax.tree.leaves(limited(*args)), jax.tree.leaves(step(*args)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)
    assert limited._cache_size() == 1


def test_what_was_compiled_to_fit_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    step, args = mlp(layers=6, batch=128)
    limit = limit_for(step, args, 0.6)
    stated: list[int | None] = []
    compile_program = CpuFitCompiler.compile

    def told(self: CpuFitCompiler, traced: Any, planned: bool) -> Any:
        answer = compile_program(self, traced, planned)
        stated.append(answer.total)
        return answer

    monkeypatch.setattr(CpuFitCompiler, "compile", told)
    limited = jit(step, memory_limit=limit)
    with compiles() as seen:
        limited(*args)
        limited(*args)
    assert len(seen) == len(stated) >= 2, "the program as given, and those that were tried"
    assert any(total is not None and total <= limit for total in stated)


def test_what_is_compiled_ahead_of_time_fits() -> None:
    step, args = mlp(layers=6, batch=128)
    limit = limit_for(step, args, 0.6)
    limited = jit(step, memory_limit=limit)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)
    for compiled in (limited.lower(*abstract).compile(), limited.trace(*args).lower().compile()):
        stats = compiled.memory_analysis()
        assert stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes <= limit
        for ours, theirs in zip(jax.tree.leaves(compiled(*args)), jax.tree.leaves(step(*args)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
def test_static_arguments_and_keywords_stay() -> None:
    step, args = mlp(layers=6, batch=128)

    def named(params: Any, how: str, *, x: Any) -> Any:
        return {how: step(params, x)}

    limited = jit(named, memory_limit=limit_for(step, args, 0.7), static_argnums=1)
    result = limited(args[0], "here", x=args[1])
    assert jax.tree.structure(result) == jax.tree.structure(named(args[0], "here", x=args[1]))


def test_a_call_that_cannot_fit_says_so_and_others_run() -> None:
    limited = jit(lambda x: jnp.sum(x * 2), memory_limit="8KiB")
    assert limited(jnp.ones(8)) == 16
    with pytest.raises(CannotFitError, match=r"fits into 8\.00 KiB"):
        limited(jnp.ones(100_000))


def test_a_part_of_a_larger_program_is_compiled_with_that() -> None:
    limited = jit(lambda x: jnp.sum(x * 2), memory_limit=1)
    assert jax.jit(lambda x: limited(x) + 1)(jnp.ones(8)) == 17


def test_limits_of_nonsense_and_targets_are_refused() -> None:
    with pytest.raises(MemplanError, match="memory limit must be"):
        jit(lambda x: x, memory_limit="lots")
    with pytest.raises(MemplanError, match=r"memory_limit is for the CPU of this machine: memplan\.fit"):
        jit(lambda x: x, memory_limit="1GiB", target="tpu-v5e")
