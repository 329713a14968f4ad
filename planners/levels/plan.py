"""The LevelPlan: a level for each layer, and what is proven about it."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.planners.levels.problem import LevelProblem

# A total within this share of the bound counts as optimal: that much is left to the rounding of floats.
OPTIMAL_GAP = 1e-9


@dataclass(frozen=True)
class LevelPlan:
    """One level for each layer.

    Attributes:
      choice: `[layers]` indices into `LayerLevels.levels`.
      cost, error: totals.
      minimized: the total of what is minimized: the error, the cost, or what an objective says.
      bound: no choice within the budget has less; 0 if nothing is proven.
      method: what made it.
    """

    choice: tuple[int, ...]
    cost: float
    error: float
    minimized: float
    bound: float
    method: str

    @property
    def gap(self) -> float:
        """How far the bound is below what is minimized, as a share of it."""
        return max(0.0, (self.minimized - self.bound) / self.minimized) if self.minimized > 0 else 0.0

    @property
    def is_optimal(self) -> bool:
        """Whether it is proven that no choice is better."""
        return self.gap <= OPTIMAL_GAP


def plan_of(problem: LevelProblem, choice: tuple[int, ...], bound: float, method: str) -> LevelPlan:
    """Returns the plan of a choice, with its totals."""
    cost, error = problem.totals(choice)
    minimized = error if problem.limited == "cost" else cost
    return LevelPlan(choice, cost, error, minimized, min(max(bound, 0.0), minimized), method)
