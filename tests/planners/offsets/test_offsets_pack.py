"""`pack`, beside a solver that tries every offset: what fits, what does not, and how low it can be."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_instances import can_fit, hard, instances, lowest_height

from memplan import workloads
from memplan.compiler.effort import Guard
from memplan.compiler.errors import PlannerError
from memplan.planners.offsets import race
from memplan.planners.offsets.bounds import lower_bound
from memplan.planners.offsets.check import check
from memplan.planners.offsets.constraint import ConstraintModel
from memplan.planners.offsets.csv_file import read_instance
from memplan.planners.offsets.instance import Block, Instance
from memplan.planners.offsets.pack import Status, pack
from memplan.planners.offsets.race import decide

PACKING = Path(workloads.dumps_folder()).parent / "packing"

# 6 bytes are needed at one time, but no packing is that low.
NEEDS_SEVEN = Instance.of(
    [0, 0, 1, 2, 2, 4, 4, 3], [2, 4, 3, 5, 4, 6, 6, 6], [2, 3, 1, 1, 1, 2, 1, 2], ids=list("abcdefgh")
)


@given(instances(), st.integers(-2, 1))
@settings(max_examples=60)
def test_it_says_whether_a_capacity_is_enough(instance: Instance, more: int) -> None:
    capacity = max(0, lowest_height(instance) + more)
    packing = pack(instance, capacity)
    if can_fit(instance, capacity):
        assert packing.status == Status.FITS
        assert check(instance, packing.offsets, capacity) == []
        assert len(packing.conflict) == 0
    else:
        assert packing.status == Status.INFEASIBLE
        assert packing.lower_bound > capacity
        assert not can_fit(instance.subset(packing.conflict), capacity)
        # The offsets are those of a valid packing all the same.
        assert check(instance, packing.offsets) == []
    assert decide(instance, capacity, 8, Guard()).fits == can_fit(instance, capacity)


@given(instances())
@settings(max_examples=60)
def test_it_finds_the_lowest_height(instance: Instance) -> None:
    packing = pack(instance)
    assert packing.status == Status.OPTIMAL
    assert packing.height == packing.lower_bound == lowest_height(instance)
    assert check(instance, packing.offsets, packing.height) == []


@given(instances(max_blocks=5), st.integers(0, 2))
@settings(max_examples=25)
def test_the_constraint_solver_agrees(instance: Instance, less: int) -> None:
    instance = instance.subset(np.flatnonzero(instance.size > 0))
    capacity = max(0, lowest_height(instance) - less)
    if not len(instance) or not ConstraintModel.can_hold(instance, capacity):
        return
    fits, offsets = ConstraintModel(instance, capacity, 0).solve(10.0)
    assert fits == can_fit(instance, capacity)
    if fits:
        assert check(instance, offsets, capacity) == []


def test_nothing_to_pack() -> None:
    for instance in (Instance.of([], [], []), Instance.of([0], [1], [0])):
        packing = pack(instance)
        assert (packing.status, packing.height, packing.lower_bound) == (Status.OPTIMAL, 0, 0)
        assert pack(instance, capacity=0).status == Status.FITS


def test_a_shipped_instance() -> None:
    instance = read_instance(PACKING / "K.1048576.csv").instance
    packing = pack(instance, 1048576)
    assert packing.status == Status.FITS
    assert packing.maximum_load == 1048576 == packing.height


def test_when_the_time_runs_out_the_best_packing_is_returned() -> None:
    instance = hard()
    capacity = lower_bound(instance)
    packing = pack(instance, capacity, time_limit=0.3)
    assert packing.status == Status.UNDECIDED
    assert packing.stopped
    assert packing.height > capacity
    assert check(instance, packing.offsets, packing.height) == []
    lowest = pack(instance, time_limit=0.3)
    assert lowest.status == Status.UNDECIDED
    assert lowest.lower_bound == capacity < lowest.height
    assert not [thread for thread in threading.enumerate() if "search" in thread.name or "CP-SAT" in thread.name]


def test_an_interrupt_returns_the_best_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(race, "search_part", interrupted)
    packing = pack(hard(), lower_bound(hard()))
    assert packing.interrupted
    assert packing.status == Status.UNDECIDED
    assert check(hard(), packing.offsets, packing.height) == []


def test_an_interrupt_of_the_race_stops_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, asked = Guard(), list[float]()

    def interrupted() -> float:
        asked.append(0.0)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(guard, "left", interrupted)
    with pytest.raises(KeyboardInterrupt):
        race.search_part(hard(), lower_bound(hard()), 30, guard, 0)
    assert not [thread for thread in threading.enumerate() if "search" in thread.name or "CP-SAT" in thread.name]


def _after(seconds: float, fits: bool, number: int) -> Callable[[race.Integers], race.Answer]:
    def method(stop: race.Integers) -> race.Answer:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop[0]:
            time.sleep(0.001)
        return (None if stop[0] else fits), np.array([number])

    return method


@pytest.mark.parametrize("seconds", [(0.0, 0.2, 0.2), (0.2, 0.0, 0.1), (0.2, 0.1, 0.0)])
def test_the_first_method_in_the_order_gives_the_answer_and_not_the_first_in_time(seconds: tuple[float, ...]) -> None:
    round_ = race._Race(Guard())
    for number, one in enumerate(seconds):
        round_.enter(f"method {number}", _after(one, True, number))
    fits, offsets, method = round_.run()
    assert (fits, offsets.tolist(), method) == (True, [0], "method 0")


def test_a_proof_that_nothing_fits_stops_all_methods() -> None:
    round_ = race._Race(Guard())
    for number, (one, fits) in enumerate([(1e9, True), (0.05, False), (1e9, True)]):
        round_.enter(f"method {number}", _after(one, fits, number))
    assert round_.run()[0] is False


def test_an_error_of_a_method_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(race.BranchAndBound, "fixed_orders", broken)
    with pytest.raises(ZeroDivisionError):
        race.search_part(hard(), lower_bound(hard()), 8, Guard(), 0)


def test_blocks_one_by_one_are_packed_as_their_instance() -> None:
    blocks = [Block(4, 0, 3), Block(4, 2, 9), Block(8, 3, 5, alignment=8)]
    packing, same = pack(blocks, np.int32(16)), pack(Instance.of_blocks(blocks), 16)
    assert packing.offsets.tolist() == same.offsets.tolist()
    assert packing.status == Status.FITS
    assert pack(iter(blocks), 11).status == Status.INFEASIBLE


@given(instances(max_blocks=6))
@settings(max_examples=40)
def test_more_blocks_than_plain_first_fit_takes_are_packed_as_low(instance: Instance) -> None:
    expected = pack(instance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[pack.__module__], "_MOST_PLAIN", 0)
        packing = pack(instance)
    assert (packing.status, packing.height) == (expected.status, expected.height)


@pytest.mark.parametrize(
    "wrong",
    [{"time_limit": 0.0}, {"time_limit": float("inf")}, {"capacity": -1}, {"capacity": 2.5}, {"capacity": 2**62}],
)
def test_what_cannot_be_asked(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlannerError):
        pack(NEEDS_SEVEN, **wrong)
