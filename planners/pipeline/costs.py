"""What a split costs: the time of its pieces, the time of a step, and the bytes on each device."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from memplan.planners.pipeline.problem import PipelineProblem
from memplan.planners.pipeline.schedule import SchedulePass, device_orders


class SplitCosts:
    """The costs of splits of one problem.

    Args:
      problem: sound.
    """

    def __init__(self, problem: PipelineProblem):
        self.problem = problem
        layers = problem.layers
        self._forward = [0.0, *itertools.accumulate(layer.forward for layer in layers)]
        self._backward = [0.0, *itertools.accumulate(layer.backward for layer in layers)]
        self._state = [0, *itertools.accumulate(layer.state for layer in layers)]
        self._kept = [0, *itertools.accumulate(layer.kept for layer in layers)]
        inputs = [problem.first, *(layer.passed for layer in layers[:-1])]
        # A layer that keeps less than its input does so when it is recomputed as well.
        self._inputs = [0, *itertools.accumulate(min(a, layer.kept) for a, layer in zip(inputs, layers, strict=True))]
        self._orders = device_orders(problem)
        self._steps = _executable(self._orders, problem)

    def forward(self, start: int, end: int) -> float:
        """Returns the seconds of a forward pass of layers."""
        return self._forward[end] - self._forward[start]

    def backward(self, start: int, end: int, recompute: bool) -> float:
        """Returns the seconds of a backward pass, with the forward pass before it if that is recomputed."""
        again = self.forward(start, end) if recompute else 0.0
        return self._backward[end] - self._backward[start] + again

    def state(self, start: int, end: int) -> int:
        """Returns the bytes of layers that stand throughout."""
        return self._state[end] - self._state[start]

    def kept(self, start: int, end: int, recompute: bool) -> int:
        """Returns the bytes that layers keep of a microbatch."""
        table = self._inputs if recompute else self._kept
        return table[end] - table[start]

    def transient(self, start: int, end: int, recompute: bool) -> int:
        """Returns the bytes beside them that the backward pass of a microbatch needs: one layer's, computed again."""
        if not recompute:
            return 0
        return max(self.problem.layers[layer].kept - self.kept(layer, layer + 1, True) for layer in range(start, end))

    def piece_memory(self, piece: int, start: int, end: int, recompute: bool) -> int:
        """Returns the most bytes of a piece by itself, where each device has one: `device_memory` in closed form."""
        problem = self.problem
        ahead = problem.microbatches if problem.schedule == "gpipe" else problem.stages - piece
        standing = min(problem.microbatches, ahead) * self.kept(start, end, recompute)
        return self.state(start, end) + standing + self.transient(start, end, recompute)

    def cheapest(self, piece: int, start: int, end: int) -> bool | None:
        """Returns whether a piece has to recompute to fit its device; None if it does not fit either way.

        Several pieces of one device share its memory: then the answer is False.
        """
        limit = self.problem.limit
        if limit is None or self.problem.chunks > 1 or self.piece_memory(piece, start, end, False) <= limit:
            return False
        if self.problem.recompute and self.piece_memory(piece, start, end, True) <= limit:
            return True
        return None

    def memory(self, ends: Sequence[int], recompute: Sequence[bool]) -> tuple[int, ...]:
        """Returns the most bytes that stand on each device."""
        return tuple(self.device_memory(device, ends, recompute) for device in range(self.problem.stages))

    def device_memory(self, device: int, ends: Sequence[int], recompute: Sequence[bool]) -> int:
        """Returns the most bytes that stand on one device; pieces beyond `ends` count nothing."""
        bounds = [0, *ends]
        pieces = range(device, len(ends), self.problem.stages)
        kept = {piece: self.kept(bounds[piece], ends[piece], recompute[piece]) for piece in pieces}
        extra = {piece: self.transient(bounds[piece], ends[piece], recompute[piece]) for piece in pieces}
        standing = sum(self.state(bounds[piece], ends[piece]) for piece in pieces)
        most = standing
        for step in self._orders[device]:
            if step.piece in kept:
                if step.forward:
                    standing += kept[step.piece]
                    most = max(most, standing)
                else:
                    most = max(most, standing + extra[step.piece])
                    standing -= kept[step.piece]
        return most

    def time(self, ends: Sequence[int], recompute: Sequence[bool]) -> float:
        """Returns the seconds of a step: the longest path through all passes."""
        return max(self._ends(ends, recompute))

    def timeline(self, ends: Sequence[int], recompute: Sequence[bool]) -> list[list[tuple[SchedulePass, float, float]]]:
        """Returns the passes of each device with the seconds at which they start and end."""
        taken: list[list[tuple[SchedulePass, float, float]]] = [[] for _ in range(self.problem.stages)]
        self._ends(ends, recompute, taken)
        return taken

    def _ends(
        self,
        ends: Sequence[int],
        recompute: Sequence[bool],
        taken: list[list[tuple[SchedulePass, float, float]]] | None = None,
    ) -> list[float]:
        """Returns when each device is done; adds its passes to `taken`."""
        problem = self.problem
        bounds = [0, *ends]
        count = problem.pieces
        forward = [self.forward(bounds[piece], ends[piece]) for piece in range(count)]
        backward = [self.backward(bounds[piece], ends[piece], recompute[piece]) for piece in range(count)]
        sends = [problem.send(end) for end in ends[:-1]]
        done_forward = [[0.0] * problem.microbatches for _ in range(count)]
        done_backward = [[0.0] * problem.microbatches for _ in range(count)]
        free = [0.0] * problem.stages
        for step in self._steps:
            is_forward, piece, number = step
            device = piece % problem.stages
            if is_forward:
                ready = done_forward[piece - 1][number] + sends[piece - 1] if piece else 0.0
                start = max(free[device], ready)
                free[device] = done_forward[piece][number] = start + forward[piece]
            else:
                ready = done_forward[piece][number]
                if piece + 1 < count:
                    ready = done_backward[piece + 1][number] + sends[piece]
                start = max(free[device], ready)
                free[device] = done_backward[piece][number] = start + backward[piece]
            if taken is not None:
                taken[device].append((step, start, free[device]))
        return free


def _executable(orders: list[list[SchedulePass]], problem: PipelineProblem) -> list[SchedulePass]:
    """Returns all passes in an order that heeds those of the devices and what each pass waits for."""
    done: set[SchedulePass] = set()
    places = [0] * len(orders)
    steps: list[SchedulePass] = []
    while len(steps) < 2 * problem.pieces * problem.microbatches:
        before = len(steps)
        for device, order in enumerate(orders):
            while places[device] < len(order) and _waits_for(order[places[device]], problem) <= done:
                steps.append(order[places[device]])
                done.add(order[places[device]])
                places[device] += 1
        if len(steps) == before:
            raise AssertionError("the schedule waits for itself")
    return steps


def _waits_for(step: SchedulePass, problem: PipelineProblem) -> set[SchedulePass]:
    if step.forward:
        return {SchedulePass(True, step.piece - 1, step.microbatch)} if step.piece else set()
    if step.piece + 1 < problem.pieces:
        return {SchedulePass(False, step.piece + 1, step.microbatch), SchedulePass(True, step.piece, step.microbatch)}
    return {SchedulePass(True, step.piece, step.microbatch)}
