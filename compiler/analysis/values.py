"""Values: which positions of the flattened program hold the same content, and where each content is read.

Tuples, get-tuple-elements, bitcasts, parameters of callees and the like give no new content: their positions hold the
value of another position. Where control flow joins, a value of its own (XLA's "phi") stands for whichever arrives:

    init ──┐                                          P   what the condition and the body see
           ▼            P ─► condition                R   what the body returns
      ┌─► [P] ── body ─► R ──┐                        N   R in the place of the next iteration's P
      └─────────── [N] ◄─────┘                        W   what the loop gives: P of the last iteration
           └──► [W] ──►
    [P], [N] and [W] are one place; init and R are handed over to it.

A value is in the memory that the shape of its definition says, also where a tuple or a view of it says otherwise.

A loop-carried element that the body returns as it came, or as the initial value itself, is no phi: it is the value of
`init` (`phi(x, phi) = phi(x, x) = x`).

Within a step, time has PHASES: what the step reads, what it writes, and then the copies between places:

    4t      4t+1           4t+2                4t+3
    reads │ writes begin │ reads have ended │ copies are read, then written      │ next step

A read that ends at 4t+1 lets the result of the same step have the operand's memory. Cf. XLA's HloDataflowAnalysis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from memplan.compiler.analysis.in_place import InPlacePair
from memplan.compiler.analysis.positions import Positions

PHASES = 4

NONE = -1  # of a position that owns no memory: a token, or a tuple whose table is not counted


class Read(NamedTuple):
    """A step reads a value.

    Attributes:
      time: of the step.
      operand: number of the operand.
      source: time of the step that gives the operand.
      node: number of the node in the operand's shape.
      value: which.
      waits: whether the step moves nothing and only needs the value to be there still.
    """

    time: int
    operand: int
    source: int
    node: int
    value: int
    waits: bool


@dataclass(frozen=True, slots=True)
class Handover:
    """A value must be in the place of another, by sharing its memory or by a copy.

    Attributes:
      value: what is handed over.
      place: the value whose place it is.
      time: the copy, if there must be one, is made at the end of this step.
      position: what is filled, for messages.
    """

    value: int
    place: int
    time: int
    position: int


@dataclass
class Values:
    """The values of a flattened program.

    Attributes:
      positions: the numbering of positions.
      of: `[num_positions]` value of each position, or NONE. Values may since have been found equal: see `find`.
      defined: `[num_values]` phase in which its content begins.
      region: `[num_values]` region of the definition.
      position: `[num_values]` first position that holds it.
      space: `[num_values]` XLA's number of the memory that it is in.
      fixed: `[num_values]` whether the caller owns it (an argument that is not donated, a constant): its memory holds
        it from before the program until after it.
      uses: `(value, phase, region)`: it is needed until that phase, by something in that region.
      spans: `(value, start, end)`: phases that it covers, independent of its uses.
      reads: of all steps, in order of time.
      writes: `(time, node, value)` of all steps, in order of time.
      allocations: the same of steps that allocate memory and leave its content open.
      in_place: `(time, pair, operand's value, result's value)` in order of time.
      same_place: pairs of values that are in one place by definition.
      back_edges, entries, exits, results: handovers to the next iteration, into a loop, out of a branch, to the caller.
      donated: `(argument's value, result's value, result's place, must)`.
      arguments: `(position, parameter number, node)` of the entry's parameters.
    """

    positions: Positions
    of: list[int]
    defined: list[int] = field(default_factory=list)
    region: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    space: list[int] = field(default_factory=list)
    fixed: list[bool] = field(default_factory=list)
    uses: list[tuple[int, int, int]] = field(default_factory=list)
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    writes: list[tuple[int, int, int]] = field(default_factory=list)
    allocations: list[tuple[int, int, int]] = field(default_factory=list)
    in_place: list[tuple[int, InPlacePair, int, int]] = field(default_factory=list)
    same_place: list[tuple[int, int]] = field(default_factory=list)
    back_edges: list[Handover] = field(default_factory=list)
    entries: list[Handover] = field(default_factory=list)
    exits: list[Handover] = field(default_factory=list)
    results: list[Handover] = field(default_factory=list)
    donated: list[tuple[int, int, int, bool]] = field(default_factory=list)
    arguments: list[tuple[int, int, int]] = field(default_factory=list)
    _equal: list[int] = field(default_factory=list)

    def new(self, phase: int, region: int, position: int, fixed: bool = False, place: int = NONE) -> int:
        """Adds a value, in the memory of the value `place` or else where its shape says; returns its number."""
        self.space.append(self.positions.shape(position).memory_space if place == NONE else self.space[place])
        self.defined.append(phase)
        self.region.append(region)
        self.position.append(position)
        self.fixed.append(fixed)
        self._equal.append(len(self._equal))
        return len(self._equal) - 1

    def find(self, value: int) -> int:
        """Returns the representative of all values that are equal to one: the earliest."""
        equal = self._equal
        while equal[value] != value:
            equal[value] = equal[equal[value]]
            value = equal[value]
        return value

    def equate(self, a: int, b: int) -> None:
        """States that two values are the same content."""
        a, b = self.find(a), self.find(b)
        if self.defined[b] < self.defined[a]:
            a, b = b, a
        self._equal[b] = a

    def equate_unchanged(self, phis: Sequence[int], init: int, root: int) -> set[int]:
        """Equates what a loop carries unchanged with its initial value; returns the nodes.

        Args:
          phis: phi of each node, or NONE.
          init, root: first positions of what enters the loop and of what its body returns.

        An element that the body returns as it gets another element is unchanged if that one turns out to be.
        """
        waiting: dict[int, list[int]] = {}
        pending = [node for node, phi in enumerate(phis) if phi >= 0]
        unchanged: set[int] = set()
        while pending:
            node = pending.pop()
            phi, given, returned = phis[node], self.of[init + node], self.find(self.of[root + node])
            if node in unchanged:
                continue
            if returned not in (self.find(phi), self.find(given)):
                waiting.setdefault(returned, []).append(node)
                continue
            pending += waiting.pop(phi, [])
            self.equate(phi, given)
            unchanged.add(node)
        return unchanged

    def is_made_by(self, value: int, time: int) -> bool:
        """Tells whether the step at `time` computes a value."""
        return self.defined[self.find(value)] == PHASES * time + 1
