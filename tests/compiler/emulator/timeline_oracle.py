"""Whether a timeline obeys the hardware: an independent reading of the rules in `timing.py`.

It shares no code with the emulator, and simulates nothing: it takes the times as they are and looks for what is
impossible. `verify_timeline` reports every violation of these rules:

    duration   an operation lasts as long as its accesses in their spaces take
    order      operations run one after another; stalls alone lie between them, and loops take their iterations
    total      the latency is the time of all operations and all stalls, each as often as it happens
    never      what is never executed has no times, all else has
    issue      a copy is issued between the operation before its start and the one at its start
    speed      a copy takes its link's latency first, and then no less time than bytes / bandwidth
    queue      copies of one queue move one after another, in the order in which they were issued
    wait       a copy is there when the operation that awaits it starts
    channel    all copies on a channel fit into the time that operations leave of it
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.emulator.timing import Timeline
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.violation import Violation

# Relative to the latency: sums of times are rounded.
TOLERANCE = 1e-9


def verify_timeline(problem: MappingProblem, plan: Plan, timeline: Timeline) -> list[Violation]:
    """Returns all violations; an empty list means that the timeline is possible.

    Args:
      problem, plan: what was emulated; the plan's indices must be in range.
      timeline: of the plan. Branches of a conditional overlap, and times after it are expectations. So rules `speed`,
        `queue`, `wait` and `channel` leave out copies that are under way when a conditional, or a loop with a
        fractional trip count, begins or ends; `queue` is checked between copies in the same branches, `channel` for
        copies in none.
    """
    checker = _Checker(problem, plan, timeline)
    checker.operations()
    checker.totals()
    checker.copies()
    checker.queues()
    checker.channels()
    return checker.found


class _Checker:
    def __init__(self, problem: MappingProblem, plan: Plan, timeline: Timeline):
        self.problem, self.plan, self.timeline = problem, plan, timeline
        self.found: list[Violation] = []
        self.slack = TOLERANCE * max(timeline.latency, 1e-30)
        self.n = len(problem.operations)
        self.start = [*map(float, timeline.start), float(timeline.latency)]
        self.regions_at = [problem.regions[operation.region] for operation in problem.operations]
        self.seconds = self._region_seconds()
        self.first_branch = self._first_branches()

    def report(self, rule: str, message: str, buffer: int = -1, time: int = -1) -> None:
        self.found.append(Violation(rule, message, buffer, time))

    def name(self, t: int) -> str:
        return self.problem.operations[t].name if t < self.n else "the end of the program"

    def region_of(self, t: int) -> int:
        return self.problem.operations[t].region if 0 <= t < self.n else 0

    def path(self, t: int) -> list[int]:
        """Returns the regions around a time, outermost first."""
        found = [self.region_of(t)]
        while found[-1] != 0:
            found.append(self.problem.regions[found[-1]].parent)
        return found[::-1]

    def chances(self, t: int) -> tuple[int, ...]:
        """Returns the regions around a time that may not be run at all: times after them are expectations."""
        found = []
        for r in self.path(t):
            region = self.problem.regions[r]
            if region.kind is RegionKind.BRANCH or region.trip_count < 1.0:
                found.append(r)
        return tuple(found)

    def is_executed(self, t: int) -> bool:
        return all(self.problem.regions[r].trip_count > 0.0 for r in self.path(t))

    def _region_seconds(self) -> list[float]:
        """Returns per region what all its operations take in all its iterations, stalls left out."""
        seconds = [0.0] * len(self.problem.regions)
        for t, operation in enumerate(self.problem.operations):
            seconds[operation.region] += float(self.timeline.duration[t])
        for r in reversed(range(len(seconds))):
            if r:
                seconds[r] *= self.problem.regions[r].trip_count
                seconds[self.problem.regions[r].parent] += seconds[r]
        return seconds

    def _first_branches(self) -> dict[int, int]:
        """Returns per branch the first one of its conditional: those of one conditional stand side by side."""
        first: dict[int, int] = {}
        ending: dict[tuple[int, int, int], int] = {}
        branches = [r for r, region in enumerate(self.problem.regions) if region.kind is RegionKind.BRANCH]
        for r in sorted(branches, key=lambda r: self.problem.regions[r].start):
            region = self.problem.regions[r]
            first[r] = ending.get((region.parent, region.group, region.start), r)
            ending[region.parent, region.group, region.end] = first[r]
        return first

    def operations(self) -> None:
        """Rules duration, order and never."""
        first = 0
        for t, operation in enumerate(self.problem.operations):
            spaces = [self.plan.residencies[self.plan.served[first + i]].space for i in range(len(operation.accesses))]
            first += len(operation.accesses)
            due = operation.duration(spaces)
            if not math.isclose(due, self.timeline.duration[t], rel_tol=1e-9, abs_tol=1e-18):
                self.report(
                    "duration", f"{operation.name} takes {self.timeline.duration[t]:g} s, not {due:g} s", time=t
                )
        for t in range(self.n + 1):
            if not self.is_executed(t):
                if t < self.n and not math.isnan(self.start[t]):
                    self.report("never", f"{self.name(t)} is never executed, but starts at {self.start[t]:g} s", time=t)
            elif math.isnan(self.start[t]) or math.isnan(self.timeline.stall[t]):
                self.report("never", f"{self.name(t)} is executed, but has no time", time=t)
            else:
                self._order(t)

    def _order(self, t: int) -> None:
        stall = float(self.timeline.stall[t])
        arrival = self.start[t] - stall
        earliest, is_exact = self._earliest(t)
        if stall < -self.slack:
            self.report("order", f"{self.name(t)} waits for {stall:g} s", time=t)
        if arrival < earliest - self.slack or (is_exact and arrival > earliest + self.slack):
            self.report("order", f"{self.name(t)} begins to wait at {arrival:g} s, not at {earliest:g} s", time=t)

    def _earliest(self, t: int) -> tuple[float, bool]:
        """Returns when operation `t` can begin to wait, and whether it must then: a loop before it may have stalled."""
        # The first operation of a later branch begins when the first branch of its conditional does.
        while t < self.n:
            opening = [r for r in self.first_branch if self.problem.regions[r].start == t and r in self.path(t)]
            first = min((self.problem.regions[self.first_branch[r]].start for r in opening), default=t)
            if first == t:
                break
            t = first
        if t == 0:
            return 0.0, True
        before = t - 1
        left = [r for r in self.path(before) if r not in self.path(t)]
        if not left:
            return self.start[before] + float(self.timeline.duration[before]), True
        # A loop or a conditional ends here.
        entered = self.first_branch.get(left[0], left[0])
        seconds = sum(self.seconds[r] for r, first in self.first_branch.items() if first == entered)
        if entered not in self.first_branch:
            seconds = self.seconds[entered]
        earliest, _ = self._earliest(self.problem.regions[entered].start)
        return earliest + seconds, False

    def totals(self) -> None:
        """Rule total: time is linear in what happens, so the latency is a plain sum."""
        due = self.seconds[0] + self.timeline.stalled
        if abs(due - self.timeline.latency) > self.slack:
            self.report("total", f"the latency is {self.timeline.latency:g} s, its parts sum to {due:g} s", time=self.n)

    def is_certain(self, i: int) -> bool:
        """Tells whether nothing that is left to chance happens while a copy is under way."""
        copy = self.plan.copies[i]
        return not any(
            copy.start <= region.start and region.end <= copy.done
            for region in self.problem.regions[1:]
            if region.kind is RegionKind.BRANCH or not float(region.trip_count).is_integer()
        )

    def moving(self) -> list[int]:
        """Returns the copies that this run makes, in the order in which they are issued."""
        found = [i for i, copy in enumerate(self.plan.copies) if copy.start != BEFORE and self.is_executed(copy.start)]
        return sorted(found, key=lambda i: self.plan.copies[i].start)

    def link(self, i: int) -> int:
        copy = self.plan.copies[i]
        return self.problem.link_between[
            self.plan.residencies[copy.source].space, self.plan.residencies[copy.destination].space
        ]

    def describe(self, i: int) -> str:
        copy = self.plan.copies[i]
        buffer = self.problem.buffers[self.plan.residencies[copy.source].buffer]
        return f"copy {i} of {buffer.name}, issued at {self.name(copy.start)}"

    def copies(self) -> None:
        """Rules issue, speed, wait, and never."""
        moving = set(self.moving())
        for i, copy in enumerate(self.plan.copies):
            buffer = self.plan.residencies[copy.source].buffer
            issue, begin, end = (
                float(times[i]) for times in (self.timeline.issue, self.timeline.begin, self.timeline.end)
            )
            if i not in moving:
                if not all(map(math.isnan, (issue, begin, end))):
                    self.report("never", f"{self.describe(i)}, is never made, but has times", buffer, copy.start)
                continue
            if any(map(math.isnan, (issue, begin, end))):
                self.report("never", f"{self.describe(i)}, is made, but has no time", buffer, copy.start)
                continue
            link = self.problem.links[self.link(i)]
            least = self.problem.buffers[buffer].size / link.bandwidth
            arrival = self.start[copy.start] - float(self.timeline.stall[copy.start])
            if not arrival - self.slack <= issue <= self.start[copy.start] + self.slack:
                self.report("issue", f"{self.describe(i)}, enters its queue at {issue:g} s", buffer, copy.start)
            if begin < issue + link.latency - self.slack:
                self.report("speed", f"{self.describe(i)}, moves before {link.latency:g} s passed", buffer, copy.start)
            if end - begin < least - self.slack and self.is_certain(i):
                self.report(
                    "speed",
                    f"{self.describe(i)}, takes {end - begin:g} s, less than {least:g} s",
                    buffer,
                    copy.start,
                )
            if end > self.start[copy.done] + self.slack and self.is_certain(i):
                self.report(
                    "wait", f"{self.describe(i)}, ends at {end:g} s, but {self.name(copy.done)} starts before", buffer,
                    copy.start,
                )  # fmt: skip

    def queues(self) -> None:
        """Rule queue."""
        last: dict[tuple[int, tuple[int, ...]], int] = {}
        for i in filter(self.is_certain, self.moving()):
            copy = self.plan.copies[i]
            key = (self.problem.links[self.link(i)].queue, self.chances(copy.start))
            if key in last and float(self.timeline.begin[i]) < float(self.timeline.end[last[key]]) - self.slack:
                self.report(
                    "queue", f"{self.describe(i)}, overtakes {self.describe(last[key])}",
                    self.plan.residencies[copy.source].buffer, copy.start,
                )  # fmt: skip
            last[key] = i

    def channels(self) -> None:
        """Rule channel.

        Copies are jobs with a release (begin), a deadline (end) and work (bytes / bandwidth) on a machine whose speed
        is what operations leave of the channel. Serving the earliest deadline first meets all deadlines whenever that
        is possible (Horn, Naval Research Logistics Quarterly 1974), so a deadline that it misses cannot be met.
        """
        jobs: dict[int, list[int]] = defaultdict(list)
        for i in filter(self.is_certain, self.moving()):
            times = float(self.timeline.begin[i]), float(self.timeline.end[i])
            if not self.chances(self.plan.copies[i].start) and not any(map(math.isnan, times)):
                jobs[self.problem.links[self.link(i)].channel].append(i)
        for channel, numbers in jobs.items():
            for i in self._late(numbers, self._speeds(channel)):
                copy = self.plan.copies[i]
                self.report(
                    "channel", f"{self.describe(i)}, ends at {self.timeline.end[i]:g} s: no time on channel {channel}",
                    self.plan.residencies[copy.source].buffer, copy.start,
                )  # fmt: skip

    def _speeds(self, channel: int) -> list[tuple[float, float, float]]:
        """Returns `(from, to, part left of the channel)` of the operations outside of branches, in order of time."""
        found = []
        first = 0
        for t, operation in enumerate(self.problem.operations):
            served = self.plan.served[first : first + len(operation.accesses)]
            first += len(operation.accesses)
            duration = float(self.timeline.duration[t])
            if duration <= 0.0 or math.isnan(self.start[t]) or self.chances(t):
                continue
            taken = 0.0
            for access, residency in zip(operation.accesses, served, strict=True):
                space = self.problem.spaces[self.plan.residencies[residency].space]
                if space.channel == channel:
                    taken += access.bytes / space.bandwidth
            found.append((self.start[t], self.start[t] + duration, max(0.0, 1.0 - taken / duration)))
        return found

    def _late(self, numbers: list[int], speeds: list[tuple[float, float, float]]) -> list[int]:
        begin = {i: float(self.timeline.begin[i]) for i in numbers}
        end = {i: float(self.timeline.end[i]) for i in numbers}
        work = {
            i: self.problem.buffers[self.plan.residencies[self.plan.copies[i].source].buffer].size
            / self.problem.links[self.link(i)].bandwidth
            for i in numbers
        }
        moments = sorted({*begin.values(), *end.values(), *(s for s, _, _ in speeds), *(e for _, e, _ in speeds)})
        released = sorted(numbers, key=lambda i: begin[i])
        late: list[int] = []
        waiting: list[tuple[float, int]] = []
        at = segment = 0
        for now, then in itertools.pairwise(moments):
            while at < len(released) and begin[released[at]] <= now:
                heapq.heappush(waiting, (end[released[at]], released[at]))
                at += 1
            while segment < len(speeds) and speeds[segment][1] <= now:
                segment += 1
            is_inside = segment < len(speeds) and speeds[segment][0] <= now
            supply = (then - now) * (speeds[segment][2] if is_inside else 1.0)
            while waiting and supply > 0.0:
                i = waiting[0][1]
                served = min(supply, work[i])
                work[i] -= served
                supply -= served
                if work[i] > 0.0:
                    break
                heapq.heappop(waiting)
            while waiting and waiting[0][0] <= then:
                i = heapq.heappop(waiting)[1]
                if work[i] > 2 * self.slack:
                    late.append(i)
        return late
