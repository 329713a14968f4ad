"""What one stage needs by itself: the values of its events, and the outputs and workspaces of its runs.

A stage first recomputes, in the order of the nodes, then runs its own node. See `events_kernel.py`. Compiled by numba.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.arrays_kernel import argsort
from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import internal
from memplan.planners.fit.state_kernel import AFTER, HOST, KEEP, MADE, MODE, NEXT, RECOMPUTE, VALUE, WIDTH

Integers = NDArray[np.int64]

_NO_RUN = -1


class StageScratch(NamedTuple):
    """The program, and scratch that is marked by a stamp, so that nothing is cleared.

    Attributes:
      size, producer, is_result: `[values]` units, node, whether it is a result.
      workspace: `[nodes]` units.
      input_start, inputs, output_start, outputs, pair_start, pair_output, pair_input: ranges of each node.
      stamp: `[1]` of the last stage.
      here, stays_on, last_read: `[values]` the stamp of an event here, whether it stays after the stage, its last run.
      claimed: `[pairs]` whether a pair of the run that is looked at shares memory.
      chosen: `[nodes]` stamped.
      mode_here: `[values]` how it is served here.
      runs, order, spare: `[nodes + 1]` the runs of the stage.
    """

    size: Integers
    producer: Integers
    is_result: NDArray[np.bool_]
    workspace: Integers
    input_start: Integers
    inputs: Integers
    output_start: Integers
    outputs: Integers
    pair_start: Integers
    pair_output: Integers
    pair_input: Integers
    stamp: Integers
    here: Integers
    stays_on: Integers
    last_read: Integers
    claimed: Integers
    chosen: Integers
    mode_here: Integers
    runs: Integers
    order: Integers
    spare: Integers


by_reference(StageScratch)


@internal
def runs_of_stage(cells: np.ndarray, heads: int, t: int, x: StageScratch) -> int:
    """Writes the runs of a stage to `x.runs[x.order[0 … count - 1]]`; returns how many there are."""
    x.stamp[0] += 1
    stamp, count, num_nodes = x.stamp[0], 0, len(x.workspace)
    e = cells[heads + t]
    while e >= 0:
        v, mode = cells[e * WIDTH + VALUE], cells[e * WIDTH + MODE]
        following = cells[e * WIDTH + NEXT]
        goes_on = following >= 0 and cells[following * WIDTH + MODE] != RECOMPUTE
        x.here[v], x.mode_here[v], x.last_read[v] = stamp, mode, _NO_RUN
        x.stays_on[v] = 1 if goes_on or (t == num_nodes and x.is_result[v]) else 0
        if mode == RECOMPUTE and x.chosen[x.producer[v]] != stamp:
            x.chosen[x.producer[v]] = stamp
            x.runs[count] = x.producer[v]
            count += 1
        e = cells[e * WIDTH + AFTER]
    if t < num_nodes:
        x.runs[count] = t
        count += 1
    argsort(x.runs, count, x.order, x.spare)
    return count


@internal
def _shared(x: StageScratch, r: int, i: int, stamp: int) -> int:
    """Returns the units that run i, of node r, saves because it works in place."""
    saved = 0
    for k in range(x.pair_start[r], x.pair_start[r + 1]):
        v, output = x.pair_input[k], x.pair_output[k]
        if x.here[v] != stamp or x.last_read[v] != i or x.stays_on[v] == 1:
            continue
        free = True
        for j in range(x.pair_start[r], k):
            taken = x.claimed[j] == 1
            free = free and not (taken and (x.pair_input[j] == v or x.pair_output[j] == output))
        x.claimed[k] = 1 if free else 0
        if free:
            saved += min(x.size[v], x.size[output])
    for k in range(x.pair_start[r], x.pair_start[r + 1]):
        x.claimed[k] = 0
    return saved


@internal
def stage_peak(cells: np.ndarray, heads: int, t: int, x: StageScratch) -> int:
    """Returns the most units that the events and runs of stage t need at once."""
    count = runs_of_stage(cells, heads, t, x)
    stamp, now = x.stamp[0], 0
    e = cells[heads + t]
    while e >= 0:
        if cells[e * WIDTH + MODE] == KEEP or cells[e * WIDTH + MODE] == HOST:
            now += x.size[cells[e * WIDTH + VALUE]]
        e = cells[e * WIDTH + AFTER]
    for i in range(count):
        r = x.runs[x.order[i]]
        for k in range(x.input_start[r], x.input_start[r + 1]):
            if x.here[x.inputs[k]] == stamp:
                x.last_read[x.inputs[k]] = i
    peak = now
    for i in range(count):
        r, passing = x.runs[x.order[i]], 0
        for k in range(x.output_start[r], x.output_start[r + 1]):
            w = x.outputs[k]
            if x.here[w] != stamp:
                passing += x.size[w]
            elif x.mode_here[w] == RECOMPUTE or x.mode_here[w] == MADE:
                if x.stays_on[w] == 1 or x.last_read[w] > i:
                    now += x.size[w]
                else:
                    passing += x.size[w]
        peak = max(peak, now + passing + x.workspace[r] - _shared(x, r, i, stamp))
        for k in range(x.input_start[r], x.input_start[r + 1]):
            v = x.inputs[k]
            if x.here[v] == stamp and x.last_read[v] == i and x.stays_on[v] == 0:
                now -= x.size[v]
    return peak
