"""The value emulator: right plans give JAX's numbers, wrong plans give others or are refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from memplan import planners
from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.emulator.interpreter import interpret
from memplan.compiler.emulator.values import execute
from memplan.compiler.errors import GraphError, PlanError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.jaxpr import trace
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import BuiltProblem, build
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan, Residency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify

jax.config.update("jax_platforms", "cpu")

SLOW, FAST = 0, 1
Arrays = list[np.ndarray[Any, Any]]


def array(*dims: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=dims).astype(np.float32)


def built(fun: Callable[..., Any], *args: Any, target: str = "generic", **options: Any) -> BuiltProblem:
    return build(trace(fun, *args, **options), load_target(target))


def same(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two lists of arrays are equal bit for bit."""
    assert len(found) == len(expected)
    pairs = [(np.asarray(f), np.asarray(e)) for f, e in zip(found, expected, strict=True)]
    return all(f.dtype == e.dtype and f.shape == e.shape and f.tobytes() == e.tobytes() for f, e in pairs)


# Plans


class PlanBuilder:
    """A plan in the making, everything in slow memory at first; offsets are chosen at the end, lowest fit first."""

    def __init__(self, problem: MappingProblem):
        self.problem = problem
        self.residencies = [
            Residency(i, buffer.initial_space or buffer.final_space or SLOW, -1, buffer.start, buffer.end)
            for i, buffer in enumerate(problem.buffers)
        ]
        self.copies: list[Copy] = []
        self.served = [access.buffer for _, access in problem.accesses]

    def index(self, name: str) -> int:
        return next(i for i, buffer in enumerate(self.problem.buffers) if name in buffer.values)

    def time(self, name: str) -> int:
        return next(t for t, operation in enumerate(self.problem.operations) if operation.name == name)

    def reside(self, buffer: int, space: int, start: int, end: int) -> int:
        self.residencies.append(Residency(buffer, space, -1, start, end))
        return len(self.residencies) - 1

    def serve(self, buffer: int, residency: int, start: int, end: int) -> None:
        for number in self.problem.accesses_of[buffer]:
            if start <= self.problem.accesses[number][0] < end:
                self.served[number] = residency

    def prefetch(self, buffer: int, start: int, done: int, end: int) -> None:
        """Copies a buffer to fast memory, where its accesses in `[done, end)` find it."""
        residency = self.reside(buffer, FAST, start, end)
        self.copies.append(Copy(buffer, residency, start, done))
        self.serve(buffer, residency, done, end)

    def evict(self, buffer: int, start: int, done: int, end: int) -> None:
        """Has a buffer written in fast memory and copied to slow memory, where its accesses from `end` on find it."""
        first, last = self.problem.buffers[buffer].start, self.problem.buffers[buffer].end
        residency = self.reside(buffer, FAST, first, end)
        self.serve(buffer, residency, first, end)
        self.residencies[buffer] = replace(self.residencies[buffer], start=start, end=last)
        self.copies.append(Copy(residency, buffer, start, done))

    def plan(self, seed: int | None = None) -> Plan:
        """Returns the plan; with a seed, residencies are placed in a random order."""
        order = list(range(len(self.residencies)))
        if seed is not None:
            random.Random(seed).shuffle(order)
        placed: list[Residency] = []
        result = list(self.residencies)
        for number in order:
            r = result[number]
            size, space = self.problem.buffers[r.buffer].size, self.problem.spaces[r.space]
            times = range(max(r.start, 0), min(r.end, self.problem.end))
            floor = max((self.problem.operations[t].reserved[r.space] for t in times), default=0)
            busy = [
                (other.offset, other.offset + self.problem.buffers[other.buffer].size)
                for other in placed
                if other.space == r.space and other.start < r.end and r.start < other.end
            ]
            offset = -(-floor // space.alignment) * space.alignment
            for low, high in sorted(busy):
                if low < offset + size and offset < high:
                    offset = -(-high // space.alignment) * space.alignment
            result[number] = replace(r, offset=offset)
            placed.append(result[number])
        problem = self.problem
        copies = tuple(sorted(self.copies, key=lambda copy: copy.start))
        return Plan(
            problem.fingerprint, problem.name, problem.target, "test", tuple(result), copies, tuple(self.served)
        )


def random_plan(problem: MappingProblem, rng: random.Random) -> Plan:
    """Returns a valid plan that uses fast memory in every way that a buffer allows."""
    builder = PlanBuilder(problem)
    regions = problem.regions
    region_of = [operation.region for operation in problem.operations] + [0]
    for number, buffer in enumerate(problem.buffers):
        accesses = [problem.accesses[n] for n in problem.accesses_of[number]]
        writes = [t for t, access in accesses if access.kind is not AccessKind.READ]
        if FAST not in buffer.spaces or not accesses or rng.random() < 0.2:
            continue
        if buffer.initial_space is None and buffer.final_space is None and rng.random() < 0.5:
            builder.residencies[number] = replace(builder.residencies[number], space=FAST)
            continue
        # A window within one region: it starts, and its copies are awaited, at times directly in it.
        region = rng.randrange(len(regions))
        low, high = max(regions[region].start, buffer.start), min(regions[region].end, buffer.end)
        times = [t for t in range(low, min(high, problem.end)) if region_of[t] == region]
        if len(times) < 2:
            continue
        start, done, last = sorted(rng.choices(times, k=3))
        end = last + 1
        if any(regions[r].start <= last < regions[r].end for r in range(region + 1, len(regions))):
            continue
        is_defined = buffer.initial_space is not None or (writes and writes[0] < start)
        if is_defined and not any(start <= t < end for t in writes) and not _carried(problem, region, number, writes):
            builder.prefetch(number, start, done, end)
        elif writes == [buffer.start] and accesses[0][1].kind is AccessKind.WRITE and region_of[buffer.start] == region:
            if buffer.start < start and end < buffer.end:
                if all(t < end or t > done for t, _ in accesses):
                    builder.evict(number, start, done, end)
    return builder.plan(rng.randrange(1 << 30))


def _carried(problem: MappingProblem, region: int, buffer: int, writes: Sequence[int]) -> bool:
    """Whether a buffer is written by the loop around a region at all: then its value changes from one turn to the next."""
    while problem.regions[region].kind is not RegionKind.PROGRAM:
        if any(problem.regions[region].start <= t < problem.regions[region].end for t in writes):
            return True
        region = problem.regions[region].parent
    return False


# Programs


def mlp(params: dict[str, Any], x: Any, y: Any) -> Any:
    return jnp.mean((jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] - y) ** 2)


def recurrent(w: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(h @ w + x)
        return h, h * 2

    h, ys = lax.scan(step, jnp.zeros(4), xs)
    return jnp.sum(ys * ys) + jnp.sum(h)


def sgd(params: Any, x: Any, y: Any) -> Any:
    loss, grads = jax.value_and_grad(mlp)(params, x, y)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss


PARAMS = {"w1": array(4, 8), "b1": array(8), "w2": array(8, 2)}
X, Y = array(6, 4, seed=1), array(6, 2, seed=2)


def newton(x: Any) -> Any:
    return lax.while_loop(lambda s: jnp.abs(s * s - x) > 1e-3, lambda s: 0.5 * (s + x / s), x)


def swaps(x: Any) -> Any:
    return lax.scan(lambda c, v: ((c[1], c[0] + v), c[0]), (jnp.ones(3), jnp.zeros(3)), x)


def table(x: Any, n: Any) -> Any:
    def body(i: Any, t: Any) -> Any:
        row = lax.switch(i % 3, [lambda r: r, lambda r: r * 2, jnp.sin], lax.dynamic_slice(t, (i, 0), (1, 3)))
        return lax.dynamic_update_slice(t, row + 1, (i, 0))

    return lax.fori_loop(0, n, body, x)


def nested(x: Any) -> Any:
    return lax.scan(lambda c, row: lax.scan(lambda c, v: (c * 0.5 + v, c), c, row), 0.0, x)


def branches(p: Any, x: Any) -> Any:
    y = jnp.sin(x)
    z = lax.cond(p, lambda x, y: (x + y, y), lambda x, y: (jnp.exp(x), x * y), x, y)
    return z, y


def keys(seed: Any) -> Any:
    key, other = jax.random.split(jax.random.key(seed))
    return jax.random.normal(key, (3,)), lax.map(jax.random.uniform, jax.random.split(other, 3))


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "sgd": (sgd, (PARAMS, X, Y), {"donate_argnums": 0}),
    "recurrent": (jax.grad(recurrent, (0, 1)), (array(4, 4), array(3, 4)), {}),
    "newton": (newton, (2.0,), {}),
    "swaps": (swaps, (array(4, 3),), {"donate_argnums": 0}),
    "table": (table, (array(6, 3), 5), {"donate_argnums": 0}),
    "nested": (nested, (array(3, 4),), {}),
    "branches": (branches, (False, array(4)), {}),
    "keys": (keys, (3,), {}),
    "remat": (jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(jnp.sin(x) * x))(x).sum()), (array(5),), {}),
    "passed": (lambda x, y: (y, x, x, y + 1, x.reshape(2, 2), jnp.zeros((0, 3))), (array(4), array(2)), {}),
    "types": (lambda x: (x.astype(jnp.bfloat16) * 2, x > 0, x + 1j, (x * 9).astype(jnp.int8), x.astype("int4")), (array(5),), {}),
}  # fmt: skip


