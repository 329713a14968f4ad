"""The mapping as a linear or integer program that allows all that a valid plan can do: a relaxation.

Its optimum, and whatever bounds it from below, is a latency that no plan beats. Copies are a fluid: of the rules of the
timing emulator it keeps that the copies of a channel move in no more time than operations and waits leave of it, in any
part of the program, and that each takes no less than its link's latency and its own bytes; it drops queues. Memory is
accounted for by sums of sizes.

**Values.** Execution follows each buffer from point to point: accesses, and the borders of loops and branches that
contain accesses. At each point it is known in which spaces the value is current (see `mapping/value_flow.py`), a number
between 0 and 1 for each space. In the gap between two points it is *kept* in a space, or *copied* to another:

    point        gap                     point
    state s ──── kept in s ≤ state s ──┬── state s ≤ kept in s + copied to s        reads served by s ≤ state s
    state q ──── copied q → s ≤ state q┘   state q ≤ state q + copied to q           a write: state s = written to s

At the start of a loop the value is where it is both on entry and after an iteration; after a conditional where it is
after each branch.

**Copies.** The time in which a copy may move is covered by nodes of a dyadic tree (`tree.py`), fine where the
copy is rather made. How much of it has moved before each node is a number. What moves in a node takes of the time that
the channel is idle in it; by Hall's theorem these sums over a laminar family are all there is to check. A copy's
destination is occupied from its start, so at least for the part that has moved; its source until its end, for the part
that has not.

**Totals.** All seconds are of the whole program: of what runs repeatedly, the sum over all runs, and of branches the
expectation. A copy starts and is done in the same region, so it is made as often as its region runs.

The memory planning of tensors as an integer program over their uses: Steiner et al., "MODeL: memory optimizations for
deep learning", 2023; windows with a fluid of work: preemptive scheduling, Horn, "Some simple scheduling algorithms",
1974.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memplan.compiler.mapping.problem import Buffer, MappingProblem
from memplan.planners.ilp.clock import write_clock
from memplan.planners.ilp.linear import ZERO, Affine, LinearProgram, add_up, column
from memplan.planners.ilp.tree import Tree
from memplan.planners.ilp.values import Flight, Gap, home, write_values


@dataclass(frozen=True)
class Precision:
    """How fine a model is.

    Attributes:
      ratio: of the width of a piece of time to its distance from the end of a copy, see `Tree.graded`.
      whole: whether a copy in flight occupies memory for all of its buffer, which takes more integers, or for the part
        that has moved.
      strict: whether it does so all through the pieces of time in which it begins and ends. The model is no relaxation
        then: its solutions fit the memory, its bound is none.
    """

    ratio: float = 1.0
    whole: bool = False
    strict: bool = False


@dataclass(frozen=True)
class Span:
    """What part of the program a model is about: the times `[first, last)`, whole regions of the program's own time."""

    first: int
    last: int


