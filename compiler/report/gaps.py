"""When the buffers at a peak are not in use, and which operations could make one again.

The peak lies between two uses of a buffer, in its *gap*:

    x ├──use──── gap ────use──┤
                  ▲ peak
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from memplan.compiler.analysis.occupancy import Interval, Occupancy
from memplan.compiler.analysis.program import AccessKind, RegionKind, repetitions

# They may not run twice, or what they do is no computation.
_ONCE = frozenset(
    {
        "after-all", "async-done", "async-start", "async-update", "call", "conditional", "copy-done", "copy-start",
        "infeed", "outfeed", "parameter", "recv", "recv-done", "rng", "rng-bit-generator", "rng-get-and-update-state",
        "send", "send-done", "slice-done", "slice-start", "while",
    }
)  # fmt: skip
_BETWEEN_DEVICES = ("all-", "collective-", "reduce-scatter", "ragged-")


@dataclass(frozen=True)
class PeakGap:
    """Steps in which nothing accesses a storage, half-open, and how often one run of the program passes them."""

    start: int
    end: int
    runs: float


class Gaps:
    """Knows the accesses of a program around the peak of one memory.

    Args:
      occupancy: of the program.
      memory_space: XLA's number of the memory.
      time: of the peak.
      buffer_of: `[num_storages]` number of the buffer that a storage, and the copies of it in other memories, are of;
        None where each is by itself.
    """

    def __init__(self, occupancy: Occupancy, memory_space: int, time: int, buffer_of: Sequence[int] | None = None):
        self.occupancy, self.memory_space, self.time = occupancy, memory_space, time
        self.program = occupancy.program
        self.runs = repetitions(self.program.regions)
        self._copies: dict[int, list[int]] = defaultdict(list)
        self._buffer_of = buffer_of
        for number, buffer in enumerate(buffer_of or ()):
            self._copies[buffer].append(number)
        self._accessed: dict[int, list[int]] = defaultdict(list)
        self._written: dict[int, list[int]] = defaultdict(list)
        self.touched: dict[int, list[tuple[int, AccessKind]]] = defaultdict(list)
        for access in self.program.accesses:
            if not self._accessed[access.storage] or self._accessed[access.storage][-1] != access.time:
                self._accessed[access.storage].append(access.time)
            if access.kind is not AccessKind.READ:
                self._written[access.storage].append(access.time)
            self.touched[access.time].append((access.storage, access.kind))

    def gap(self, storage: int) -> PeakGap | str:
        """Returns the gap between the uses of a storage in which the peak lies, or why there is none."""
        described = self.program.storages[storage]
        start, end = described.start, described.end
        inner = self.region(self.time)
        around = self._around(inner)
        for x in self._accessed[storage]:
            if x == self.time:
                return "in use at the peak"
            first, last = self._outside(x, around)
            if last <= self.time:
                start = max(start, last)
            elif first > self.time:
                end = min(end, first)
            else:
                return "in use at the peak"
        for number in around:
            region = self.program.regions[number]
            if region.kind is not RegionKind.LOOP:
                continue
            before, after = region.start < start, end < region.end
            if before != after:
                return "used in every iteration of the loop"
            if before:
                break  # Between two uses in one iteration.
        while inner > 0 and start <= self.program.regions[inner].start and self.program.regions[inner].end <= end:
            inner = self.program.regions[inner].parent
        return PeakGap(start, end, self.runs[inner])

    def region(self, time: int) -> int:
        """Returns the innermost region around a step."""
        return self.program.steps[time].region if time < len(self.program.steps) else 0

    def without(self, storage: int, gap: PeakGap) -> list[Interval]:
        """Returns when a storage is live if it is not in a gap."""
        kept = []
        for start, end in self.occupancy.intervals(storage):
            kept += [(start, min(end, gap.start)), (max(start, gap.end), end)]
        return [(start, end) for start, end in kept if start < end]

    def makers(self, storage: int) -> set[int]:
        """Returns the steps that write a storage, or a copy of it in another memory, other than by copying one."""
        return {time for copy in self.copies(storage) for time in self._written[copy] if not self._is_copy(time)}

    def given(self, storage: int) -> str:
        """Returns why no operation makes a storage; "" if one does."""
        described = self.program.storages[storage]
        return "given by the caller" if described.parameters else "a constant" if described.is_constant else ""

    def repeatable(self, storage: int, again: int) -> int | str:
        """Returns the step that makes a storage, if it may run once more just before some step; else why not."""
        if given := self.given(storage):
            return given
        makers = self.makers(storage)
        if len(makers) != 1:
            return "written more than once"
        (time,) = makers
        if time >= again or self.region(time) not in self._around(self.region(self.time)):
            return "made in a loop or branch"
        instruction = self.program.steps[time].instruction
        once = instruction.opcode in _ONCE or instruction.opcode.startswith(_BETWEEN_DEVICES)
        if once or instruction.attribute("custom_call_has_side_effect") == "true":
            return f"made by {instruction.opcode}, which is not repeated"
        for other, kind in self.touched[time]:
            if kind is AccessKind.UPDATE:
                return "made by an update in place"
            if kind is AccessKind.READ:
                source = self.here(other, again)
                later = self._written[other if source is None else source]
                if bisect_left(later, time + 1) < bisect_left(later, again + 1):
                    return "made of what is overwritten later"
        return time

    def copies(self, storage: int) -> Sequence[int]:
        """Returns a storage and the copies of it in other memories."""
        return (storage,) if self._buffer_of is None else self._copies[self._buffer_of[storage]]

    def here(self, storage: int, until: int) -> int | None:
        """Returns the storage in this memory that holds what a storage does before some time; None if none does."""
        for copy in (storage, *self.copies(storage)):
            described = self.program.storages[copy]
            if described.memory_space == self.memory_space and described.start < until:
                return copy
        return None

    def size(self, storage: int) -> int:
        """Returns the bytes that a storage takes of this memory."""
        described = self.program.storages[storage]
        return described.size if described.memory_space == self.memory_space else 0

    def _around(self, region: int) -> list[int]:
        """Returns a region and those around it, innermost first."""
        found = []
        while region >= 0:
            found.append(region)
            region = self.program.regions[region].parent
        return found

    def _outside(self, time: int, around: Sequence[int]) -> Interval:
        """Returns the steps that an access stands for: all of the outermost region around it without the peak."""
        interval = (time, time + 1)
        for number in self._around(self.region(time)):
            if number in around:
                break
            interval = (self.program.regions[number].start, self.program.regions[number].end)
        return interval

    def _is_copy(self, time: int) -> bool:
        """Whether a step copies a buffer to another memory."""
        if self._buffer_of is None:
            return False
        read = {self._buffer_of[storage] for storage, kind in self.touched[time] if kind is AccessKind.READ}
        return any(kind is not AccessKind.READ and self._buffer_of[s] in read for s, kind in self.touched[time])
