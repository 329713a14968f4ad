"""Chooses the groups of a computation: runs the dynamic program of `cut_kernel.py` and reads its result.

It runs on two orders of the instructions, the given one and one that follows chains, and the better result is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memplan.compiler.hardware.target import Target
from memplan.compiler.hardware.work import WorkCounter
from memplan.compiler.ir import Computation, Graph
from memplan.passes.fusion.axes_kernel import scratch_for
from memplan.passes.fusion.cut_kernel import cut, groups_of, tiling_of
from memplan.passes.fusion.line import ONE_TILE, Array, Line, chain_order, make_line
from memplan.passes.fusion.tiling_kernel import FusionTarget, Tiling

# The most instructions of a segment. Longer segments cost time and hardly ever fit.
LONGEST = 96

# For a computation of more instructions, only the given order is tried.
_MANY = 4096


@dataclass(frozen=True)
class Loop:
    """A loop of a group's nest.

    Attributes:
      tiles: how often it runs.
      size: elements of the axis in the dimension that is named.
      value, dimension: a dimension that is cut, by index of the instruction.
    """

    tiles: int
    size: int
    value: int
    dimension: int


@dataclass(frozen=True)
class Group:
    """Instructions that run as one.

    Attributes:
      members: indices of the instructions on the line, in order.
      loops: the outer one first; none if everything fits at once.
      kept: bytes of fast memory that it needs.
      read, written: bytes of slow memory.
      seconds: that it takes, with everything that it reads and writes in slow memory.
      alone: seconds that its members take one by one.
    """

    members: tuple[int, ...]
    loops: tuple[Loop, ...]
    kept: int
    read: int
    written: int
    seconds: float
    alone: float


@dataclass(frozen=True)
class Partition:
    """A computation cut into groups.

    Attributes:
      line: what was cut.
      order: groups, and single instructions on the line, in an order in which they can run.
      seconds: of all of them.
    """

    line: Line
    order: tuple[Group | int, ...]
    seconds: float

    @property
    def groups(self) -> list[Group]:
        """Returns the groups alone."""
        return [part for part in self.order if isinstance(part, Group)]


def fusion_target(target: Target, slow: int, fast: int, fast_share: float) -> FusionTarget:
    """Returns what the costs of groups depend on.

    Args:
      target: the hardware.
      slow, fast: indices of its memories.
      fast_share: the share of the fast memory that a group may keep at the most.
    """
    space, compute = target.spaces[fast], target.compute
    return FusionTarget(
        bandwidth=target.spaces[slow].bandwidth,
        launch=compute.launch_seconds,
        tiny=float(ONE_TILE),
        depth=float(compute.matrix_unit[0]),
        width=float(compute.matrix_unit[1]),
        usual=float(space.scoped_limit),
        most=max(space.capacity * fast_share, float(space.scoped_limit)),
    )


def partition(
    graph: Graph, computation: Computation, target: Target, slow: int, counter: WorkCounter, costs: FusionTarget
) -> Partition:
    """Returns the best partition that was found.

    Args:
      graph: that holds the computation.
      computation: whose instructions run one by one.
      target, slow, costs: as in `fusion_target`.
      counter: of the Graph.
    """
    given = list(range(len(computation.instructions)))
    orders: list[Sequence[int]] = [given]
    chains = chain_order(computation)
    if chains != given and len(given) <= _MANY:
        orders.append(chains)
    found = []
    for order in orders:
        line = make_line(graph, computation, target, slow, counter, order)
        found.append(_read(line, costs))
    return min(found, key=lambda each: each.seconds)


def _read(line: Line, costs: FusionTarget) -> Partition:
    arrays = line.arrays
    scratch = scratch_for(arrays)
    _, begin = cut(arrays, scratch, LONGEST, costs)
    ends = []
    at = len(arrays.order)
    while at > 0:
        ends.append(at)
        at = int(begin[at])
    parts: list[Group | int] = []
    seconds = 0.0
    stamp = len(arrays.order)
    for end in reversed(ends):
        first = groups_of(arrays, int(begin[end]), end, costs.tiny)
        for name in np.unique(first):
            members = np.flatnonzero(first == name) + int(begin[end])
            alone = float(np.sum(arrays.single[members]))
            group = None
            if not arrays.barrier[members[0]]:
                stamp += 1
                tiling = tiling_of(arrays, scratch, stamp, members, end - 1, costs)
                if tiling.seconds < alone:
                    group = _group(line, members, tiling, alone)
            if group is None:
                parts += [int(i) for i in arrays.order[members]]
                seconds += alone
            else:
                parts.append(group)
                seconds += group.seconds
    return Partition(line, tuple(parts), seconds)


def _group(line: Line, members: Array, tiling: Tiling, alone: float) -> Group:
    arrays = line.arrays
    loops = []
    for dim, tiles in ((tiling.outer, tiling.outer_tiles), (tiling.inner, tiling.inner_tiles)):
        if dim >= 0:
            value = int(np.searchsorted(arrays.dim_start, dim, side="right")) - 1
            loops.append(Loop(int(tiles), int(arrays.dim_size[dim]), value, int(dim - arrays.dim_start[value])))
    return Group(
        members=tuple(int(i) for i in arrays.order[members]),
        loops=tuple(loops),
        kept=int(np.ceil(tiling.kept)),
        read=int(tiling.read),
        written=int(tiling.written),
        seconds=float(tiling.seconds),
        alone=alone,
    )
