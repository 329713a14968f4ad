"""The PipelinePlan: where the chain is cut, which pieces recompute, and what is proven about it."""

from __future__ import annotations

from dataclasses import dataclass

# A time within this share of the bound counts as optimal: that much is left to the rounding of floats.
OPTIMAL_GAP = 1e-9


@dataclass(frozen=True)
class PipelinePlan:
    """A split of the chain.

    Attributes:
      ends: `[pieces]` the layer before which each piece ends; the last is the number of layers.
      recompute: `[pieces]` whether a piece runs its forward pass again.
      time: seconds of a step, until the last backward pass is done.
      memory: `[stages]` the most bytes that stand on each device at one time.
      bound: no split within the limit takes less time; 0 if nothing is proven.
      method: what made it.
    """

    ends: tuple[int, ...]
    recompute: tuple[bool, ...]
    time: float
    memory: tuple[int, ...]
    bound: float
    method: str

    @property
    def gap(self) -> float:
        """How far the bound is below the time, as a share of it."""
        return max(0.0, (self.time - self.bound) / self.time) if self.time > 0 else 0.0

    @property
    def is_optimal(self) -> bool:
        """Whether it is proven that no split is faster."""
        return self.gap <= OPTIMAL_GAP
