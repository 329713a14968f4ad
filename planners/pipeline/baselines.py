"""What splits are compared with: pieces of equally many layers, and of equal parameters."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.planners.pipeline.costs import SplitCosts
from memplan.planners.pipeline.plan import PipelinePlan
from memplan.planners.pipeline.problem import PipelineProblem


def equal_layers(problem: PipelineProblem) -> PipelinePlan:
    """Returns the split into pieces of equally many layers, as far as cuts allow; it may be beyond the limit."""
    return _even(problem, [1.0] * len(problem.layers), "equal layers")


def equal_parameters(problem: PipelineProblem) -> PipelinePlan:
    """Returns the split into pieces of bytes of state as equal as cuts allow; it may be beyond the limit."""
    return _even(problem, [float(layer.state) for layer in problem.layers], "equal parameters")


def _even(problem: PipelineProblem, weights: Sequence[float], method: str) -> PipelinePlan:
    costs = SplitCosts(problem)
    ends = even_ends(weights, problem.pieces)
    recompute = needed_recompute(costs, ends)
    return plan_of(costs, ends, recompute, 0.0, method)


def even_ends(weights: Sequence[float], pieces: int) -> tuple[int, ...]:
    """Returns the ends of pieces, each cut where the sum of weights is nearest to its share of the whole."""
    sums = [0.0]
    for weight in weights:
        sums.append(sums[-1] + weight)
    ends: list[int] = []
    for piece in range(1, pieces):
        first, last = (ends[-1] if ends else 0) + 1, len(weights) - (pieces - piece)
        wanted = sums[-1] * piece / pieces
        ends.append(min(range(first, last + 1), key=lambda end: (abs(sums[end] - wanted), -end)))
    return (*ends, len(weights))


def needed_recompute(costs: SplitCosts, ends: Sequence[int]) -> tuple[bool, ...]:
    """Returns which pieces recompute: those of devices that the rest does not fit, if the problem allows it."""
    problem = costs.problem
    if problem.limit is None or not problem.recompute:
        return (False,) * len(ends)
    none = (False,) * len(ends)
    full = [costs.device_memory(device, ends, none) > problem.limit for device in range(problem.stages)]
    return tuple(full[piece % problem.stages] for piece in range(len(ends)))


def plan_of(
    costs: SplitCosts, ends: Sequence[int], recompute: Sequence[bool], bound: float, method: str
) -> PipelinePlan:
    """Returns the plan of a split, with its time and memory."""
    time = costs.time(ends, recompute)
    memory = costs.memory(ends, recompute)
    return PipelinePlan(tuple(ends), tuple(recompute), time, memory, min(max(bound, 0.0), time), method)
