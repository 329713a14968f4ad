"""Programs that run as a plan says: the same values, effects and types, and what is computed again really is."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from training_programs import array, close, equal, mlp, recomputing, scanned, traced, values

from memplan.compiler.errors import PlanError
from memplan.compiler.hardware.target import load_target
from memplan.passes.fit.program import program_of
from memplan.passes.rematerialize import rematerialized
from memplan.planners.fit.plan import FitPlan, Load, Loaded, Run, Store, Stored
from memplan.planners.fit.verifier import verify_fit

GENERIC = load_target("generic")
H200 = load_target("h200")
X = array(16, 8)


def rewritten(fun: Any, *args: Any, keep: Any = lambda value: False, turn: int | None = None) -> tuple[Any, Any, Any]:
    """Returns a program, a plan that computes what it can again, and the program by that plan."""
    program = program_of(jax.make_jaxpr(fun)(*args), GENERIC)
    plan = recomputing(program.problem, keep, turn)
    return program, plan, rematerialized(program, plan)


def count(closed: Any, name: str) -> int:
    return sum(equation.primitive.name == name for equation in closed.jaxpr.eqns)


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("make", [mlp, scanned])
def test_a_training_step_has_the_same_values_to_the_bit(make: Any, in_order: bool) -> None:
    step, args = make()
    program, plan, _ = rewritten(step, *args)
    new = rematerialized(program, plan, in_order=in_order)
    assert len(plan.steps) > len(program.groups)
    assert equal(values(new, args), values(traced(step, args), args))
    compiled, plain = (jax.jit(jaxpr_as_fun(closed))(*jax.tree.leaves(args)) for closed in (new, traced(step, args)))
    assert close(compiled, plain)


def test_what_is_computed_again_is_neither_merged_nor_early() -> None:
    step, args = mlp()
    program, plan, new = rewritten(step, *args)
    runs = [step.node for step in plan.steps]
    again = sum(runs.count(node) - 1 for node in set(runs) if "dot_general" in program.problem.nodes[node].name)
    assert again > 0
    assert count(new, "dot_general") == count(program.closed, "dot_general") + again
    assert count(new, "optimization_barrier") > 0
    text = jax.jit(jaxpr_as_fun(new)).lower(*jax.tree.leaves(args)).compile().as_text()
    plain = jax.jit(jaxpr_as_fun(program.closed)).lower(*jax.tree.leaves(args)).compile().as_text()
    products = [sum("dot_general" in line for line in t.partition("ENTRY")[2].splitlines()) for t in (text, plain)]
    assert products[0] == products[1] + again


def test_the_program_in_its_own_order_needs_no_barrier() -> None:
    program = program_of(jax.make_jaxpr(lambda x: jnp.tanh(jnp.exp(x) @ x.T) @ x + 1)(X), GENERIC)
    new = rematerialized(program, program.as_written)
    assert count(new, "optimization_barrier") == 0
    assert equal(values(new, (X,)), values(program.closed, (X,)))


def test_what_a_distant_group_computes_as_well_is_not_shared_with_it() -> None:
    """XLA would merge both, and might keep the result in between."""

    def fun(x: Any) -> Any:
        before = ((x + 1.0) * 2).sum()
        y, total = x, 0.0
        for _ in range(12):
            y = jnp.tanh(y @ x.T @ x)
            total = total + y.sum()
        return before, total, (y * (x + 1.0)).sum()

    program = program_of(jax.make_jaxpr(fun)(X), GENERIC)
    new = rematerialized(program, program.as_written)
    assert count(new, "optimization_barrier") == 1
    assert equal(values(new, (X,)), values(program.closed, (X,)))


def test_a_first_run_behind_others_waits_for_them() -> None:
    def fun(x: Any) -> Any:
        return jnp.exp(x) @ x.T, jnp.sin(x) @ x.T

    program = program_of(jax.make_jaxpr(fun)(X), GENERIC)
    late = FitPlan(tuple(Run(node) for node in (2, 3, 0, 1)))
    new = rematerialized(program, late)
    assert count(new, "optimization_barrier") == 1
    assert equal(values(new, (X,)), values(program.closed, (X,)))


def test_in_order_every_step_waits_for_the_one_before() -> None:
    def fun(x: Any) -> Any:
        return jnp.exp(x) @ x.T, jnp.sin(x) @ x.T, jnp.cos(x) @ x.T

    program = program_of(jax.make_jaxpr(fun)(X), GENERIC)
    new = rematerialized(program, program.as_written, in_order=True)
    # Exponential, product, sine, product, cosine, product: each product reads what the step before made.
    assert count(new, "optimization_barrier") == 2
    ready: dict[Any, set[Any]] = {}
    for equation in new.jaxpr.eqns:
        behind = {atom for read in equation.invars for atom in {read, *ready.get(read, ())}}
        ready.update((written, behind) for written in equation.outvars)
    products = [equation.outvars[0] for equation in new.jaxpr.eqns if equation.primitive.name == "dot_general"]
    assert all(before in ready[after] for before, after in itertools.pairwise(products))
    assert equal(values(new, (X,)), values(program.closed, (X,)))


@pytest.mark.slow
def test_random_numbers_are_drawn_again_the_same() -> None:
    def fun(w: Any, key: Any) -> Any:
        noise = jax.random.uniform(key, (16, 8)) + jax.random.normal(jax.random.fold_in(key, 1), (16, 8))
        y = jnp.tanh(noise @ w)
        return (y * noise) @ w

    args = (array(8, 8), jax.random.key(3))
    program = program_of(jax.make_jaxpr(fun)(*args), GENERIC)
    plan = recomputing(program.problem, lambda value: False, turn=len(program.groups) - 2)
    for new in (rematerialized(program, plan), rematerialized(program, plan, in_order=True)):
        assert count(new, "random_bits") > count(program.closed, "random_bits")
        assert equal(values(new, args), values(program.closed, args))


def test_effects_happen_once_and_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    def fun(x: Any) -> Any:
        y = jnp.tanh(x @ x.T)
        jax.debug.print("first {}", y.shape, ordered=True)
        z = jnp.exp(y) @ y
        jax.debug.print("second {}", z.shape, ordered=True)
        return (z * y).sum()

    program, plan, new = rewritten(fun, X, turn=4)
    assert len(plan.steps) > len(program.groups)
    values(new, (X,))
    jax.effects_barrier()
    assert [line.split()[0] for line in capfd.readouterr().out.split("\n") if line] == ["first", "second"]


def test_types_weak_types_and_results_that_are_arguments_stay() -> None:
    def fun(x: Any, flag: Any, small: Any) -> Any:
        half = (x * 2.0).astype(jnp.bfloat16)
        return x, half @ half.T, jnp.exp(x) @ x.T, flag, small * 2, 3.0, (jnp.exp(x) @ x.T).reshape(-1)

    args = (X, True, 1.5)
    program, _, new = rewritten(fun, *args, turn=2)
    assert [v.aval for v in new.jaxpr.outvars] == [v.aval for v in program.closed.jaxpr.outvars]
    assert equal(values(new, args), values(program.closed, args))


def test_what_is_stored_on_the_host_comes_back() -> None:
    def fun(x: Any) -> Any:
        kept = jnp.exp(x) @ x.T
        other = jnp.sin(x @ x.T) @ x
        return kept @ other

    program = program_of(jax.make_jaxpr(fun)(X), H200, offload=True)
    moved = next(v for v, value in enumerate(program.problem.values) if value.name.startswith("dot_general"))
    made = program.problem.values[moved].producer
    last = max(node for node, entry in enumerate(program.problem.nodes) if moved in entry.inputs)
    steps: list[Any] = [Run(node) for node in range(len(program.groups))]
    steps[last:last] = [Load(moved), Loaded(moved)]
    steps[made + 1 : made + 1] = [Store(moved), Stored(moved)]
    plan = FitPlan(tuple(steps))
    assert verify_fit(program.problem, plan).violations == ()
    new = rematerialized(program, plan)
    spaces = [str(equation.params["devices"]) for equation in new.jaxpr.eqns if equation.primitive.name == "device_put"]
    assert len(spaces) == 2
    assert "Host" in spaces[0]
    assert "Device" in spaces[1]
    assert equal(values(new, (X,)), values(program.closed, (X,)))


def test_transfers_begin_and_end_where_the_plan_says() -> None:
    """A run after the end of a store waits for it, and a load waits for the run before it, behind barriers.

    On its way back, an array has a change of dimensions behind the last barrier.
    """
    program = program_of(jax.make_jaxpr(lambda x: (x @ x.T @ x, jnp.sin(x @ x.T) @ x @ x.T))(X), H200, offload=True)
    problem = program.problem
    moved = problem.nodes[0].outputs[0]
    readers = [node for node, entry in enumerate(problem.nodes) if moved in entry.inputs]
    between = [node for node in range(1, len(problem.nodes)) if node != readers[0]]
    steps = [Run(0), Store(moved), *map(Run, between[:1]), Stored(moved), *map(Run, between[1:-1])]
    steps += [Load(moved), Run(between[-1]), Loaded(moved), Run(readers[0])]
    plan = FitPlan(tuple(steps))
    assert verify_fit(problem, plan).violations == ()
    new = rematerialized(program, plan, "tpu")
    maker = {variable: equation for equation in new.jaxpr.eqns for variable in equation.outvars}
    out, back = (equation for equation in new.jaxpr.eqns if equation.primitive.name == "device_put")
    assert out.invars[0].aval.ndim == program.variables[moved].aval.ndim + 1
    assert back.outvars[0].aval.shape == program.variables[moved].aval.shape
    reshape = maker[back.invars[0]]
    assert reshape.primitive.name == "reshape"
    load = maker[reshape.invars[0]]
    stored = maker[load.invars[0]]
    assert load.primitive.name == stored.primitive.name == "optimization_barrier"
    assert stored.invars[0] is out.outvars[0]
    read = [atom for equation in new.jaxpr.eqns for atom in equation.invars]
    assert all(equation.outvars[1] in read for equation in (load, stored))
    assert equal(values(new, (X,)), values(program.closed, (X,)))


def test_the_mark_against_merging_is_for_the_cpu_alone() -> None:
    step, args = mlp(layers=2)
    program = program_of(traced(step, args), GENERIC)
    plan = recomputing(program.problem, lambda value: False)
    for platform in ("cpu", "tpu"):
        lowered = jax.jit(jaxpr_as_fun(rematerialized(program, plan, platform))).lower(*jax.tree.leaves(args))
        assert ("MUST_FUSE" in lowered.as_text()) == (platform == "cpu")


def test_constants_of_the_program_stay_its_constants() -> None:
    table = np.arange(128, dtype=np.float32).reshape(8, 16)
    program, _, new = rewritten(lambda x: jnp.tanh(x @ table) @ table.T @ table, X)
    assert len(new.consts) == len(program.closed.consts)
    assert equal(values(new, (X,)), values(program.closed, (X,)))


def test_a_plan_that_is_not_valid_is_refused() -> None:
    program = program_of(jax.make_jaxpr(lambda x: jnp.tanh(x @ x.T) @ x)(X), GENERIC)
    with pytest.raises(PlanError, match="the plan of program is not valid"):
        rematerialized(program, FitPlan((Run(1), Run(0))))
    with pytest.raises(PlanError, match="there is no node 17"):
        rematerialized(program, FitPlan((Run(17),)))