class Relaxation:
    """The model of a span of a problem.

    Attributes:
      program: the linear or integer program, in units of `unit` seconds.
      unit: seconds.
      served: per access of a movable buffer, by space, whether that serves it.
      gaps: all of them.
      flights: the copies that may be made.
      waits: by position, how long the program waits there, in units.
      kept_between_runs: per buffer, by space, whether the previous run of the program left it there.
    """

    def __init__(self, problem: MappingProblem, span: Span | None = None, precision: Precision | None = None):
        self.problem = problem
        self.span = span or Span(0, problem.end)
        self.precision = precision or Precision()
        self.program = LinearProgram()
        self.tree = Tree.over(2 * problem.end + 1)
        self.served: dict[int, dict[int, Affine]] = {}
        self.gaps: list[Gap] = []
        self.flights: list[Flight] = []
        self.waits: dict[int, Affine] = {}
        self.kept_between_runs: dict[int, dict[int, Affine]] = {}
        self.limit = longest(problem)
        self.unit = self.limit / 1000.0 if self.limit > 0.0 else 1.0
        # Per space, per node: what is occupied; per channel, per node: seconds of copies.
        self._occupied: list[dict[int, list[Affine]]] = [{} for _ in problem.spaces]
        self._moved: dict[int, dict[int, list[Affine]]] = {link.channel: {} for link in problem.links}
        write_values(self)
        self._limit_kept_between_runs()
        write_clock(self)
        for space in range(1, len(problem.spaces)):
            self._limit_memory(space)

    def spaces_of(self, buffer: Buffer) -> list[int]:
        """Returns the spaces that a buffer fits and may lie in."""
        spaces = self.problem.spaces
        fitting = [space for space in buffer.spaces if space == 0 or buffer.size <= spaces[space].capacity]
        return fitting or list(buffer.spaces)

    def occupy(self, space: int, node: int, buffer: int, part: Affine) -> None:
        """Notes that a part of a buffer is in a space all through a node."""
        units = -(-self.problem.buffers[buffer].size // self.problem.spaces[space].alignment)
        first, last = self.tree.interval(node)
        if last - first == 1:
            if first % 2 == 0:
                return  # a wait: what counts is whether it is there when the operation runs
            node //= 2
        self._occupied[space].setdefault(node, []).append(part.scaled(float(units)))

    def occupy_times(self, space: int, first: int, last: int, buffer: int, part: Affine) -> None:
        """Notes that a part of a buffer is in a space at times `[first, last)`."""
        for node in self.tree.cover(2 * first, 2 * last) if first < last else ():
            self.occupy(space, node, buffer, part)

    def move(self, channel: int, node: int, seconds: Affine) -> None:
        """Notes that copies move for so many seconds of the whole program within a node."""
        self._moved[channel].setdefault(node, []).append(seconds.scaled(1.0 / self.unit))

    def moved_in(self, channel: int) -> Mapping[int, Sequence[Affine]]:
        """Returns by node what copies move within it on a channel."""
        return self._moved[channel]

    def _limit_kept_between_runs(self) -> None:
        kept = []
        for parts in self.kept_between_runs.values():
            most = self.program.fraction()
            for part in parts.values():
                self.program.at_most(part - most)
            kept.append(most)
        if kept:
            self.program.at_most(add_up(kept), float(self.problem.cross_program_prefetches))

    def _limit_memory(self, space: int) -> None:
        """What is occupied at each time is no more than the space holds, less what is reserved."""
        occupied, tree = self._occupied[space], self.tree
        if not occupied:
            return
        room = least_room(tree, self._room(space))
        inside = set()
        for node in occupied:
            while node > 1:
                node //= 2
                inside.add(node)
        top = max(float(room[np.isfinite(room)].max(initial=0.0)), 1.0)
        pending = [(1, ZERO)]
        while pending:
            node, load = pending.pop()
            own = occupied.get(node, [])
            if own:
                load = load + add_up(own)
                if node in inside and len(load.terms) > 1:
                    total = column(self.program.add_column(0.0, top))
                    self.program.at_most(load - total)
                    load = total
            if node not in inside:
                if load.terms:
                    self.program.at_most(load, max(float(room[node]), 0.0))
                continue
            for child in (2 * node, 2 * node + 1):
                if child in inside or child in occupied:
                    pending.append((child, load))
                elif load.terms and np.isfinite(room[child]):
                    self.program.at_most(load, max(float(room[child]), 0.0))

    def _room(self, space: int) -> np.ndarray:
        """Returns `[n]` units of the alignment that are free for what the program may move."""
        described, unit = self.problem.spaces[space], self.problem.spaces[space].alignment
        reserved = np.array([operation.reserved[space] for operation in self.problem.operations], np.int64)
        room = -(-described.capacity // unit) - -(-reserved // unit)
        for buffer in self.problem.buffers:
            if buffer.persistent and home(buffer) == space:
                room[buffer.start : buffer.end] -= -(-buffer.size // unit)
        return room.astype(np.float64)


def least_room(tree: Tree, room: np.ndarray) -> np.ndarray:
    """Returns by node the least of `room`, `[n]`, in its operations; infinite where it has none."""
    least = np.full(2 * tree.size, np.inf)
    half = tree.size // 2
    least[half : half + len(room)] = room
    for node in range(half - 1, 0, -1):
        least[node] = min(least[2 * node], least[2 * node + 1])
    return least


def longest(problem: MappingProblem) -> float:
    """Returns the latency with every access served by its costliest space, in seconds."""
    return sum(
        problem.repetitions[operation.region]
        * max(operation.floor, operation.overhead + sum(max(access.cost) for access in operation.accesses))
        for operation in problem.operations
    )
