"""A contraction in JAX by pairs: the value of jnp.einsum, and the peak that the plan states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contraction_networks import drawn_network

import memplan
from memplan.passes.contraction import contraction_program, einsum
from memplan.planners.contraction import ContractionProblem, left_to_right, solve_contraction
from memplan.planners.contraction.problem import Quantity
from memplan.planners.contraction.steps import steps_of


def tensors(problem: ContractionProblem) -> list[jax.Array]:
    draw = np.random.default_rng(0)
    return [jnp.asarray(draw.normal(size=[problem.sizes[i] for i in o]), jnp.float32) for o in problem.operands]


@pytest.mark.parametrize("minimize", ["flops", "peak"])
def test_the_value_is_that_of_einsum_and_the_peak_that_of_the_plan(minimize: Quantity) -> None:
    problem = drawn_network(8, 3, minimize)
    plan = solve_contraction(problem)
    operands = tensors(problem)
    program = contraction_program(problem, plan)
    np.testing.assert_allclose(program(*operands), jnp.einsum(problem.expression, *operands), rtol=1e-5, atol=1e-4)
    steps = list(steps_of(problem, plan.path))
    assert sum(step.flops for step in steps) == plan.flops
    assert max(step.standing for step in steps) == plan.peak
    traced = memplan.peak(memplan.trace(program, *operands), "generic")
    assert traced.main.bytes == plan.peak + sum(operand.nbytes for operand in operands)


def test_tensors_that_are_summed_first_and_names_of_any_length() -> None:
    problem = ContractionProblem(
        (("row", "row", "lone"), ("row", "column"), ("column",)), ("row",), {"row": 3, "column": 4, "lone": 5}
    )
    plan = left_to_right(problem)
    steps = list(steps_of(problem, plan.path))
    assert [step.numbers for step in steps] == [(0,), (0, 1), (2, 3)]
    assert (sum(step.flops for step in steps), max(step.standing for step in steps)) == (plan.flops, plan.peak)
    operands = tensors(problem)
    wanted = jnp.einsum("iix,ij,j->i", *operands)
    np.testing.assert_allclose(contraction_program(problem, plan)(*operands), wanted, rtol=1e-5)


@pytest.mark.parametrize("expression", ["ij,jk,kl", "ij->ji", "ii->", "ij,kl->", "i,i,i->i"])
def test_einsum_is_jnp_einsum(expression: str) -> None:
    draw = np.random.default_rng(1)
    operands = [jnp.asarray(draw.normal(size=(3,) * len(part))) for part in expression.partition("->")[0].split(",")]
    wanted = jnp.einsum(expression, *operands)
    for fun in (einsum, jax.jit(einsum, static_argnums=0)):
        found = fun(expression, *operands)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_einsum_cannot_do_is_said() -> None:
    with pytest.raises(memplan.PlannerError, match="no order has a peak within 1 bytes"):
        memplan.ops.einsum("ij,jk,kl", *[jnp.ones((3, 3))] * 3, limit=1)
    with pytest.raises(memplan.PlannerError, match="optimize is what this einsum decides"):
        memplan.ops.einsum("ij,jk", jnp.ones((3, 3)), jnp.ones((3, 3)), optimize="greedy")
