"""Small problems in one constraint program, which decides on stays, the times of their copies, and offsets together.

The other programs decide what stays in fast memory by sums of sizes, and offsets are found afterwards; where memory is
fragmented, the best stays may have none. Here a stay is an optional rectangle of time and offsets:

    offset                       x: whether it is made          no two rectangles overlap (no_overlap_2d),
      ▲   ┌──── stay ────┐       starts, dones: one of each     nor what operations reserve
      │   │ s         e  │
      └───┴─┴─────────┴──┴─► t   s, e: variables, as its prefetch starts and its eviction is done

The solver is CP-SAT (Perron and Didier, OR-Tools) with its two-dimensional no-overlap constraint; rectangles are
optional intervals (Laborie and Rogerie, "Reasoning with conditional time-intervals", 2008). Time is a fluid as in
`relaxation.py`, here for single operations: the copies made within a window of a region move in the idle time of the
window, and none is shorter than its latency and its bytes. The timing emulator scores the result.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.planners.ilp.model import longest, longest_durations
from memplan.planners.ilp.polish import Packed
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.item_runs import ItemRun, RunCopy, commit, note_late
from memplan.planners.stays.reserved import reserved_runs
from memplan.planners.stays.rules import Rules, until_next_run, writer_to_evict
from memplan.planners.stays.tables import NONE

# Problems with more operations or candidate stays than these are left to the other programs.
_MAX_OPERATIONS, _MAX_CANDIDATES = 64, 160

# Ticks of the clock in the time of the program; the price of a copy in ticks, so that none is made for nothing; and by
# how many ticks the sum of an operation's rounded parts may exceed its rounded duration.
_TICKS, _COPY_PRICE, _ROUNDING_TICKS = 10_000_000, 1, 8

# Seconds between looks at whether the user interrupts.
_PULSE = 0.05


@dataclass
class _Candidate:
    """A run of items that may get a stay, and its variables.

    Attributes:
      first, last: items.
      start, end: half-open times of its accesses.
      prefetch, eviction: the slots in which its copies can start and be done, `(start, done)`; None if it needs none.
      chosen: whether it gets the stay.
      prefetches, evictions: by copy, whether it is the one made.
      offset: in units of the alignment.
    """

    first: int
    last: int
    start: int
    end: int
    prefetch: list[tuple[int, int]] | None
    eviction: list[tuple[int, int]] | None
    chosen: Any = None
    prefetches: dict[tuple[int, int], Any] | None = None
    evictions: dict[tuple[int, int], Any] | None = None
    offset: Any = None


class Joint:
    """The constraint program of one fast space.

    Args:
      frame: what to decide on; no stays elsewhere.
      kept: argument that stays in fast memory between runs of the program; -1 for none.
    """

    def __init__(self, frame: Frame, kept: int):
        from ortools.sat.python import cp_model

        self.frame = frame
        self.chains, self.slots, self.problem = frame.chains, frame.slots, frame.problem
        self.made = Decisions(frame, Rules(), kept)
        self.model: Any = cp_model.CpModel()
        self.candidates = list(self._candidates())
        self._homes: list[Any] = []
        self._served: dict[int, list[Any]] = defaultdict(list)  # by access
        self._tick = max(longest(self.problem), 1e-30) / _TICKS

    @staticmethod
    def is_small(frame: Frame) -> bool:
        """Whether a problem is small enough."""
        chains = frame.chains
        lengths = chains.last - chains.first
        num_candidates = int((lengths * (lengths + 1) // 2).sum())
        return frame.problem.end <= _MAX_OPERATIONS and num_candidates <= _MAX_CANDIDATES and not frame.elsewhere

    def solve(self, hint: Plan, emulator: TimingEmulator, effort: float, guard: Guard) -> Packed | None:
        """Returns the best decisions found, with offsets; None if none were found.

        Args:
          hint: a plan to start from.
          emulator: of the problem.
          effort: deterministic seconds of the solver, so that results can be reproduced.
          guard: ends it early.
        """
        from ortools.sat.python import cp_model

        self._write()
        self._add_hint(hint)
        solver: Any = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.catch_sigint_signal = False
        solver.parameters.max_deterministic_time = effort
        status: list[Any] = []
        thread = threading.Thread(target=lambda: status.append(solver.solve(self.model)), daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not guard.reached():
                thread.join(_PULSE)
        finally:
            while thread.is_alive():
                solver.stop_search()
                thread.join(_PULSE)
        if not status or status[0] not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        return self._packed(solver, emulator)

    # The candidates.

    def _candidates(self) -> Iterator[_Candidate]:
        chains = self.chains
        for chain in range(len(chains.buffer)):
            for first in range(int(chains.first[chain]), int(chains.last[chain])):
                for last in range(first, int(chains.last[chain])):
                    candidate = self._candidate(chain, first, last)
                    if candidate is not None:
                        yield candidate

    def _candidate(self, chain: int, first: int, last: int) -> _Candidate | None:
        """Returns a run with the copies that it can have; None if a copy that it needs is impossible."""
        chains = self.chains
        start, end = int(chains.start[first]), int(chains.end[last])
        prefetch = eviction = None
        if first == self.made.kept_item:
            start = 0
        elif chains.reads[first]:
            prefetch = self._prefetches(chain, first)
            if not prefetch:
                return None
        writer = writer_to_evict(self.made.tables.items, self.made.tables.chains, first, last)
        if writer != NONE:
            eviction = self._evictions(chain, writer)
            if not eviction:
                return None
        return _Candidate(first, last, start, end, prefetch, eviction)

    def _operations(self, chain: int, first: int, last: int) -> list[int]:
        """Returns the slots of a chain's region in [first, last] that are operations."""
        region = self.chains.region[chain]
        low, high = max(first, int(self.slots.first[region])), min(last, int(self.slots.last[region]) - 1)
        return [slot for slot in range(low, high + 1) if self.slots.is_operation[slot]]

    def _prefetches(self, chain: int, first: int) -> list[tuple[int, int]]:
        if not self.made.tables.facts["can_prefetch"][0]:
            return []
        writer = int(self.chains.writer[first])
        ready = int(self.chains.slot[writer]) + 1 if writer != NONE else 0
        possible = self._operations(chain, ready, int(self.chains.slot[first]))
        return [(start, possible[-1]) for start in possible]

    def _evictions(self, chain: int, writer: int) -> list[tuple[int, int]]:
        if not self.made.tables.facts["can_evict"][0]:
            return []
        possible = self._operations(chain, int(self.chains.slot[writer]) + 1, len(self.slots.time))
        return [(possible[0], done) for done in possible]

    # The program.

    def _write(self) -> None:
        for candidate in self.candidates:
            self._write_candidate(candidate)
        for items in self._served.values():
            self.model.add_at_most_one(items)
        for candidate in self.candidates:
            self._write_order(candidate)
        self._write_memory()
        self._write_clock()

    def _write_candidate(self, candidate: _Candidate) -> None:
        model, chains = self.model, self.chains
        candidate.chosen = model.new_bool_var("")
        for name, options in (("prefetches", candidate.prefetch), ("evictions", candidate.eviction)):
            if options is not None:
                made = {option: model.new_bool_var("") for option in options}
                model.add(sum(made.values()) == candidate.chosen)
                setattr(candidate, name, made)
        for access in chains.accesses[chains.first_access[candidate.first] : chains.last_access[candidate.last]]:
            self._served[int(access)].append(candidate.chosen)

    def _covering(self, item: int) -> list[_Candidate]:
        return [candidate for candidate in self.candidates if candidate.first <= item <= candidate.last]

    def _write_order(self, candidate: _Candidate) -> None:
        """Writes that a value is evicted before it is needed at home, and prefetched again only afterwards."""
        model, chains, tables = self.model, self.chains, self.made.tables
        chain = int(chains.chain[candidate.first])
        if candidate.evictions is not None:
            writer = writer_to_evict(tables.items, tables.chains, candidate.first, candidate.last)
            for item in range(candidate.last + 1, int(chains.last[chain])):
                at_home = [other.chosen for other in self._covering(item)]
                for (_, done), made in candidate.evictions.items():
                    if done > tables.items["wanted"][item]:
                        model.add_bool_or([made.negated(), *at_home])
                    for other in self._covering(item):
                        if other.first == item and other.prefetches is not None and chains.writer[item] == writer:
                            late = [prefetch for (start, _), prefetch in other.prefetches.items() if start < done]
                            if late:
                                model.add(made + sum(late) <= 1)
                if chains.writes[item]:
                    break

    def _write_memory(self) -> None:
        """Writes that stays overlap neither each other, nor homes in the fast space, nor what is reserved."""
        model, problem, frame = self.model, self.problem, self.frame
        capacity = problem.spaces[frame.space].capacity // frame.unit
        times, heights, sizes = [], [], []

        def add(span: Any, offset: Any, size: int, chosen: Any = None) -> None:
            times.append(span)
            sizes.append(size)
            if chosen is None:
                heights.append(model.new_fixed_size_interval_var(offset, size, ""))
            else:
                heights.append(model.new_optional_fixed_size_interval_var(offset, size, chosen, ""))

        for start, end, size in reserved_runs(problem, frame.space, frame.unit):
            add(model.new_fixed_size_interval_var(start, end - start, ""), 0, size)
        for number in frame.homes:
            buffer = problem.buffers[number]
            size = -(-buffer.size // frame.unit)
            self._homes.append(model.new_int_var(0, max(capacity - size, 0), ""))
            add(model.new_fixed_size_interval_var(buffer.start, buffer.end - buffer.start, ""), self._homes[-1], size)
        for candidate in self.candidates:
            size = int(self.made.tables.buffers["size"][self.chains.buffer[self.chains.chain[candidate.first]]])
            if size > capacity:
                model.add(candidate.chosen == 0)
                continue
            candidate.offset = model.new_int_var(0, capacity - size, "")
            span, prefetch_again = self._span(candidate)
            add(span, candidate.offset, size, candidate.chosen)
            if prefetch_again is not None:
                add(prefetch_again, candidate.offset, size, candidate.chosen)
        model.add_no_overlap_2d(times, heights)
        model.add_cumulative(times, sizes, capacity)

    def _span(self, candidate: _Candidate) -> tuple[Any, Any]:
        """Returns the interval of a stay, and that of the copy brought back for the program's next run."""
        model, time, n = self.model, self.slots.time, self.problem.end
        start, end = candidate.start, candidate.end
        prefetch_again = None
        if candidate.first == self.made.kept_item:
            end, again = until_next_run(end, self.made.kept_again, n + 1)
            if again <= n:
                prefetch_again = model.new_optional_interval_var(again, n + 1 - again, n + 1, candidate.chosen, "")
        first: Any = model.new_int_var(0, start, "")
        last: Any = model.new_int_var(end, n + 1, "")
        # Both are free where the stay is not chosen.
        if candidate.prefetches is not None:
            begins = sum(int(time[s]) * made for (s, _), made in candidate.prefetches.items())
            model.add(first == begins).only_enforce_if(candidate.chosen)
        else:
            first = start
        if candidate.evictions is not None:
            until = sum(max(end, int(time[d]), int(time[s]) + 1) * made for (s, d), made in candidate.evictions.items())
            model.add(last == until).only_enforce_if(candidate.chosen)
        else:
            last = end
        size = model.new_int_var(1, n + 1, "")
        return model.new_optional_interval_var(first, size, last, candidate.chosen, ""), prefetch_again

    def _ticks(self, seconds: float) -> int:
        return round(seconds / self._tick)

    def _write_clock(self) -> None:
        """Writes durations, waits and the limits of copies, and minimizes the time of the program."""
        model, problem, n = self.model, self.problem, self.problem.end
        served, slowest = self.frame.served, longest_durations(problem)
        channel = self._channel()
        durations, idle = [], []
        for t, operation in enumerate(problem.operations):
            times = problem.repetitions[operation.region]
            demand: Any = self._ticks(times * operation.overhead)
            taken: Any = 0
            for number, access in enumerate(operation.accesses, problem.access_start[t]):
                home = int(served[number])
                demand += self._ticks(times * access.cost[home])
                saved = self._ticks(times * (access.cost[home] - access.cost[self.frame.space]))
                traffic = 0
                if channel is not None and problem.spaces[home].channel == channel:
                    traffic = self._ticks(times * access.bytes / problem.spaces[home].bandwidth)
                    taken += traffic
                for chosen in self._served.get(number, ()):
                    demand -= saved * chosen
                    taken -= traffic * chosen
            duration = model.new_int_var(
                self._ticks(times * operation.floor), self._ticks(times * slowest[t]) + _ROUNDING_TICKS, ""
            )
            model.add(duration >= demand)
            free = model.new_int_var(0, _TICKS, "")
            model.add_max_equality(free, [0, duration - taken])
            durations.append(duration)
            idle.append(free)
        waits = [model.new_int_var(0, _TICKS, "") for _ in range(n + 1)]
        copies = self._write_copies(durations, idle, waits)
        model.minimize(sum(durations) + sum(waits) + _COPY_PRICE * sum(copies))

    def _channel(self) -> int | None:
        space, links = self.frame.space, self.problem.link_between
        numbers = [links[ends] for ends in ((0, space), (space, 0)) if ends in links]
        return self.problem.links[numbers[0]].channel if numbers else None

    def _write_copies(self, durations: list[Any], idle: list[Any], waits: list[Any]) -> list[Any]:
        """Limits what is copied in each window; returns for each copy whether it is made."""
        model, problem, time = self.model, self.problem, self.slots.time
        copies: list[tuple[int, int, int, Any]] = []  # start, done, ticks that it moves, whether it is made
        space = self.frame.space
        for candidate in self.candidates:
            size = self.frame.sizes[self.chains.buffer[self.chains.chain[candidate.first]]]
            repetitions = problem.repetitions[int(self._region(candidate))]
            for made_by, ends in ((candidate.prefetches, (0, space)), (candidate.evictions, (space, 0))):
                for (first, last), made in (made_by or {}).items():
                    link = problem.links[problem.link_between[ends]]
                    moves = self._ticks(repetitions * float(size) / link.bandwidth)
                    latency = self._ticks(repetitions * link.latency)
                    start, done = int(time[first]), int(time[last])
                    copies.append((start, done, moves, made))
                    # A copy is in flight at least for its latency and the time of its bytes.
                    flight = sum(durations[start:done]) + sum(waits[start : done + 1])
                    model.add(flight >= moves + latency).only_enforce_if(made)
        starts = sorted({copy[0] for copy in copies})
        dones = sorted({copy[1] for copy in copies})
        for start in starts:
            for done in dones:
                inside = [copy for copy in copies if start <= copy[0] and copy[1] <= done]
                if start <= done and inside:
                    offered = sum(idle[start:done]) + sum(waits[start : done + 1])
                    model.add(sum(moves * made for _, _, moves, made in inside) <= offered)
        return [made for *_, made in copies]

    def _region(self, candidate: _Candidate) -> int:
        return int(self.chains.region[self.chains.chain[candidate.first]])

    # From a plan, and to decisions.

    def _add_hint(self, plan: Plan) -> None:
        model, times = self.model, self.slots.time
        served = [plan.residencies[number] for number in plan.served]
        for candidate in self.candidates:
            accesses = self.chains.accesses[
                self.chains.first_access[candidate.first] : self.chains.last_access[candidate.last]
            ].tolist()
            used = {plan.served[access] for access in accesses}
            number = plan.served[accesses[0]]
            serves = [a for a, by in enumerate(plan.served) if by == number]
            is_made = served[accesses[0]].space == self.frame.space and len(used) == 1 and len(serves) == len(accesses)
            model.add_hint(candidate.chosen, is_made)
            copies = {(copy.start, copy.done) for copy in plan.copies if number in (copy.source, copy.destination)}
            for made_by in (candidate.prefetches, candidate.evictions):
                for (start, done), made in (made_by or {}).items():
                    model.add_hint(made, is_made and (int(times[start]), int(times[done])) in copies)
            if is_made and candidate.offset is not None:
                model.add_hint(candidate.offset, served[accesses[0]].offset // self.frame.unit)

    def _packed(self, solver: Any, emulator: TimingEmulator) -> Packed:
        """Returns the solver's solution."""
        times, runs, offsets = self.slots.time, [], [solver.value(home) for home in self._homes]
        for candidate in sorted(self.candidates, key=lambda candidate: candidate.first):
            if not solver.value(candidate.chosen):
                continue
            run = ItemRun(candidate.first, candidate.last, candidate.start, candidate.end)
            for start, done in (o for o, made in (candidate.prefetches or {}).items() if solver.value(made)):
                run.prefetch = RunCopy(start, done, 2 * int(times[start]), 2 * int(times[done]), 0.0)
                run.start = int(times[start])
            for start, done in (o for o, made in (candidate.evictions or {}).items() if solver.value(made)):
                run.eviction = RunCopy(start, done, 2 * int(times[start]), 2 * int(times[done]), 0.0)
                run.end = max(run.end, int(times[done]), int(times[start]) + 1)
            runs.append(run)
            offsets.append(solver.value(candidate.offset))
        commit(self.made, runs)
        note_late(self.made, emulator)
        latency = emulator.latency_of(*self.made.arrays())
        return Packed(self.made, self.frame.unit * np.array(offsets, np.int64), latency)


def kept_in(plan: Plan) -> int:
    """Returns the argument that a plan keeps in fast memory between runs of the program; -1 for none."""
    return next((plan.residencies[copy.source].buffer for copy in plan.copies if copy.start == BEFORE), NONE)