@cache
def example(name: str) -> tuple[BuiltProblem, tuple[Any, ...], Arrays]:
    """Returns a program's problem, its arguments and what it gives without a memory."""
    fun, args, options = PROGRAMS[name]
    problem = built(fun, *args, **options)
    return problem, args, interpret(problem.program.graph, *args)


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
    "planner", [each for each in planners.names() if each != "xla" and not planners.get(each).needs]
)
def test_what_planners_plan_gives_the_right_numbers(planner: str, name: str) -> None:
    problem, args, expected = example(name)
    plan = planners.get(planner).solve(problem.problem, planners.Budget(seconds=1, seed=0))
    assert same(execute(problem, plan, *args), expected)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PROGRAMS)), st.integers(0, 1 << 30))
def test_random_valid_plans_give_the_right_numbers(name: str, seed: int) -> None:
    problem, args, expected = example(name)
    plan = random_plan(problem.problem, random.Random(seed))
    assert verify(problem.problem, plan) == []
    assert same(execute(problem, plan, *args), expected)


def test_random_plans_use_fast_memory_and_copies() -> None:
    """Or the test above would say little."""
    plans = [random_plan(example(name)[0].problem, random.Random(seed)) for name in PROGRAMS for seed in range(5)]
    assert sum(any(r.space == FAST for r in plan.residencies) for plan in plans) > len(plans) // 2
    assert sum(len(plan.copies) for plan in plans) > len(plans)


