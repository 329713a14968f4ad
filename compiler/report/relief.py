"""Relief: what a peak would be without some of the buffers that stand there, and what it would cost to be rid of them.

Every peak here is recomputed from the live ranges of the whole program with the change made (`analysis/occupancy.py`):

    without            the buffers are not there at all: no change of these buffers alone can save more
    computed again     dropped after their last use before the peak, made again before the next one by as long a chain
                       of operations as that takes (`recomputing.py`)
    on the host        copied out after their last use before the peak, and back before the next one
    donated            results lie in the memory of arguments of the same shape that are not read after they are made,
                       and meanwhile that holds nothing
    reordered          the same program in the order of least memory that `ir/memory_order.py` finds

Times are those of the cost model, or of the compiler's own estimates where the module carries them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.occupancy import Change, Interval, Occupancy
from memplan.compiler.analysis.program import FlatProgram
from memplan.compiler.hardware.host import host_links
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.ir.runtime import is_for_tflite
from memplan.compiler.mapping.memories import in_memories_of
from memplan.compiler.report.buffers import BufferDescription, BufferKind
from memplan.compiler.report.gaps import Gaps, PeakGap
from memplan.compiler.report.recomputing import recomputed

# Parts of a dropped buffer up to which what it is made of is kept: all that ends before the peak, little, or nothing.
_KEPT_SHARES = (math.inf, 0.1, 0.0)

# A way that lowers a peak by less than this part of what the best way does, or of the peak, is none.
_ENOUGH, _NOTABLE = 0.5, 0.001


@dataclass(frozen=True)
class Way:
    """One way to be rid of some buffers while the peak lasts.

    Attributes:
      buffers: how many of them it is possible for.
      peak: bytes of the memory's peak then, wherever that is.
      seconds: what it takes in one run of the program.
      passing: for copies, seconds that the operations between the uses of the buffers take: copies that take no longer
        may cost nothing.
      operations: for recomputation, how many run again.
      obstacle: why it is not possible for the others; "" if it is possible for all.
    """

    buffers: int
    peak: int
    seconds: float
    passing: float = 0.0
    operations: int = 0
    obstacle: str = ""

    @property
    def added_seconds(self) -> float:
        """What it costs: copies may hide behind the operations that pass meanwhile."""
        return max(self.seconds - self.passing, 0.0)


@dataclass(frozen=True)
class Relief:
    """What being rid of a group would be worth.

    Attributes:
      label: of the group.
      bytes: that it takes at the peak.
      without: bytes of the peak if it were not there.
      recompute: by computing it again.
      host: by copies to the memory of the host and back.
      donate: by donation of the arguments among them.
    """

    label: str
    bytes: int
    without: int
    recompute: Way
    host: Way
    donate: Way

    def cheapest(self, peak: int) -> tuple[str, Way] | None:
        """Returns the way that adds least time, "donate", "recompute" or "host", and what it does to a peak.

        It is one of those that lower the peak by a thousandth, and at least half as much as the best of the three does;
        None if none does.
        """
        ways = {"donate": self.donate, "recompute": self.recompute, "host": self.host}
        name = _cheapest(list(ways.values()), peak)
        return None if name is None else list(ways.items())[name]


def _cheapest(ways: Sequence[Way], peak: int) -> int | None:
    """Returns the number of the way that adds least time among those that lower a peak notably; None if none does."""
    lowered = [peak - way.peak if way.buffers else 0 for way in ways]
    enough = [number for number, by in enumerate(lowered) if by >= max(_ENOUGH * max(lowered), _NOTABLE * peak, 1)]
    return min(enough, key=lambda number: (ways[number].added_seconds, ways[number].peak), default=None)


@dataclass(frozen=True)
class Donation:
    """An argument whose memory a result could take.

    Attributes:
      argument, result: storages.
      size: bytes.
      last_read: step that reads the argument last; -1 if none does.
    """

    argument: int
    result: int
    size: int
    last_read: int


class Reliefs:
    """Asks what changes would do to the peak of one memory.

    Args:
      occupancy: of the program.
      memory_space: XLA's number of the memory.
      time: of the peak.
      seconds: `[num_steps]` that each step takes.
      target: says what a copy to the host takes.
      donated: arguments that could be donated.
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
        donated: Iterable[Donation] = (),
        buffer_of: Sequence[int] | None = None,
    ):
        self.occupancy, self.memory_space = occupancy, memory_space
        self.program, self.seconds = occupancy.program, seconds
        self.gaps = Gaps(occupancy, memory_space, time, buffer_of)
        self.donated = {donation.argument: donation for donation in donated}
        self.host = host_links(target)
        self.host_obstacle = f"{target.name} has no link to a host" if self.host is None else ""
        self.before = self._peak(Change())

    def of(self, label: str, size: int, storages: Sequence[int]) -> Relief:
        """Returns what being rid of storages that take `size` bytes at the peak would be worth."""
        without = self._peak(Change(dict.fromkeys(storages, ())))
        return Relief(label, size, without, self._recompute(storages), self._on_host(storages), self._donate(storages))

    def _peak(self, change: Change) -> int:
        return self.occupancy.peak(self.memory_space, change)

    def _recompute(self, storages: Sequence[int]) -> Way:
        ways = []
        for share in _KEPT_SHARES:
            found = recomputed(self.gaps, self.seconds, storages, share)
            obstacle = _most_frequent(found.obstacles)
            ways.append(Way(found.buffers, found.peak, found.seconds, 0.0, found.operations, obstacle))
            if not found.buffers:
                break
        return ways[_cheapest(ways, self.before) or 0]

    def _on_host(self, storages: Sequence[int]) -> Way:
        if self.host is None:
            return Way(0, self.before, 0.0, obstacle=self.host_obstacle)
        there, back = self.host
        intervals: dict[int, list[Interval]] = {}
        obstacles: list[str] = []
        seconds, between = 0.0, set[int]()
        for storage in storages:
            described = self.program.storages[storage]
            gap: PeakGap | str = "a constant" if described.is_constant else self.gaps.gap(storage)
            if isinstance(gap, str):
                obstacles.append(gap)
                continue
            intervals[storage] = self.gaps.without(storage, gap)
            between.update(range(gap.start, min(gap.end, len(self.seconds))))
            # An argument begins on the host, and what is not needed again stays there.
            if gap.start > described.start or not described.parameters:
                seconds += gap.runs * (there.latency + described.size / there.bandwidth)
            if gap.end < described.end:
                seconds += gap.runs * (back.latency + described.size / back.bandwidth)
        passing = sum(self.seconds[t] * self.gaps.runs[self.gaps.region(t)] for t in between)
        return Way(len(intervals), self._peak(Change(intervals)), seconds, passing, obstacle=_most_frequent(obstacles))

    def _donate(self, storages: Sequence[int]) -> Way:
        """A donated argument holds nothing between its last use and the result that then lies there."""
        found = [self.donated[storage] for storage in storages if storage in self.donated]
        intervals = {}
        for donation in found:
            result = self.program.storages[donation.result]
            intervals[donation.argument] = [(0, max(min(donation.last_read + 1, result.start), 1))]
        obstacle = "" if len(found) == len(storages) else "no argument, or no result can take its memory"
        return Way(len(found), self._peak(Change(intervals)), 0.0, obstacle=obstacle)


