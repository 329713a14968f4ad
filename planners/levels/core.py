"""The exact solver: dynamic programming over the layers whose level the bound leaves open.

At the best price, each level has a *reduced value*: what it adds to the bound if its layer takes it. A level whose
reduced value exceeds the distance of the best known choice from the bound is in no better choice. The layers come in
order of their second least reduced value, so that the few that matter come first (the core of Pisinger, "A minimal
algorithm for the multiple-choice knapsack problem", EJOR 83, 1995). A state is the total weight and value with the
layers to come at the level of the best price; every state is therefore a choice, and the best within the budget
improves as layers are added. Three rules drop states, each sound by itself:

  dominance   another state has no more weight and no more value
  bound       no completion beats the best choice, at one of several prices around the best one
  weight      no completion is within the budget
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memplan.planners.levels.problem import Flags, Floats, Integers, LevelTables
from memplan.planners.levels.relaxation import LevelRelaxation, point

# Prices of the rule `bound`, as multiples of the best one.
_PRICES = np.concatenate([[1.0], 1.0 - 0.5 ** np.arange(1, 11, 2), 1.0 + 0.5 ** np.arange(1, 11, 2)])
# States of the run that comes first, and of the beam for one layer.
_SHORT, _BEAM = 250_000, 4_096
# What a better choice must gain: a share of the total, or nearly 1 where totals are whole.
_GAIN, _WHOLE_GAIN = 1e-10, 1.0 - 1e-3


class CoreResult(NamedTuple):
    """What the dynamic program found.

    Attributes:
      choice: `[layers]`.
      bound: no choice within the budget has a lower value.
      finished: whether it went through all states, so that the choice is optimal.
    """

    choice: Integers
    bound: float
    finished: bool


@dataclass
class _States:
    """All states after some layers: `[states]` each; `history` holds the state before and the level of each layer."""

    weight: Floats
    value: Floats
    history: list[tuple[int, Integers, Integers]]

    def kept(self, places: Integers | Flags) -> _States:
        """Returns some of the states."""
        layer, before, level = self.history[-1]
        history = [*self.history[:-1], (layer, before[places], level[places])]
        return _States(self.weight[places], self.value[places], history)

    def choice(self, state: int, base: Integers) -> Integers:
        choice = base.copy()
        for layer, before, level in reversed(self.history):
            choice[layer] = level[state]
            state = int(before[state])
        return choice


class Core:
    """The dynamic program.

    Args:
      tables: of the problem.
      budget: of the total weight.
      relaxation: of the problem under the budget.
      most_states: how many states are made in all; then it stops.
    """

    def __init__(self, tables: LevelTables, budget: float, relaxation: LevelRelaxation, most_states: int):
        self.tables, self.budget, self.most_states = tables, budget, most_states
        self.bound, self.price = relaxation.bound, relaxation.price
        self.best = filled(tables, budget, relaxation.light)
        self.best_value = point(tables, self.best)[1]
        self._start_from(relaxation.light)
        # Levels that cost nothing by the bound bring the base as near to the budget as they can.
        free = tables._replace(value=np.where(self.reduced <= 0.0, tables.value, math.inf))
        self._start_from(filled(free, budget, relaxation.light))
        second = (
            np.partition(self.reduced, 1, 1)[:, 1] if self.reduced.shape[1] > 1 else np.full(len(self.base), math.inf)
        )
        self.order = np.argsort(second, kind="stable")
        self.second = second
        self.prices = self.price * _PRICES
        self._suffixes()

    def _start_from(self, base: Integers) -> None:
        """Takes weights and values relative to a choice, so that differences of large numbers are taken once."""
        layers = np.arange(len(base))
        self.base = base
        with np.errstate(invalid="ignore"):
            self.weight = self.tables.weight - self.tables.weight[layers, base][:, None]
            self.value = self.tables.value - self.tables.value[layers, base][:, None]
            self.reduced = np.where(np.isfinite(self.weight), self.value + self.price * self.weight, math.inf)

    def _suffixes(self) -> None:
        """Finds what the layers from each place of the order on can lower weight + value at each price at most."""
        finite = np.isfinite(self.weight)
        weight, value = np.where(finite, self.weight, math.inf), np.where(finite, self.value, math.inf)
        lowest = np.stack([(value + price * weight).min(1) for price in self.prices])[:, self.order]
        ends = np.zeros((len(self.prices), 1))
        self.lowest = np.concatenate([np.cumsum(lowest[:, ::-1], 1)[:, ::-1], ends], 1)
        self.lightest = np.concatenate([np.cumsum(weight.min(1)[self.order][::-1])[::-1], [0.0]])

    @property
    def _gain(self) -> float:
        return _WHOLE_GAIN if self.tables.integer_value else _GAIN * self.best_value

    def solve(self) -> CoreResult:
        """Returns the best choice that was found, and the bound that is proven.

        Most problems take few states. In the others, a beam of the states that are nearest to the budget comes before
        the long run: where many choices have the same value per weight, it finds one that the bound itself proves.
        """
        short = min(_SHORT, self.most_states)
        states, finished = self._run(short, None)
        if not finished:
            self._run(short * 4, _BEAM)
            states, finished = self._run(self.most_states, None)
        bound = self.best_value - self._gain
        if not finished:
            open_bounds = self._bounds(states.weight, states.value, len(states.history))
            bound = min(bound, max(self.bound, float(open_bounds.min())))
        if self.tables.integer_value:
            bound = math.ceil(bound - 1e-6)
        return CoreResult(self.best, bound, finished)

    def _run(self, most_states: int, beam: int | None) -> tuple[_States, bool]:
        """Goes through the layers; returns the states at the end, and whether they are all that matter."""
        weight, value = point(self.tables, self.base)
        states = _States(np.array([weight]), np.array([value]), [])
        made = 0
        for place, layer in enumerate(self.order.tolist()):
            if self.bound + self.second[layer] >= self.best_value - self._gain or not len(states.weight):
                return states, True
            states = self._add(states, layer, place + 1)
            if beam is not None and len(states.weight) > beam:
                near = np.sort(np.argsort(np.abs(states.weight - self.budget), kind="stable")[:beam])
                states = states.kept(near)
            made += len(states.weight)
            if made > most_states:
                return states, not len(states.weight)
        return states, True

    def _add(self, states: _States, layer: int, place: int) -> _States:
        """Returns the states with one more layer decided, and keeps the best choice."""
        levels = np.flatnonzero(self.bound + self.reduced[layer] < self.best_value - self._gain)
        levels = np.union1d(levels, [self.base[layer]])
        weight = (states.weight[:, None] + self.weight[layer, levels]).ravel()
        value = (states.value[:, None] + self.value[layer, levels]).ravel()
        order = np.lexsort((value, weight))
        sorted_value = value[order]
        before = np.minimum.accumulate(np.concatenate([[math.inf], sorted_value[:-1]]))
        kept = order[sorted_value < before]
        kept = kept[weight[kept] + self.lightest[place] <= self._reachable]
        history = [*states.history, (layer, kept // len(levels), levels[kept % len(levels)])]
        found = _States(weight[kept], value[kept], history)
        self._keep_best(found)
        # With the best choice that is known now.
        alive = self._bounds(found.weight, found.value, place) < self.best_value - self._gain
        return found.kept(alive)

    @property
    def _reachable(self) -> float:
        """The budget, with room for the rounding of sums that are no whole numbers."""
        return self.budget if self.tables.integer_weight else self.budget * (1.0 + 1e-12)

    def _keep_best(self, states: _States) -> None:
        candidates = np.flatnonzero(states.weight <= self._reachable)
        for state in candidates[np.argsort(states.value[candidates], kind="stable")].tolist():
            if states.value[state] >= self.best_value:
                return
            choice = states.choice(state, self.base)
            weight, value = point(self.tables, choice)
            if weight <= self.budget and value < self.best_value:
                self.best, self.best_value = choice, value
                return

    def _bounds(self, weight: Floats, value: Floats, place: int) -> Floats:
        """Returns `[states]` a bound of the value that any completion within the budget has."""
        bounds = np.full(len(weight), -math.inf)
        for number, price in enumerate(self.prices):
            np.maximum(bounds, value + price * (weight - self.budget) + self.lowest[number, place], out=bounds)
        return bounds


def filled(tables: LevelTables, budget: float, choice: Integers) -> Integers:
    """Returns a choice within the budget, improved by the changes of one level that lower the value most per weight."""
    choice = choice.copy()
    layers = np.arange(len(choice))
    weight = point(tables, choice)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        added = tables.weight - tables.weight[layers, choice][:, None]
        saved = tables.value[layers, choice][:, None] - tables.value
        ratio = np.where(saved > 0.0, saved / np.maximum(added, 1e-300), -math.inf)
    room = budget - weight if tables.integer_weight else budget * (1.0 - 1e-12) - weight
    changed = set()
    for flat in np.argsort(-ratio, axis=None, kind="stable").tolist():
        layer, level = divmod(flat, ratio.shape[1])
        if ratio[layer, level] == -math.inf:
            break
        if layer not in changed and added[layer, level] <= room:
            changed.add(layer)
            choice[layer] = level
            room -= added[layer, level]
    return choice
