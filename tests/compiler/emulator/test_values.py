"""The value emulator: right plans give JAX's numbers, wrong plans give others or are refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_interpreter import interpret
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from plan_builder import FAST, PlanBuilder, mutated, random_plan
from random_programs import SIZE, random_function
from thorough import examples
from traced_programs import PROGRAMS, Arrays, array, built, example

from memplan import planners
from memplan.compiler.emulator.values import execute
from memplan.compiler.errors import GraphError, PlanError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import BuiltProblem, build
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify

jax.config.update("jax_platforms", "cpu")


def same(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two lists of arrays are equal bit for bit."""
    assert len(found) == len(expected)
    pairs = [(np.asarray(f), np.asarray(e)) for f, e in zip(found, expected, strict=True)]
    return all(f.dtype == e.dtype and f.shape == e.shape and f.tobytes() == e.tobytes() for f, e in pairs)


@pytest.mark.parametrize("name", PROGRAMS)
def test_all_in_slow_memory_is_bit_for_bit_the_program(name: str) -> None:
    problem, args, expected = example(name)
    plan = PlanBuilder(problem.problem).plan()
    assert verify(problem.problem, plan) == []
    assert same(execute(problem, plan, *args), expected)


@pytest.mark.parametrize("name", ["sgd", "recurrent", "table", "branches"])
def test_it_is_what_jax_computes(name: str) -> None:
    """The compiled program fuses, so its sums round otherwise: to 1e-5 of the largest entry."""
    problem, args, _ = example(name)
    found = execute(problem, PlanBuilder(problem.problem).plan(), *args)
    for ours, theirs in zip(found, jax.tree.leaves(jax.jit(PROGRAMS[name][0])(*args)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * float(np.abs(theirs).max()))


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    "planner",
    [
        pytest.param(each, marks=[pytest.mark.slow] if each in ("agent", "hybrid") else [])
        for each in planners.names()
        if each != "xla" and not planners.get(each).needs
    ],
)
def test_what_planners_plan_gives_the_right_numbers(planner: str, name: str, little_work: None) -> None:
    problem, args, expected = example(name)
    plan = planners.get(planner).solve(problem.problem, planners.Budget(planners.Effort.FAST))
    assert same(execute(problem, plan, *args), expected)


@settings(max_examples=60)
@given(st.sampled_from(sorted(PROGRAMS)), st.integers(0, 1 << 30))
def test_random_valid_plans_give_the_right_numbers(name: str, seed: int) -> None:
    problem, args, expected = example(name)
    plan = random_plan(problem.problem, random.Random(seed))
    assert verify(problem.problem, plan) == []
    assert same(execute(problem, plan, *args), expected)


@settings(max_examples=examples(15, 40))
@given(st.integers(0, 1 << 30))
@pytest.mark.slow
def test_random_control_flow_gives_the_right_numbers(seed: int) -> None:
    """Its copies are made, at the right time: sums and maxima of whole arrays are JAX's bit for bit."""
    rng = random.Random(seed)
    fun = random_function(rng.randint)
    args = (np.int32(seed % 4), array(SIZE, seed=seed), array(SIZE, seed=seed + 1))
    problem = built(fun, *args)
    expected = jax.tree.leaves(jax.jit(fun)(*args))
    for plan in (PlanBuilder(problem.problem).plan(), random_plan(problem.problem, rng)):
        assert verify(problem.problem, plan) == []
        assert same(execute(problem, plan, *args), expected)


def test_random_plans_use_fast_memory_and_copies() -> None:
    """Or the test above would say little."""
    plans = [random_plan(example(name)[0].problem, random.Random(seed)) for name in PROGRAMS for seed in range(5)]
    assert sum(any(r.space == FAST for r in plan.residencies) for plan in plans) > len(plans) // 2
    assert sum(len(plan.copies) for plan in plans) > len(plans)


# Wrong plans


def outcome(problem: BuiltProblem, plan: Plan, args: tuple[Any, ...], expected: Arrays) -> str:
    try:
        found = execute(problem, plan, *args, max_iterations=20)
    except PlanError:
        return "refused"
    return "right" if same(found, expected) else "wrong"


@settings(max_examples=120)
@given(st.sampled_from(sorted(PROGRAMS)), st.integers(0, 1 << 30))
def test_a_mutated_plan_that_verifies_gives_the_right_numbers(name: str, seed: int) -> None:
    """Two independent judges: what the verifier lets pass must be right. (A broken rule need not change the numbers.)"""
    problem, args, expected = example(name)
    rng = random.Random(seed)
    plan = mutated(random_plan(problem.problem, rng), problem.problem, rng)
    if verify(problem.problem, plan) == []:
        assert outcome(problem, plan, args, expected) == "right"


