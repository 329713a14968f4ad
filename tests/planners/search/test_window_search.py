"""Windows decided anew: what they make is consistent and placed, the choice is the best there is, and it is repeatable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import REAL, problems, seeded_problem

from memplan.compiler.emulator.timing import TimingEmulator, latency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy
from memplan.planners.planner import Budget
from memplan.planners.search.annealing import Annealer
from memplan.planners.search.neighbourhoods_kernel import NUM_KINDS
from memplan.planners.search.solve import SearchOptions, solve_with
from memplan.planners.search.window_kernel import open_window, probe
from memplan.planners.search.window_model import Window, choose
from memplan.planners.search.window_search import Windows
from memplan.planners.stays.assembly import assemble
from memplan.planners.stays.frame import Frame

Rectangle = tuple[int, int, int]  # start, end, size


def annealer_for(mapped: MappingProblem, seed: int) -> Annealer:
    """An annealer whose solution is placed."""
    frame = Frame(mapped, 1)
    annealer = Annealer(frame, TimingEmulator(mapped), seed, np.ones(len(frame.chains.chain)), np.ones(NUM_KINDS))
    annealer.run(40, 1e-9, 1.0, is_placed=True)
    return annealer


def window_of(
    runs: list[Rectangle], savings: list[float], capacity: int, blocks: list[tuple[int, int, int, int]], floor: float
) -> Window:
    """A window in which run `i` takes `savings[i]` seconds off the operation at its start."""
    num_runs = len(runs)
    start, end, size = np.array(runs, np.int64).T
    length = int(end.max())
    demand = np.full(length, floor)
    np.add.at(demand, start, np.array(savings))
    times = np.arange(length)
    used = [sum(top - low for first, last, low, top in blocks if first <= t < last) for t in times]
    return Window(
        start=start,
        end=end,
        size=size,
        floor=np.zeros(num_runs, np.int64),
        saving=[{int(t): seconds} for t, seconds in zip(start, savings, strict=True)],
        cost=np.zeros(num_runs),
        covers=[[run] for run in range(num_runs)],
        conflicts=[],
        prefetch=np.full((num_runs, 2), -1),
        prefetch_seconds=np.zeros(num_runs),
        least=np.full(length, floor),
        demand=demand,
        repetitions=np.ones(length),
        free=np.stack([times, capacity - np.array(used)], axis=1),
        blocks=np.array(blocks, np.int64).reshape(-1, 4),
        idle=np.zeros(0),
        capacity=capacity,
        chosen=np.zeros(num_runs, np.bool_),
        offset=np.full(num_runs, -1),
    )


@settings(max_examples=25, deadline=None)
@given(
    runs=st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 6)).map(lambda r: (r[0], r[0] + r[1], r[2])),
        min_size=1,
        max_size=6,
    ),
    data=st.data(),
)
def test_the_best_runs_that_fit_are_chosen(runs: list[Rectangle], data: st.DataObject) -> None:
    """Against all subsets and all offsets of a small memory with something fixed in it."""
    savings = [float(data.draw(st.integers(1, 20))) for _ in runs]
    capacity, blocks = 8, [(2, 4, 3, 5)]
    window = window_of(runs, savings, capacity, blocks, 1.0)
    chosen, offsets, work = choose(window, 1.0, 0)
    assert 0.0 < work < 1.0
    placed = [(a, b, int(offset), int(offset) + s) for (a, b, s), offset in zip(runs, offsets, strict=True)]
    taken = [rectangle for rectangle, is_taken in zip(placed, chosen, strict=True) if is_taken]
    assert all(low >= 0 and top <= capacity for _, _, low, top in taken)
    assert not any(overlap(one, other) for one, other in itertools.combinations([*taken, *blocks], 2))
    assert (offsets[~chosen] == -1).all()
    best = max(
        sum(savings[run] for run in subset)
        for count in range(len(runs) + 1)
        for subset in itertools.combinations(range(len(runs)), count)
        if fits([runs[run] for run in subset], blocks, capacity)
    )
    assert sum(savings[run] for run in np.flatnonzero(chosen)) == pytest.approx(best)


def overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def fits(runs: list[Rectangle], placed: list[tuple[int, int, int, int]], capacity: int) -> bool:
    if not runs:
        return True
    start, end, size = runs[0]
    return any(
        fits(runs[1:], [*placed, (start, end, offset, offset + size)], capacity)
        for offset in range(capacity - size + 1)
        if not any(overlap((start, end, offset, offset + size), other) for other in placed)
    )


def test_no_two_runs_serve_the_same_access_and_floors_bound_what_is_saved() -> None:
    window = window_of([(0, 2, 1), (0, 3, 1), (1, 2, 1)], [5.0, 10.0, 4.0], 8, [], 1.0)
    window.covers[:] = [[0], [0, 1], [1]]
    assert choose(window, 1.0, 0)[0].tolist() == [False, True, False]
    # Of an operation that is bound by compute, nothing can be saved: its cost decides.
    window.least[:], window.cost[:] = 100.0, 1.0
    assert not choose(window, 1.0, 0)[0].any()


def test_copies_that_the_link_cannot_carry_together_are_not_chosen_together() -> None:
    window = window_of([(0, 3, 1), (1, 3, 1)], [5.0, 9.0], 8, [], 1.0)
    window.prefetch[:], window.prefetch_seconds[:] = [[0, 2], [0, 2]], 1.0
    for idle, count in (([0.5, 0.6], 1), ([1.0, 1.0], 2)):
        by_idle = Window(**(vars(window) | {"idle": np.array(idle)}))
        assert choose(by_idle, 1.0, 0)[0].sum() == count


@settings(max_examples=15, deadline=None)
@given(mapped=problems(max_length=20, depth=3), seed=st.integers(0, 99))
def test_a_window_leaves_a_plan_and_its_latency(mapped: MappingProblem, seed: int) -> None:
    annealer = annealer_for(mapped, seed)
    windows = Windows(annealer, np.random.default_rng(seed))
    for _ in range(3):
        windows.resolve(1e-9)
        decisions = annealer.decisions
        seconds = annealer.emulator.latency_of(*decisions.arrays())
        assert annealer.walk.latency[0] == pytest.approx(seconds, rel=1e-12)
        stays = decisions.stays(annealer.solution().offsets)
        plan = assemble(mapped, stays, "search", home_offsets={}).plan
        assert verify(mapped, plan) == []
        placed = {(stay.buffer, stay.start): stay.offset for stay in stays if stay.accesses}
        assert all(placed.get((r.buffer, r.start), r.offset) == r.offset for r in plan.residencies if r.space == 1)


def test_what_is_probed_is_possible_and_given_up_again() -> None:
    annealer = annealer_for(seeded_problem(4, 60, REAL), 0)
    tables, moves = annealer.decisions.tables, annealer.moves
    assert open_window(tables, 5, 40) > 0
    before = tables.copy()
    inside = (moves.starts >= 5) & (moves.ends <= 40)
    lows, highs = moves.lows[inside], moves.highs[inside]
    rows = np.zeros(len(lows), tables.items.dtype)
    is_possible = probe(tables, lows, highs, 5, 40, 0.2, rows)
    assert is_possible.any()
    assert (rows["run_start"][is_possible] >= 5).all()
    assert (rows["run_end"][is_possible] <= 40).all()
    assert (tables.items["run"] == before.items["run"]).all()
    assert (tables.free == before.free).all()
    assert (tables.accesses["is_fast"] == before.accesses["is_fast"]).all()


def test_windows_improve_what_moves_have_not() -> None:
    better = 0
    for seed in range(4):
        annealer = annealer_for(seeded_problem(seed, 60, REAL), seed)
        before = annealer.best_latency
        windows = Windows(annealer, np.random.default_rng(seed))
        credit = sum(windows.resolve(1e-12)[0] for _ in range(8))
        assert (annealer.best_latency < before) == (credit >= 4.0)
        better += annealer.best_latency < before
    assert better > 0


def test_the_same_seed_and_rounds_give_the_same_plan_with_windows() -> None:
    mapped = seeded_problem(4, 60, REAL)
    budget = Budget(600.0, 1)
    plans = [solve_with(mapped, budget, SearchOptions(rounds=2500, windows=windows)) for windows in (True, True, False)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert all(verify(mapped, plan) == [] for plan in plans)
    assert latency(mapped, plans[0]) <= latency(mapped, greedy.solve(mapped, budget))
