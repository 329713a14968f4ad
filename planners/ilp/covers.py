"""Lifted cover cuts: what a fractional solution of the relaxation overfills, although the sum of its sizes fits.

A *cover* of a knapsack (`knapsacks.py`) is a set of columns that do not fit together, so one of them is 0 (Balas,
"Facets of the knapsack polytope", 1975). The other columns are lifted in one after another: each gets the largest
coefficient with which no choice that fits breaks the cut (Padberg, "A note on zero-one programming", 1975):

    sum over the cover + sum of lifted coefficients * columns  <=  number in the cover - 1

That coefficient comes from `lightest`, the least weight of a choice by its value. The same table proves the finished
cut (`CoverCut.is_valid`): no choice of a greater value fits. All numbers are integers, so no tolerance plays a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.planners.ilp.knapsacks import Knapsack

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A cut is worth adding if it cuts off the solution by at least this Euclidean distance.
_LEAST_DISTANCE = 1e-4

# A weight that no knapsack has room for.
_TOO_HEAVY = np.iinfo(np.int64).max // 4


@dataclass(frozen=True)
class CoverCut:
    """The cut `coefficients @ columns <= limit`, with its proof.

    Attributes:
      row: the knapsack that it follows from.
      cover: positions in the knapsack's columns that do not fit together, and fit without any one of them.
      coefficients: `[num_columns]` of the knapsack's columns, at least 0.
      limit: the number in the cover less 1.
    """

    row: Knapsack
    cover: tuple[int, ...]
    coefficients: Integers
    limit: int

    @property
    def is_valid(self) -> bool:
        """Whether each choice of the knapsack's columns that fits keeps the cut."""
        least = lightest(self.row.weights, self.coefficients, self.limit + 1)
        return bool(least[self.limit + 1] > self.row.room)

    def distance(self, values: Floats) -> float:
        """Returns how far the cut is from a solution, `[num_columns of the model]`, that it cuts off."""
        broken = float(self.coefficients @ values[self.row.columns]) - self.limit
        return broken / float(np.linalg.norm(self.coefficients))


def lightest(weights: Integers, values: Integers, most: int) -> Integers:
    """Returns `[most + 1]` the least weight of a choice whose value is at least the index.

    >>> lightest(np.array([4, 3]), np.array([2, 1]), 3).tolist()
    [0, 3, 4, 7]
    """
    least = np.full(most + 1, _TOO_HEAVY, np.int64)
    least[0] = 0
    for weight, value in zip(weights.tolist(), values.tolist(), strict=True):
        _add_item(least, weight, value)
    return least


def _add_item(least: Integers, weight: int, value: int) -> None:
    """Lets one more item be chosen, see `lightest`."""
    if value > 0:
        before = np.concatenate([np.zeros(min(value, len(least)), np.int64), least[:-value]])[: len(least)]
        np.minimum(least, before + weight, out=least)


def separated(rows: Sequence[Knapsack], values: Floats, most: int) -> list[CoverCut]:
    """Returns the cover cuts that cut off a solution furthest, each valid.

    Args:
      rows: the knapsacks.
      values: `[num_columns]` of the model.
      most: how many cuts are returned.
    """
    found: dict[tuple[bytes, bytes, int], tuple[float, CoverCut]] = {}
    for row in rows:
        parts = np.clip(values[row.columns], 0.0, 1.0)
        for cover in _covers(row, parts):
            cut = _lifted(row, cover, parts)
            distance = cut.distance(values)
            used = np.flatnonzero(cut.coefficients)
            key = (row.columns[used].tobytes(), cut.coefficients[used].tobytes(), cut.limit)
            if distance > _LEAST_DISTANCE and key not in found and cut.is_valid:
                found[key] = distance, cut
    ordered = sorted(found.values(), key=lambda each: (-each[0], each[1].row.space, each[1].row.time))
    return [cut for _, cut in ordered[:most]]


def _covers(row: Knapsack, parts: Floats) -> list[list[int]]:
    """Returns minimal covers, as positions, that a solution is likely to overfill.

    Columns are taken by one order or another until they do not fit. Those that are not needed for that are given back.
    """
    used = np.flatnonzero(parts > 0.0)
    weights, part = row.weights[used], parts[used]
    covers: list[list[int]] = []
    for key in ((1.0 - part) / weights, 1.0 - part, -part * weights):
        order = np.lexsort((used, key))
        loads = np.cumsum(weights[order])
        count = int(np.searchsorted(loads, row.room, side="right")) + 1
        if count > len(order):
            return covers  # All of them fit.
        chosen, load = order[:count].tolist(), int(loads[count - 1])
        for position in sorted(chosen, key=lambda at: (part[at], -weights[at], at)):
            if load - weights[position] > row.room:
                chosen.remove(position)
                load -= int(weights[position])
        cover = sorted(used[chosen].tolist())
        if cover not in covers:
            covers.append(cover)
    return covers


def _lifted(row: Knapsack, cover: list[int], parts: Floats) -> CoverCut:
    """Returns the cut of a cover, with the other columns lifted in; those that a solution has most of come first."""
    limit = len(cover) - 1
    coefficients = np.zeros(len(row.columns), np.int64)
    coefficients[cover] = 1
    least = lightest(row.weights[cover], coefficients[cover], limit)
    for position in np.lexsort((-row.weights, -parts)).tolist():
        if coefficients[position]:
            continue
        weight = int(row.weights[position])
        # What fits beside it has at most this value.
        beside = int(np.searchsorted(least, row.room - weight, side="right")) - 1
        value = limit - max(beside, 0) if weight <= row.room else limit
        if value > 0:
            coefficients[position] = value
            _add_item(least, weight, value)
    return CoverCut(row, tuple(cover), coefficients, limit)
