import dataclasses

import pytest

from memplan.compiler.emulator.timing import emulate, latency
from memplan.compiler.mapping.plan import Plan, Residency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.costs import buffer_costs

X, W, A, S, R = range(5)  # buffers of the problem, see conftest.py


def test_costs_by_hand(problem: MappingProblem, plan: Plan) -> None:
    costs = buffer_costs(problem, plan, emulate(problem, plan))
    # x: mul takes 0.46 s and would take 0.1, its floor. w: 0.72 s of add. s: 0.18 s of exp, 4 * 0.18 of body
    # (floor 0.1), 0.18 of out. r: 1.8 s of out.
    assert costs.lost == pytest.approx([0.36, 0.72, 0.0, 0.16 + 4 * 0.18 + 0.18, 1.8])
    assert costs.waited == pytest.approx([0.0, 0.8, 0.0, 0.0, 0.0])
    # a: 0.54 s of mul, add and exp each; w: 0.72 s of body, four times.
    assert costs.saved == pytest.approx([0.0, 2.88, 1.62, 0.0, 0.0])
    assert costs.most_costly(10) == [R, W, S, X]
    assert costs.most_costly(2) == [R, W]
    assert A not in costs.most_costly(10)


def test_one_buffer_moved_changes_the_latency_by_its_cost(problem: MappingProblem, slow_plan: Plan) -> None:
    """Where a single access is concerned the marginal cost is exact: the emulator agrees."""
    before = latency(problem, slow_plan)
    costs = buffer_costs(problem, slow_plan, emulate(problem, slow_plan))
    for number, (_, access) in enumerate(problem.accesses):
        home = slow_plan.residencies[access.buffer]
        moved = dataclasses.replace(
            slow_plan,
            residencies=(*slow_plan.residencies, Residency(access.buffer, 1, 0, home.start, home.end)),
            served=tuple(len(problem.buffers) if n == number else s for n, s in enumerate(slow_plan.served)),
        )
        assert before - latency(problem, moved) == pytest.approx(costs.access_lost[number]), number
