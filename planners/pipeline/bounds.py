"""What a split takes at least, when only its first pieces are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from memplan.planners.pipeline.costs import SplitCosts

# A table of pieces × layers is made up to this size; the bound is weaker without it.
_MOST_ENTRIES = 20_000


class SplitBounds:
    """Bounds on the time of all splits that begin with given pieces.

    Args:
      costs: of the problem.
    """

    def __init__(self, costs: SplitCosts):
        self._costs, self._problem = costs, costs.problem
        problem = self._problem
        count = len(problem.layers)
        self._least_send = [0.0] * (count + 1)
        self._largest = [0.0] * (count + 1)
        least = math.inf
        for layer in reversed(range(count)):
            # A cut before `layer` or later; the end of the chain is none.
            self._largest[layer] = max(self._largest[layer + 1], self._work(layer, layer + 1))
            self._least_send[layer] = least if math.isfinite(least) else 0.0
            if layer:
                least = min(least, problem.send(layer))
        self.slowest = self._slowest_pieces() if problem.pieces * count <= _MOST_ENTRIES else None

    def _work(self, start: int, end: int) -> float:
        return self._costs.forward(start, end) + self._costs.backward(start, end, False)

    def _slowest_pieces(self) -> list[list[float]]:
        """Returns `[pieces + 1][layers + 1]` the least time of the slowest piece of the last so many, from a layer on.

        Where each device has one piece, only pieces that fit its memory count.
        """
        count, pieces = len(self._problem.layers), self._problem.pieces
        table = [[math.inf] * count + [0.0]]
        for left in range(1, pieces + 1):
            row = [math.inf] * (count + 1)
            for start in range(count - left + 1):
                best = math.inf
                for end in range(start + 1, count - left + 2):
                    if self._work(start, end) >= best:
                        break
                    recompute = self._costs.cheapest(pieces - left, start, end)
                    if recompute is not None:
                        work = self._costs.forward(start, end) + self._costs.backward(start, end, recompute)
                        best = min(best, max(work, table[left - 1][end]))
                row[start] = best
            table.append(row)
        return table

    def bound(self, ends: Sequence[int], recompute: Sequence[bool]) -> float:
        """Returns a time that no split is below whose first pieces these are."""
        problem, costs = self._problem, self._costs
        fixed, count, stages = len(ends), problem.microbatches, problem.stages
        bounds = [0, *ends]
        layer = bounds[-1]
        forward = [costs.forward(bounds[piece], ends[piece]) for piece in range(fixed)]
        backward = [costs.backward(bounds[piece], ends[piece], recompute[piece]) for piece in range(fixed)]
        # What one microbatch takes before it comes to a piece, and from when it leaves the piece for good.
        before = [0.0]
        for piece in range(fixed):
            send = problem.send(ends[piece]) if piece + 1 < problem.pieces else 0.0
            before.append(before[-1] + forward[piece] + backward[piece] + 2.0 * send)
        left = problem.pieces - fixed
        through = before[-1] + self._work(layer, len(problem.layers))
        through += 2.0 * max(0, left - 1) * self._least_send[layer]
        best = max([through, *(before[piece] + count * (forward[piece] + backward[piece]) for piece in range(fixed))])
        if left:
            slowest = max(self._work(layer, len(problem.layers)) / left, self._largest[layer])
            if self.slowest is not None:
                slowest = max(slowest, self.slowest[left][layer])
            best = max(best, before[-1] + count * slowest)
        if problem.chunks > 1:
            return max(best, self._of_devices(before, forward, backward, layer))
        if problem.schedule == "gpipe":
            slowest_forward, slowest_backward = max([0.0, *forward]), max([0.0, *backward])
            return max(best, through + (count - 1) * (slowest_forward + slowest_backward))
        for piece in range(fixed):
            best = max(best, self._round_trips(stages - piece, before[piece], through, forward[piece], backward[piece]))
        return best

    def _round_trips(self, ahead: int, before: float, through: float, forward: float, backward: float) -> float:
        """Returns a bound under 1F1B from what a device waits for.

        It runs at most `ahead` microbatches forward before it must have run one backward, and that has been to the end
        of the chain and back. So `rounds + 1` such trips follow one another, and then the passes that are left.
        """
        count, best = self._problem.microbatches, 0.0
        for rounds in {0, max(0, count - ahead) // ahead, (count - 1) // ahead}:
            done = rounds * ahead
            rest = (count - 1 - done) * backward + max(0, count - ahead - done) * forward
            best = max(best, before + (rounds + 1) * (through - before) + rest)
        return best

    def _of_devices(
        self, before: Sequence[float], forward: Sequence[float], backward: Sequence[float], layer: int
    ) -> float:
        """Returns a bound from the work of devices with several pieces, what is not yet given to one shared evenly."""
        problem = self._problem
        stages, count = problem.stages, problem.microbatches
        waits = [before[min(device, len(before) - 1)] for device in range(stages)]
        work = [0.0] * stages
        for piece, (one, other) in enumerate(zip(forward, backward, strict=True)):
            work[piece % stages] += one + other
        rest = self._work(layer, len(problem.layers))
        loads = [wait + count * each for wait, each in zip(waits, work, strict=True)]
        return max(*loads, (sum(loads) + count * rest) / stages)
