"""What must be placed is placed if it can be, and called impossible only if that is proven."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.problem import MappingProblem, MemorySpace, Operation, Region
from memplan.planners.offsets.pack import Status
from memplan.planners.stays import must_fit
from memplan.planners.stays.must_fit import place_all

LENGTH = 8


def idle(capacity: int, reserved: list[int], alignment: int = 1) -> MappingProblem:
    operations = tuple(Operation(f"o{t}", "idle", 0.0, 0.0, (kept,), 0, ()) for t, kept in enumerate(reserved))
    program = Region(RegionKind.PROGRAM, 0, len(reserved), -1, 1.0)
    return MappingProblem("p", "t", (MemorySpace("fast", capacity, alignment, 1.0),), (), (program,), operations, ())


@settings(max_examples=60)
@given(st.data())
def test_what_is_placed_is_clear_of_everything(data: st.DataObject) -> None:
    reserved = data.draw(st.lists(st.integers(0, 4), min_size=LENGTH, max_size=LENGTH))
    blocks = []
    for _ in range(data.draw(st.integers(1, 7))):
        start = data.draw(st.integers(0, LENGTH - 1))
        blocks.append((start, data.draw(st.integers(start + 1, LENGTH)), data.draw(st.integers(1, 5))))
    alignment = data.draw(st.sampled_from([1, 2]))
    problem = idle(data.draw(st.integers(6, 20)), reserved, alignment)
    capacity = problem.spaces[0].capacity
    try:
        offsets = place_all(problem, 0, [f"b{i}" for i in range(len(blocks))], blocks).tolist()
    except PlannerError as error:
        assert "do not fit fast" in str(error)
        return
    for i, (start, end, size) in enumerate(blocks):
        assert offsets[i] % alignment == 0
        assert max(reserved[start:end]) <= offsets[i] <= capacity - size
        for j, (other_start, other_end, other_size) in enumerate(blocks[:i]):
            if start < other_end and other_start < end:
                assert offsets[i] + size <= offsets[j] or offsets[j] + other_size <= offsets[i]


def test_what_does_not_fit_is_named() -> None:
    blocks = [(0, 3, 5), (2, 6, 6)]
    problem = idle(10, [0] * LENGTH)
    with pytest.raises(PlannerError, match=r"b1 \(6 bytes\) and what is alive with it do not fit fast, which has 10"):
        place_all(problem, 0, ["b0", "b1"], blocks)
    assert place_all(idle(11, [0] * LENGTH), 0, ["b0", "b1"], blocks).tolist() in ([0, 5], [6, 0])


def test_what_is_not_proven_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = must_fit.pack
    monkeypatch.setattr(must_fit, "pack", lambda *given: dataclasses.replace(real(*given), status=Status.UNDECIDED))
    with pytest.raises(PlannerError, match=r"no offsets were found in fast, .*, nor was it proven that there are none"):
        place_all(idle(11, [0] * LENGTH), 0, ["b"], [(0, 1, 5)])
