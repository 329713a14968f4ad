"""From a solution of the relaxation to decisions: which runs of accesses get a stay, and when their copies are made.

The relaxation says which accesses a fast memory serves, over which gaps values are kept, and in which windows of time
copies move. All copies are scheduled as late as their windows allow, by the rule of earliest due dates in reverse time
(Jackson, 1955). An eviction may then be done where it no longer moves, and a prefetch may start where it begins to
move, so that they take little memory. Where more is in memory than it holds, which the sums of the relaxation do not
see, prefetches start later or a run is given up.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.problem import Link
from memplan.planners.ilp.linear import ZERO
from memplan.planners.ilp.model import Relaxation
from memplan.planners.ilp.values import Gap
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.item_runs import ItemRun, RunCopy, commit, note_late
from memplan.planners.stays.rules import Rules, writer_to_evict
from memplan.planners.stays.tables import NONE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A copy moves in a node if more than this part of it does; less is a solver's tolerance.
_TRACE = 1e-6


def _scheduled_late(copies: Sequence[RunCopy], left: Floats) -> tuple[list[int], list[int]]:
    """Returns `(begins, ends)`: the positions in which each copy moves, as late in its window as the idle time allows.

    Time is walked backwards, and of the copies whose windows are open the one with the latest start comes first.

    Args:
      copies: with their windows.
      left: `[num_positions]` idle seconds; what is used is taken off.
    """
    begins, ends = [copy.high for copy in copies], [copy.low for copy in copies]
    wanted = [copy.seconds for copy in copies]
    by_high = sorted(range(len(copies)), key=lambda number: (copies[number].high, copies[number].low))
    open_copies: list[tuple[int, int, int]] = []  # the latest low position first, then the latest high one
    for position in range(len(left) - 1, -1, -1):
        while by_high and copies[by_high[-1]].high >= position:
            number = by_high.pop()
            heapq.heappush(open_copies, (-copies[number].low, -copies[number].high, number))
        while open_copies and -open_copies[0][0] > position:
            number = heapq.heappop(open_copies)[2]
            begins[number] = copies[number].low
        while open_copies and left[position] > 0.0:
            number = open_copies[0][2]
            used = min(left[position], wanted[number])
            left[position] -= used
            wanted[number] -= used
            begins[number], ends[number] = position, max(ends[number], position + 1)
            if wanted[number] > 0.0:
                break
            heapq.heappop(open_copies)
    return begins, ends


class Realization:
    """One solution, as decisions on one fast space.

    Args:
      frame: what to decide on.
      model: the relaxation.
      solution: `[num_columns]`.
    """

    def __init__(self, frame: Frame, model: Relaxation, solution: Floats):
        self.frame, self.model, self.solution = frame, model, solution
        self.chains, self.slots, self.tables = frame.chains, frame.slots, frame.tables
        self.gaps = {(gap.buffer, gap.region, gap.access): gap for gap in model.gaps}

    def decisions(self, rules: Rules, emulator: TimingEmulator) -> Decisions:
        """Returns the decisions, in which no more is in memory at any time than it holds, by the sum of sizes."""
        items = self.items()
        made = Decisions(self.frame, rules, self._kept(items))
        runs = self._with_copies(items, made.kept_item)
        self._schedule(runs, emulator)
        self._relieve(runs, made.tables.free.copy())
        commit(made, runs)
        note_late(made, emulator)
        return made

    def items(self) -> list[tuple[int, int]]:
        """Returns first and last items of the runs that get a stay."""
        found: list[tuple[int, int]] = []
        pending = np.flatnonzero(self.chains.parent == NONE).tolist()[::-1]
        while pending:
            chain = pending.pop()
            item, last = int(self.chains.first[chain]), int(self.chains.last[chain])
            while item < last:
                if not self._is_fast(chain, item):
                    pending += self._children(item)
                    item += 1
                    continue
                first = item
                while item + 1 < last and self._is_kept_before(chain, item + 1) and self._is_fast(chain, item + 1):
                    item += 1
                found.append((first, item))
                item += 1
        return found

    def accesses(self, item: int) -> list[int]:
        """Returns the numbers of an item's accesses."""
        return self.chains.accesses[self.chains.first_access[item] : self.chains.last_access[item]].tolist()

    def _children(self, item: int) -> list[int]:
        return self.chains.children[self.chains.first_child[item] : self.chains.last_child[item]].tolist()

    def gap_before(self, chain: int, item: int) -> Gap | None:
        """Returns the gap before an item of a chain; for the item after the last one, the gap to the region's end."""
        access = self.accesses(item)[0] if item < self.chains.last[chain] else NONE
        return self.gaps.get((int(self.chains.buffer[chain]), int(self.chains.region[chain]), access))

    def _is_kept_before(self, chain: int, item: int) -> bool:
        gap = self.gap_before(chain, item)
        return gap is not None and gap.kept.get(self.frame.space, ZERO).value(self.solution) > 0.5

    def _is_fast(self, chain: int, item: int) -> bool:
        """Whether all of an item can be served by a stay."""
        if self.tables.items["closed"][item]:
            return False
        if children := self._children(item):
            return all(self._is_fast_throughout(child) for child in children)
        for access in self.accesses(item):
            served = self.model.served.get(access, {}).get(self.frame.space, ZERO).value(self.solution)
            if served > 0.5:
                continue
            # A solution may serve a read at home although the value stays, where that costs no time.
            is_read = self.frame.problem.accesses[access][1].kind is AccessKind.READ
            stays = self._is_kept_before(chain, item) or (
                self._is_kept_before(chain, item + 1) and not self.chains.writes[item]
            )
            if not (is_read and stays):
                return False
        return True

    def _is_fast_throughout(self, chain: int) -> bool:
        items = range(self.chains.first[chain], self.chains.last[chain])
        return all(self._is_kept_before(chain, item) for item in range(items.start, items.stop + 1)) and all(
            self._is_fast(chain, item) for item in items
        )

    def _kept(self, items: list[tuple[int, int]]) -> int:
        """Returns the buffer that stays in fast memory between runs of the program; -1 for none."""
        for first, _ in items:
            chain = int(self.chains.chain[first])
            kept = self.model.kept_between_runs.get(int(self.chains.buffer[chain]), {}).get(self.frame.space, ZERO)
            if self.chains.first[chain] == first and self.chains.parent[chain] == NONE:
                if kept.value(self.solution) > 0.5:
                    return int(self.chains.buffer[chain])
        return NONE

    def _with_copies(self, items: list[tuple[int, int]], kept_item: int) -> list[ItemRun]:
        """Returns the runs whose copies are possible, with these copies, which are not scheduled yet."""
        chains, found = self.chains, []
        run_of: dict[int, ItemRun] = {}  # by item
        for first, last in sorted(items):
            run_of |= dict.fromkeys(range(first, last + 1), ItemRun(first, last, 0, 0))
        for first, last in sorted(items):
            run = run_of[first]
            run.start, run.end = int(chains.start[first]), int(chains.end[last])
            possible = True
            if first == kept_item:
                run.start = 0
            elif chains.reads[first]:
                run.prefetch = self._prefetch(first, run_of)
                possible = run.prefetch is not None
            if possible and self._writer_to_evict(run) != NONE:
                run.eviction = self._eviction(run, run_of)
                possible = run.eviction is not None
            if possible:
                found.append(run)
            else:
                for item in range(first, last + 1):
                    del run_of[item]
        return found

    def _writer_to_evict(self, run: ItemRun) -> int:
        """Returns the item of a run whose value must be brought home; -1 for none."""
        return int(writer_to_evict(self.tables.items, self.tables.chains, run.first, run.last))

    def _operation(self, slot: int, first: int) -> int:
        """Returns the last slot in [first, slot] that is an operation; -1 if there is none."""
        while slot >= first and not self.slots.is_operation[slot]:
            slot -= 1
        return slot if slot >= first else NONE

    def _link(self, is_prefetch: bool) -> Link | None:
        ends = (0, self.frame.space) if is_prefetch else (self.frame.space, 0)
        number = self.frame.problem.link_between.get(ends)
        return self.frame.problem.links[number] if number is not None else None

    def _seconds(self, item: int, is_prefetch: bool) -> float:
        """Returns how long a copy takes its channel, over all times that it is made."""
        link = self._link(is_prefetch)
        size = self.frame.sizes[self.chains.buffer[self.chains.chain[item]]]
        if link is None:
            return np.inf
        return float(size / link.bandwidth * self.tables.slots["repetitions"][self.chains.slot[item]])

    def _moving(self, gap: Gap | None, is_prefetch: bool) -> tuple[int, int] | None:
        """Returns the half-open positions in which a copy that is done in a gap moves; None if none does."""
        ends = (0, self.frame.space) if is_prefetch else (self.frame.space, 0)
        pieces = gap.moved.get(ends, []) if gap is not None else []
        busy = [(low, high) for low, high, part in pieces if part.value(self.solution) > _TRACE]
        return (busy[0][0], busy[-1][1]) if busy else None

    def _prefetch(self, first: int, run_of: dict[int, ItemRun]) -> RunCopy | None:
        """Returns the copy that fills a run."""
        chains, time = self.chains, self.slots.time
        chain = int(chains.chain[first])
        region_start = int(self.slots.first[chains.region[chain]])
        done, start = self._operation(int(chains.slot[first]), region_start), region_start
        writer = int(chains.writer[first])
        if writer != NONE:
            before = run_of.get(writer)
            if before is None:
                start = int(self.tables.items["ready"][writer])
            elif before.eviction is None:
                return None
            else:
                start = before.eviction.done
        while start <= done and not self.slots.is_operation[start]:
            start += 1
        seconds = self._seconds(first, True)
        if done == NONE or start > done or not np.isfinite(seconds):
            return None
        low, high = 2 * int(time[start]), 2 * int(time[done])
        moving = self._moving(self.gap_before(chain, first), True)
        if moving is not None:
            low = max(low, min(moving[0], high))
        return RunCopy(start, done, low, high, seconds)

    def _eviction(self, run: ItemRun, run_of: dict[int, ItemRun]) -> RunCopy | None:
        """Returns the copy that brings the value of a run home."""
        chains, time = self.chains, self.slots.time
        chain = int(chains.chain[run.last])
        region = chains.region[chain]
        first, last = int(self.slots.first[region]), int(self.slots.last[region])
        writer = self._writer_to_evict(run)
        done = self._operation(last - 1, first)
        for following in range(run.last + 1, int(chains.last[chain])):
            other = run_of.get(following)
            if other is None:
                done = min(done, self._operation(int(self.tables.items["wanted"][following]), first))
            elif other.first == following and chains.reads[following]:
                done = min(done, self._operation(int(chains.slot[following]), first))
            if chains.writes[following]:
                break
        start = int(chains.slot[writer]) + 1
        while start <= done and not self.slots.is_operation[start]:
            start += 1
        seconds = self._seconds(run.last, False)
        if start > done or not np.isfinite(seconds):
            return None
        low, high = 2 * int(time[start]), 2 * int(time[done])
        for item in range(writer + 1, int(chains.last[chain]) + 1):
            moving = self._moving(self.gap_before(chain, item), False)
            if moving is not None:
                high = min(high, max(low, moving[1]))
                break
        end = start
        while end < done and (2 * time[end] < high or not self.slots.is_operation[end]):
            end += 1
        return RunCopy(start, end, low, high, seconds)

    def _schedule(self, runs: list[ItemRun], emulator: TimingEmulator) -> None:
        """Sets the starts of prefetches, the ends of evictions, and the times of the stays."""
        left, duration = self._idle(runs, emulator)
        time, is_operation = self.slots.time, self.slots.is_operation
        elapsed = np.concatenate([[0.0], np.cumsum(duration)])
        into, back = self._link(True), self._link(False)
        copies = [copy for run in runs for copy in (run.prefetch, run.eviction) if copy is not None]
        begins, ends = _scheduled_late(copies, left)
        times = dict(zip(map(id, copies), zip(begins, ends, strict=True), strict=True))
        for run in runs:
            if (eviction := run.eviction) is not None and back is not None:
                end = eviction.start
                arrived = elapsed[time[eviction.start]] + back.latency
                while end < eviction.done and (
                    2 * time[end] < times[id(eviction)][1] or elapsed[time[end]] < arrived or not is_operation[end]
                ):
                    end += 1
                eviction.done = end
                run.end = max(run.end, int(time[end]), int(time[eviction.start]) + 1)
            if (prefetch := run.prefetch) is not None and into is not None:
                begin = times[id(prefetch)][0]
                # The first byte comes a latency after the start.
                ready = elapsed[begin // 2] - into.latency
                start = prefetch.done
                while start > prefetch.start and (
                    2 * time[start] > begin or elapsed[time[start]] > ready or not is_operation[start]
                ):
                    start -= 1
                prefetch.start = start
                run.start = int(time[start])

    def _idle(self, runs: list[ItemRun], emulator: TimingEmulator) -> tuple[Floats, Floats]:
        """Returns what is idle or waited at each position, repetitions included, and how long operations take."""
        served = self.frame.served.copy()
        for run in runs:
            first, last = self.chains.first_access[run.first], self.chains.last_access[run.last]
            served[self.chains.accesses[first:last]] = self.frame.space
        duration, idle_fraction, _ = emulator.durations(served)
        problem = self.frame.problem
        links = (problem.link_between.get((0, self.frame.space)), problem.link_between.get((self.frame.space, 0)))
        channel = next((problem.links[link].channel for link in links if link is not None), 0)
        left = np.zeros(2 * problem.end + 1)
        left[1::2] = duration * idle_fraction[:, channel] * self.tables.operations["repetitions"]
        for position, wait in self.model.waits.items():
            left[position] = max(wait.value(self.solution), 0.0) * self.model.unit
        return left, duration

    def _relieve(self, runs: list[ItemRun], free: Integers) -> None:
        """Lets prefetches start later, and gives up runs, where more is in memory than it holds."""
        sizes = self.tables.buffers["size"][self.chains.buffer[self.chains.chain]]
        for run in runs:
            free[run.start : run.end] -= sizes[run.first]
        while (free < 0).any():
            at = int(np.argmin(free))
            there = [run for run in runs if run.start <= at < run.end]
            arriving = [run for run in there if self._can_start_after(run, at)]
            if arriving:
                run = max(arriving, key=lambda run: (run.start, int(sizes[run.first]), run.first))
                assert run.prefetch is not None
                begins = run.start
                while run.start <= at or not self.slots.is_operation[run.prefetch.start]:
                    run.prefetch.start += 1
                    run.start = int(self.slots.time[run.prefetch.start])
                free[begins : run.start] += sizes[run.first]
                continue
            # To free more than the excess is worth no more.
            helps = {run.first: float(min(sizes[run.first], -free[at])) for run in there}
            run = min(there, key=lambda run: (self._gain(run) / helps[run.first], run.first))
            free[run.start : run.end] += sizes[run.first]
            runs.remove(run)

    def _can_start_after(self, run: ItemRun, at: int) -> bool:
        """Whether a run's prefetch is in flight at a time, and can also start after it."""
        return run.prefetch is not None and at < self.slots.time[run.prefetch.done]

    def _gain(self, run: ItemRun) -> float:
        """Returns the seconds of memory time that a run saves."""
        first, last = self.chains.first_access[run.first], self.chains.last_access[run.last]
        accesses = self.tables.accesses[self.chains.accesses[first:last]]
        return float(accesses["saving"] @ self.tables.operations["repetitions"][accesses["time"]])
