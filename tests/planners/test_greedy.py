"""The greedy planner: each technique does something, and none breaks a plan."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_problems import loop, problem
from random_problems import REAL, problems, seeded_problem, with_home_in_fast
from thorough import examples

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator, emulate, latency
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy, slow
from memplan.planners.greedy import GreedyOptions, solve, solve_with
from memplan.planners.planner import Budget
from memplan.planners.stays.decisions import Order
from memplan.planners.stays.frame import Frame

SWITCHES: dict[str, Any] = {
    "prefetch": False,
    "evict": False,
    "keep_between_uses": False,
    "wait": False,
    "cross_program": False,
    "orders": (Order("boundedness"),),
    "passes": 1,
    "channel_price": 0.0,
    "tries": 1,
    "rounds": 0,
    "drop_losses": False,
    "repacks": 0,
    "moves": 0,
}


def test_every_technique_has_a_switch() -> None:
    assert set(SWITCHES) == {field.name for field in dataclasses.fields(GreedyOptions)}


@pytest.mark.parametrize("name", SWITCHES)
@settings(max_examples=examples(10, 25))
@given(mapped=problems(max_length=20, depth=3), seed=st.integers(0, 9))
def test_plans_stay_valid_without_a_technique(name: str, mapped: MappingProblem, seed: int) -> None:
    options = dataclasses.replace(GreedyOptions(rounds=5, repacks=1), **{name: SWITCHES[name]})
    made = solve_with(mapped, Budget(seed=seed), options)
    assert verify(mapped, made) == []
    assert latency(mapped, made) <= latency(mapped, slow.solve(mapped, Budget()))


def only(**options: Any) -> GreedyOptions:
    """One search without the techniques that repair others."""
    return GreedyOptions(rounds=0, repacks=0, moves=0, drop_losses=False, **options)


def copies(mapped: MappingProblem, options: GreedyOptions) -> list[tuple[int, int]]:
    return [(copy.start, copy.done) for copy in solve_with(mapped, Budget(), options).copies]


def test_prefetches_and_evictions_can_be_forbidden() -> None:
    mapped = problem(
        "", "r a, w b", "", "r b", arguments="a", results="b", floors=[9.0, 0.0, 9.0, 0.0], sizes={"a": 8, "b": 8}
    )

    def sources(options: GreedyOptions) -> list[int]:
        made = solve_with(mapped, Budget(), options)
        return [made.residencies[copy.source].space for copy in made.copies]

    assert sources(only()) == [0, 1]
    assert sources(only(prefetch=False)) == [1]
    assert sources(only(evict=False)) == [0, 0]


def test_waiting_can_be_forbidden() -> None:
    mapped = problem("r a", "r a", "r a", arguments="a")
    assert emulate(mapped, solve_with(mapped, Budget(), only())).stalled == pytest.approx(4.0)
    assert copies(mapped, only(wait=False)) == []


def test_values_are_kept_between_uses() -> None:
    mapped = problem("", "r a", "r a", "r a", arguments="a", floors=[4.0])
    assert latency(mapped, solve_with(mapped, Budget(), only())) == pytest.approx(4.0 + 3 * 0.5)
    assert latency(mapped, solve_with(mapped, Budget(), only(keep_between_uses=False))) > 4.0 + 3 * 0.5


def test_an_argument_may_stay_between_runs() -> None:
    mapped = problem("r a", "", "", arguments="a", floors=[0.0, 9.0, 9.0], cross_program_prefetches=1)
    assert copies(mapped, only()) == [(-1, 0), (2, 3)]
    assert copies(mapped, only(cross_program=False)) == []


def test_the_better_of_several_orders_is_taken() -> None:
    mapped = seeded_problem(5, 60, REAL)
    options = only(orders=GreedyOptions().orders)
    search = greedy._OrderTrials(
        Frame(mapped, 1), TimingEmulator(mapped), options, np.random.default_rng(0), guard=Guard()
    )
    each = [search.latency(search._decided(order)) for order in options.orders]
    assert min(each) < max(each)
    assert search.latency(search._best_of_orders(search._decided(options.orders[0]))) <= min(each)


def test_deciding_anew_does_not_lose_and_often_gains() -> None:
    gained = 0
    for seed in range(4):
        mapped = seeded_problem(seed, 60, REAL)
        before = latency(mapped, solve_with(mapped, Budget(), GreedyOptions(rounds=0, moves=0)))
        after = latency(mapped, solve_with(mapped, Budget(), GreedyOptions(rounds=60, moves=0)))
        gained += after < before
    assert gained >= 3


def test_stays_that_cost_more_than_they_gain_are_dropped() -> None:
    """In an early pass the link seemed free; with what came later a copy is late."""
    dropped = 0
    for seed in range(12):
        mapped = seeded_problem(seed, 80, REAL)
        with_losses = latency(mapped, solve_with(mapped, Budget(), only()))
        without = latency(mapped, solve_with(mapped, Budget(), GreedyOptions(rounds=0, repacks=0, moves=0)))
        assert without <= with_losses * (1 + 1e-9)
        dropped += without < with_losses
    assert dropped > 0


def test_what_finds_no_offset_is_made_up_for() -> None:
    better = 0
    for seed in range(8):
        mapped = seeded_problem(seed, 200, REAL)
        once = latency(mapped, solve_with(mapped, Budget(), GreedyOptions(rounds=0, repacks=0, moves=0)))
        again = latency(mapped, solve_with(mapped, Budget(), GreedyOptions(rounds=0, repacks=4, moves=0)))
        assert again <= once * (1 + 1e-9)
        better += again < once
    assert better > 0


def test_a_seed_changes_the_search_and_nothing_else_does() -> None:
    mapped = seeded_problem(3, 100, REAL)
    plans = [solve_with(mapped, Budget(seed=seed), GreedyOptions(rounds=20)) for seed in (0, 0, 1)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_a_deadline_is_kept_with_a_valid_plan() -> None:
    mapped = seeded_problem(4, 100, REAL)
    made = solve(mapped, Budget(time_limit=1e-6))
    assert verify(mapped, made) == []


def test_a_weight_of_a_loop_stays_through_it() -> None:
    """The weight pays for the wait of its copy in the first few iterations."""
    mapped = problem("", "r w", "r w", "", arguments="w", regions=[loop(1, 3, trips=50.0)])
    made = solve(mapped, Budget())
    assert [(copy.start, copy.done) for copy in made.copies] == [(0, 0)]
    assert latency(mapped, made) == pytest.approx(4.0 + 50 * 2 * 0.5)


def test_homes_in_fast_memory_that_do_not_fit_are_refused() -> None:
    mapped = problem("r a", "r b", arguments="a b", sizes={"a": 10, "b": 10})
    mapped = dataclasses.replace(
        mapped, buffers=tuple(dataclasses.replace(buffer, initial_space=1) for buffer in mapped.buffers)
    )
    with pytest.raises(PlannerError, match="do not fit fast, which has 16, where the program wants them"):
        solve(mapped, Budget())


@settings(max_examples=40)
@given(mapped=problems(max_length=15), data=st.data())
def test_buffers_that_live_in_fast_memory_are_left_there(mapped: MappingProblem, data: st.DataObject) -> None:
    arguments = [i for i, buffer in enumerate(mapped.buffers) if buffer.initial_space is not None]
    chosen = data.draw(st.sampled_from(arguments))
    roomy = with_home_in_fast(mapped, chosen)
    made = solve_with(roomy, Budget(), GreedyOptions(rounds=3, repacks=1))
    assert verify(roomy, made) == []
    assert {r.space for r in made.residencies if r.buffer == chosen} == {1}
