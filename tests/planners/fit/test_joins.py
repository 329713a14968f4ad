"""Joins: the same plans with them and without, and the bounds that they prove."""

from __future__ import annotations

import numpy as np
import pytest
from fit_problems import chain, in_order, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.compiler.effort import Guard
from memplan.planners.fit.bound import cost_bound
from memplan.planners.fit.joins import JoinedProblem
from memplan.planners.fit.least_peak import Across, Relations
from memplan.planners.fit.plan import FitPlan, Run
from memplan.planners.fit.problem import FitNode, FitProblem, FitValue
from memplan.planners.fit.solve import solve_fit
from memplan.planners.fit.verifier import verify_fit


def clipped(layers: int) -> FitProblem:
    """Returns gradients of 10 bytes whose norms (1 byte each) are all read by every update, of 1 byte as well."""
    values, nodes = [FitValue("x", 1)], []
    for k in range(layers):
        values += [FitValue(f"g{k}", 10, 2 * k), FitValue(f"n{k}", 1, 2 * k + 1)]
        nodes += [FitNode(f"g{k}", (0,), (2 * k + 1,), 1.0), FitNode(f"n{k}", (2 * k + 1,), (2 * k + 2,), 1.0)]
    norms = tuple(range(2, 2 * layers + 1, 2))
    for k in range(layers):
        values.append(FitValue(f"u{k}", 1, len(nodes), is_result=True))
        nodes.append(FitNode(f"u{k}", (2 * k + 1, *norms), (len(values) - 1,), 1.0))
    return FitProblem(tuple(values), tuple(nodes))


def bound_of(problem: FitProblem, limit: int) -> float:
    return cost_bound(problem, Across(problem, Relations(problem)), limit, 1e8, 20, Guard(None))


def test_what_all_updates_read_is_joined() -> None:
    problem = clipped(3)
    joined = JoinedProblem(problem)
    joined.problem.check()
    names = [node.name for node in joined.problem.nodes]
    assert names == ["g0", "n0", "g1", "n1", "g2", "n2", "join.6", "u0", "u1", "u2"]
    join = joined.problem.nodes[6]
    assert (join.inputs, join.seconds) == ((2, 4, 6), 0.0)
    assert all(join.outputs[0] in joined.problem.nodes[k].inputs for k in (7, 8, 9))
    assert joined.order(np.array([4, 5, 0, 1, 2, 3, 8, 6, 7])) == [4, 5, 0, 1, 2, 3, 6, 9, 7, 8]


def test_a_join_proves_that_gradients_are_made_again() -> None:
    problem = clipped(3)
    # x, two gradients and three norms, with an update beside them: one gradient is made twice.
    limit = 1 + 2 * 10 + 3 + 1
    assert bound_of(problem, limit) == 0.0, "any update may be the last one"
    assert bound_of(JoinedProblem(problem).problem, limit) == pytest.approx(1.0, rel=1e-4)
    plan = solve_fit(problem, limit)
    assert (plan.cost, plan.bound) == (1.0, pytest.approx(1.0))


def test_a_problem_without_joins_stays_as_it_is() -> None:
    problem = chain(4)
    joined = JoinedProblem(problem)
    assert joined.problem is problem
    assert joined.plan(plan := in_order(problem)) is plan
    assert joined.order([0, 1, 2]) == [0, 1, 2]


@given(st.integers(0, 10**6), st.integers(4, 25), st.booleans())
@settings(max_examples=60, deadline=None)
def test_plans_have_the_same_peak_with_joins_and_without(seed: int, num_nodes: int, host: bool) -> None:
    problem = random_problem(seed, num_nodes, host)
    joined = JoinedProblem(problem)
    joined.problem.check()
    order = joined.order(range(num_nodes))
    assert sorted(order) == list(range(len(joined.problem.nodes)))
    plan = FitPlan(tuple(map(Run, order)))
    check, own = verify_fit(joined.problem, plan), verify_fit(problem, in_order(problem))
    assert check.violations == ()
    assert check.peak == own.peak
    assert joined.plan(plan).steps == in_order(problem).steps
