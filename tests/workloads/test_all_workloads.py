"""All workloads run: finite at the tiny size, and planned and verified at the real one; a few of them by default."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memplan
from memplan.compiler.effort import Effort
from memplan.workloads import get, names
from memplan.workloads._weights import random_params

# Small ones: a loop over data, an FFT, gathers and segment sums.
SAMPLE = ("hmc_logistic", "scattering", "gcn_infer")

TARGET = "tpu-v5e"


def check_finite(name: str) -> None:
    fun, args = get(name).build(tiny=True)
    results = jax.jit(fun)(*random_params(args))
    for leaf in jax.tree.leaves(results):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            assert np.isfinite(np.asarray(leaf, np.complex64)).all()


def check_planned(name: str, tiny: bool) -> None:
    program = get(name)
    fun, args = program.build(tiny=tiny)
    graph = memplan.trace(fun, *args, donate_argnums=program.donate_argnums)
    problem = memplan.problem(graph, TARGET)
    assert problem.operations
    plan = memplan.plan(problem, planner="greedy", effort=Effort.FAST)
    assert memplan.verify(problem, plan) == []


@pytest.mark.parametrize("name", SAMPLE)
def test_results_are_finite(name: str) -> None:
    check_finite(name)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_plan_is_valid(name: str) -> None:
    check_planned(name, tiny=True)


@pytest.mark.slow  # a hundred compiles
@pytest.mark.parametrize("name", names())
def test_results_of_all_are_finite(name: str) -> None:
    check_finite(name)


@pytest.mark.slow  # a hundred large problems
@pytest.mark.parametrize("name", names())
def test_plans_of_all_are_valid(name: str) -> None:
    check_planned(name, tiny=False)


def test_counts() -> None:
    kinds = [get(name).kind for name in names()]
    assert len(kinds) >= 100
    assert kinds.count("training") >= 30
    held_out = [name for name in names() if get(name).split == "held-out"]
    assert 0.15 <= len(held_out) / len(kinds) <= 0.4
