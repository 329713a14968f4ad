"""Executing a traced function on its planned memories: what it returns, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memplan

jax.config.update("jax_platforms", "cpu")

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "b": jnp.arange(4.0)}
X = jnp.linspace(0.0, 2.0, 6).reshape(2, 3)


def step(params: dict[str, Any], x: Any) -> Any:
    grads = jax.grad(lambda p: jnp.sum(jnp.tanh(x @ p["w"] + p["b"])))(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), (jnp.sum(x), None)


def make_plan(graph: memplan.Graph, target: Any = "generic") -> memplan.Plan:
    return memplan.plan(graph, target, planner="greedy")


def test_the_results_are_those_of_the_function() -> None:
    graph = memplan.trace(step, PARAMS, X)
    params, (total, nothing) = memplan.execute(graph, make_plan(graph), PARAMS, X)
    with jax.disable_jit():
        expected, (expected_total, _) = step(PARAMS, X)
    assert nothing is None
    assert all(isinstance(params[name], np.ndarray) for name in ("w", "b"))
    for name in ("w", "b"):
        np.testing.assert_array_equal(params[name], expected[name])
    np.testing.assert_array_equal(total, expected_total)


def test_one_result_is_an_array_and_other_arguments_of_the_shape_will_do() -> None:
    graph = memplan.trace(lambda x, n: x * n, X, 2.0)
    result = memplan.execute(graph, make_plan(graph), np.asarray(X) + np.float32(1), 3.0)
    np.testing.assert_array_equal(result, (np.asarray(X) + np.float32(1)) * np.float32(3))


def test_donated_and_static_arguments() -> None:
    graph = memplan.trace(lambda x, n: x * n, X, 3, donate_argnums=0, static_argnums=1)
    x = np.array(X)
    np.testing.assert_array_equal(memplan.execute(graph, make_plan(graph), x), np.array(X) * 3)
    np.testing.assert_array_equal(x, X)  # the caller's array is not touched


def test_a_fast_memory_is_used() -> None:
    """On a TPU's memories the same numbers come out of VMEM, by way of copies."""
    graph = memplan.trace(step, PARAMS, X)
    plan = make_plan(graph, "tpu-v5e")
    assert {residency.space for residency in plan.residencies} == {0, 1}
    slow = memplan.execute(graph, memplan.plan(graph, "tpu-v5e", planner="slow"), PARAMS, X)
    jax.tree.map(np.testing.assert_array_equal, memplan.execute(graph, plan, PARAMS, X), slow)


def test_a_target_of_ones_own() -> None:
    graph = memplan.trace(step, PARAMS, X)
    target = replace(memplan.load_target("generic"), name="mine")
    plan = make_plan(graph, target)
    assert memplan.execute(graph, plan, PARAMS, X, target=target)[1][0] == jnp.sum(X)
    with pytest.raises(memplan.MemplanError, match="mine"):
        memplan.execute(graph, plan, PARAMS, X)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((PARAMS,), "takes 3 arrays, found 2"),
        ((PARAMS, X, X), "takes 3 arrays, found 4"),
        ((PARAMS, X.T), r"argument x of jit_step must be f32\[2,3\], found float32\[3,2\]"),
        ((PARAMS, X.astype(int)), r"argument x of jit_step must be f32\[2,3\], found int32\[2,3\]"),
    ],
)
def test_arguments_that_do_not_fit(args: tuple[Any, ...], message: str) -> None:
    graph = memplan.trace(step, PARAMS, X)
    with pytest.raises(memplan.MemplanError, match=message):
        memplan.execute(graph, make_plan(graph), *args)


def test_a_plan_for_another_program() -> None:
    graph = memplan.trace(step, PARAMS, X)
    other = memplan.trace(lambda x: x + 1, X)
    with pytest.raises(memplan.MemplanError, match="does not belong to module 'jit_step'"):
        memplan.execute(graph, make_plan(other), PARAMS, X)


def test_an_invalid_plan_is_not_executed() -> None:
    graph = memplan.trace(step, PARAMS, X)
    plan = make_plan(graph)
    wrong = replace(plan, residencies=tuple(replace(r, offset=1) for r in plan.residencies))
    violations = memplan.verify(graph, wrong)
    assert len(violations) > 20
    with pytest.raises(memplan.MemplanError, match="is not valid") as caught:
        memplan.execute(graph, wrong, PARAMS, X)
    lines = str(caught.value).splitlines()
    assert lines[1] == f"  {violations[0].rule}: {violations[0].message}"
    assert lines[-1] == f"  and {len(violations) - 20} more; memplan.verify returns them all"


def test_a_program_that_was_read() -> None:
    dump = memplan.workloads.dumps_folder() / "lstm.tpu-v5e.default.hlo.txt.gz"
    graph = memplan.read(dump)
    with pytest.raises(memplan.MemplanError, match=r"was read from .*lstm.*only programs that memplan.trace made"):
        memplan.execute(graph, memplan.plan(graph, planner="slow"))


def test_what_jax_cannot_compute_is_named_with_its_line() -> None:
    def fails(*_: Any) -> Any:
        raise NotImplementedError("no such unit on this machine")

    graph = memplan.trace(lambda x: jnp.sin(x) + 1, X)
    for evaluate, message in ((fails, "here: no such unit"), (None, "only programs that memplan.trace made")):
        entry = graph.entry_computation
        instructions = tuple(replace(i, evaluate=evaluate) if i.opcode == "sine" else i for i in entry.instructions)
        changed = replace(graph, computations={entry.name: replace(entry, instructions=instructions)})
        with pytest.raises(
            memplan.MemplanError, match=rf"test_execute.py:\d+: sin: sine cannot be executed.*{message}"
        ):
            memplan.execute(changed, make_plan(changed), X)
