"""What a plan occupies over time: bytes at once and highest address, per memory space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem


@dataclass(frozen=True)
class Usage:
    """Use of one memory space.

    Attributes:
      live: `[n + 1] int64` bytes of all residencies at each time, the moment after the last operation included.
      reserved: `[n + 1] int64` bytes that the operation of each time keeps for itself.
      peak: the most that both take together at any time, bytes.
      height: highest address in use plus one, bytes; what an arena for this space needs.
    """

    live: np.ndarray
    reserved: np.ndarray
    peak: int
    height: int


def usage(problem: MappingProblem, plan: Plan) -> tuple[Usage, ...]:
    """Returns the use of each memory space, `[num_spaces]`."""
    moments = problem.end + 1
    change = np.zeros((len(problem.spaces), moments + 1), np.int64)
    height = [0] * len(problem.spaces)
    for residency in plan.residencies:
        size = problem.buffers[residency.buffer].size
        change[residency.space, residency.start] += size
        change[residency.space, min(residency.end, moments)] -= size
        height[residency.space] = max(height[residency.space], residency.offset + size)
    live = np.cumsum(change[:, :moments], axis=1)
    reserved = np.zeros((len(problem.spaces), moments), np.int64)
    for t, operation in enumerate(problem.operations):
        reserved[:, t] = operation.reserved
    return tuple(
        Usage(
            live=live[space],
            reserved=reserved[space],
            peak=int(np.max(live[space] + reserved[space], initial=0)),
            height=int(max(height[space], np.max(reserved[space], initial=0))),
        )
        for space in range(len(problem.spaces))
    )


def buffer_kind(problem: MappingProblem, buffer: int) -> str:
    """Returns what a buffer is to the caller: "argument" (or constant), "result", "updated" (both) or "temporary"."""
    given, left = problem.buffers[buffer].initial_space is not None, problem.buffers[buffer].final_space is not None
    return {(True, False): "argument", (False, True): "result", (True, True): "updated"}.get((given, left), "temporary")
