"""The verifier of FitPlans, against an execution step by step without arrays."""

import random

import pytest
from fit_problems import chain, execute_slowly, in_order, random_problem

from memplan.compiler.errors import PlanError
from memplan.planners.fit.plan import FitPlan, FitStep, Load, Loaded, Run, Store, Stored
from memplan.planners.fit.problem import FitNode, FitProblem, FitValue, HostLink
from memplan.planners.fit.verifier import verify_fit


def mutated(problem: FitProblem, seed: int) -> FitPlan:
    """Returns the program's schedule with random runs, transfers, swaps and deletions."""
    draw = random.Random(seed)
    steps: list[FitStep] = list(in_order(problem).steps)
    movable = [v for v, value in enumerate(problem.values) if value.producer is not None or value.is_donated]
    for _ in range(draw.randint(0, 4)):
        at = sorted(draw.randrange(len(steps) + 1) for _ in range(4))
        kind = draw.randrange(6)
        if kind < 2:
            steps.insert(at[0], Run(draw.randrange(len(problem.nodes))))
        elif kind < 5:
            value = draw.choice(movable or [0])
            for place, step in zip(reversed(at), (Loaded, Load, Stored, Store), strict=True):
                steps.insert(place, step(value))
        elif draw.random() < 0.5:
            i, j = draw.randrange(len(steps)), draw.randrange(len(steps))
            steps[i], steps[j] = steps[j], steps[i]
        else:
            del steps[draw.randrange(len(steps))]
    return FitPlan(tuple(steps))


def test_it_agrees_with_a_slow_execution() -> None:
    outcomes = set()
    for seed in range(400):
        problem = random_problem(seed, 1 + seed % 9, host=seed % 3 > 0)
        problem.check()
        plan = mutated(problem, seed)
        slow, check = execute_slowly(problem, plan), verify_fit(problem, plan)
        assert (slow is None) == bool(check.violations), (seed, check.violations)
        if slow is not None:
            assert check.bytes.tolist() == slow[0], seed
            assert check.added_seconds == pytest.approx(slow[1], abs=1e-9), seed
            assert check.peak == max(slow[0])
        outcomes.add((slow is None, problem.host is None))
    assert len(outcomes) == 4


def test_the_program_as_it_is_adds_nothing() -> None:
    problem = chain(4)
    check = verify_fit(problem, in_order(problem))
    assert check.violations == ()
    assert (check.peak, check.added_seconds) == (60, 0.0)
    # x, a1 … a4 and the first gradient stand when the backward pass begins.
    assert check.peak_step == 4
    assert [value for value, _ in check.standing(problem, 4)] == [0, 1, 2, 3, 4, 5]


def test_the_limit_names_what_stands() -> None:
    problem = chain(4)
    check = verify_fit(problem, in_order(problem), limit=59)
    [violation] = check.violations
    assert (violation.rule, violation.step) == ("limit", 4)
    assert (
        "step 4 needs 60 bytes, and the limit is 59 (1 such steps); resident, the largest first: x (10)"
        in violation.message
    )


@pytest.mark.parametrize(
    ("steps", "rule", "message"),
    [
        ([Run(0), Run(1), Run(0)], "runs", "node 0 (f) runs again at step 2, and cannot be repeated"),
        ([Run(0)], "runs", "node 1 (g) never runs"),
        ([Run(1), Run(0)], "residency", "value 1 (a) is not resident at step 0, where it is read"),
        ([Run(0)], "results", "the result 2 (b) is never made"),
        ([Run(0), Load(1), Loaded(1), Run(1)], "host", "value 1 (a) is not on the host"),
        ([Run(0), Stored(1), Run(1)], "host", "no store of this instance of value 1 (a) has started"),
        ([Run(0), Store(1), Run(1)], "host", "a transfer of value 1 (a) never ends"),
        ([Run(0), Store(1), Stored(1), Load(1), Run(1), Loaded(1)], "residency", "step 4 reads value 1 (a) before it is back"),
        ([Run(0), Store(0), Stored(0), Run(1)], "host", "value 0 (x) cannot be moved to the host"),
    ],
)  # fmt: skip
def test_each_rule_names_its_place(steps: list[FitStep], rule: str, message: str) -> None:
    values = (FitValue("x", 1), FitValue("a", 2, 0), FitValue("b", 3, 1, is_result=True))
    nodes = (FitNode("f", (0,), (1,), 1.0, can_repeat=False), FitNode("g", (1,), (2,), 1.0))
    problem = FitProblem(values, nodes, HostLink(1.0, 1.0))
    found = verify_fit(problem, FitPlan(tuple(steps))).violations
    assert any(violation.rule == rule and message in violation.message for violation in found), found


def test_transfers_run_beside_the_computation() -> None:
    """Storing 8 bytes takes 5 s, of which a node of 3 s hides some; loading takes 3 s, and nothing hides it."""
    values = (FitValue("a", 8, 0), FitValue("b", 1, 1), FitValue("c", 1, 2, is_result=True))
    nodes = (FitNode("f", (), (0,), 1.0), FitNode("g", (), (1,), 3.0), FitNode("h", (0, 1), (2,), 1.0))
    problem = FitProblem(values, nodes, HostLink(2.0, 4.0, latency=1.0))
    plan = FitPlan((Run(0), Store(0), Run(1), Stored(0), Load(0), Loaded(0), Run(2)))
    check = verify_fit(problem, plan)
    assert check.violations == ()
    assert check.stall_seconds == pytest.approx(2.0 + 3.0)
    assert check.bytes.tolist() == [8, 8, 9, 9, 9, 9, 10]


def test_a_step_that_names_nothing_is_refused() -> None:
    with pytest.raises(PlanError, match=r"steps\[1\]: there is no node 9"):
        verify_fit(chain(2), FitPlan((Run(0), Run(9))))
