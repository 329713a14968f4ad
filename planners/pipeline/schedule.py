"""The order in which each device does its forward and backward passes, which does not depend on the split."""

from __future__ import annotations

from typing import NamedTuple

from memplan.planners.pipeline.problem import PipelineProblem


class SchedulePass(NamedTuple):
    """One pass of one microbatch through one piece.

    Attributes:
      forward: or backward.
      piece: of the chain.
      microbatch: of the step.
    """

    forward: bool
    piece: int
    microbatch: int


def device_orders(problem: PipelineProblem) -> list[list[SchedulePass]]:
    """Returns the passes of each device in order, `[stages]`.

    Under 1F1B a device begins with as many forward passes as there are devices after it, then does one forward and one
    backward pass in turn, and the backward passes that are left (arXiv 2104.04473, figure 4). Where chunks interleave,
    microbatches go through a chunk in groups of as many as there are stages, and a device begins with two forward
    passes for each device after it and a group for each of its chunks but one (Megatron-LM,
    `forward_backward_pipelining_with_interleaving`).
    """
    return [_order(problem, device) for device in range(problem.stages)]


def _order(problem: PipelineProblem, device: int) -> list[SchedulePass]:
    stages, count = problem.stages, problem.microbatches
    total = count * problem.chunks
    forward = [SchedulePass(True, *_place(problem, device, step, False)) for step in range(total)]
    backward = [SchedulePass(False, *_place(problem, device, step, True)) for step in range(total)]
    if problem.schedule == "gpipe":
        return forward + backward
    warm_up = stages - device - 1
    if problem.chunks > 1:
        warm_up = total if count == stages else 2 * warm_up + (problem.chunks - 1) * stages
    warm_up = min(warm_up, total)
    order = forward[:warm_up]
    for step in range(total - warm_up):
        order += (forward[warm_up + step], backward[step])
    return order + backward[total - warm_up :]


def _place(problem: PipelineProblem, device: int, step: int, is_backward: bool) -> tuple[int, int]:
    """Returns the piece and the microbatch of the forward or backward pass of a number on a device."""
    chunks, stages = problem.chunks, problem.stages
    # All microbatches go through a chunk at once under GPipe, whose number of microbatches may be any.
    group = problem.microbatches if problem.schedule == "gpipe" or chunks == 1 else stages
    chunk = step % (group * chunks) // group
    if is_backward:
        chunk = chunks - 1 - chunk
    return chunk * stages + device, step // (group * chunks) * group + step % group
