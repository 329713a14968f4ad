"""The Lagrangian relaxation: a price for each unit of the budget, at which every layer chooses for itself.

For a price p ≥ 0, the choice that minimizes value + p · weight in each layer alone bounds what any choice within the
budget has: `sum of minima − p · budget`. The best such bound is that of the linear relaxation, and the choices at all
prices are the *frontier*, the lower convex hull of (total weight, total value). Levels that are dominated, by one level
or by a mix of two (LP-dominance), are chosen at no price.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from memplan.planners.levels.problem import Floats, Integers, LevelTables


@dataclass(frozen=True)
class LevelRelaxation:
    """The best bound, and the two neighbours on the frontier between which the budget lies.

    Attributes:
      price: at which the bound is greatest.
      bound: of the total value within the budget.
      light: `[layers]` the choice on the frontier within the budget.
      heavy: `[layers]` that beyond it, or the same if nothing is beyond it.
    """

    price: float
    bound: float
    light: Integers
    heavy: Integers


def relax(tables: LevelTables, budget: float) -> LevelRelaxation:
    """Returns the relaxation; the lightest choice must be within the budget."""
    heavy, light = cheapest(tables, 0.0), cheapest(tables, math.inf)
    heavy_weight, heavy_value = point(tables, heavy)
    if heavy_weight <= budget:
        return LevelRelaxation(0.0, heavy_value, heavy, heavy)
    light_weight, light_value = point(tables, light)
    while True:
        price = (light_value - heavy_value) / (heavy_weight - light_weight)
        middle = cheapest(tables, price)
        weight, value = point(tables, middle)
        below = (light_value + price * light_weight) - (value + price * weight)
        if not heavy_weight > weight > light_weight or below <= 1e-14 * abs(light_value + price * light_weight):
            bounds = [v + price * (w - budget) for w, v in ((light_weight, light_value), (weight, value))]
            return LevelRelaxation(price, min(bounds), light, heavy)
        if weight <= budget:
            light, light_weight, light_value = middle, weight, value
        else:
            heavy, heavy_weight, heavy_value = middle, weight, value


def frontier(tables: LevelTables) -> Iterator[Integers]:
    """Yields the choices at all prices, from the heaviest to the lightest: one level changes at a time."""
    choice = cheapest(tables, 0.0)
    yield choice.copy()
    steps = [
        (price, layer, level)
        for layer in range(len(choice))
        for price, level in _hull(tables.weight[layer], tables.value[layer], int(choice[layer]))
    ]
    for _, layer, level in sorted(steps):
        choice[layer] = level
        yield choice.copy()


def cheapest(tables: LevelTables, price: float) -> Integers:
    """Returns `[layers]` the level of the least value + price · weight; of several, the one of less weight.

    At price 0 that is the least value, and at infinity the least weight and then the least value.
    """
    weight, value = tables.weight, tables.value
    if math.isinf(price):
        first, second = weight, value
    else:
        first, second = value + (price * weight if price > 0.0 else 0.0), weight
    ties = np.where(first == first.min(1, keepdims=True), second, math.inf)
    return np.argmin(ties, 1).astype(np.int64)


def point(tables: LevelTables, choice: Integers) -> tuple[float, float]:
    """Returns the total weight and the total value of a choice."""
    layers = np.arange(len(choice))
    return math.fsum(tables.weight[layers, choice]), math.fsum(tables.value[layers, choice])


def _hull(weight: Floats, value: Floats, level: int) -> Iterator[tuple[float, int]]:
    """Yields the prices at which one layer changes its level, ascending, and the level that it changes to."""
    while True:
        lighter = np.flatnonzero(weight < weight[level])
        if not len(lighter):
            return
        prices = (value[lighter] - value[level]) / (weight[level] - weight[lighter])
        least = prices.min()
        # Of several on one line, the next.
        level = int(max(lighter[prices == least], key=lambda other: weight[other]))
        yield float(least), level
