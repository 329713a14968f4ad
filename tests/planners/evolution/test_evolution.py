"""The evolutionary baseline: it finds the best of tiny problems, and whatever it finds is a plan."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_problems import problem
from random_problems import REAL, problems, seeded_problem

from memplan.compiler.emulator.timing import latency
from memplan.compiler.frontends import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import slow
from memplan.planners.evolution.solve import EvolutionOptions, solve, solve_with
from memplan.planners.planner import Budget
from memplan.workloads import dumps_folder

LONG = Budget()


@pytest.mark.slow
def test_the_best_mapping_of_a_tiny_program_is_found() -> None:
    """Only one of `a` and `b` fits; `a` is read more often. The argument `x` is prefetched while the first one runs."""
    mapped = problem("w a, w b", "r a, r b", "r a", "r x", arguments="x", sizes={"a": 9, "b": 8, "x": 6}, floors=[40.0])
    # The first operation takes 40 s whatever is where.
    best = 40.0 + (9 / 8 + 8) + 9 / 8 + 6 / 8
    made = solve_with(mapped, LONG, EvolutionOptions(generations=30))
    assert verify(mapped, made) == []
    assert latency(mapped, made) == pytest.approx(best)


@settings(max_examples=40)
@given(mapped=problems(max_length=20, depth=3), seed=st.integers(0, 9))
def test_plans_are_valid_and_never_slower_than_slow(mapped: MappingProblem, seed: int) -> None:
    made = solve_with(mapped, Budget(seed=seed), EvolutionOptions(population=8, generations=2))
    assert verify(mapped, made) == []
    assert latency(mapped, made) <= latency(mapped, slow.solve(mapped, LONG))


def test_generations_improve_the_plan_and_each_is_told() -> None:
    mapped = seeded_problem(3, 80, REAL)
    told: list[Plan] = []
    made = solve_with(mapped, Budget(on_plan=told.append), EvolutionOptions(generations=20, moves=False))
    seconds = [latency(mapped, plan) for plan in told]
    assert seconds == sorted(seconds, reverse=True)
    assert all(verify(mapped, plan) == [] for plan in told)
    assert told[-1] == made
    first = solve_with(mapped, LONG, EvolutionOptions(generations=0, moves=False))
    assert seconds[-1] < latency(mapped, first) < seconds[0]


@pytest.mark.parametrize("change", [{"population": 16}, {"tournament": 1}, {"crossover": 0.0}, {"mutation": 8.0}])
def test_every_rate_changes_the_search(change: dict[str, float]) -> None:
    mapped = seeded_problem(3, 80, REAL)
    options = EvolutionOptions(generations=8, moves=False)
    assert solve_with(mapped, LONG, options) == solve_with(mapped, LONG, options)
    assert solve_with(mapped, LONG, options) != solve_with(mapped, LONG, dataclasses.replace(options, **change))


def test_a_seed_changes_the_search() -> None:
    mapped = seeded_problem(3, 80, REAL)
    plans = [solve_with(mapped, Budget(seed=seed), EvolutionOptions(generations=3, moves=False)) for seed in (0, 1)]
    assert plans[0] != plans[1]


def test_an_interrupt_returns_the_best_so_far() -> None:
    mapped, told = seeded_problem(3, 80, REAL), list[Plan]()

    def interrupt(plan: Plan) -> None:
        told.append(plan)
        if len(told) == 3:
            raise KeyboardInterrupt

    made = solve(mapped, Budget(on_plan=interrupt))
    assert made == told[2]
    assert verify(mapped, made) == []


def test_a_deadline_is_kept_with_a_valid_plan() -> None:
    mapped = seeded_problem(4, 100, REAL)
    assert verify(mapped, solve(mapped, Budget(time_limit=1e-6))) == []


def test_a_real_module_is_planned() -> None:
    mapped = build_problem(read(dumps_folder() / "lstm.tpu-v5e.default.hlo.txt.gz"), load_target("tpu-v5e"))
    made = solve_with(mapped, LONG, EvolutionOptions(generations=5))
    assert verify(mapped, made) == []
    assert latency(mapped, made) < 0.8 * latency(mapped, slow.solve(mapped, LONG))
