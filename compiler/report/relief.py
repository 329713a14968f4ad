"""Relief: what a peak would be without some of the buffers that stand there, and what it would cost to be rid of them.

Every peak here is recomputed from the live ranges of the whole program with the change made (`analysis/occupancy.py`):

    without            the buffers are not there at all: no change of these buffers alone can save more
    computed again     dropped after their last use before the peak, made again by the same operation before the next
                       one; what that operation reads is kept until then, and what else it writes is there once more
    on the host        copied out after their last use before the peak, and back before the next one
    donated            results lie in the memory of arguments of the same shape that are not read after they are made
    reordered          the same program in the order of least memory that `ir/memory_order.py` finds

Times are those of the cost model, or of the compiler's own estimates where the module carries them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.occupancy import Change, Interval, Occupancy
from memplan.compiler.analysis.program import AccessKind, FlatProgram, RegionKind, repetitions
from memplan.compiler.hardware.host import host_links
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.report.buffers import BufferDescription, BufferKind

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
class Way:
    """One way to be rid of some buffers while the peak lasts.

    Attributes:
      buffers: how many of them it is possible for.
      peak: bytes of the memory's peak then, wherever that is.
      seconds: what it takes in one run of the program.
      passing: for copies, seconds that the operations between the uses of the buffers take: copies that take no longer
        may cost nothing.
      obstacle: why it is not possible for the others; "" if it is possible for all.
    """

    buffers: int
    peak: int
    seconds: float
    passing: float = 0.0
    obstacle: str = ""


@dataclass(frozen=True)
class Relief:
    """What being rid of a group would be worth.

    Attributes:
      label: of the group.
      bytes: that it takes at the peak.
      without: bytes of the peak if it were not there.
      recompute: by computing it again.
      host: by copies to the memory of the host and back.
    """

    label: str
    bytes: int
    without: int
    recompute: Way
    host: Way


@dataclass(frozen=True)
class Donation:
    """An argument whose memory a result could take.

    Attributes:
      argument, result: storages.
      size: bytes.
    """

    argument: int
    result: int
    size: int


@dataclass(frozen=True)
class _Gap:
    """Steps in which nothing accesses a storage, half-open, and how often one run of the program passes them."""

    start: int
    end: int
    runs: float


class Reliefs:
    """Asks what changes would do to the peak of one memory.

    Args:
      occupancy: of the program.
      memory_space: XLA's number of the memory.
      time: of the peak.
      seconds: `[num_steps]` that each step takes.
      target: says what a copy to the host takes.
      buffer_of: `[num_storages]` number of the buffer that a storage, and the copies of it in other memories, are of;
        None where each is by itself.
    """

    def __init__(
        self,
        occupancy: Occupancy,
        memory_space: int,
        time: int,
        seconds: Sequence[float],
        target: Target,
        buffer_of: Sequence[int] | None = None,
    ):
        self.occupancy, self.memory_space, self.time = occupancy, memory_space, time
        self.program, self.seconds = occupancy.program, seconds
        self.host = host_links(target)
        self.host_obstacle = f"{target.name} has no link to a host" if self.host is None else ""
        self.runs = repetitions(self.program.regions)
        self.copies: dict[int, list[int]] = defaultdict(list)
        self.buffer_of = buffer_of
        for number, buffer in enumerate(buffer_of or ()):
            self.copies[buffer].append(number)
        self.accessed: dict[int, list[int]] = defaultdict(list)
        self.written: dict[int, list[int]] = defaultdict(list)
        self.touched: dict[int, list[tuple[int, AccessKind]]] = defaultdict(list)
        for access in self.program.accesses:
            if not self.accessed[access.storage] or self.accessed[access.storage][-1] != access.time:
                self.accessed[access.storage].append(access.time)
            if access.kind is not AccessKind.READ:
                self.written[access.storage].append(access.time)
            self.touched[access.time].append((access.storage, access.kind))

    def of(self, label: str, size: int, storages: Sequence[int]) -> Relief:
        """Returns what being rid of storages that take `size` bytes at the peak would be worth."""
        without = Change(dict.fromkeys(storages, ()))
        return Relief(label, size, self._peak(without), self._recompute(storages), self._on_host(storages))

    def _peak(self, change: Change) -> int:
        return self.occupancy.peak(self.memory_space, change)

    def _gap(self, storage: int) -> _Gap | str:
        """Returns the gap between the uses of a storage in which the peak lies, or why there is none."""
        described = self.program.storages[storage]
        start, end = described.start, described.end
        inner = self._region(self.time)
        around = self._around(inner)
        for x in self.accessed[storage]:
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
        return _Gap(start, end, self.runs[inner])

    def _region(self, time: int) -> int:
        return self.program.steps[time].region if time < len(self.program.steps) else 0

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
        for number in self._around(self._region(time)):
            if number in around:
                break
            interval = (self.program.regions[number].start, self.program.regions[number].end)
        return interval

    def _without_gap(self, storage: int, gap: _Gap) -> list[Interval]:
        kept = []
        for start, end in self.occupancy.intervals(storage):
            kept += [(start, min(end, gap.start)), (max(start, gap.end), end)]
        return [(start, end) for start, end in kept if start < end]

    def _on_host(self, storages: Sequence[int]) -> Way:
        if self.host is None:
            return Way(0, self._peak(Change()), 0.0, obstacle=self.host_obstacle)
        there, back = self.host
        intervals: dict[int, list[Interval]] = {}
        obstacles: list[str] = []
        seconds, between = 0.0, set[int]()
        for storage in storages:
            described = self.program.storages[storage]
            gap: _Gap | str = "a constant" if described.is_constant else self._gap(storage)
            if isinstance(gap, str):
                obstacles.append(gap)
                continue
            intervals[storage] = self._without_gap(storage, gap)
            between.update(range(gap.start, min(gap.end, len(self.seconds))))
            # An argument begins on the host, and what is not needed again stays there.
            if gap.start > described.start or not described.parameters:
                seconds += gap.runs * (there.latency + described.size / there.bandwidth)
            if gap.end < described.end:
                seconds += gap.runs * (back.latency + described.size / back.bandwidth)
        passing = sum(self.seconds[t] * self.runs[self._region(t)] for t in between)
        return Way(len(intervals), self._peak(Change(intervals)), seconds, passing, _most_frequent(obstacles))

    def _recompute(self, storages: Sequence[int]) -> Way:
        dropped: dict[int, _Gap] = {}
        maker: dict[int, int] = {}
        obstacles: list[str] = []
        for storage in storages:
            found = self._repeatable(storage)
            if isinstance(found, str):
                obstacles.append(found)
            else:
                dropped[storage], maker[storage] = found
        self._shorten(dropped, maker)
        kept: dict[int, int] = {}
        stored: dict[int, int] = {}
        extra: list[tuple[int, int, int]] = []
        seconds = 0.0
        made: dict[tuple[int, int], float] = {}
        for storage, gap in dropped.items():
            made[maker[storage], gap.end] = gap.runs
        for (time, again), runs in made.items():
            seconds += runs * self.seconds[time]
            beside = 0
            for other, kind in set(self.touched[time]):
                if kind is not AccessKind.READ:
                    if not any(copy in dropped and dropped[copy].end <= again for copy in self._copies(other)):
                        beside += self._size(other)
                    continue
                source = self._here(other, again)
                if source is None:
                    stored[other] = max(stored.get(other, 0), again + 1)
                elif source not in dropped:
                    kept[source] = max(kept.get(source, 0), again + 1)
            extra.append((again, again + 1, beside))
        intervals: dict[int, Sequence[Interval]] = {s: self._without_gap(s, gap) for s, gap in dropped.items()}
        for storage, end in kept.items():
            intervals[storage] = _until(self.occupancy.intervals(storage), end)
        extra += [(self.program.storages[s].start, end, self.program.storages[s].size) for s, end in stored.items()]
        change = Change(intervals, tuple(extra))
        return Way(len(dropped), self._peak(change), seconds, obstacle=_most_frequent(obstacles))

    def _size(self, storage: int) -> int:
        described = self.program.storages[storage]
        return described.size if described.memory_space == self.memory_space else 0

    def _repeatable(self, storage: int) -> tuple[_Gap, int] | str:
        """Returns the gap of a storage and the step that makes it again, or why it cannot be made again."""
        described = self.program.storages[storage]
        if described.parameters or described.is_constant:
            return "given by the caller" if described.parameters else "a constant"
        gap = self._gap(storage)
        if isinstance(gap, str):
            return gap
        writes = {time for copy in self._copies(storage) for time in self.written[copy] if not self._is_copy(time)}
        if len(writes) != 1:
            return "written more than once"
        (time,) = writes
        if gap.end >= described.end or time >= gap.start:
            return "not needed after the peak"
        if self._region(time) not in self._around(self._region(self.time)):
            return "made in a loop or branch"
        instruction = self.program.steps[time].instruction
        once = instruction.opcode in _ONCE or instruction.opcode.startswith(_BETWEEN_DEVICES)
        if once or instruction.attribute("custom_call_has_side_effect") == "true":
            return f"made by {instruction.opcode}, which is not repeated"
        for other, kind in self.touched[time]:
            if kind is AccessKind.UPDATE:
                return "made by an update in place"
            if kind is AccessKind.READ:
                source = self._here(other, gap.end)
                later = self.written[other if source is None else source]
                if bisect_left(later, time + 1) < bisect_left(later, gap.end + 1):
                    return "made of what is overwritten later"
        return gap, time

    def _copies(self, storage: int) -> Sequence[int]:
        """Returns a storage and the copies of it in other memories."""
        return (storage,) if self.buffer_of is None else self.copies[self.buffer_of[storage]]

    def _is_copy(self, time: int) -> bool:
        """Whether a step copies a buffer to another memory."""
        if self.buffer_of is None:
            return False
        read = {self.buffer_of[storage] for storage, kind in self.touched[time] if kind is AccessKind.READ}
        return any(kind is not AccessKind.READ and self.buffer_of[s] in read for s, kind in self.touched[time])

    def _here(self, storage: int, until: int) -> int | None:
        """Returns the storage in this memory that holds what a storage does before some time; None if none does."""
        for copy in (storage, *self._copies(storage)):
            described = self.program.storages[copy]
            if described.memory_space == self.memory_space and described.start < until:
                return copy
        return None

    def _shorten(self, dropped: dict[int, _Gap], maker: Mapping[int, int]) -> None:
        """Makes again earlier what others are made of, until all are made before they are read."""
        waiting = list(dropped)
        while waiting:
            storage = waiting.pop()
            again = dropped[storage].end
            for read, kind in self.touched[maker[storage]]:
                source = self._here(read, again) if kind is AccessKind.READ else None
                if source in dropped and dropped[source].start <= again < dropped[source].end:
                    dropped[source] = _Gap(dropped[source].start, again, dropped[source].runs)
                    waiting.append(source)


def _until(intervals: Sequence[Interval], end: int) -> list[Interval]:
    """Returns intervals that go on, without a gap, to a time at least."""
    if intervals[-1][1] >= end and len(intervals) == 1:
        return list(intervals)
    inside = [interval for interval in intervals if interval[0] > end]
    return [(intervals[0][0], max(end, *(last for first, last in intervals if first <= end))), *inside]


def _most_frequent(reasons: Sequence[str]) -> str:
    return max(dict.fromkeys(reasons), key=reasons.count, default="")


def donations(program: FlatProgram, descriptions: Sequence[BufferDescription], space: int) -> tuple[Donation, ...]:
    """Returns the arguments in a memory that could be donated and are not, the largest first.

    Each is matched with a result of the same data type and dimensions that is made when the argument has been read for
    the last time. Whether the caller needs the argument afterwards, only the caller knows.
    """
    last_read: dict[int, int] = {}
    for access in program.accesses:
        if access.time < len(program.steps):
            last_read[access.storage] = access.time
    free: dict[tuple[str, int], list[int]] = defaultdict(list)
    results: list[int] = []
    for number, (storage, described) in enumerate(zip(program.storages, descriptions, strict=True)):
        if storage.memory_space != space or not storage.size:
            continue
        if described.kind is BufferKind.ARGUMENT:
            free[described.shape, storage.size].append(number)
        elif described.kind is BufferKind.RESULT:
            results.append(number)
    found = []
    for result in sorted(results, key=lambda number: program.storages[number].start):
        storage = program.storages[result]
        candidates = free[descriptions[result].shape, storage.size]
        dead = [number for number in candidates if last_read.get(number, -1) <= storage.start]
        if dead:
            candidates.remove(dead[0])
            found.append(Donation(dead[0], result, storage.size))
    return tuple(sorted(found, key=lambda donation: -donation.size))


def results_to_come(program: FlatProgram, space: int, time: int, donated: Collection[int] = ()) -> int:
    """Returns the bytes of results that are not made yet at a time and lie in the memory of no donated argument."""
    return sum(
        storage.size
        for number, storage in enumerate(program.storages)
        if storage.result_indices and storage.memory_space == space and storage.start > time and number not in donated
    )


def needed_if_donated(occupancy: Occupancy, space: int, donated: Iterable[Donation]) -> int:
    """Returns the bytes of a memory that are needed if these arguments are donated, results to come included."""
    results = {donation.result for donation in donated}
    live = occupancy.live(space, Change(dict.fromkeys(results, ())))
    time = int(np.argmax(live))
    return int(live[time]) + results_to_come(occupancy.program, space, time, results)


def order_peak(program: FlatProgram, capacity_of: Callable[[int], int], space: int, pointer_bytes: int) -> int | None:
    """Returns the peak of a memory in the best order that is found; None if another memory overflows then."""
    reordered = Occupancy(flatten(scheduled(program.graph), pointer_bytes))
    before = Occupancy(program)
    for other in reordered.memory_spaces:
        if other != space and reordered.peak(other) > max(before.peak(other), capacity_of(other)):
            return None
    return reordered.peak(space)
