"""Blocks that heuristics leave over are placed by an exact search, the same way each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan import workloads
from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.mapping.problem import MappingProblem, MemorySpace, Operation, Region
from memplan.planners.offsets import Instance, check
from memplan.planners.offsets.csv_file import read_instance
from memplan.planners.offsets.limited import fit_within
from memplan.planners.stays.packing import UNPLACED, Blocks, pack

CAPACITY = 1_048_576


def idle(length: int, capacity: int, reserved: list[int]) -> MappingProblem:
    operations = tuple(Operation("o", "idle", 0.0, 0.0, (kept,), 0, ()) for kept in reserved)
    program = Region(RegionKind.PROGRAM, 0, length, -1, 1.0)
    return MappingProblem("p", "t", (MemorySpace("fast", capacity, 1, 1.0),), (), (program,), operations, ())


def shipped() -> Instance:
    return read_instance(workloads.dumps_folder().parent / "packing" / "K.1048576.csv").instance


def test_a_real_instance_that_best_fit_fails() -> None:
    instance = shipped()
    times = np.unique(np.concatenate([instance.lower, instance.upper]))
    start, end = np.searchsorted(times, instance.lower), np.searchsorted(times, instance.upper)
    problem = idle(len(times), CAPACITY, [0] * len(times))
    blocks = Blocks.of(start, end, instance.size)
    assert (pack(problem, 0, blocks) == UNPLACED).any()
    offsets = pack(problem, 0, blocks, exact_nodes=200_000)
    assert (offsets != UNPLACED).all()
    assert check(instance, offsets, CAPACITY) == []
    assert offsets.tolist() == pack(problem, 0, blocks, exact_nodes=200_000).tolist()


def test_a_limit_ends_it() -> None:
    assert fit_within(shipped(), CAPACITY, nodes=10) is None
    assert fit_within(shipped(), CAPACITY - 1, nodes=10**6) is None


@settings(max_examples=80)
@given(st.data())
def test_nothing_overlaps_and_no_less_is_placed(data: st.DataObject) -> None:
    length = 8
    reserved = data.draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
    start, end, item, size = [], [], [], []
    for number in range(data.draw(st.integers(1, 7))):
        first = data.draw(st.integers(0, length - 1))
        last = data.draw(st.integers(first + 1, length))
        start.append(first)
        end.append(last)
        item.append(number)
        size.append(data.draw(st.integers(1, 5)))
        if last + 1 < length and data.draw(st.booleans()):  # the same bytes once more
            start.append(last + 1)
            end.append(length)
            item.append(number)
    arrays = [np.array(column, np.int64) for column in (start, end, item, size)]
    weight = np.array(data.draw(st.lists(st.integers(1, 9), min_size=len(size), max_size=len(size))), np.float64)
    blocks = Blocks(*arrays, weight)
    problem = idle(length, data.draw(st.integers(5, 12)), reserved)
    capacity = problem.spaces[0].capacity
    before, after = pack(problem, 0, blocks), pack(problem, 0, blocks, exact_nodes=1000)
    assert weight[after == UNPLACED].sum() <= weight[before == UNPLACED].sum()
    taken = np.zeros((length, capacity), np.int64)
    for first, last, number in zip(start, end, item, strict=True):
        if after[number] != UNPLACED:
            assert max(reserved[first:last]) <= after[number] <= capacity - size[number]
            taken[first:last, after[number] : after[number] + size[number]] += 1
    assert taken.max() <= 1


def test_no_search_where_everything_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    from memplan.planners.stays import packing

    monkeypatch.setattr(packing, "fit_within", None)
    problem = idle(3, 10, [0, 0, 0])
    blocks = Blocks.of(np.array([0, 1]), np.array([2, 3]), np.array([5, 5]))
    assert (pack(problem, 0, blocks, exact_nodes=10) != UNPLACED).all()