# Wrong plans


def mutated(plan: Plan, problem: MappingProblem, rng: random.Random) -> Plan:
    """Returns the plan with one thing changed."""
    residencies, copies, served = list(plan.residencies), list(plan.copies), list(plan.served)
    kind = rng.choice(["offset", "overlap", "end", "start", "served", "drop", "early", "late", "space"])
    number = rng.randrange(len(residencies))
    r = residencies[number]
    if kind == "offset":
        residencies[number] = replace(r, offset=r.offset + 64 * rng.randint(1, 3))
    elif kind == "overlap":
        others = [o for o in residencies if o.space == r.space and o.start < r.end and r.start < o.end]
        residencies[number] = replace(r, offset=rng.choice(others).offset)
    elif kind == "end":
        residencies[number] = replace(r, end=max(r.start + 1, r.end - rng.randint(1, 3)))
    elif kind == "start":
        residencies[number] = replace(r, start=min(r.end - 1, r.start + rng.randint(1, 3)))
    elif kind == "space":
        residencies[number] = replace(r, space=1 - r.space)
    elif kind == "served":
        access = rng.randrange(len(served))
        buffer = problem.accesses[access][1].buffer
        served[access] = rng.choice([i for i, o in enumerate(residencies) if o.buffer == buffer])
    elif copies:
        chosen = rng.randrange(len(copies))
        copy = copies[chosen]
        if kind == "drop":
            del copies[chosen]
        elif kind == "early":
            copies[chosen] = replace(copy, start=max(0, copy.start - rng.randint(1, 3)))
        else:
            copies[chosen] = replace(copy, done=copy.done + rng.randint(1, 3))
    return replace(plan, residencies=tuple(residencies), copies=tuple(copies), served=tuple(served))


def outcome(problem: BuiltProblem, plan: Plan, args: tuple[Any, ...], expected: Arrays) -> str:
    try:
        found = execute(problem, plan, *args, max_iterations=20)
    except PlanError:
        return "refused"
    return "right" if same(found, expected) else "wrong"


@settings(max_examples=120, deadline=None)
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
    with pytest.raises(GraphError, match=r"y: negate cannot be evaluated; only programs traced from JAX"):
        execute(problem, PlanBuilder(problem.problem).plan(), array(8))
