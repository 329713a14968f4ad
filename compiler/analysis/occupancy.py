"""Occupancy: the bytes that each memory holds over time, what they are at one moment, and what changes do to them.

The storages of a program are live over intervals of steps. A change gives some of them other intervals, and the bytes
at every time follow exactly:

    as it is        x ├──────────────────────┤        peak where all three are live
                    y     ├──────────┤
                    z          ├─────────────────┤
    x in a gap      x ├───┤              ├───┤        computed again, or brought back, before its next use
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import AccessKind, FlatProgram
from memplan.compiler.analysis.takeover import Takeover, takeovers_of_xla

Integers = NDArray[np.int64]
Interval = tuple[int, int]


@dataclass(frozen=True)
class Change:
    """What is live when, where it differs from the program.

    Attributes:
      intervals: storage to the half-open intervals of steps in which it is live; none if it is not there at all.
      extra: `(start, end, bytes)` that are needed besides.
    """

    intervals: Mapping[int, Sequence[Interval]] = field(default_factory=dict)
    extra: tuple[tuple[int, int, int], ...] = ()


class Occupancy:
    """The bytes of each memory over time.

    What a storage holds no content in is free, and a result lies in the memory of an operand that ends where XLA would
    let it: with both, this is what XLA's own assignment has in use. An argument that is copied in slices takes the
    memory of each slice from the start of that slice's copy.

    Args:
      program: the flattened program.
      reserved: XLA's number of a memory to the bytes that steps keep for themselves there, `[num_steps + 1] int64`.
      taken: takeovers to count on; by default those that XLA makes.
    """

    def __init__(
        self,
        program: FlatProgram,
        reserved: Mapping[int, Integers] | None = None,
        taken: Iterable[Takeover] | None = None,
    ):
        self.program = program
        self.moments = len(program.steps) + 1
        self.reserved = dict(reserved or {})
        chosen = takeovers_of_xla(program) if taken is None else tuple(taken)
        self._by_operand = {takeover.operand: takeover for takeover in chosen}
        self._by_result = {takeover.result: takeover for takeover in chosen}
        self._arriving = _arriving(program)
        self._change: dict[int, Integers] = {}
        self._across: dict[int, Integers] = {}

    @property
    def memory_spaces(self) -> list[int]:
        """XLA's numbers of the memories in which the program has anything, ascending."""
        return sorted({storage.memory_space for storage in self.program.storages if storage.size})

    def intervals(self, storage: int) -> list[Interval]:
        """Returns when a storage is live, as the program stands."""
        described = self.program.storages[storage]
        edges = [described.start, *(edge for hole in described.holes for edge in hole), described.end]
        return list(zip(edges[0::2], edges[1::2], strict=True))

    def live(self, memory_space: int, change: Change | None = None) -> Integers:
        """Returns the bytes in use at each time, `[num_steps + 1]`; the last entry is the moment after the end."""
        difference = self._difference(memory_space)
        if change is not None:
            difference = difference.copy()
            self._apply(memory_space, change, difference)
        live = np.cumsum(difference)[: self.moments]
        return live + self.reserved[memory_space] if memory_space in self.reserved else live

    def across(self, memory_space: int, change: Change | None = None) -> Integers:
        """Returns the bytes of what is live both just before each time and at it, `[num_steps + 1]`.

        They are in use between two steps, where a change may put operations.
        """
        change = change or Change()
        known = self._across.get(memory_space)
        if known is None:
            known = np.zeros(self.moments + 2, np.int64)
            for number, storage in enumerate(self.program.storages):
                if storage.memory_space == memory_space and storage.size:
                    self._add_across(known, storage.size, self.intervals(number), 1)
            self._across[memory_space] = known
        difference = known.copy()
        for number, intervals in change.intervals.items():
            storage = self.program.storages[number]
            if storage.memory_space == memory_space:
                self._add_across(difference, storage.size, self.intervals(number), -1)
                self._add_across(difference, storage.size, intervals, 1)
        for start, end, size in change.extra:
            self._add_across(difference, size, [(start, end)], 1)
        return np.cumsum(difference)[: self.moments]

    def _add_across(self, difference: Integers, size: int, intervals: Iterable[Interval], sign: int) -> None:
        for start, end in intervals:
            if end > start:
                difference[start + 1] += sign * size
                difference[end] -= sign * size

    def peak(self, memory_space: int, change: Change | None = None) -> int:
        """Returns the most bytes that are in use at one time."""
        return int(np.max(self.live(memory_space, change), initial=0))

    def standing(self, memory_space: int, time: int) -> list[tuple[int, int]]:
        """Returns `(storage, bytes)` of all that is in use at a time, in order of storages.

        The bytes, and those that the step reserves, add up to `live(memory_space)[time]`. A result in the memory of an
        operand that ends with the step takes 0 bytes.
        """
        found = []
        for number, storage in enumerate(self.program.storages):
            if storage.memory_space != memory_space or not storage.size or not storage.start <= time < storage.end:
                continue
            taken = self._by_result.get(number)
            if taken is not None and taken.time == time:
                found.append((number, 0))
            elif any(start <= time < end for start, end in self.intervals(number)):
                found.append((number, self._arrived(number, time)))
        return found

    def _arrived(self, storage: int, time: int) -> int:
        size = self.program.storages[storage].size
        return size - sum(bytes_ for start, bytes_ in self._arriving.get(storage, ()) if start > time)

    def _difference(self, memory_space: int) -> Integers:
        """Returns what is added and taken at each time, `[num_steps + 2]`."""
        known = self._change.get(memory_space)
        if known is None:
            known = np.zeros(self.moments + 1, np.int64)
            for number, storage in enumerate(self.program.storages):
                if storage.memory_space == memory_space and storage.size:
                    self._add(known, number, self.intervals(number), 1)
                    self._arrive(known, number, 1)
            for takeover in self._by_result.values():
                if self.program.storages[takeover.result].memory_space == memory_space:
                    self._take(known, takeover, 1)
            self._change[memory_space] = known
        return known

    def _apply(self, memory_space: int, change: Change, difference: Integers) -> None:
        storages = self.program.storages
        touched = [number for number in change.intervals if storages[number].memory_space == memory_space]
        for number in touched:
            self._add(difference, number, self.intervals(number), -1)
            self._arrive(difference, number, -1)
            self._add(difference, number, change.intervals[number], 1)
        pairs = {self._by_operand[number] for number in touched if number in self._by_operand}
        pairs |= {self._by_result[number] for number in touched if number in self._by_result}
        for takeover in pairs:
            self._take(difference, takeover, -1)
            operand = change.intervals.get(takeover.operand, self.intervals(takeover.operand))
            result = change.intervals.get(takeover.result, self.intervals(takeover.result))
            if operand and result and operand[-1][1] == takeover.time + 1 and result[0][0] == takeover.time:
                self._take(difference, takeover, 1)
        for start, end, size in change.extra:
            difference[start] += size
            difference[end] -= size

    def _add(self, difference: Integers, number: int, intervals: Iterable[Interval], sign: int) -> None:
        size = self.program.storages[number].size
        for start, end in intervals:
            difference[start] += sign * size
            difference[end] -= sign * size

    def _arrive(self, difference: Integers, number: int, sign: int) -> None:
        """Takes off what a storage that is filled in slices does not have yet."""
        for time, size in self._arriving.get(number, ()):
            difference[self.program.storages[number].start] -= sign * size
            difference[time] += sign * size

    def _take(self, difference: Integers, takeover: Takeover, sign: int) -> None:
        """Takes off the bytes of a result for the step in which its operand ends."""
        size = self.program.storages[takeover.result].size
        difference[takeover.time] -= sign * size
        difference[takeover.time + 1] += sign * size


def _arriving(program: FlatProgram) -> dict[int, list[tuple[int, int]]]:
    """Returns for storages that are filled in slices `(time, bytes)` of the slices that start after the first one."""
    starts: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for access in program.accesses:
        if access.kind is AccessKind.WRITE and access.time < len(program.steps) and access.bytes:
            if program.steps[access.time].instruction.opcode == "slice-start":
                starts[access.storage].append((access.time, access.bytes))
    arriving = {}
    for number, slices in starts.items():
        storage = program.storages[number]
        if sum(size for _, size in slices) == storage.size and not storage.holes:
            arriving[number] = [(time, size) for time, size in slices if time > storage.start]
    return arriving
