"""The memory of a space at one time, as one row of an integer program: a knapsack.

`memory.py` writes the same limits through totals that many times share. The linear program is smaller so, but cuts need
the row itself:

    sum of weights * columns  <=  room        each column is 0 or 1 in every plan
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.planners.ilp.memory import room_of
from memplan.planners.ilp.model import Relaxation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Cuts are looked for where the load is at least this share of the room. Two equal columns break one with over a half.
_SHARE = 0.5


@dataclass(frozen=True)
class Knapsack:
    """What a space holds at one time.

    Attributes:
      space, time: number of the space; of the operation.
      columns: `[num_columns]` of the model, each once and in order; they are 0 or 1 in every plan.
      weights: `[num_columns]` units of the space's alignment, positive.
      room: units that the columns may take together.
    """

    space: int
    time: int
    columns: Integers
    weights: Integers
    room: int


def knapsacks(model: Relaxation) -> list[Knapsack]:
    """Returns the knapsacks of all fast spaces and times that the columns could overfill.

    Args:
      model: whose precision is `whole`, because a part of a copy takes a part of its buffer otherwise.
    """
    assert model.precision.whole
    found = []
    for space in range(1, len(model.problem.spaces)):
        occupied, half = model.occupied[space], model.tree.size // 2
        if not occupied:
            continue
        room = room_of(model, space)
        for time in range(model.span.first, model.span.last):
            parts, node = [], half + time
            while node:
                parts += occupied.get(node, [])
                node //= 2
            fixed = sum(part.constant for part in parts)
            terms = np.array([term for part in parts for term in part.terms]).reshape(-1, 2)
            columns, where = np.unique(terms[:, 0].astype(np.int64), return_inverse=True)
            weights = np.rint(np.bincount(where, terms[:, 1], minlength=len(columns))).astype(np.int64)
            left = int(room[time]) - round(fixed) - int(weights[weights < 0].sum())
            columns, weights = columns[weights > 0], weights[weights > 0]
            if left >= 0 and weights.sum() > left:
                found.append(Knapsack(space, time, columns, weights, left))
    return found


def filled(rows: Sequence[Knapsack], values: Floats) -> list[Knapsack]:
    """Returns the knapsacks that a solution, `[num_columns]`, fills so far that it may break a cut."""
    return [row for row in rows if row.weights @ values[row.columns] >= _SHARE * row.room]
