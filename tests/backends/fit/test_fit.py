"""Programs that fit by the compiler's own word: the loop of planning, compiling and correcting."""

from __future__ import annotations

import contextlib
import functools
import pickle
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from training_programs import array, mlp, scanned, threshold_planner

from memplan.backends.fit.compilers import CompiledFit, StatedMemory, compiler_for, memory_of
from memplan.backends.fit.fit import fit, planner_of, session_of
from memplan.backends.fit.limit import limit_of
from memplan.backends.fit.result import CannotFitError, FitResult
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import load_target
from memplan.planners.fit import solve
from memplan.planners.fit.plan import FitError, FitPlan, Run
from memplan.planners.fit.problem import FitProblem
from memplan.planners.fit.verifier import verify_fit

# One step for most of the tests, so that it is traced and compiled as given once.
MLP = mlp(layers=4, batch=128)
SCANNED = scanned(layers=6, batch=128)


def needed(step: Any, args: Any, donate_argnums: int | tuple[int, ...] = ()) -> StatedMemory:
    """Returns what XLA states for a program as it is given."""
    return _needed_of_mlp(donate_argnums) if step is MLP[0] else _needed(step, args, donate_argnums)


@functools.cache
def _needed_of_mlp(donate_argnums: int | tuple[int, ...]) -> StatedMemory:
    return _needed(*MLP, donate_argnums)


def _needed(step: Any, args: Any, donate_argnums: int | tuple[int, ...]) -> StatedMemory:
    stats = jax.jit(step, donate_argnums=donate_argnums).lower(*args).compile().memory_analysis()
    return memory_of(lambda name: getattr(stats, name))


@functools.cache
def fitted_mlp() -> FitResult:
    """Returns the step for most of the tests in 60 % of its temporaries."""
    return fitted(*MLP, 0.6)


def fitted(step: Any, args: Any, share: float, **options: Any) -> FitResult:
    """Fits a program into its arguments, results and a share of its temporaries, and checks what comes back."""
    given = needed(step, args, **{k: v for k, v in options.items() if k == "donate_argnums"})
    limit = given.total - given.temporaries + int(share * given.temporaries)
    result = fit(step, *args, limit=limit, effort="fast", planner=threshold_planner, **options)
    assert result.memory.total <= limit
    assert result.default == given
    return result


@functools.cache
def fitted_loop() -> FitResult:
    """Returns a step with its layers in a loop, in 30 % of its temporaries."""
    return fitted(*SCANNED, 0.3)


@pytest.mark.parametrize(("program", "fit_of"), [(MLP, fitted_mlp), (SCANNED, fitted_loop)])
def test_a_step_fits_into_a_part_of_its_temporaries_with_the_same_values(program: Any, fit_of: Any) -> None:
    step, args = program
    expected = jax.jit(step)(*args)
    result = fit_of()
    assert not result.is_default
    assert result.predicted is not None
    got = result(*args)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
        assert (ours.dtype, ours.weak_type) == (theirs.dtype, theirs.weak_type)
    stated = [attempt.stated for attempt in result.attempts]
    assert stated[0] == needed(step, args).total
    assert result.memory.total in stated[1:]
    assert result.memory == memory_of(lambda name: getattr(result.executable.memory_analysis(), name))


