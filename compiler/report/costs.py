"""What each buffer costs under a plan: time that a faster memory would save, and waits for its copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memplan.compiler.emulator.timing import Timeline
from memplan.compiler.hardware.roofline import durations
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem


@dataclass(frozen=True)
class BufferCosts:
    """Seconds per run of the program, loops counted. All arrays are float64.

    Attributes:
      lost: `[num_buffers]` what serving its accesses from the fastest memory would save, everything else as it is.
        Operations that are bound by compute lose nothing.
      waited: `[num_buffers]` time that operations wait for its copies.
      saved: `[num_buffers]` what the plan saves over serving it from the slow memory.
      access_lost: `[num_accesses]` the parts of `lost`.
      access_best: `[num_accesses] int64` the space that would serve the access fastest, whether it fits or not.
    """

    lost: np.ndarray
    waited: np.ndarray
    saved: np.ndarray
    access_lost: np.ndarray
    access_best: np.ndarray

    def most_costly(self, count: int) -> list[int]:
        """Returns up to `count` buffers that cost anything, the most costly first."""
        total = self.lost + self.waited
        order = np.argsort(-total, kind="stable")[:count]
        return [int(buffer) for buffer in order if total[buffer] > 0]


def buffer_costs(problem: MappingProblem, plan: Plan, timeline: Timeline) -> BufferCosts:
    """Returns what every buffer costs, access by access, in one pass over the arrays."""
    accesses = problem.accesses
    num_buffers, num_spaces = len(problem.buffers), len(problem.spaces)
    time = np.array([t for t, _ in accesses], np.int64)
    buffer = np.array([access.buffer for _, access in accesses], np.int64)
    cost = np.array([access.cost for _, access in accesses], np.float64).reshape(len(accesses), num_spaces)
    space = np.array([plan.residencies[r].space for r in plan.served], np.int64)
    floor = np.array([operation.floor for operation in problem.operations], np.float64)
    overhead = np.array([operation.overhead for operation in problem.operations], np.float64)
    runs = np.array([problem.runs_at(t) for t in range(problem.end)], np.float64)

    rows = np.arange(len(accesses))
    cost_now = cost[rows, space]
    demand = overhead + np.bincount(time, cost_now, minlength=problem.end)
    duration = durations(floor, demand)

    def change(to_space: np.ndarray | int) -> np.ndarray:
        """Seconds per run that each access alone would save if `to_space` served it; negative if it would lose."""
        new_demand = demand[time] - cost_now + cost[rows, to_space]
        return (duration[time] - durations(floor[time], new_demand)) * runs[time]

    best = np.argmin(cost, axis=1) if len(accesses) else np.zeros(0, np.int64)
    access_lost = change(best)
    # Differences of large sums leave noise that is no cost.
    access_lost[access_lost <= 1e-12 * duration[time] * runs[time]] = 0.0
    return BufferCosts(
        lost=np.bincount(buffer, access_lost, minlength=num_buffers),
        waited=_waits(problem, plan, timeline),
        saved=np.bincount(buffer, -change(0), minlength=num_buffers),
        access_lost=access_lost,
        access_best=best,
    )


def _waits(problem: MappingProblem, plan: Plan, timeline: Timeline) -> np.ndarray:
    """Returns per buffer the time that operations wait for its copies; those awaited together share it evenly."""
    awaited: dict[int, list[int]] = {}
    for copy in plan.copies:
        awaited.setdefault(copy.done, []).append(plan.residencies[copy.source].buffer)
    waited = np.zeros(len(problem.buffers))
    stall = np.nan_to_num(timeline.stall)
    for t, buffers in awaited.items():
        if t <= problem.end:
            runs = problem.runs_at(t)
            for buffer in buffers:
                waited[buffer] += runs * float(stall[t]) / len(buffers)
    # Later iterations of a loop may wait less than the first, or more: what is known of them is the sum.
    return waited * (timeline.stalled / waited.sum()) if waited.sum() > 0 else waited
