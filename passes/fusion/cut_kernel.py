"""The dynamic program over a line: the segments to cut it into, and the groups of each. Compiled by numba.

    line        a b c d e f g h       best[j + 1] = min over i of best[i] + cost(segment i … j)
    segments   [a b c][d][e f g h]
    groups      a─b c  d  e─f g─h     members of a segment that are connected: one reads what the other makes, or both
                                      read the same value

A segment of a topological order is convex: no path leaves it and comes back. This is the program of Mullapudi et al.
(PolyMage's grouping, ASPLOS 2016, section 4.2) and of Jangda and Bondhugula ("An effective fusion and tile size model",
PPoPP 2018, section 3) on a line instead of all cuts of the graph, so that it is at most quadratic. Groups within a
segment make up for what a line loses where chains interleave. How a group is tiled is found by `tiling_kernel.py`.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import entry, internal
from memplan.passes.fusion.axes_kernel import Scratch, enter
from memplan.passes.fusion.line import Array, LineArrays
from memplan.passes.fusion.tiling_kernel import FusionTarget, Tiling, evaluate

# The part of the time of its data that counts even where arithmetic hides it: of two groups that are equally fast, the
# one that moves less leaves more bandwidth to others.
_HIDDEN = 0.02


@entry
def cut(line: LineArrays, scratch: Scratch, longest: int, target: FusionTarget) -> tuple[Array, Array]:
    """Returns the least seconds up to each position, `[n + 1]`, and where the last segment before it begins, `[n + 1]`.

    Args:
      line: to be cut.
      scratch: for the line.
      longest: the most positions of a segment.
      target: what the costs of groups depend on.
    """
    n = len(line.order)
    best = np.full(n + 1, np.inf)
    begin = np.zeros(n + 1, np.int64)
    best[0] = 0.0
    group = np.zeros(n, np.int64)
    alone, fused = np.zeros(n), np.zeros(n)  # seconds of each group: its members one by one, and as one
    members = np.empty(longest, np.int64)
    reader = np.full(len(line.position), -1, np.int64)
    for i in range(n):
        reader[:] = -1
        for j in range(i, min(n, i + longest)):
            if line.barrier[j]:
                if j == i:
                    total = best[i] + line.single[j] + _HIDDEN * line.transfer[j]
                    if total < best[j + 1]:
                        best[j + 1], begin[j + 1] = total, i
                break
            enter(line, scratch, i, j)
            _regroup(line, group, reader, i, j, target.tiny)
            own = group[j]
            count = 0
            alone[own] = 0.0
            for p in range(i, j + 1):
                if group[p] == own:
                    members[count] = p
                    count += 1
                    alone[own] += line.single[p] + _HIDDEN * line.transfer[p]
            tiling = evaluate(line, scratch, members[:count], j, target)
            fused[own] = tiling.seconds + _HIDDEN * (tiling.read + tiling.written) / target.bandwidth
            total = best[i]
            for p in range(i, j + 1):
                if group[p] == p:
                    total += min(alone[p], fused[p])
            if total < best[j + 1]:
                best[j + 1], begin[j + 1] = total, i
            if fused[own] == np.inf and count > 1:
                break  # a larger group does not fit either
    return best, begin


@internal
def _regroup(line: LineArrays, group: Array, reader: Array, begin: int, p: int, tiny: float) -> None:
    """Joins a position and the groups that it is connected with to one group, named after its first member."""
    group[p] = p
    reader[line.order[p]] = p
    for r in range(line.read_start[p], line.read_start[p + 1]):
        value = line.read_value[r]
        other = reader[value]
        reader[value] = p
        # Two members that read the same small value from outside do not belong together for that.
        if other < begin or (line.bytes[value] <= tiny and line.position[value] < begin):
            continue
        low, high = min(group[p], group[other]), max(group[p], group[other])
        if low != high:
            for q in range(begin, p + 1):
                if group[q] == high:
                    group[q] = low


@entry
def groups_of(line: LineArrays, begin: int, end: int, tiny: float) -> Array:
    """Returns the first member of the group of each position of a segment `[begin, end)`."""
    group = np.zeros(end, np.int64)
    reader = np.full(len(line.position), -1, np.int64)
    for p in range(begin, end):
        _regroup(line, group, reader, begin, p, tiny)
    return group[begin:]


@entry
def tiling_of(
    line: LineArrays, scratch: Scratch, stamp: int, members: Array, last: int, target: FusionTarget
) -> Tiling:
    """Returns the best tiling of a group by itself; `stamp` must be new to the scratch."""
    for p in members:
        enter(line, scratch, stamp, p)
    return evaluate(line, scratch, members, last, target)
