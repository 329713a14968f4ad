"""Computing buffers again after a peak, by as long a chain of operations as it takes.

A buffer is dropped in its gap (`gaps.py`) and made again just before its next use, by the operation that made it first.
What that operation reads is there, is kept until then, or is itself made again first, and so on:

    x ├────────────────────────────       there anyway
    a    ├──┤                  ╎a╎        made again of x, for b alone
    b       ├──use── gap ──────╎b├──use   made again of a
                      ▲ peak   ▲
                               a chain of two operations, between two steps of the program

While a chain runs, the memory holds what is live before and after, and what the chain has made and still needs. This
is exact but for results that could lie in the memory of an operand that ends: a chain counts both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from memplan.compiler.analysis.occupancy import Change, Interval
from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.report.gaps import Gaps, PeakGap

# Operations of one chain. What would take more is kept instead.
_LONGEST_CHAIN = 256


@dataclass(frozen=True)
class Recomputation:
    """Some buffers that are dropped while a peak lasts.

    Attributes:
      buffers: how many of them can be made again.
      peak: bytes of the memory's peak then, wherever that is.
      seconds: of the operations that run again, in one run of the program.
      operations: that run again: each of a chain once.
      obstacles: why the others cannot be made again.
    """

    buffers: int
    peak: int
    seconds: float
    operations: int
    obstacles: tuple[str, ...]


def recomputed(gaps: Gaps, seconds: Sequence[float], storages: Iterable[int], kept_share: float) -> Recomputation:
    """Returns what it is worth to make storages again.

    Args:
      gaps: of the program, around the peak.
      seconds: `[num_steps]` that each step takes.
      storages: to be dropped.
      kept_share: what is read by a chain and would end before the peak is kept if its bytes are at most this part of
        those of the smallest storage that the chain is for; more than that is made again. Infinity keeps all.
    """
    plan = _Plan(gaps, seconds, kept_share)
    for storage in storages:
        plan.drop(storage)
    plan.shorten()
    by_step: dict[int, list[int]] = defaultdict(list)
    for storage, gap in plan.dropped.items():
        by_step[gap.end].append(storage)
    for again, targets in sorted(by_step.items()):
        plan.make(again, targets)
    return Recomputation(len(plan.dropped), plan.peak(), plan.seconds, plan.operations, tuple(plan.obstacles))


@dataclass
class _Plan:
    """What is dropped, made again, and kept for it."""

    gaps: Gaps
    seconds_of: Sequence[float]
    kept_share: float
    dropped: dict[int, PeakGap] = field(default_factory=dict)
    maker: dict[int, int] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)  # storages to the time until which they stay
    stored: dict[int, int] = field(default_factory=dict)  # the same of storages of other memories
    chains: list[tuple[int, int]] = field(default_factory=list)  # step before which a chain runs, most bytes it makes
    obstacles: list[str] = field(default_factory=list)
    seconds: float = 0.0
    operations: int = 0

    def drop(self, storage: int) -> None:
        """Drops a storage in its gap, if it can be made again after it."""
        if given := self.gaps.given(storage):
            self.obstacles.append(given)
            return
        gap = self.gaps.gap(storage)
        if isinstance(gap, str):
            self.obstacles.append(gap)
            return
        maker = self.gaps.repeatable(storage, gap.end)
        if isinstance(maker, str):
            self.obstacles.append(maker)
        elif gap.end >= self.gaps.program.storages[storage].end or maker >= gap.start:
            self.obstacles.append("not needed after the peak")
        else:
            self.dropped[storage], self.maker[storage] = gap, maker

    def shorten(self) -> None:
        """Makes again earlier what other dropped storages are made of, until all are made before they are read."""
        waiting = list(self.dropped)
        while waiting:
            storage = waiting.pop()
            again = self.dropped[storage].end
            for read, kind in self.gaps.touched[self.maker[storage]]:
                source = self.gaps.here(read, again) if kind is AccessKind.READ else None
                if source in self.dropped and self.dropped[source].start <= again < self.dropped[source].end:
                    self.dropped[source] = PeakGap(self.dropped[source].start, again, self.dropped[source].runs)
                    waiting.append(source)

    def make(self, again: int, targets: Sequence[int]) -> None:
        """Makes dropped storages again by one chain, just before a step."""
        made = set(targets)
        chain: set[int] = set()
        least = min(self.gaps.size(target) for target in targets)
        waiting = [self.maker[target] for target in targets]
        while waiting:
            time = waiting.pop()
            if time in chain:
                continue
            chain.add(time)
            for read, kind in self.gaps.touched[time]:
                if kind is not AccessKind.READ:
                    continue
                source = self.gaps.here(read, again)
                if source in made or (source is None and read in made) or self._is_there(source, again):
                    continue
                maker = None if len(chain) >= _LONGEST_CHAIN else self._worth_making(read, source, again, least)
                if maker is not None:
                    made.add(read if source is None else source)
                    waiting.append(maker)
                elif source is None:
                    self.stored[read] = max(self.stored.get(read, 0), again + 1)
                else:
                    self.kept[source] = max(self.kept.get(source, 0), again + 1)
        runs = max(self.dropped[target].runs for target in targets)
        self.seconds += runs * sum(self.seconds_of[time] for time in chain)
        self.operations += len(chain)
        self.chains.append((again, self._most_bytes(sorted(chain), made, targets)))

    def _is_there(self, source: int | None, again: int) -> bool:
        """Whether a storage holds its value just before a step and at it."""
        if source is None:
            return False
        if source in self.dropped:
            return self.dropped[source].end < again < self.gaps.program.storages[source].end
        return any(start < again < end for start, end in self.gaps.occupancy.intervals(source))

    def _worth_making(self, read: int, source: int | None, again: int, least: int) -> int | None:
        """Returns the step that makes again what a chain reads; None if that is rather kept until then."""
        if source is not None and (source in self.dropped or self.gaps.program.storages[source].end > self.gaps.time):
            return None  # It is there at the peak anyway, or made again after it.
        if self.gaps.program.storages[read].size <= self.kept_share * least:
            return None
        maker = self.gaps.repeatable(read, again)
        return None if isinstance(maker, str) else maker

    def _most_bytes(self, chain: Sequence[int], made: set[int], targets: Sequence[int]) -> int:
        """Returns the most bytes that a chain needs at one time of what it makes and keeps for itself."""
        last: dict[int, int] = {}
        for time in chain:
            last |= {storage: time for storage, kind in self.gaps.touched[time] if kind is AccessKind.READ}
        final = {copy: target for target in targets for copy in self.gaps.copies(target)}
        reserved = self.gaps.occupancy.reserved.get(self.gaps.memory_space)
        holds: dict[int, int] = {}
        most = 0
        for time in chain:
            for storage, kind in self.gaps.touched[time]:
                if kind is AccessKind.WRITE:
                    storage = final.get(storage, storage)
                    is_here = storage in made or self.gaps.size(storage)
                    holds[storage] = self.gaps.program.storages[storage].size if is_here else 0
            most = max(most, sum(holds.values()) + (int(reserved[time]) if reserved is not None else 0))
            holds = {each: size for each, size in holds.items() if each in targets or last.get(each, -1) > time}
        return most

    def peak(self) -> int:
        """Returns the peak of the memory with all of that."""
        gaps = self.gaps
        intervals: dict[int, Sequence[Interval]] = {
            storage: _extended(gaps.without(storage, gap), self.kept.get(storage, 0))
            for storage, gap in self.dropped.items()
        }
        for storage, end in self.kept.items():
            if storage not in intervals:
                intervals[storage] = _until(gaps.occupancy.intervals(storage), end)
        storages = gaps.program.storages
        extra = tuple((storages[each].start, end, storages[each].size) for each, end in self.stored.items())
        change = Change(intervals, extra)
        return max(gaps.occupancy.peak(gaps.memory_space, change), self._peak_of_chains(change))

    def _peak_of_chains(self, change: Change) -> int:
        across = self.gaps.occupancy.across(self.gaps.memory_space, change)
        return max((int(across[again]) + most for again, most in self.chains), default=0)


def _until(intervals: Sequence[Interval], end: int) -> list[Interval]:
    """Returns intervals that go on, without a gap, to a time at least."""
    if intervals[-1][1] >= end and len(intervals) == 1:
        return list(intervals)
    inside = [interval for interval in intervals if interval[0] > end]
    return [(intervals[0][0], max(end, *(last for first, last in intervals if first <= end))), *inside]


def _extended(intervals: list[Interval], end: int) -> list[Interval]:
    """Returns intervals whose last one goes on to a time at least."""
    return [*intervals[:-1], (intervals[-1][0], max(intervals[-1][1], end))]
