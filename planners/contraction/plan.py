"""The ContractionPlan: pairs in the order of their contraction, and what is proven about it."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.planners.contraction.problem import Quantity

# A value within this share of the bound counts as optimal: logarithms of sizes are rounded.
OPTIMAL_GAP = 1e-9


@dataclass(frozen=True)
class ContractionPlan:
    """An order of contraction.

    Attributes:
      path: `[tensors - 1]` pairs; the tensors are numbered 0, 1, …, and the result of each pair gets the next number.
      flops: of all pairs, and of the sums within single tensors that come before.
      peak: bytes of the intermediates and the result that stand at one time, at most. The tensors of the problem do
        not count: they stand throughout.
      minimize: which of the two was minimized.
      bound: no order that finishes one side of a pair before it begins the other has less of it; 0 if nothing is
        proven.
      method: what made it.
    """

    path: tuple[tuple[int, int], ...]
    flops: int
    peak: int
    minimize: Quantity
    bound: float
    method: str

    @property
    def minimized(self) -> int:
        """What was minimized."""
        return self.flops if self.minimize == "flops" else self.peak

    @property
    def gap(self) -> float:
        """How far the bound is below what is minimized, as a share of it."""
        return max(0.0, (self.minimized - self.bound) / self.minimized) if self.minimized > 0 else 0.0

    @property
    def is_optimal(self) -> bool:
        """Whether it is proven that no order is better."""
        return self.gap <= OPTIMAL_GAP

    @property
    def linear_path(self) -> list[tuple[int, int]]:
        """The path as `optimize` of numpy, jax and opt_einsum takes it.

        Tensors that are left move up, and each result is put at the end.
        """
        places = list(range(len(self.path) + 1))
        linear = []
        for number, (first, second) in enumerate(self.path):
            low, high = sorted((places.index(first), places.index(second)))
            linear.append((low, high))
            del places[high], places[low]
            places.append(len(self.path) + 1 + number)
        return linear
