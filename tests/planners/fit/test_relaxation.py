"""Programs of stages in integers, and the plans that their solutions become."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_problems import chain, in_order, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fit_solve import FAST, cheapest, limits, reversal

from memplan.compiler.effort import Guard
from memplan.compiler.hardware.target import load_target
from memplan.passes.fit.program import program_of
from memplan.planners.fit.bound import StageProgram, choose_cuts
from memplan.planners.fit.expansion import Expansion
from memplan.planners.fit.least_peak import Across, Relations, least_peak
from memplan.planners.fit.plan import FitPlan, Run
from memplan.planners.fit.problem import FitProblem
from memplan.planners.fit.relaxation import FitRelaxation
from memplan.planners.fit.solve import solve_fit
from memplan.planners.fit.stage_solver import solve_stages
from memplan.planners.fit.verifier import FitCheck, verify_fit
from memplan.workloads import transformer
from memplan.workloads._layers import abstract
from memplan.workloads.train_step import adam_step
from memplan.workloads.train_transformer import loss

NO_LIMIT = Guard(None)


def relaxed(problem: FitProblem, limit: int, rounds: int = 2) -> tuple[float, list[tuple[FitPlan, FitCheck]]]:
    """Returns the bound of the loop, and the plans that it offers."""
    offered: list[tuple[FitPlan, FitCheck]] = []

    def offer(plan: FitPlan) -> FitCheck:
        offered.append((plan, verify_fit(problem, plan)))
        return offered[-1][1]

    order = np.arange(len(problem.nodes))
    relaxation = FitRelaxation(problem, Across(problem, Relations(problem)), order, limit, 1.0, 0, NO_LIMIT)
    relaxation.run(rounds, offer, lambda bound: False)
    return relaxation.bound, offered


@pytest.mark.parametrize("seed", range(6))
def test_bounds_are_never_above_the_optimum_and_plans_never_below(seed: int) -> None:
    problem = chain(3) if seed == 0 else random_problem(400 + seed, 6)
    for limit in limits(problem):
        optimum = cheapest(problem, limit)
        bound, offered = relaxed(problem, limit)
        assert all(check.violations == () for _, check in offered)
        if optimum is None:
            assert all(check.peak > limit for _, check in offered)
            continue
        assert bound <= optimum + 1e-9
        fitting = [check.added_seconds for _, check in offered if check.peak <= limit]
        assert min(fitting, default=optimum) >= optimum - 1e-9


@pytest.mark.parametrize(("layers", "room"), [(10, 80), (20, 130), (30, 200)])
def test_solutions_become_plans_that_are_optimal(layers: int, room: int) -> None:
    problem, optimum = chain(layers), reversal(layers, room // 10 - 4) - (layers - 1)
    bound, offered = relaxed(problem, room)
    assert bound == pytest.approx(optimum, rel=1e-6)
    assert min(check.added_seconds for _, check in offered if check.peak <= room) == pytest.approx(optimum)


@given(st.integers(0, 10**6), st.integers(4, 30), st.booleans())
@settings(max_examples=60, deadline=None)
def test_expanded_problems_are_sound_and_their_orders_are_plans(seed: int, num_nodes: int, host: bool) -> None:
    problem = random_problem(seed, num_nodes, host, reach=6)
    across = Across(problem, Relations(problem))
    limit = max(int(0.7 * verify_fit(problem, in_order(problem)).peak), least_peak(problem, across))
    stages = StageProgram(problem, across, choose_cuts(problem, across, limit, 3), limit)
    solution = solve_stages(stages, 1.0, 0, NO_LIMIT)
    if solution.runs is None:
        return
    expansion = Expansion(problem, solution.runs)
    expansion.problem.check()
    late = expansion.late_runs(range(num_nodes))
    assert sorted(late) == list(range(len(expansion.problem.nodes)))
    for order in (range(len(late)), late):
        expanded = FitPlan(tuple(Run(node) for node in order))
        peak = verify_fit(expansion.problem, expanded)
        check = verify_fit(problem, expansion.plan(expanded))
        assert (peak.violations, check.violations) == ((), ())
        assert check.peak <= peak.peak
        assert check.added_seconds == pytest.approx(expansion.added)
    assert solution.bound <= expansion.added + 1e-6 or host


def test_runs_that_nothing_reads_are_left_out() -> None:
    problem = chain(3)
    # Backward node 4 reads what node 0 makes; nothing reads what it makes for the third time.
    expansion = Expansion(problem, [[0, 1, 2, 3], [0, 4], [0, 5]])
    assert expansion.added == 1.0


def test_relaxations_that_no_solution_fits_into_prove_that_no_plan_does() -> None:
    """A node of the backward pass has two inputs and an output of ten bytes each, beside the argument."""
    problem = chain(4)
    across = Across(problem, Relations(problem))
    cuts = choose_cuts(problem, across, 20, 1)
    assert solve_stages(StageProgram(problem, across, cuts, 20), 1.0, 0, NO_LIMIT).bound == math.inf
    assert relaxed(problem, 20) == (math.inf, [])


def test_optima_of_a_training_step_are_proven() -> None:
    """A decoder of one layer, with Adam."""
    config = transformer.TransformerConfig(layers=1, width=128, heads=4, vocab=1024, batch=8, length=128)
    tokens = jax.ShapeDtypeStruct((config.batch, config.length + 1), jnp.int32)
    step, args = adam_step(partial(loss, config), abstract(transformer.init, config), tokens)
    traced = jax.jit(step, donate_argnums=(0, 1)).trace(*args)
    donated = tuple(info.donated for info in jax.tree.leaves(traced.args_info))
    program = program_of(traced.jaxpr, load_target("tpu-v5e"), donated, "decoder")
    for percentage in (90, 80):
        limit = program.as_written.peak * percentage // 100
        plan = solve_fit(program.problem, limit, proves=False)
        assert plan.info["is_optimal"], (percentage, plan.cost, plan.bound)
        assert plan.cost > 0.0


def test_relaxations_can_be_left_out() -> None:
    problem = chain(30)
    plan = solve_fit(problem, 200, FAST, proves=False, relaxes=False)
    assert verify_fit(problem, plan, 200).violations == ()
    assert (plan.bound, plan.info["is_optimal"]) == (0.0, False)
    assert solve_fit(problem, 200, FAST, proves=False).info["is_optimal"]