def _most_frequent(reasons: Sequence[str]) -> str:
    return max(dict.fromkeys(reasons), key=reasons.count, default="")


def donations(program: FlatProgram, descriptions: Sequence[BufferDescription], space: int) -> tuple[Donation, ...]:
    """Returns the arguments in a memory that could be donated and are not, the largest first.

    Each is matched with a result of the same data type and dimensions that is made when the argument has been read for
    the last time. Whether the caller needs the argument afterwards, only the caller knows. Arguments of a program for
    TensorFlow Lite are free after their last use as it is.
    """
    if is_for_tflite(program.graph):
        return ()
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
            found.append(Donation(dead[0], result, storage.size, last_read.get(dead[0], -1)))
    return tuple(sorted(found, key=lambda donation: -donation.size))


def results_to_come(program: FlatProgram, space: int, time: int, donated: Collection[int] = ()) -> int:
    """Returns the bytes of results that are not made yet at a time and lie in the memory of no donated argument.

    Runtimes of XLA allocate results before the program runs, TensorFlow Lite does not.
    """
    if is_for_tflite(program.graph):
        return 0
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


def order_peak(
    program: FlatProgram, target: Target, capacity_of: Callable[[int], int], pointer_bytes: int
) -> int | None:
    """Returns the peak of the main memory in the best order that is found; None if another memory overflows then."""
    space = target.number_of(target.home)
    reordered = Occupancy(in_memories_of(target, flatten(scheduled(program.graph), pointer_bytes)))
    before = Occupancy(program)
    for other in reordered.memory_spaces:
        if other != space and reordered.peak(other) > max(before.peak(other), capacity_of(other)):
            return None
    return reordered.peak(space)
