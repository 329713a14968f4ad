"""The planner neighbourhoods: its plans are valid and never worse than their start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from random_problems import REAL, problems, seeded_problem
from thorough import examples

from memplan.compiler.emulator.timing import TimingEmulator, latency
from memplan.compiler.mapping.contended import placement_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy, slow
from memplan.planners.neighbourhoods.solve import solve
from memplan.planners.planner import Budget, Effort
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.placed import Placed
from memplan.planners.xla import placed_stays

FAST = Budget(Effort.FAST)


def placed(problem: MappingProblem, plan: Plan) -> Placed:
    """Returns what a plan decides on the first fast space."""
    frame = Frame(problem, fast_spaces(problem)[0])
    offsets = {(r.buffer, r.space): r.offset for r in plan.residencies}
    stays = [stay for stay in placed_stays(problem, plan) if stay.space == frame.space]
    homes = [offsets[buffer, frame.space] for buffer in frame.homes]
    return Placed.of(frame, TimingEmulator(problem), stays, homes)


@settings(max_examples=40)
@given(problem=problems(max_length=12))
@pytest.mark.slow
def test_plans_are_valid_and_never_worse_than_their_start(problem: MappingProblem) -> None:
    start = greedy.solve(problem, FAST)
    plan = solve(problem, replace(FAST, known=start))
    assert verify(problem, plan) == []
    assert latency(problem, plan) <= latency(problem, start)


@pytest.mark.parametrize("seed", range(examples(2, 4)))
def test_plans_of_real_sizes_are_valid_and_never_worse(seed: int) -> None:
    problem = seeded_problem(seed, 80, REAL)
    start = greedy.solve(problem, FAST)
    plan = solve(problem, replace(FAST, known=start))
    assert verify(problem, plan) == []
    assert latency(problem, plan) <= latency(problem, start)


@pytest.mark.parametrize("in_loops", [False, True])
def test_a_known_optimum_is_reached(in_loops: bool) -> None:
    made = placement_problem(40, ratio=2, in_loops=in_loops, parts=2)
    start = slow.solve(made.problem, FAST)
    plan = solve(made.problem, Budget(known=start))
    assert verify(made.problem, plan) == []
    assert latency(made.problem, plan) == pytest.approx(made.optimum, rel=1e-9)


@pytest.mark.slow
def test_a_contended_problem_comes_closer_to_its_optimum() -> None:
    made = placement_problem(400)
    start = greedy.solve_with(made.problem, FAST, greedy.GreedyOptions(moves=0))
    plan = solve(made.problem, replace(FAST, known=start))
    gaps = [latency(made.problem, each) - made.optimum for each in (start, plan)]
    assert gaps[1] < 0.7 * gaps[0]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_plan() -> None:
    problem = placement_problem(200).problem
    start = greedy.solve(problem, FAST)
    plans = [solve(problem, replace(FAST, known=start, seed=seed)) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0].residencies != plans[2].residencies


def test_a_plan_comes_back_as_it_was() -> None:
    problem = seeded_problem(5, 80, REAL)
    plan = greedy.solve(problem, FAST)
    loaded = placed(problem, plan)
    assert len(loaded.decisions.runs()) > 0
    assert loaded.latency == pytest.approx(latency(problem, plan), rel=1e-12)
