"""Alias sets: values that lie at the same place, and the copies that are needed where they cannot.

Values become one set, in this order of preference, if no two of them are live at once:

    what is just in time       a value that its step hands over as soon as it is computed, in its new place
    what a loop carries        the body's result in the place of the next iteration's parameter
    in-place updates           dynamic-update-slice(x, …) in the memory of x
    what enters a loop         the initial value in the place of the parameter
    what leaves a branch       its result in the place of the conditional's
    donated arguments          a result in the memory of an argument
    results                    the returned value in the place that the caller looks at

A value that must be in a place and cannot share it is copied there; an in-place update that cannot share writes a whole
new array; a donation that cannot share does not take place. Optimized modules carry all copies that are needed (XLA's
copy_insertion.cc), so this only ever merges there. XLA's HloAliasAnalysis forms the same sets.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from memplan.compiler.analysis.liveness import Interval
from memplan.compiler.analysis.values import Handover, Values


class AliasSets:
    """Values in sets, each with the phases in which a value of it is live.

    Attributes:
      copies: handovers that need a copy.
    """

    def __init__(self, values: Values, intervals: dict[int, list[Interval]]):
        self._values = values
        self._parent = list(range(len(values.defined)))
        self._intervals = intervals
        self.copies: list[Handover] = []

    def find(self, value: int) -> int:
        """Returns a value that stands for the whole set of `value`."""
        parent = self._parent
        value = self._values.find(value)
        while parent[value] != value:
            parent[value] = parent[parent[value]]
            value = parent[value]
        return value

    def live(self, value: int) -> Sequence[Interval]:
        """Returns the phases in which the set is live, as sorted, disjoint intervals."""
        return self._intervals[self.find(value)]

    def join(self, a: int, b: int) -> None:
        """Makes one set of two, whether or not they are live at once."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        if len(self._intervals[a]) < len(self._intervals[b]):
            a, b = b, a
        larger = self._intervals[a]
        for interval in self._intervals.pop(b):
            _add(larger, interval)
        self._parent[b] = a

    def try_join(self, a: int, b: int) -> bool:
        """Makes one set of two if they are never live at once, and in one memory; returns whether they are one set."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return True
        if self._values.space[a] != self._values.space[b]:
            return False
        if len(self._intervals[a]) < len(self._intervals[b]):
            a, b = b, a
        larger = self._intervals[a]
        if any(_overlaps(larger, interval) for interval in self._intervals[b]):
            return False
        self.join(a, b)
        return True


def alias_sets(values: Values, intervals: dict[int, list[Interval]]) -> AliasSets:
    """Returns the alias sets of a flattened program.

    Args:
      values: its values.
      intervals: their live intervals, as `value_intervals` gives them; the alias sets keep and change them.
    """
    sets = AliasSets(values, intervals)
    for a, b in values.same_place:
        sets.join(a, b)
    for handover in (*values.back_edges, *values.entries, *values.exits, *values.results):
        if values.is_made_by(handover.value, handover.time):
            sets.try_join(handover.value, handover.place)
    _hand_over(sets, values.back_edges)
    for _, _, operand, result in values.in_place:
        sets.try_join(operand, result)
    _hand_over(sets, values.entries)
    _hand_over(sets, values.exits)
    for argument, result, place, must in values.donated:
        if must:
            sets.try_join(argument, place)
        else:
            sets.try_join(argument, result)
    _hand_over(sets, values.results)
    sets.copies.sort(key=lambda handover: handover.time)
    return sets


def _hand_over(sets: AliasSets, handovers: Sequence[Handover]) -> None:
    for handover in handovers:
        if not sets.try_join(handover.value, handover.place):
            sets.copies.append(handover)


def _overlaps(intervals: list[Interval], interval: Interval) -> bool:
    start, end = interval
    i = bisect.bisect_right(intervals, (start, end))
    return (i > 0 and intervals[i - 1][1] > start) or (i < len(intervals) and intervals[i][0] < end)


def _add(intervals: list[Interval], interval: Interval) -> None:
    """Inserts an interval into a sorted list, joined with those that it touches."""
    start, end = interval
    low = bisect.bisect_left(intervals, (start, start))
    if low > 0 and intervals[low - 1][1] >= start:
        low -= 1
    high = low
    while high < len(intervals) and intervals[high][0] <= end:
        start, end = min(start, intervals[high][0]), max(end, intervals[high][1])
        high += 1
    intervals[low:high] = [(start, end)]
