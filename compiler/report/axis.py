"""The axes of pictures: of offsets, and of emulated time, on which every operation stands once.

An operation's width is all the time that it takes in one run of the program. So a loop is drawn once, as wide as all of
its iterations, and the width of the whole axis is the latency. (Waits of later iterations are given to the operations
that wait in the first one.)

    emulated     | a | b c b c b c | d |        b, c: a loop's body, run three times
    axis         | a |   b  |  c   | d |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memplan.compiler.emulator.timing import Timeline
from memplan.compiler.mapping.problem import MappingProblem


@dataclass(frozen=True)
class TimeAxis:
    """Where operations and moments lie on the axis, in seconds from its left end.

    Attributes:
      edges: `[n + 2] float64`: operation `t`, with the wait before it, is `edges[t] … edges[t + 1]`; the moment after
        the last operation is as wide as what is awaited there.
      stalls: `[n + 1] float64` the part of each width, at its left, that is waiting for copies.
      clock: `[2 n + 2] float64` moments of the first execution of everything, ascending.
      clock_edges: `[2 n + 2] float64` where these moments lie on the axis.
    """

    edges: np.ndarray
    stalls: np.ndarray
    clock: np.ndarray
    clock_edges: np.ndarray

    def at(self, moments: np.ndarray) -> np.ndarray:
        """Returns where moments of the emulated clock lie; later iterations of a loop lie at its body's end."""
        return np.interp(moments, self.clock, self.clock_edges)


def offset_ceiling(capacity: int, height: int) -> float:
    """Returns the bytes at the upper edge of a memory's picture.

    Args:
      capacity: of the memory. A slow memory is far larger than what is used of it; its capacity is not in the picture.
      height: the highest address in use.
    """
    return 1.03 * (capacity if capacity < 3 * height else max(height, 1))


def time_axis(problem: MappingProblem, timeline: Timeline) -> TimeAxis:
    """Returns the axis of a timeline."""
    n = problem.end
    runs = np.array([problem.runs_at(t) for t in range(n + 1)], np.float64)
    work = timeline.duration * runs[:n]
    # Iterations of a loop may wait differently; what is known beyond the first is their sum.
    stalls = np.nan_to_num(timeline.stall) * runs
    if stalls.sum() > 0:
        stalls *= timeline.stalled / stalls.sum()
    edges = np.zeros(n + 2)
    edges[1:] = np.cumsum(np.append(work, 0.0) + stalls)

    clock, clock_edges = np.empty(2 * n + 2), np.empty(2 * n + 2)
    start = np.maximum.accumulate(np.nan_to_num(timeline.start))
    clock[0], clock_edges[0] = 0.0, 0.0
    clock[1:-1:2], clock_edges[1:-1:2] = start, edges[:n] + stalls[:n]
    clock[2:-1:2], clock_edges[2:-1:2] = start + timeline.duration, edges[1 : n + 1]
    clock[-1], clock_edges[-1] = timeline.latency, edges[n + 1]
    return TimeAxis(edges, stalls, np.maximum.accumulate(clock), clock_edges)
