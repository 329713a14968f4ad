"""Packings without proof: first fit and best fit in several orders, and rounds that improve the best one.

The orders are by size and by area, as in the planners of small runtimes (Pisarchyk and Lee, "Efficient memory
management for deep neural net inference", 2020, section 4), by duration as in XLA's heap simulator, by start as an
allocator at run time would, and by the load of the fullest section that a block is in (Moffitt, "MiniMalloc", ASPLOS
2023).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from memplan.compiler.effort import Guard
from memplan.planners.offsets.best_fit_kernel import BlockSizes, Intervals, fit, improve
from memplan.planners.offsets.first_fit import Fitted
from memplan.planners.offsets.geometry import Sections
from memplan.planners.offsets.instance import Instance, Integers

# The most rounds of improvement.
_MOST_ROUNDS = 20_000

# The blocks placed before the guard is asked.
_STRIDE = 200_000

_UNLIMITED = 2**62


class Fitter:
    """First fit and best fit of one instance, which has no block of size 0."""

    def __init__(self, instance: Instance):
        self._instance = instance
        self._sections = sections = Sections.of(instance)
        block = sections.block_of_range()
        by_start = np.argsort(sections.first, kind="stable")
        position = np.empty(len(by_start), np.int64)
        position[by_start] = np.arange(len(by_start))
        starts, ends = sections.first[by_start], sections.last[by_start]
        before = np.searchsorted(starts, ends).astype(np.int64)
        self._intervals = Intervals(sections.pointer, position, starts, ends, block[by_start], before)
        self._sizes = BlockSizes(instance.size, instance.alignment, instance.fixed)

    @property
    def num_pairs(self) -> int:
        """How many pairs of intervals overlap, which is what a pass costs."""
        count = len(self._intervals.before)
        return int(np.sum(self._intervals.before)) - count * (count + 1) // 2

    def orders(self) -> Iterator[tuple[str, Integers]]:
        """Yields `(name, order)` of the orders to try, the most promising first."""
        size, lower = self._instance.size, self._instance.lower
        duration = self._instance.upper - lower
        area = size.astype(np.float64) * duration
        fullest = self._sections.most(self._sections.loads(size))
        yield "size", np.lexsort((lower, -duration, -size))
        yield "duration", np.lexsort((lower, -size, -duration))
        yield "area", np.lexsort((lower, -area))
        yield "load", np.lexsort((lower, -area, -duration, -fullest))
        yield "start", np.lexsort((-size, lower))

    def fitted(self, order: Integers, name: str, target: int, is_best_fit: bool, limit: int = _UNLIMITED) -> Fitted:
        """Returns the packing of one pass; its height is 2**62 if it would be above the limit."""
        offsets = np.empty(len(self._instance), np.int64)
        height = int(fit(order.astype(np.int64), self._intervals, self._sizes, limit, target, is_best_fit, offsets))
        return Fitted(offsets, height, f"{'best' if is_best_fit else 'first'} fit by {name}")

    def best(self, target: int, placements: int, seed: int, guard: Guard) -> Fitted:
        """Returns the lowest packing found.

        Args:
          target: height that is low enough.
          placements: of blocks, at most, in the orders and again in the rounds of improvement. One pass is made in any
            case.
          seed: of the rounds of improvement.
          guard: ends it early.
        """
        best: Fitted | None = None
        passes = max(1, placements // max(1, len(self._instance)))
        best_order = np.empty(0, np.int64)
        for is_best_fit in (False, True):
            for name, order in self.orders():
                if best is not None and (passes == 0 or guard.reached()):
                    return best
                passes -= 1
                limit = _UNLIMITED if best is None else best.height - 1
                found = self.fitted(order, name, target, is_best_fit, limit)
                if best is None or found.height < best.height:
                    best = found
                    if not is_best_fit:
                        best_order = order.astype(np.int64)
                if best.height <= target:
                    return best
        assert best is not None
        return self._improved(best, best_order, target, placements, seed, guard)

    def _improved(self, best: Fitted, order: Integers, target: int, placements: int, seed: int, guard: Guard) -> Fitted:
        """Improves the best order for first fit in rounds; returns the result if it is better than the best packing."""
        num_blocks = len(self._instance)
        start = self.fitted(order, "order", target, False)
        offsets, height = start.offsets, start.height
        never = np.zeros(1, np.int64)
        rounds = min(_MOST_ROUNDS, placements // num_blocks)
        stride = max(1, _STRIDE // num_blocks)
        for done in range(0, rounds, stride):
            if height <= target or guard.reached():
                break
            height = int(
                improve(
                    order,
                    self._intervals,
                    self._sizes,
                    height,
                    target,
                    min(stride, rounds - done),
                    (seed * 1_000_003 + done) % 2**32,
                    never,
                    offsets,
                )
            )
        return Fitted(offsets, height, "squeaky wheel") if height < best.height else best


def greedy_by_size(instance: Instance) -> int:
    """Returns the height of first fit by descending size: the usual baseline."""
    fitter = Fitter(instance)
    order = dict(fitter.orders())["size"]
    return fitter.fitted(order, "size", 0, False).height