def test_mutated_plans_that_do_not_verify_mostly_give_other_numbers() -> None:
    """Broken value flow or overlap shows, unless what is overwritten or stale happens not to be read any more."""
    outcomes = []
    for name in ("sgd", "recurrent", "table", "swaps"):
        problem, args, expected = example(name)
        for seed in range(60):
            rng = random.Random(seed)
            plan = mutated(random_plan(problem.problem, rng), problem.problem, rng)
            if {violation.rule for violation in verify(problem.problem, plan)} & {"value", "served", "final"}:
                outcomes.append(outcome(problem, plan, args, expected))
    assert len(outcomes) > 40
    assert outcomes.count("right") <= len(outcomes) // 10, outcomes


def chain(x: Any, w: Any) -> Any:
    a = jnp.sin(x)
    b = jnp.cos(a)
    c = a + w
    return b * c


def chain_example() -> tuple[BuiltProblem, PlanBuilder, tuple[Any, ...], Arrays]:
    args = (array(16), array(16, seed=1))
    problem = built(chain, *args)
    return problem, PlanBuilder(problem.problem), args, interpret(problem.program.graph, *args)


def test_a_prefetch_and_an_eviction() -> None:
    problem, builder, args, expected = chain_example()
    assert [operation.name for operation in problem.problem.operations] == ["sin", "cos", "add", "mul"]
    builder.prefetch(builder.index("w"), start=0, done=2, end=3)
    builder.evict(builder.index("cos"), start=2, done=3, end=3)
    plan = builder.plan()
    assert verify(problem.problem, plan) == []
    assert same(execute(problem, plan, *args), expected)


def test_a_copy_that_is_dropped_shows() -> None:
    problem, builder, args, expected = chain_example()
    builder.prefetch(builder.index("w"), start=0, done=2, end=3)
    plan = replace(builder.plan(), copies=())
    (result,) = execute(problem, plan, *args)
    assert np.isnan(result).all()
    assert outcome(problem, plan, args, expected) == "wrong"


def test_a_copy_that_is_not_done_yet_shows() -> None:
    problem, builder, args, expected = chain_example()
    builder.prefetch(builder.index("w"), start=0, done=2, end=4)
    plan = builder.plan()
    assert outcome(problem, plan, args, expected) == "right"
    assert outcome(problem, replace(plan, copies=(replace(plan.copies[0], done=3),)), args, expected) == "wrong"


def test_an_overlap_shows() -> None:
    problem, builder, args, expected = chain_example()
    plan = builder.plan()
    a, w = builder.index("sin"), builder.index("w")
    residencies = list(plan.residencies)
    residencies[a] = replace(residencies[a], offset=residencies[w].offset)
    assert outcome(problem, replace(plan, residencies=tuple(residencies)), args, expected) == "wrong"
    # One byte is enough.
    residencies[w] = replace(residencies[w], offset=4096)
    residencies[a] = replace(residencies[a], offset=4096 + 63)
    assert outcome(problem, replace(plan, residencies=tuple(residencies)), args, expected) == "wrong"
    residencies[a] = replace(residencies[a], offset=4096 + 64)
    assert outcome(problem, replace(plan, residencies=tuple(residencies)), args, expected) == "right"


def test_a_residency_that_ended_shows() -> None:
    problem, builder, args, expected = chain_example()
    plan = builder.plan()
    residencies = list(plan.residencies)
    a = builder.index("sin")
    residencies[a] = replace(residencies[a], end=2)  # it is read at 2
    assert outcome(problem, replace(plan, residencies=tuple(residencies)), args, expected) == "wrong"


def test_a_copy_whose_source_changes_meanwhile_shows() -> None:
    args = (array(6, 3),)
    problem = built(lambda x: lax.dynamic_update_slice(x + 1, jnp.ones((1, 3)), (2, 0)) * 2, *args)
    expected = interpret(problem.program.graph, *args)
    builder = PlanBuilder(problem.problem)
    x, update = builder.index("add"), builder.time("dynamic_update_slice")
    assert builder.index("dynamic_update_slice") == x
    times = {operation.name: t for t, operation in enumerate(problem.problem.operations)}
    builder.prefetch(x, start=update, done=times["mul"], end=times["mul"] + 1)
    plan = builder.plan()
    assert "source" in {violation.rule for violation in verify(problem.problem, plan)}
    assert np.isnan(execute(problem, plan, *args)[0]).all()
    assert outcome(problem, plan, args, expected) == "wrong"


def test_a_stale_copy_shows() -> None:
    """The table is copied to fast memory, changed in slow memory, and then read where it was copied to."""
    args = (array(6, 3),)
    problem = built(lambda x: lax.dynamic_update_slice(x + 1, jnp.ones((1, 3)), (2, 0)) * 2, *args)
    builder = PlanBuilder(problem.problem)
    x, update, mul = builder.index("add"), builder.time("dynamic_update_slice"), builder.time("mul")
    builder.prefetch(x, start=update, done=update, end=mul + 1)
    number = problem.problem.access_start[update]
    for k, access in enumerate(problem.problem.operations[update].accesses):
        if access.buffer == x:
            builder.served[number + k] = x
    plan = builder.plan()
    assert "value" in {violation.rule for violation in verify(problem.problem, plan)}
    (result,) = execute(problem, plan, *args)
    np.testing.assert_array_equal(result, (args[0] + np.float32(1)) * 2)


