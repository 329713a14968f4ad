"""The LevelProblem: layers, of each of which one level is chosen, under a budget.

A *level* is how far one layer is compressed: a rank, a number of bits, a width. It has a cost, such as the bytes of
the layer or the seconds that it takes, and an error. Costs add up over the layers, and so do errors. The total of one
of the two stays within the budget, and the total of the other is minimized: the multiple-choice knapsack problem
(Kellerer, Pferschy and Pisinger, *Knapsack Problems*, 2004, chapter 11).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Quantity = Literal["cost", "error"]

# Sums of integers below this are exact in float64.
MAX_TOTAL = 2**53


@dataclass(frozen=True, slots=True)
class Level:
    """One way to represent a layer.

    Attributes:
      name: such as "rank 8" or "4 bits". The same name in every layer is what a uniform choice goes by.
      cost: an integer, such as bytes, or a float, such as seconds; not negative.
      error: not negative.
    """

    name: str
    cost: float
    error: float


@dataclass(frozen=True, slots=True)
class LayerLevels:
    """The levels that one layer can have."""

    name: str
    levels: tuple[Level, ...]


class LevelTables(NamedTuple):
    """The problem in arrays `[layers, most levels]`, padded with infinity.

    Attributes:
      weight: what the budget limits.
      value: what is minimized.
      integer_weight, integer_value: whether all entries are whole numbers.
    """

    weight: Floats
    value: Floats
    integer_weight: bool
    integer_value: bool


@dataclass(frozen=True)
class LevelProblem:
    """Layers with their levels, and a budget.

    Attributes:
      layers: in any order.
      budget: the most that the total of `limited` may be.
      limited: what the budget limits; the total of the other is minimized.
    """

    layers: tuple[LayerLevels, ...]
    budget: float
    limited: Quantity = "cost"

    def check(self) -> None:
        """Raises PlannerError, naming the place, if a number makes no sense or no choice is within the budget."""
        if self.limited not in ("cost", "error"):
            raise PlannerError(f"limited is {self.limited!r}: it must be 'cost' or 'error'")
        for number, layer in enumerate(self.layers):
            place = f"layer {number} ({layer.name})"
            if not layer.levels:
                raise PlannerError(f"{place} has no levels: it needs at least one")
            for level in layer.levels:
                for quantity in ("cost", "error"):
                    _check_number(getattr(level, quantity), f"{place}: level {level.name}: {quantity}")
        if isinstance(self.budget, bool) or not isinstance(self.budget, int | float) or math.isnan(self.budget):
            raise PlannerError(f"the budget is {self.budget!r}: it must be a number")
        for quantity in ("cost", "error"):
            if sum(max(getattr(level, quantity) for level in layer.levels) for layer in self.layers) >= MAX_TOTAL:
                raise PlannerError(f"the largest total {quantity} is not below 2**53: state it in a larger unit")
        least = self.least
        if least > self.budget:
            raise PlannerError(f"no choice has a total {self.limited} within {self.budget:,}: the least is {least:,}")

    @property
    def minimized(self) -> Quantity:
        """The quantity whose total is minimized."""
        return "error" if self.limited == "cost" else "cost"

    @property
    def least(self) -> float:
        """The least total of `limited` that any choice has."""
        least = [min(getattr(level, self.limited) for level in layer.levels) for layer in self.layers]
        return total(least)

    def totals(self, choice: Sequence[int]) -> tuple[float, float]:
        """Returns the total cost and the total error of a choice, one index of a level for each layer."""
        chosen = [layer.levels[index] for layer, index in zip(self.layers, choice, strict=True)]
        return total([level.cost for level in chosen]), total([level.error for level in chosen])

    @cached_property
    def tables(self) -> LevelTables:
        """The problem in arrays. The problem must be sound (`check`)."""
        most = max((len(layer.levels) for layer in self.layers), default=1)
        arrays = {}
        for quantity in ("cost", "error"):
            rows = [[float(getattr(level, quantity)) for level in layer.levels] for layer in self.layers]
            arrays[quantity] = np.array([row + [math.inf] * (most - len(row)) for row in rows]).reshape(-1, most)
        weight, value = arrays[self.limited], arrays[self.minimized]
        return LevelTables(weight, value, _whole(weight), _whole(value))


def total(numbers: Sequence[float]) -> float:
    """Returns the sum of numbers: exact if they are integers, and otherwise rounded once."""
    return sum(numbers) if all(isinstance(number, int) for number in numbers) else math.fsum(numbers)


def _whole(table: Floats) -> bool:
    entries = table[np.isfinite(table)]
    return bool((entries == np.floor(entries)).all())


def _check_number(number: object, place: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise PlannerError(f"{place} is {number!r}: it must be a number")
    if not math.isfinite(number) or number < 0:
        raise PlannerError(f"{place} is {number!r}: it must be finite and not negative")