@pytest.mark.slow
def test_the_planner_of_memplan_fits_into_less() -> None:
    step, args = MLP
    given = needed(step, args)
    limit = given.total - int(0.5 * given.temporaries)
    result = fit(step, *args, limit=limit, effort="fast")
    assert result.memory.total <= limit
    assert 0 < result.added_seconds < 0.4 * result.seconds
    assert result.bound_seconds is not None
    assert 0 < result.bound_seconds <= result.added_seconds
    assert "any program within the limit adds at least" in result.summary()
    for ours, theirs in zip(jax.tree.leaves(result(*args)), jax.tree.leaves(jax.jit(step)(*args)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_a_program_that_takes_less_time_is_said_to_save_it() -> None:
    result = replace(fitted_mlp(), seconds=1.0, added_seconds=-0.25, bound_seconds=-0.5)
    assert result.summary().splitlines()[1:] == [
        "saves 250 ms, 25.0% of the step by the model",
        "any program within the limit saves at most 500 ms, 50.0% of the step",
    ]


def test_what_was_decided_is_reported_with_lines_and_shapes() -> None:
    result = fitted_mlp()
    again = [decision for decision in result.decisions if decision.decision == "computed again"]
    assert again
    assert all("training_programs.py:" in decision.origin for decision in again)
    assert all(decision.shape.startswith("f32[") and decision.size > 0 for decision in again)
    assert {decision.decision for decision in result.decisions} == {"kept", "computed again"}
    assert "as given it needs" in result.summary()

    decided = {decision.decision for decision in fitted_loop().decisions}
    assert {"stacked", "computed again in the loop"} <= decided


def test_a_program_that_fits_is_compiled_once_and_left() -> None:
    step, args = mlp()
    result = fit(step, *args, limit="1GiB", effort="fast", planner=threshold_planner)
    assert result.is_default
    assert len(result.attempts) == 1
    assert result.decisions == ()
    for ours, theirs in zip(jax.tree.leaves(result(*args)), jax.tree.leaves(jax.jit(step)(*args)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_donated_arguments_stay_donated_and_are_not_copied() -> None:
    """Arguments are read again by what is computed again."""
    step, args = MLP
    copied = jax.tree.map(jnp.array, args)
    result = fitted(step, copied, 0.6, donate_argnums=0)
    expected = jax.jit(step)(*args)
    got = result(*copied)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(copied[0]))
    assert not copied[1].is_deleted()
    assert result.memory.aliased >= sum(leaf.nbytes for leaf in jax.tree.leaves(args[0]))
    entry = result.executable.as_text().partition("ENTRY")[2]
    assert "optimization_barrier" in entry
    assert " copy(" not in entry


def test_no_plan_is_compiled_twice() -> None:
    step, args = mlp()

    def stubborn(problem: Any, limit: int) -> FitPlan:
        plan = FitPlan(tuple(Run(node) for node in range(len(problem.nodes))))
        return replace(plan, peak=verify_fit(problem, plan).peak)

    with pytest.raises(CannotFitError) as caught:
        fit(step, *args, limit=above_the_interface(step, args), effort="fast", planner=stubborn)
    assert len(caught.value.attempts) == 2


@pytest.mark.slow
def test_random_keys_are_drawn_once_in_value() -> None:
    def step(w: Any, key: Any, x: Any) -> Any:
        def loss(w: Any) -> Any:
            y = x * jax.random.bernoulli(key, 0.8, x.shape)
            for _ in range(4):
                y = y + jnp.tanh(jax.nn.gelu(y @ w) @ w.T)
            return jnp.mean(y * y)

        return jax.value_and_grad(loss)(w)

    args = (array(32, 128), jax.random.key(4), array(256, 32, seed=1))
    result = fitted(step, args, 0.7)
    for ours, theirs in zip(jax.tree.leaves(result(*args)), jax.tree.leaves(jax.jit(step)(*args)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_shapes_are_enough_and_keywords_are_none() -> None:
    step, args = MLP
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)
    result = fitted(step, shapes, 0.6)
    result(*args)
    with pytest.raises(MemplanError, match="the arguments are"):
        result(*args, 1.0)


def above_the_interface(step: Any, args: Any) -> int:
    """Returns a limit that no plan meets: a byte above what the arguments and results need."""
    given = needed(step, args)
    return given.arguments + given.results + 1


def test_what_cannot_fit_says_what_stands() -> None:
    step, args = MLP
    limit = above_the_interface(step, args)
    with pytest.raises(CannotFitError, match="nothing was found that fits into") as caught:
        fit(step, *args, limit=limit, effort="fast", planner=threshold_planner)
    error = caught.value
    assert error.least is not None
    assert error.least > error.limit == limit
    standing = error.standing
    assert standing is not None
    assert sum(group.bytes for group in standing.groups) + standing.reserved == standing.bytes
    description = standing.groups[0].buffers[0].description
    assert all(text in str(error) for text in (description.shape, f"made by {description.producer}, "))
    assert "100.0 %  in all" in str(error)
    assert "by the model, no plan can need less than" in str(error)
    assert 1 < len(error.attempts) <= 8
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.standing) == (str(error), error.standing)


def test_a_minimum_that_a_compiled_program_is_below_is_none() -> None:
    error = CannotFitError(100, proven=400, least=300, standing=None, attempts=())
    assert error.proven == 0
    assert "by the model" not in str(error)


def test_a_budget_of_one_compile_shows_the_default_only() -> None:
    step, args = mlp()
    with pytest.raises(CannotFitError) as caught:
        fit(
            step,
            *args,
            limit=above_the_interface(step, args),
            compile_budget=1,
            effort="fast",
            planner=threshold_planner,
        )
    assert len(caught.value.attempts) == 1


def test_a_refusal_for_lack_of_memory_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    step, args = MLP
    given = needed(step, args)

    class Small:
        """A compiler for a device with little memory."""

        platform = "cpu"

        def compile(self, traced: Any, planned: bool) -> CompiledFit:
            found = compiler_for(None).compile(traced, planned)
            if found.total is not None and found.total > given.total * 0.9:
                return CompiledFit(None, refused="RESOURCE_EXHAUSTED", needed=found.total)
            return found

        def close(self) -> None:
            """There is nothing to end."""

    monkeypatch.setattr("memplan.backends.fit.fit.compiler_for", lambda target: Small())
    result = fit(step, *args, limit=int(given.total * 0.85), effort="fast", planner=threshold_planner)
    assert result.default is None
    assert result.attempts[0].refused == "RESOURCE_EXHAUSTED"
    assert "more than there is" in result.summary()


def test_room_that_is_left_is_used() -> None:
    """A planner that keeps too little at first may keep more as long as the compiler has room."""
    step, args = MLP
    limits: list[int] = []

    def timid(problem: Any, limit: int) -> Any:
        limits.append(limit)
        return threshold_planner(problem, limit if len(limits) > 1 else int(0.6 * limit))

    given = needed(step, args)
    result = fit(step, *args, limit=given.total - int(0.2 * given.temporaries), effort="fast", planner=timid)
    added = [attempt.added_seconds for attempt in result.attempts[1:]]
    assert len(added) > 1
    assert result.added_seconds == min(added) < added[0]
    assert limits[1] > limits[0] * 0.6


@pytest.mark.parametrize("limit", ["", "12 bananas", "-3GiB", "GiB", 0, -5, 2**61, True, None, 1.5, "1e9", "12giB"])
def test_a_limit_of_nonsense_is_refused(limit: Any) -> None:
    with pytest.raises(MemplanError, match="memory limit must be"):
        limit_of(limit)


def test_limits_are_read_as_people_write_them() -> None:
    assert [limit_of(text) for text in ("1KiB", "1 kB", "12GiB", " 0.5 MiB ", "7", "7B")] == [
        1024, 1000, 12 * 2**30, 2**19, 7, 7,
    ]  # fmt: skip


def test_what_has_no_compiler_or_several_devices_is_refused() -> None:
    step, args = mlp()
    with pytest.raises(MemplanError, match="no compiler here states what a program needs on mcu-256kb"):
        fit(step, *args, limit="1GiB", target="mcu-256kb")
    with pytest.raises(MemplanError, match="compile_budget must be a positive integer"):
        fit(step, *args, limit="1GiB", compile_budget=0)
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    sharded = jax.device_put(args[1], NamedSharding(mesh, PartitionSpec("data")))
    assert fit(step, args[0], sharded, limit="1GiB").is_default
    assert [compiler_for(load_target(name)).platform for name in ("tpu-v5e", "h200")] == ["tpu", "gpu"]


@pytest.mark.tpu
def test_a_step_fits_on_a_tpu_by_its_compiler_s_word() -> None:
    """The values are larger than the fast memory, as those within it take none of the limit."""

    def step(weights: Any, x: Any) -> Any:
        def loss(weights: Any) -> Any:
            y = x
            for w in weights:
                y = y + jnp.tanh(y @ w)
            return jnp.mean(y * y)

        return jax.value_and_grad(loss)(weights)

    args = ([jax.ShapeDtypeStruct((128, 128), "float32")] * 4, jax.ShapeDtypeStruct((2**18, 128), "float32"))
    with session_of(step, args, "tpu-v5e", (), (), "fast", threshold_planner) as session:
        given = session.default.memory
        assert given is not None
        limit = given.total - int(0.2 * given.temporaries)
        result = session.fit(limit, compile_budget=3)
    assert result.memory.total <= limit
    with pytest.raises(MemplanError, match="compiled for tpu-v5e: it cannot run here"):
        result(*args)


@pytest.mark.parametrize(
    "outcome",
    [True, False, FitError("none exists", 1, 2, FitPlan(()), ()), FitError("none found", 1, 1, FitPlan(()), ())],
)
def test_relaxations_are_left_out_after_one_that_proved_nothing(
    outcome: bool | FitError, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def solved(problem: FitProblem, limit: int, *args: Any, relaxes: bool, **options: Any) -> FitPlan:
        asked.append(relaxes)
        if isinstance(outcome, FitError):
            raise outcome
        return FitPlan((), info={"is_optimal": outcome})

    monkeypatch.setattr(solve, "solve_fit", solved)
    planner, first, other = planner_of(Effort.FAST), FitProblem((), ()), FitProblem((), ())
    for problem in (first, first, other):
        with contextlib.suppress(FitError):
            planner(problem, 1)
    proves = outcome if isinstance(outcome, bool) else outcome.is_impossible
    assert asked == [True, proves, True]
