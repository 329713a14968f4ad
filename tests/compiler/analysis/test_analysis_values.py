"""Bookkeeping of equal values."""

from __future__ import annotations

from memplan.compiler.analysis.positions import Positions
from memplan.compiler.analysis.schedule import lay_out
from memplan.compiler.analysis.values import NONE, Values
from memplan.compiler.frontends import parse_hlo


def test_equal_values_are_represented_by_the_earliest() -> None:
    graph = parse_hlo("ENTRY e { a = f32[8] parameter(0) b = f32[8] negate(a) ROOT c = f32[8] negate(b) }")
    values = Values(Positions(lay_out(graph)), [NONE] * 3)
    late, early, middle, other = (values.new(phase, 0, 0) for phase in (9, 1, 5, 7))
    values.equate(late, middle)
    assert values.find(late) == values.find(middle) == middle
    values.equate(middle, early)
    assert {values.find(value) for value in (late, early, middle)} == {early}
    assert values.find(other) == other
    values.equate(late, early)
    assert values.find(late) == early
