"""What a relaxation of the mapping consists of: the linear program, and what its columns mean.

The model knows nothing of the rules that are written into it. `relaxation.py` says what those are and writes them, and
`runs.py` reads a solution by what is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.hardware.roofline import duration
from memplan.compiler.mapping.problem import Buffer, MappingProblem
from memplan.planners.ilp.linear import Affine, LinearProgram
from memplan.planners.ilp.tree import Tree
from memplan.planners.stays.assembly import home_of

Floats = NDArray[np.float64]


# A copy that may be made: buffer, region, the access after its gap (see `Gap`), source and destination.
CopyName = tuple[int, int, int, int, int]

# A copy is made in a solution if more than this part of it is; less is a solver's tolerance.
_TRACE = 1e-4


@dataclass(frozen=True)
class Precision:
    """How fine a model is.

    Attributes:
      ratio: between the width of a piece of time and its distance from the end of a copy, see `Tree.graded`.
      whole: whether a copy in flight occupies memory for all of its buffer, which takes more integers, or only for the
        part that has moved.
      strict: whether it does so all through the pieces of time in which it begins and ends. The model is no relaxation
        then: its solutions fit the memory, but its optimum bounds nothing.
      fine_ratio, fine: another ratio for the time of some copies, and which these are.
    """

    ratio: float = 1.0
    whole: bool = False
    strict: bool = False
    fine_ratio: float = 1.0
    fine: frozenset[CopyName] = frozenset()

    def ratio_of(self, name: CopyName) -> float:
        """Returns the ratio for a copy."""
        return self.fine_ratio if name in self.fine else self.ratio


@dataclass(frozen=True)
class Span:
    """The part of the program that a model is about: the times `[first, last)`, which cut no loop or conditional."""

    first: int
    last: int


@dataclass
class Gap:
    """A gap between two points of a buffer's life.

    Attributes:
      buffer, region: their numbers.
      access: first access of the point after it; -1 for the end of the region.
      first, last: times of the operations strictly between the points, half-open.
      kept: by space, whether the value is kept there.
      copied: by `(source, destination)`, whether a copy is done here.
      moved: by `(source, destination)`, the positions in which the copy can move, and what part of it does there.
    """

    buffer: int
    region: int
    access: int
    first: int
    last: int
    kept: dict[int, Affine] = field(default_factory=dict)
    copied: dict[tuple[int, int], Affine] = field(default_factory=dict)
    moved: dict[tuple[int, int], list[tuple[int, int, Affine]]] = field(default_factory=dict)

    def name_of(self, ends: tuple[int, int]) -> CopyName:
        """Returns the name of the copy that is done here between a source and a destination."""
        return self.buffer, self.region, self.access, *ends


@dataclass(frozen=True)
class RelaxedCopy:
    """A copy that may be made, and the least time that it is in flight.

    Attributes:
      region: number of the region whose operations start and await it.
      link: number of the link.
      start, done: the earliest time at which it can start, the latest at which it can be done.
      copied: whether it is made.
      seconds: for which its bytes move, over the whole program.
      times: how often it is made in the whole program, at least.
    """

    region: int
    link: int
    start: int
    done: int
    copied: Affine
    seconds: float
    times: float


@dataclass(frozen=True)
class Flight:
    """What follows if a copy does not occupy one of its ends at some time: all of it moves within a part of its window.

    Attributes:
      channel: number of the channel that it takes.
      seconds: for which all of its bytes move, over the whole program.
      space: number of the space that it does not occupy.
      confined: 1 if the copy is made and moves only within the part; at most 0 otherwise.
      low, high: half-open positions of the part.
    """

    channel: int
    seconds: float
    space: int
    confined: Affine
    low: int
    high: int


class Relaxation:
    """The model of a span of a problem. It begins empty; `relaxation.relax` returns one that is written.

    Attributes:
      problem, span, precision: what the model is of.
      program: the linear or integer program, in units of `unit` seconds.
      tree: over the positions of the whole problem.
      unit: seconds.
      served: by access of a movable buffer, then by space, whether the space serves it.
      gaps: all gaps, in the order in which they were written.
      copies: the copies that may be made.
      flights: which copies are confined to a part of their windows, when.
      idle: by channel, then by position, how long the channel is left to copies, in units, over the whole program.
      waits: by position, how long the program waits there, in units.
      kept_between_runs: by buffer, then by space, whether the previous run of the program left the buffer there.
      occupied: by space, then by node, what is occupied all through the node, in units of the space's alignment.
      moved: by channel, then by node, how long copies move within the node, in units, over the whole program.
    """

    def __init__(self, problem: MappingProblem, span: Span | None = None, precision: Precision | None = None):
        self.problem = problem
        self.span = span or Span(0, problem.end)
        self.precision = precision or Precision()
        self.program = LinearProgram()
        self.tree = Tree.over(2 * problem.end + 1)
        limit = longest(problem)
        self.unit = limit / 1000.0 if limit > 0.0 else 1.0
        self.served: dict[int, dict[int, Affine]] = {}
        self.gaps: list[Gap] = []
        self.copies: list[RelaxedCopy] = []
        self.flights: list[Flight] = []
        self.idle: dict[int, dict[int, Affine]] = {}
        self.waits: dict[int, Affine] = {}
        self.kept_between_runs: dict[int, dict[int, Affine]] = {}
        self.occupied: list[dict[int, list[Affine]]] = [{} for _ in problem.spaces]
        self.moved: dict[int, dict[int, list[Affine]]] = {link.channel: {} for link in problem.links}

    def spaces_of(self, buffer: Buffer) -> list[int]:
        """Returns the spaces that may hold a buffer and are large enough for it."""
        spaces = self.problem.spaces
        fitting = [space for space in buffer.spaces if space == 0 or buffer.size <= spaces[space].capacity]
        return fitting or list(buffer.spaces)

    def takes_room(self, buffer: int, space: int) -> bool:
        """Whether a buffer in a space counts; the homes of persistent buffers are taken off what is free already."""
        is_home = self.problem.buffers[buffer].persistent and space == home_of(self.problem, buffer)
        return space != 0 and not is_home

    def occupy(self, space: int, node: int, buffer: int, part: Affine) -> None:
        """Adds that a part of a buffer is in a space all through a node."""
        units = -(-self.problem.buffers[buffer].size // self.problem.spaces[space].alignment)
        first, last = self.tree.interval(node)
        if last - first == 1:
            if first % 2 == 0:
                return  # a wait: what counts is whether the buffer is there when the operation runs
            node //= 2
        self.occupied[space].setdefault(node, []).append(part.scaled(float(units)))

    def made_copies(self, values: Floats) -> frozenset[CopyName]:
        """Returns the copies that a solution, `[num_columns]`, makes in full or in part."""
        return frozenset(
            gap.name_of(ends)
            for gap in self.gaps
            for ends, copied in gap.copied.items()
            if copied.value(values) > _TRACE
        )

    def occupy_times(self, space: int, first: int, last: int, buffer: int, part: Affine) -> None:
        """Adds that a part of a buffer is in a space at times `[first, last)`."""
        for node in self.tree.cover(2 * first, 2 * last) if first < last else ():
            self.occupy(space, node, buffer, part)

    def move(self, channel: int, node: int, seconds: Affine) -> None:
        """Adds that copies move for so many seconds of the whole program within a node."""
        self.moved[channel].setdefault(node, []).append(seconds.scaled(1.0 / self.unit))


def longest_durations(problem: MappingProblem) -> list[float]:
    """Returns `[num_operations]` seconds of one run, with every access served by its costliest space."""
    return [
        duration(operation.floor, operation.overhead + sum(max(access.cost) for access in operation.accesses))
        for operation in problem.operations
    ]


def longest(problem: MappingProblem) -> float:
    """Returns the latency of the program with every access served by its costliest space, in seconds."""
    return sum(
        problem.repetitions[operation.region] * seconds
        for operation, seconds in zip(problem.operations, longest_durations(problem), strict=True)
    )
