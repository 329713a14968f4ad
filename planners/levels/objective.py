"""Levels for an objective that is no sum of costs, such as the planned peak or latency of the program.

The sums lead the search. The choices on the frontier of (total cost, total error) are spread over its whole length and
evaluated first; then the best one is improved by changes of one layer and exchanges between two, as long as evaluations
are left. The objective alone says what is better: the sums of costs only propose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from memplan.compiler.errors import PlannerError
from memplan.planners.levels.plan import LevelPlan, plan_of
from memplan.planners.levels.problem import LevelProblem
from memplan.planners.levels.relaxation import frontier
from memplan.planners.levels.solve import solve_levels

Objective = Callable[[tuple[int, ...]], float]


def solve_for_objective(
    problem: LevelProblem, objective: Objective, evaluations: int = 200, at_least_the_sum: bool = False
) -> LevelPlan:
    """Returns the best choice that is found where `objective(choice)` takes the place of the total cost.

    With `limited="error"`, the objective is minimized under a budget of the error. With `limited="cost"`, the error is
    minimized, and the objective must be within the budget.

    The search is a heuristic. What is proven is the bound, and only with `at_least_the_sum`: then the optimum of the
    sums bounds it, since a choice within the budget of the objective is within that of the sum, or the objective of a
    choice is at least its sum. The planned peak of a program whose weights all stay throughout is an example.

    Args:
      problem: its costs are an estimate of the objective, which leads the search.
      objective: called once for each choice that is tried; finite or infinite, not NaN.
      evaluations: how often it is called at most.
      at_least_the_sum: whether the objective of every choice is at least its total cost.

    Raises:
      PlannerError: the problem is malformed, the objective returns no number, or no choice tried is within the budget.
    """
    if evaluations < 1:
        raise PlannerError(f"{evaluations} evaluations are too few: at least 1")
    bound, starts = 0.0, []
    budgeted = problem if problem.limited == "error" else replace(problem, budget=math.inf)
    budgeted.check()
    if problem.limited == "error" or at_least_the_sum:
        best_sum = solve_levels(problem)
        starts.append(best_sum.choice)
        bound = best_sum.bound if at_least_the_sum else 0.0
    search = _ObjectiveSearch(problem, objective, evaluations)
    for choice in [*starts, *_spread(problem, max(1, evaluations // 3))]:
        search.offer(choice)
    search.improve()
    if search.best is None:
        raise PlannerError(
            f"none of {search.used} choices has an objective within {problem.budget:,}; the least is {search.least:,}"
        )
    plan = plan_of(problem, search.best, bound, "search")
    if problem.limited == "error":
        plan = replace(plan, minimized=search.score, bound=min(bound, search.score))
    return plan


def _spread(problem: LevelProblem, count: int) -> Iterator[tuple[int, ...]]:
    """Yields choices of the frontier, its two ends first and then evenly between them."""
    choices = [tuple(choice.tolist()) for choice in frontier(problem.tables)]
    places = np.unique(np.linspace(0, len(choices) - 1, min(count, len(choices))).round().astype(int)).tolist()
    yield from (choices[place] for place in sorted(places, key=lambda place: place not in (0, len(choices) - 1)))


class _ObjectiveSearch:
    """The best choice so far. `score` is what is minimized; `least` the least objective of all choices tried."""

    def __init__(self, problem: LevelProblem, objective: Objective, evaluations: int):
        self.problem, self.objective, self.evaluations = problem, objective, evaluations
        self.used, self.least, self.score = 0, math.inf, math.inf
        self.best: tuple[int, ...] | None = None
        self._tried: set[tuple[int, ...]] = set()

    def offer(self, choice: tuple[int, ...]) -> bool:
        """Evaluates a choice that could be better, and returns whether it is."""
        error = self.problem.totals(choice)[1]
        limited = self.problem.limited
        if choice in self._tried or self.used >= self.evaluations:
            return False
        # Without an evaluation: the error needs none.
        if error > self.problem.budget if limited == "error" else error >= self.score:
            return False
        self._tried.add(choice)
        self.used += 1
        reached = self.objective(choice)
        if not isinstance(reached, int | float) or math.isnan(reached):
            raise PlannerError(f"the objective of {choice} is {reached!r}: it must be a number")
        self.least = min(self.least, reached)
        score = reached if limited == "error" else error
        if (limited == "cost" and reached > self.problem.budget) or score >= self.score:
            return False
        self.best, self.score = choice, score
        return True

    def improve(self) -> None:
        """Moves to better neighbours while there are some and evaluations are left."""
        while self.best is not None and self.used < self.evaluations:
            if not any(self.offer(neighbour) for neighbour in self._neighbours(self.best)):
                return

    def _neighbours(self, choice: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yields changes of one layer, and then pairs of a layer that gets lighter and one that gets heavier."""
        moves = [
            (row, level)
            for row, layer in enumerate(self.problem.layers)
            for level in range(len(layer.levels))
            if level != choice[row]
        ]
        for row, level in moves:
            yield _changed(choice, (row, level))
        gains = {move: self._change(choice, move) for move in moves}
        lighter = sorted((move for move in moves if gains[move][0] < 0), key=lambda move: gains[move][1])
        heavier = sorted((move for move in moves if gains[move][1] < 0), key=lambda move: gains[move][0])
        for first in lighter:
            for second in heavier:
                if first[0] != second[0]:
                    yield _changed(choice, first, second)

    def _change(self, choice: Sequence[int], move: tuple[int, int]) -> tuple[float, float]:
        """Returns by how much a move changes the cost and the error."""
        levels = self.problem.layers[move[0]].levels
        before, after = levels[choice[move[0]]], levels[move[1]]
        return after.cost - before.cost, after.error - before.error


def _changed(choice: Sequence[int], *moves: tuple[int, int]) -> tuple[int, ...]:
    changed = list(choice)
    for row, level in moves:
        changed[row] = level
    return tuple(changed)
