"""The entry: the fastest split of a chain into pieces within a memory limit, and the proof.

A local search from even splits gives a first one. Then prefixes of splits are extended piece by piece, those of the
lowest bound first, and complete ones are simulated. The lowest bound that is left is one for all splits.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from memplan.compiler.effort import Effort
from memplan.compiler.errors import PlannerError
from memplan.planners.pipeline.baselines import even_ends, needed_recompute, plan_of
from memplan.planners.pipeline.bounds import SplitBounds
from memplan.planners.pipeline.costs import SplitCosts
from memplan.planners.pipeline.plan import PipelinePlan
from memplan.planners.pipeline.problem import PipelineProblem

Split = tuple[tuple[int, ...], tuple[bool, ...]]
Rank = tuple[int, float]

# A prefix whose bound is within this share of the best time is not extended.
_ROUNDING = 1 - 1e-12


def solve_pipeline(problem: PipelineProblem, effort: Effort = Effort.NORMAL) -> PipelinePlan:
    """Returns the fastest split that is found, with a time that no split within the limit is below.

    The last layer takes as long as the four before it, so each of two devices gets the one or the others:

    >>> from memplan.planners.pipeline import PipelineLayer, PipelineProblem
    >>> layers = tuple(PipelineLayer(f"layer {i}", 4.0 if i == 4 else 1.0, 0.0, 0, 0, 0) for i in range(5))
    >>> plan = solve_pipeline(PipelineProblem(layers, stages=2, microbatches=8))
    >>> plan.ends, plan.time, plan.is_optimal
    ((4, 5), 36.0, True)

    Args:
      problem: the chain, the devices and the schedule.
      effort: how many steps of schedules and prefixes of splits are looked at.

    Raises:
      PlannerError: the problem is malformed, or no split is found within the limit; the message says what the least
        is that was found, and whether it is proven that there is none.
    """
    problem.check()
    costs = SplitCosts(problem)
    bounds = SplitBounds(costs)
    work = effort.of(fast=1_000_000, normal=20_000_000, high=200_000_000)
    search = _SplitSearch(costs, bounds, work)
    search.improve()
    bound, finished = search.prove()
    if search.best[0][0] > 0:
        _raise_beyond(problem, search.best[0][0], finished)
    ends, recompute = search.best[1]
    plan = plan_of(costs, ends, recompute, bound, "exact" if finished else "search")
    return plan


def _raise_beyond(problem: PipelineProblem, excess: int, finished: bool) -> None:
    assert problem.limit is not None
    devices = f"{problem.stages} devices of {problem.limit:,} bytes"
    hint = "" if problem.recompute else "; recomputation may help"
    if finished:
        raise PlannerError(f"no split fits {devices}: the best one tried is {excess:,} bytes over on one of them{hint}")
    raise PlannerError(f"found no split that fits {devices}: the best is {excess:,} bytes over on one of them{hint}")


class _SplitSearch:
    """The best split so far, and what is left of the work.

    Attributes:
      best: the bytes over the limit and the time of the best split, and the split.
    """

    def __init__(self, costs: SplitCosts, bounds: SplitBounds, work: int):
        self._costs, self._bounds, self._problem = costs, bounds, costs.problem
        self._left = work
        self._steps = 2 * self._problem.pieces * self._problem.microbatches
        self._seen: set[Split] = set()
        layers = self._problem.layers
        works = [layer.forward + layer.backward for layer in layers]
        starts = [even_ends(weights, self._problem.pieces) for weights in (works, [1.0] * len(layers))]
        starts.append(even_ends([float(layer.state + layer.kept) for layer in layers], self._problem.pieces))
        ranked = [self._ranked((ends, needed_recompute(costs, ends))) for ends in starts]
        if (split := self._within()) is not None:
            ranked.append(self._ranked(split))
        self._starts = ranked
        self.best = min(ranked)

    def _within(self) -> Split | None:
        """Returns the split with the least slowest piece; None if none is within the limit, or it is not known."""
        table = self._bounds.slowest
        if table is None or table[-1][0] == float("inf"):
            return None
        ends: list[int] = []
        recompute: list[bool] = []
        start, pieces, count = 0, self._problem.pieces, len(self._problem.layers)
        for piece in range(pieces):
            left = pieces - piece
            choices = []
            for end in range(start + 1, count - left + 2):
                flag = self._costs.cheapest(piece, start, end)
                if flag is not None and table[left - 1][end] < float("inf"):
                    time = self._costs.forward(start, end) + self._costs.backward(start, end, flag)
                    choices.append((max(time, table[left - 1][end]), end, flag))
            _, start, flag = min(choices)
            ends.append(start)
            recompute.append(flag)
        return tuple(ends), tuple(recompute)

    def _ranked(self, split: Split) -> tuple[Rank, Split]:
        """Returns the bytes over the limit and the time of a split; the time counts within the limit alone."""
        self._left -= self._steps
        limit = self._problem.limit
        over = 0 if limit is None else max(0, max(self._costs.memory(*split)) - limit)
        return (over, self._costs.time(*split)), split

    def improve(self) -> None:
        """Moves one end, or changes one flag, as long as that helps, from each start."""
        share = self._left // (2 * len(self._starts))
        for current in sorted(self._starts):
            stop = self._left - share
            is_better = True
            while is_better and self._left > stop:
                is_better = False
                for split in self._changes(current[1]):
                    if split not in self._seen and self._left > stop:
                        self._seen.add(split)
                        current, is_better = min((current, False), (self._ranked(split), True), key=lambda c: c[0][0])
                        if is_better:
                            break
            self.best = min(self.best, current)

    def _changes(self, split: Split) -> list[Split]:
        """Returns splits with one end moved, by one layer or by more, or with one flag changed."""
        ends, recompute = split
        bounds = [0, *ends]
        changes = []
        for piece in range(len(ends) - 1):
            for step in (-1, 1, -2, 2, -4, 4):
                if bounds[piece] < ends[piece] + step < ends[piece + 1]:
                    moved = (*ends[:piece], ends[piece] + step, *ends[piece + 1 :])
                    changes.append((moved, self._flags(moved, recompute)))
        if self._problem.recompute and self._problem.limit is not None:
            for piece in range(len(ends)):
                changes.append((ends, (*recompute[:piece], not recompute[piece], *recompute[piece + 1 :])))
        return changes

    def _flags(self, ends: Sequence[int], recompute: tuple[bool, ...]) -> tuple[bool, ...]:
        if self._problem.chunks > 1:
            return recompute
        bounds = [0, *ends]
        flags = [self._costs.cheapest(piece, bounds[piece], ends[piece]) for piece in range(len(ends))]
        return tuple(self._problem.recompute if flag is None else flag for flag in flags)

    def prove(self) -> tuple[float, bool]:
        """Extends prefixes of splits; returns what no split is below, and whether all were looked at."""
        heap: list[tuple[float, int, Split]] = [(self._bounds.bound((), ()), 0, ((), ()))]
        while heap:
            bound, _, (ends, recompute) = heapq.heappop(heap)
            if self._is_beaten(bound):
                return self.best[0][1], True
            if self._left <= 0:
                return bound, False
            for split in self._extensions(ends, recompute):
                self._left -= 4 * len(split[0])
                if len(split[0]) == self._problem.pieces:
                    if split not in self._seen and not self._is_beaten(self._bounds.bound(*split)):
                        self.best = min(self.best, self._ranked(split))
                    continue
                bound_of = self._bounds.bound(*split)
                if not self._is_beaten(bound_of):
                    heapq.heappush(heap, (bound_of, -len(split[0]), split))
        return self.best[0][1], True

    def _is_beaten(self, bound: float) -> bool:
        (over, time), _ = self.best
        return over == 0 and bound >= time * _ROUNDING

    def _extensions(self, ends: tuple[int, ...], recompute: tuple[bool, ...]) -> list[Split]:
        """Returns the prefixes with one more piece that may be within the limit."""
        problem, piece = self._problem, len(ends)
        start, left = (ends[-1] if ends else 0), problem.pieces - piece - 1
        last = len(problem.layers) - left
        found = []
        for end in range(last if left == 0 else start + 1, last + 1):
            flag = self._costs.cheapest(piece, start, end)
            if flag is None:
                continue
            flags = [flag]
            if problem.chunks > 1 and problem.recompute and problem.limit is not None:
                flags = [False, True]
            for each in flags:
                split = ((*ends, end), (*recompute, each))
                is_shared = problem.chunks > 1 and problem.limit is not None
                if is_shared and self._costs.device_memory(piece % problem.stages, *split) > problem.limit:  # type: ignore[operator]
                    continue
                found.append(split)
        return found
