"""The planner search: its clock is the emulator's, its tables stay what they say, its plans are valid and good."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_problems import problem
from numpy.typing import NDArray
from random_problems import REAL, problems, seeded_problem, with_home_in_fast
from starts import without_moves
from thorough import examples

from memplan.compiler.emulator.timing import TimingEmulator, latency
from memplan.compiler.errors import PlannerError
from memplan.compiler.frontends import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.kernels import entry
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import Link, MappingProblem, MemorySpace
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy, xla
from memplan.planners.planner import Budget
from memplan.planners.search import annealing, neighbourhoods_kernel
from memplan.planners.search.annealing import Annealer
from memplan.planners.search.neighbourhoods_kernel import take_again
from memplan.planners.search.solve import NEIGHBOURHOODS, SearchOptions, solve, solve_with
from memplan.planners.stays import evaluation_kernel
from memplan.planners.stays.booking_kernel import refresh
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.evaluation import make_evaluation
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.kept import arguments_to_keep
from memplan.planners.stays.rules import Rules
from memplan.workloads import dumps_folder

LONG = Budget()

go_to_neighbour = entry(neighbourhoods_kernel.go_to_neighbour.py_func)
latency_of_tables = entry(evaluation_kernel.latency_of_tables.py_func)

# Sizes of buffers that are all alive at once, and of a memory that nothing but the right ones fill.
TRAPS = [
    ((468, 280, 333, 483, 421, 164, 388, 277, 482, 176, 230, 207, 340, 390), 1010),
    ((282, 298, 500, 500, 245, 483, 268, 491, 225, 265, 478, 245, 216, 186), 1026),
    ((392, 287, 486, 420, 491, 329, 223, 345, 155, 341, 397, 290, 479, 385), 1024),
]


def knapsack(sizes: Sequence[int], capacity: int) -> MappingProblem:
    names = [f"b{number}" for number in range(len(sizes))]
    return problem(
        ", ".join(f"w {name}" for name in names),
        ", ".join(f"r {name}" for name in names),
        sizes=dict(zip(names, sizes, strict=True)),
        capacity=capacity,
    )


def knapsack_optimum(sizes: Sequence[int], capacity: int) -> float:
    """Each byte is moved twice, in a second from the slow memory and in an eighth of one from the fast one."""
    fits = max(
        total
        for count in range(len(sizes) + 1)
        for chosen in itertools.combinations(sizes, count)
        if (total := sum(chosen)) <= capacity
    )
    return 2.0 * (sum(sizes) - fits + fits / 8.0)


def with_middle_space(mapped: MappingProblem) -> MappingProblem:
    """The problem with a third memory, half as large and fast as the fast one."""
    slow, fast = mapped.spaces
    middle = MemorySpace("middle", fast.capacity // 2, fast.alignment, fast.bandwidth / 2.0)
    operations = tuple(
        dataclasses.replace(
            operation,
            reserved=(*operation.reserved, 0),
            accesses=tuple(dataclasses.replace(a, cost=(*a.cost, 2.0 * a.cost[1])) for a in operation.accesses),
        )
        for operation in mapped.operations
    )
    buffers = tuple(
        dataclasses.replace(b, spaces=(*b.spaces, 2)) if b.size <= middle.capacity else b for b in mapped.buffers
    )
    links = (*mapped.links, Link(0, 2, slow.bandwidth, 0.0, 2, 0), Link(2, 0, slow.bandwidth, 0.0, 3, 0))
    return dataclasses.replace(mapped, spaces=(slow, fast, middle), operations=operations, buffers=buffers, links=links)


@settings(max_examples=examples(20, 60))
@given(mapped=problems(max_length=25, depth=3), seed=st.integers(0, 99), data=st.data())
@pytest.mark.slow
def test_the_latency_of_tables_is_the_emulators(mapped: MappingProblem, seed: int, data: st.DataObject) -> None:
    frame, emulator = Frame(mapped, 1), TimingEmulator(mapped)
    kept = data.draw(st.sampled_from([-1, *arguments_to_keep(frame)]))
    decisions = Decisions(frame, Rules(), kept)
    decisions.run(Order("density", noise=1.0), np.random.default_rng(seed))
    evaluation = make_evaluation(frame, emulator)
    expected = emulator.latency_of(*decisions.arrays())
    assert latency_of_tables(decisions.tables, evaluation) == pytest.approx(expected, rel=1e-9)
    # Once more: what the first time left in the arrays does not matter.
    for run in decisions.runs()[::2].tolist():
        decisions.drop(run)
    expected = emulator.latency_of(*decisions.arrays())
    assert latency_of_tables(decisions.tables, evaluation) == pytest.approx(expected, rel=1e-9)


def test_the_latency_of_tables_counts_copies_between_other_spaces() -> None:
    counted = 0
    for seed in range(6):
        mapped = with_middle_space(seeded_problem(seed, 60, REAL))
        emulator = TimingEmulator(mapped)
        first = Decisions(Frame(mapped, 1), Rules())
        first.run(Order("density", 1.0), np.random.default_rng(seed))
        frame = Frame(mapped, 2, first.stays())
        second = Decisions(frame, Rules())
        second.run(Order("density", 1.0), np.random.default_rng(seed))
        evaluation = make_evaluation(frame, emulator)
        counted += len(evaluation.fixed)
        expected = emulator.latency_of(*second.arrays())
        assert latency_of_tables(second.tables, evaluation) == pytest.approx(expected, rel=1e-9)
    assert counted > 0


def annealer_for(mapped: MappingProblem, seed: int = 0, prior: NDArray[np.float64] | None = None) -> Annealer:
    frame = Frame(mapped, 1)
    weights = np.ones(len(frame.chains.chain)) if prior is None else prior
    return Annealer(frame, TimingEmulator(mapped), seed, weights, np.ones(len(NEIGHBOURHOODS)))


@pytest.mark.parametrize("kind", range(len(NEIGHBOURHOODS)), ids=NEIGHBOURHOODS)
def test_a_neighbourhood_keeps_the_tables_consistent(kind: int) -> None:
    """What rows say of room, time and copies is what the runs that are taken make of empty tables."""
    done = 0
    for seed in range(examples(5, 8)):
        mapped = seeded_problem(seed, 60, REAL, depth=3)
        annealer = annealer_for(mapped, seed)
        annealer.decisions.run(Order("density", 1.0), np.random.default_rng(seed))
        tables = annealer.decisions.tables
        for _ in range(15):
            done += go_to_neighbour(tables, annealer.neighbourhoods, kind)
            assert (tables.free >= 0).all()
            anew = Decisions(annealer.frame, Rules())
            take_again(anew.tables, tables.items[annealer.decisions.runs()])
            assert anew.runs().tolist() == annealer.decisions.runs().tolist()
            np.testing.assert_array_equal(anew.tables.free, tables.free)
            np.testing.assert_array_equal(anew.tables.items["run"], tables.items["run"])
            np.testing.assert_array_equal(anew.tables.accesses["is_fast"], tables.accesses["is_fast"])
            for field in ("demand", "taken"):
                np.testing.assert_allclose(anew.tables.operations[field], tables.operations[field], atol=1e-15)
            refresh(anew.tables)
            refresh(tables)
            for field in ("arrivals", "backlog", "idle"):
                np.testing.assert_allclose(anew.tables.slots[field], tables.slots[field], rtol=1e-9, atol=1e-13)
    assert done > 20


@pytest.mark.parametrize("name", NEIGHBOURHOODS)
@settings(max_examples=6)
@given(mapped=problems(max_length=20, depth=3), seed=st.integers(0, 9), free=st.booleans())
def test_plans_of_a_single_neighbourhood_are_valid(name: str, mapped: MappingProblem, seed: int, free: bool) -> None:
    made = solve_with(mapped, Budget(seed=seed), SearchOptions(rounds=40, neighbourhoods=(name,), free=free))
    assert verify(mapped, made) == []
    assert latency(mapped, made) <= latency(mapped, greedy.solve(mapped, Budget(seed=seed)))


def test_no_plan_is_worse_than_greedys_and_some_are_better() -> None:
    better = 0
    for seed in (4, 5):
        mapped = seeded_problem(seed, 60, REAL)
        told: list[Plan] = []
        made = solve_with(mapped, Budget(seed=seed, on_plan=told.append), SearchOptions(rounds=500))
        seconds = [latency(mapped, plan) for plan in told]
        assert seconds == sorted(seconds, reverse=True)
        assert all(verify(mapped, plan) == [] for plan in told)
        assert told[-1] == made
        before = latency(mapped, greedy.solve(mapped, Budget(seed=seed)))
        assert seconds[0] == before
        better += seconds[-1] < before
    assert better >= 1


@pytest.mark.parametrize(("sizes", "capacity"), TRAPS)
def test_it_fills_a_memory_that_greedy_does_not(sizes: tuple[int, ...], capacity: int) -> None:
    mapped, optimum = knapsack(sizes, capacity), knapsack_optimum(sizes, capacity)
    budget = without_moves(mapped, LONG)
    assert latency(mapped, greedy.solve(mapped, budget)) > optimum * (1.0 + 1e-6)
    made = solve_with(mapped, budget, SearchOptions(rounds=4000))
    assert verify(mapped, made) == []
    assert latency(mapped, made) == pytest.approx(optimum, rel=1e-12)


@pytest.mark.slow
def test_a_loaded_plan_is_the_plan() -> None:
    for seed in range(4):
        mapped = seeded_problem(seed, 60, REAL, depth=3)
        made = greedy.solve(mapped, LONG)
        annealer = annealer_for(mapped)
        offsets = {(r.buffer, r.space, r.start, r.end): r.offset for r in made.residencies}
        stays = [
            dataclasses.replace(stay, offset=offsets[stay.buffer, stay.space, stay.start, stay.end])
            for stay in xla.given_stays(mapped, made)
        ]
        solution = annealer.load(stays, ())
        assert len(solution.rows) == sum(len(stay.accesses) > 0 for stay in stays)
        assert solution.latency == pytest.approx(latency(mapped, made), rel=1e-12)


@pytest.mark.slow
def test_the_same_seed_and_rounds_give_the_same_plan() -> None:
    mapped = seeded_problem(4, 60, REAL)
    plans = [solve_with(mapped, Budget(seed=seed), SearchOptions(rounds=1200)) for seed in (0, 0, 1)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


@pytest.mark.parametrize("room", [0, 6])
def test_the_journal_restores_what_a_copy_of_everything_does(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = seeded_problem(7, 60, REAL)
    budget, options = without_moves(mapped, LONG), SearchOptions(rounds=600)
    plan = solve_with(mapped, budget, options)
    monkeypatch.setattr(annealing, "_ITEMS_PER_CHANGE", 10**9)
    monkeypatch.setattr(annealing, "_LEAST_CHANGES", room)  # Rounds with more changes copy all tables.
    assert solve_with(mapped, budget, options) == plan
    assert plan.residencies != budget.known.residencies  # type: ignore[union-attr]


def test_a_prior_guides_what_is_taken() -> None:
    """In a small memory, runs that begin with a favoured item are there more often."""
    mapped = seeded_problem(4, 60, dataclasses.replace(REAL, capacity=6 << 20))
    favoured = np.arange(len(Frame(mapped, 1).chains.chain)) % 2 == 0
    share = []
    for prior in (np.ones(len(favoured)), np.where(favoured, 1.0, 1e-6)):
        annealer = annealer_for(mapped, 0, prior)
        annealer.run(100, 1.0, 1.0, is_placed=False)
        taken = []
        for _ in range(50):
            annealer.run(10, 1.0, 1.0, is_placed=False)  # So hot that everything is accepted.
            taken.append(favoured[annealer.decisions.runs()].mean())
        share.append(np.mean(taken))
    assert share[1] > share[0] + 0.02
    made = solve_with(mapped, LONG, SearchOptions(rounds=300, prior=np.where(favoured, 1.0, 0.1)))
    assert verify(mapped, made) == []


def test_an_interrupt_returns_the_best_so_far() -> None:
    mapped, told = knapsack(*TRAPS[0]), list[Plan]()

    def interrupt(plan: Plan) -> None:
        told.append(plan)
        if len(told) == 2:
            raise KeyboardInterrupt

    made = solve(mapped, without_moves(mapped, Budget(on_plan=interrupt)))
    assert made == told[1]
    assert verify(mapped, made) == []


def test_neighbourhoods_that_are_turned_off_stay_off() -> None:
    annealer = annealer_for(seeded_problem(4, 60, REAL))
    annealer.weights[:] = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    annealer.run(250, 1e-9, 1.0, is_placed=True)
    assert (annealer.weights > 0.0).tolist() == [False, True, False, True, False, False]
    assert annealer.used[[0, 2, 4, 5]].tolist() == [0.0] * 4


@pytest.mark.parametrize(("names", "message"), [(("windows",), "is called 'windows'"), ((), "needs a neighbourhood")])
def test_a_wrong_choice_of_neighbourhoods_is_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(PlannerError, match=message):
        solve_with(knapsack(*TRAPS[0]), LONG, SearchOptions(neighbourhoods=names))


def test_a_deadline_is_kept_with_a_valid_plan() -> None:
    mapped = seeded_problem(4, 100, REAL)
    assert verify(mapped, solve(mapped, Budget(time_limit=1e-6))) == []


@pytest.mark.slow
def test_another_argument_may_stay_between_runs() -> None:
    options = SearchOptions(rounds=500)
    changed = 0
    for seed in (4, 5):
        mapped = dataclasses.replace(seeded_problem(seed, 60, REAL), cross_program_prefetches=1)
        made = solve_with(mapped, Budget(seed=seed), options)
        assert verify(mapped, made) == []
        changed += made != solve_with(mapped, Budget(seed=seed), dataclasses.replace(options, cross_program=False))
    assert changed > 0


@pytest.mark.parametrize("seed", range(3))
def test_several_fast_memories_are_searched_in_turn(seed: int) -> None:
    mapped = with_middle_space(seeded_problem(seed, 40, REAL))
    made = solve_with(mapped, LONG, SearchOptions(rounds=150))
    assert verify(mapped, made) == []
    assert latency(mapped, made) <= latency(mapped, greedy.solve(mapped, LONG))


@settings(max_examples=20)
@given(mapped=problems(max_length=15), data=st.data())
def test_buffers_that_live_in_fast_memory_are_left_there(mapped: MappingProblem, data: st.DataObject) -> None:
    arguments = [i for i, buffer in enumerate(mapped.buffers) if buffer.initial_space is not None]
    chosen = data.draw(st.sampled_from(arguments))
    roomy = with_home_in_fast(mapped, chosen)
    made = solve_with(roomy, LONG, SearchOptions(rounds=60))
    assert verify(roomy, made) == []
    assert {r.space for r in made.residencies if r.buffer == chosen} == {1}


@pytest.mark.slow
def test_a_real_module_is_planned_better() -> None:
    path = dumps_folder() / "lstm_train.tpu-v4.default.hlo.txt.gz"
    mapped = build_problem(read(path), load_target("tpu-v4"))
    budget = without_moves(mapped, LONG)
    made = solve_with(mapped, budget, SearchOptions(rounds=1500))
    assert verify(mapped, made) == []
    assert latency(mapped, made) < latency(mapped, greedy.solve(mapped, budget))