def test_what_an_operation_reserves_is_poisoned() -> None:
    problem, builder, args, expected = chain_example()
    operations = [replace(o, reserved=(0, 64)) for o in problem.problem.operations]
    reserving = replace(problem, problem=replace(problem.problem, operations=tuple(operations)))
    builder = PlanBuilder(reserving.problem)
    builder.prefetch(builder.index("w"), start=0, done=2, end=3)
    plan = builder.plan()
    assert plan.residencies[-1].offset == 64
    assert outcome(reserving, plan, args, expected) == "right"
    low = replace(plan, residencies=(*plan.residencies[:-1], replace(plan.residencies[-1], offset=0)))
    assert [v.rule for v in verify(reserving.problem, low)] == ["reserved"]
    assert outcome(reserving, low, args, expected) == "wrong"


def cross_program_plan(is_left: bool) -> tuple[BuiltProblem, Plan, tuple[Any, ...], Arrays]:
    """`w` is in fast memory when the program starts; at its end it still is, or another buffer is there."""
    problem, builder, args, expected = chain_example()
    w = builder.index("w")
    end = problem.problem.end + 1 if is_left else 3
    residency = builder.reside(w, FAST, 0, end)
    builder.copies.append(Copy(w, residency, BEFORE, 0))
    builder.serve(w, residency, 0, problem.problem.end)
    return problem, builder.plan(), args, expected


def test_an_argument_that_the_previous_run_left_in_fast_memory() -> None:
    problem, plan, args, expected = cross_program_plan(True)
    assert outcome(problem, plan, args, expected) == "right"


def test_an_argument_that_is_not_left_for_the_next_run_shows() -> None:
    problem, plan, args, expected = cross_program_plan(False)
    assert outcome(problem, plan, args, expected) == "wrong"


def endless_plan(problem: MappingProblem, condition: str) -> Plan:
    """The condition of a loop reads its counter where nobody wrote it: it is -1 for ever."""
    builder = PlanBuilder(problem)
    compare = builder.time(condition)
    counter = problem.operations[compare].accesses[0].buffer
    residency = builder.reside(counter, FAST, compare, compare + 1)
    builder.serve(counter, residency, compare, compare + 1)
    return builder.plan()


def test_a_loop_that_a_wrong_plan_never_ends_is_refused() -> None:
    problem, args, _ = example("table")
    with pytest.raises(PlanError, match="the loop while does not end after 20 iterations"):
        execute(problem, endless_plan(problem.problem, "lt"), *args, max_iterations=20)


def test_a_loop_of_known_length_cannot_run_on() -> None:
    problem, args, _ = example("swaps")
    with pytest.raises(PlanError, match="the loop scan does not end after 4 iterations"):
        execute(problem, endless_plan(problem.problem, "compare"), *args)


# What is refused


def test_a_plan_for_another_problem_is_refused() -> None:
    problem, builder, args, _ = chain_example()
    with pytest.raises(PlanError, match="another problem"):
        execute(problem, replace(builder.plan(), problem="0"), *args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: replace(p, served=p.served[:-1]), "accesses are served"),
        (lambda p: replace(p, served=(99, *p.served[1:])), "is served by residency 99"),
        (lambda p: replace(p, served=(p.served[1], *p.served[1:])), "is not one of"),
        (lambda p: replace(p, copies=(Copy(0, 99, 0, 1),)), "copy 0 names a residency"),
        (lambda p: replace(p, residencies=(replace(p.residencies[0], offset=-1), *p.residencies[1:])), "no offset"),
        (lambda p: replace(p, residencies=(replace(p.residencies[0], space=7), *p.residencies[1:])), "does not exist"),
        (lambda p: replace(p, residencies=tuple(replace(r, end=r.end - 1) for r in p.residencies)), "is nowhere"),
    ],
)
def test_plans_that_name_what_does_not_exist_are_refused(change: Callable[[Plan], Plan], message: str) -> None:
    problem, builder, args, _ = chain_example()
    with pytest.raises(PlanError, match=message):
        execute(problem, change(builder.plan()), *args)


def test_arguments_that_do_not_fit_are_refused() -> None:
    problem, builder, args, _ = chain_example()
    with pytest.raises(GraphError, match="takes 2 arrays, found 1"):
        execute(problem, builder.plan(), args[0])
    with pytest.raises(GraphError, match=r"argument w .* must be f32\[16\], found float32\[3\]"):
        execute(problem, builder.plan(), args[0], array(3))


def test_a_program_that_was_not_traced_is_refused() -> None:
    text = "HloModule m\nENTRY e { x = f32[8] parameter(0)\n ROOT y = f32[8] negate(x) }"
    problem = build(parse_hlo(text), load_target("generic"))
    with pytest.raises(GraphError, match=r"y: negate cannot be executed; only programs that memplan.trace made"):
        execute(problem, PlanBuilder(problem.problem).plan(), array(8))
