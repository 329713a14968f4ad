"""The timing emulator: how long a program takes under a plan.

The rules, for operation `t` of the problem:

- It starts when operation `t - 1` is done and the copies that are awaited at `t` have arrived. In between, first the
  copies that were issued earlier are awaited, then those that start at `t` are issued, in the plan's order; one that is
  also awaited at `t` is awaited at once. While everything waits, copies have their links to themselves.
- It lasts `max(floor, overhead + sum of access.cost[space])`. On each channel its own accesses take `bytes / bandwidth`
  of that time, evenly spread; copies move in what is left.
- A copy moves `buffer.size` bytes. It can move from `link.latency` after it was issued on, when all copies before it in
  its queue are finished. Queues that move data at once on one channel share its bandwidth evenly.
- A loop repeats its body; the copies in flight at the end of an iteration are those in flight at the start of the next.
  Each branch of a conditional is taken with its probability, and time is the expectation over the branches.
- A copy that starts at `BEFORE` costs nothing: the previous run of the program made it.

The model is that of the simulator of XLA's memory space assignment (xla/service/memory_space_assignment/simulator.cc)
with these differences: rates are integrated exactly where bandwidth is shared (its loop halves the remaining time again
with every copy); loops run to their steady state instead of once; links have latencies; any number of queues.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.emulator.timing_rows import (
    COPY_ROW,
    ISSUE_ROW,
    OPERATION_ROW,
    REGION_ROW,
    UNSET,
    Rows,
    ScheduleRows,
    new_link_state,
    new_stack,
)
from memplan.compiler.errors import PlanError
from memplan.compiler.hardware.roofline import durations, idle_fractions
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """What happens when, in seconds. Where something runs repeatedly, its first execution is shown.

    Branches of a conditional all start at the same time, and what follows a loop or a conditional starts after all
    iterations and after the expected time of the branches.

    Attributes:
      latency: from the start of the program to its end, repetitions included.
      start, duration: `[n]` of each operation; the start is NaN where it is never executed.
      stall: `[n + 1]` how long each operation, and the end of the program, waits for copies; NaN if never executed.
      issue, begin, end: `[num_copies]` when each copy enters its queue, can move its first byte, and has arrived; NaN
        for copies of the previous run and for those that are never executed.
      stalled: seconds spent waiting for copies, repetitions included.
      bytes_moved: `[num_links]` by copies, repetitions included.
      busy: `[num_channels]` seconds that copies and accesses take of each channel, repetitions included.
    """

    latency: float
    start: Floats
    duration: Floats
    stall: Floats
    issue: Floats
    begin: Floats
    end: Floats
    stalled: float
    bytes_moved: Floats
    busy: Floats


class TimingEmulator:
    """Emulates plans of one problem. Its arrays are prepared once, so a planner can score many plans.

    Attributes:
      problem: that plans answer.
      num_queues, num_channels: of its links.
      region_rows, opened, opens, max_depth: its regions as the compiled walk wants them, see `_region_rows`.

    >>> from memplan.compiler.mapping.problem import MappingProblem, MemorySpace, Operation, Region
    >>> program = Region(RegionKind.PROGRAM, 0, 1, -1, 1.0)
    >>> operation = Operation("add", "add", 2e-6, 0.0, (0,), 0, ())
    >>> problem = MappingProblem("p", "t", (MemorySpace("hbm", 64, 1, 1e9),), (), (program,), (operation,), ())
    >>> TimingEmulator(problem).latency(Plan(problem.fingerprint, "p", "t", "none", (), (), ()))
    2e-06
    """

    def __init__(self, problem: MappingProblem):
        self.problem = problem
        operations, spaces, links = problem.operations, problem.spaces, problem.links
        n = len(operations)
        accesses = [access for operation in operations for access in operation.accesses]
        self._floor = np.fromiter((operation.floor for operation in operations), np.float64, n)
        self._overhead = np.fromiter((operation.overhead for operation in operations), np.float64, n)
        self._region_of = np.fromiter((operation.region for operation in operations), np.int64, n)
        self._access_time = np.repeat(
            np.arange(n), np.fromiter((len(operation.accesses) for operation in operations), np.int64, n)
        )
        costs = itertools.chain.from_iterable(access.cost for access in accesses)
        self._cost = np.fromiter(costs, np.float64, len(accesses) * len(spaces)).reshape(-1, len(spaces))
        self._access_bytes = np.fromiter((access.bytes for access in accesses), np.float64, len(accesses))
        self._access_buffer = np.fromiter((access.buffer for access in accesses), np.int64, len(accesses))
        self._space_channel = np.array([space.channel for space in spaces], np.int64)
        self._space_bandwidth = np.array([space.bandwidth for space in spaces], np.float64)
        self._size = np.fromiter((buffer.size for buffer in problem.buffers), np.float64, len(problem.buffers))
        self._repetitions = np.array(problem.repetitions, np.float64)
        self._link_of = np.full((len(spaces), len(spaces)), -1, np.int64)
        for number, link in enumerate(links):
            self._link_of[link.source, link.destination] = number
        self._link_bandwidth = np.array([link.bandwidth for link in links], np.float64)
        self._link_latency = np.array([link.latency for link in links], np.float64)
        self._link_queue = np.array([link.queue for link in links], np.int64)
        self._link_channel = np.array([link.channel for link in links], np.int64)
        self.num_queues = 1 + max((link.queue for link in links), default=-1)
        self.num_channels = 1 + max([link.channel for link in links] + [space.channel for space in spaces], default=-1)
        self.region_rows, self.opened, self.opens, self.max_depth = _region_rows(problem)

    def emulate(self, plan: Plan) -> Timeline:
        """Returns the timeline of a plan.

        Raises:
          PlanError: an index of the plan is out of range, or a copy has no link, or crosses the border of a loop or
            branch.
        """
        served, copies = self._arrays(plan)
        duration, idle_fraction, busy = self.durations(served)
        latency, stalled, operations, copy_rows = self._walk(duration, idle_fraction, *copies)
        start, _, source, destination, size = copies
        link = self._link_of[source, destination]
        times = size * self._repetitions[self._region_at(start)] * (start != BEFORE)
        bytes_moved = np.bincount(link, times, minlength=len(self.problem.links)).astype(np.float64)
        for number, moved in enumerate(bytes_moved):
            if moved:
                busy[self._link_channel[number]] += moved / self._link_bandwidth[number]
        return Timeline(
            latency=latency,
            start=_recorded(operations["start"][:-2]),
            duration=duration,
            stall=_recorded(operations["stall"][:-1]),
            issue=_recorded(copy_rows["issue"]),
            begin=_recorded(copy_rows["begin"]),
            end=_recorded(copy_rows["end"]),
            stalled=stalled,
            bytes_moved=bytes_moved,
            busy=busy,
        )

    def latency(self, plan: Plan) -> float:
        """Returns the latency of a plan, in seconds; raises PlanError like `emulate`."""
        served, copies = self._arrays(plan)
        return self.latency_of(served, *copies)

    def latency_of(
        self, served: Integers, start: Integers, done: Integers, source: Integers, destination: Integers, size: Floats
    ) -> float:
        """Returns the latency of a plan given as arrays, for planners that score many.

        Args:
          served: `[num_accesses]` space that serves each access.
          start: `[num_copies]` times at which the copies are issued, as in a Plan.
          done: `[num_copies]` times at which they are awaited.
          source: `[num_copies]` spaces that they read.
          destination: `[num_copies]` spaces that they write.
          size: `[num_copies]` bytes.

        Raises:
          PlanError: a copy has no link, or crosses the border of a loop or branch.
        """
        duration, idle_fraction, _ = self.durations(served)
        return self._walk(duration, idle_fraction, start, done, source, destination, size)[0]

    def durations(self, served: Integers) -> tuple[Floats, Floats, Floats]:
        """Returns what operations take when access `i` is served by space `served[i]`.

        Returns:
          duration: `[n]` seconds.
          idle_fraction: `[n, num_channels]` part of each channel that is left to copies meanwhile.
          busy: `[num_channels]` seconds that accesses take of each channel, repetitions included.
        """
        n = len(self._floor)
        number = np.arange(len(served))
        cost = np.bincount(self._access_time, self._cost[number, served], minlength=n)
        duration = durations(self._floor, self._overhead + cost)
        channel = self._space_channel[served]
        uses = channel >= 0
        seconds = (self._access_bytes / self._space_bandwidth[served])[uses]
        slot = self._access_time[uses] * self.num_channels + channel[uses]
        taken = np.bincount(slot, seconds, minlength=n * self.num_channels).reshape(n, self.num_channels)
        busy = self._repetitions[self._region_of] @ taken if n else np.zeros(self.num_channels)
        return duration, idle_fractions(duration, taken), busy

    def lower_bound(self) -> float:
        """Returns a latency that no plan beats: each access in the cheapest space allowed to its buffer, no copy."""
        n = len(self._floor)
        allowed = np.zeros((len(self.problem.buffers), len(self.problem.spaces)), bool)
        for number, buffer in enumerate(self.problem.buffers):
            allowed[number, list(buffer.spaces)] = True
        cheapest = np.where(allowed[self._access_buffer], self._cost, np.inf).min(axis=1, initial=np.inf)
        cost = np.bincount(self._access_time, cheapest, minlength=n)
        duration = durations(self._floor, self._overhead + cost)
        return float(self._repetitions[self._region_of] @ duration)

    def _arrays(self, plan: Plan) -> tuple[Integers, tuple[Integers, Integers, Integers, Integers, Floats]]:
        """Returns the space that serves each access, and start, done, spaces and bytes of the copies of a plan."""
        residency_space = np.fromiter((r.space for r in plan.residencies), np.int64, len(plan.residencies))
        residency_buffer = np.fromiter((r.buffer for r in plan.residencies), np.int64, len(plan.residencies))
        served = np.fromiter(plan.served, np.int64, len(plan.served))
        if len(served) != len(self._access_time):
            raise PlanError(
                f"plan {plan.name!r} serves {len(served)} accesses, but its problem has {len(self._access_time)}"
            )
        source = np.fromiter((copy.source for copy in plan.copies), np.int64, len(plan.copies))
        destination = np.fromiter((copy.destination for copy in plan.copies), np.int64, len(plan.copies))
        for name, index, size in (
            ("served", served, len(residency_space)),
            ("source", source, len(residency_space)),
            ("destination", destination, len(residency_space)),
            ("space", residency_space, len(self._space_channel)),
            ("buffer", residency_buffer, len(self._size)),
        ):
            wrong = np.flatnonzero((index < 0) | (index >= size))
            if len(wrong):
                raise PlanError(f"plan {plan.name!r}: {name} number {wrong[0]} is {index[wrong[0]]}, not below {size}")
        copies = (
            np.fromiter((copy.start for copy in plan.copies), np.int64, len(plan.copies)),
            np.fromiter((copy.done for copy in plan.copies), np.int64, len(plan.copies)),
            residency_space[source],
            residency_space[destination],
            self._size[residency_buffer[source]],
        )
        return residency_space[served], copies

    def _region_at(self, times: Integers) -> Integers:
        """Returns the region of each time; the end of the program and `BEFORE` lie in region 0, the program."""
        inside = (times >= 0) & (times < len(self._region_of))
        regions = np.zeros(len(times), np.int64)
        regions[inside] = self._region_of[times[inside]]
        return regions

    def _walk(
        self,
        duration: Floats,
        idle_fraction: Floats,
        start: Integers,
        done: Integers,
        source: Integers,
        destination: Integers,
        size: Floats,
    ) -> tuple[float, float, Rows, Rows]:
        """Runs the kernel; returns latency, stalled seconds, and the rows of operations and copies with their times."""
        from memplan.compiler.emulator.timing_kernel import walk

        n = len(duration)
        link = self._link_of[source, destination]
        self._check_copies(start, done, link, source, destination)
        runs = start != BEFORE
        awaited = np.flatnonzero(runs & (start != done))
        awaited = awaited[np.argsort(done[awaited], kind="stable")]
        order = np.flatnonzero(runs)
        order = order[np.argsort(start[order], kind="stable")]
        issued = np.zeros(len(order), ISSUE_ROW)
        issued["number"], issued["is_synchronous"] = order, (start == done)[order]
        operations = np.zeros(n + 2, OPERATION_ROW)
        operations["duration"][:n] = duration
        operations["start"] = operations["stall"] = UNSET
        operations["opens"] = self.opens
        operations["awaits"] = np.searchsorted(done[awaited], np.arange(n + 2))
        operations["issues"] = np.searchsorted(start[order], np.arange(n + 2))
        copy_rows = np.zeros(len(start), COPY_ROW)
        copy_rows["bytes"], copy_rows["bandwidth"], copy_rows["latency"] = (
            size,
            self._link_bandwidth[link],
            self._link_latency[link],
        )
        copy_rows["queue"], copy_rows["channel"] = self._link_queue[link], self._link_channel[link]
        copy_rows["issue"] = copy_rows["begin"] = copy_rows["end"] = UNSET
        in_flight = np.bincount(start[order], minlength=n + 2) - np.bincount(done[order] + 1, minlength=n + 2)
        latency, stalled = walk(
            ScheduleRows(operations, idle_fraction, self.region_rows, self.opened, awaited, issued),
            new_link_state(copy_rows, self.num_queues, self.num_channels),
            new_stack(self.max_depth, self.num_queues, int(np.cumsum(in_flight).max(initial=0))),
        )
        return latency, stalled, operations, copy_rows

    def _check_copies(
        self, start: Integers, done: Integers, link: Integers, source: Integers, destination: Integers
    ) -> None:
        """Raises PlanError if the times of copies are not possible, or if there is no link for one."""
        n = len(self._floor)
        is_before = start == BEFORE
        for message, wrong in (
            ("does not run within the program", (start < BEFORE) | (done < 0) | (done > n) | (start > n)),
            ("is done before it starts", start > done),
            ("starts before the program, so it must be done at 0", is_before & (done != 0)),
            ("has no link between its spaces", link < 0),
            (
                "crosses the border of a loop or a branch",
                ~is_before & (self._region_at(start) != self._region_at(done)),
            ),
        ):
            numbers = np.flatnonzero(wrong)
            if len(numbers):
                i = numbers[0]
                raise PlanError(
                    f"copy {i} from space {source[i]} to {destination[i]}, start {start[i]}, done {done[i]}, {message}"
                )


def emulate(problem: MappingProblem, plan: Plan) -> Timeline:
    """Returns what happens when under a plan; raises PlanError if the plan cannot be run."""
    return TimingEmulator(problem).emulate(plan)


def latency(problem: MappingProblem, plan: Plan) -> float:
    """Returns the seconds that a plan takes. To score many plans of one problem, keep a `TimingEmulator`."""
    return TimingEmulator(problem).latency(plan)


def lower_bound_all_fast(problem: MappingProblem) -> float:
    """Returns the no-capacity bound: no plan is faster than all accesses at their cheapest space and no copies."""
    return TimingEmulator(problem).lower_bound()


def _recorded(times: Floats) -> Floats:
    return np.where(times < 0.0, np.nan, times)


def _region_rows(problem: MappingProblem) -> tuple[Rows, Integers, Integers, int]:
    """Returns the rows of the regions; those of them that are opened, by time of their start; `[n + 2]` where the part
    of each time begins in these; and how many frames can be open at once.
    """
    n, regions = len(problem.operations), problem.regions
    rows = np.zeros(len(regions), REGION_ROW)
    depth = [0] * len(regions)
    previous: dict[tuple[int, int], int] = {}
    opened = []
    for number, region in enumerate(regions):
        is_branch = region.kind is RegionKind.BRANCH
        rows[number] = (region.start, region.end, region.trip_count, is_branch, is_branch, is_branch)
        if number == 0:
            continue
        depth[number] = depth[region.parent]
        if region.start >= region.end:
            continue
        opened.append(number)
        depth[number] += 2 if is_branch else 1
        if is_branch:
            before = previous.get((region.parent, region.group), -1)
            if before >= 0 and regions[before].end == region.start:
                rows["is_last"][before] = rows["is_first"][number] = False
            previous[region.parent, region.group] = number
    opened.sort(key=lambda number: regions[number].start)
    starts = np.array([regions[number].start for number in opened], np.int64)
    return rows, np.array(opened, np.int64), np.searchsorted(starts, np.arange(n + 2)), max(depth, default=0) + 1
