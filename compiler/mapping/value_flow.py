"""Does every read find the value that it needs? Follows the values of one buffer at a time along the path of execution.

At each moment some residencies of a buffer are *current*: they hold its value. Changes, in their order at time `t`:

    1. copies issued earlier and awaited at t    the destination becomes current, if nothing was written since the issue
    2. copies issued at t, in the plan's order   the source must be current; the destination is no longer
    3. reads and updates of operation t          the residency that serves them must be current
    4. updates and writes of operation t         only the residency that serves them is current

A residency stops being current when execution reaches a moment outside of its interval.

    loop      what is current at its start must be so on entry and at the end of every iteration: iterated to the fixed
              point from above, which intersects what was assumed with what an iteration leaves
    branches  start from the same state; afterwards current is what is current after each of them

Before the first write of a buffer that is no argument, and outside of its live range, its content is undefined, and no
residency is out of date: `None` stands for that in the code. A problem whose program reads such content has a fault,
which `content.py` finds whatever the plan is.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.plan import BEFORE
from memplan.compiler.mapping.violation import CheckedPlan, Violation

# What is known of a copy in flight, if it is not the time of an operation that overwrote the buffer meanwhile.
_SOUND = -1
_REPORTED = 2**62


@dataclass
class _FlowState:
    """What is known at one moment.

    Attributes:
      current: residencies that hold the buffer's value; None for all of them.
      in_flight: per copy that was issued and not yet awaited: `_SOUND`, or the time of an operation that overwrote the
        buffer since, or `_REPORTED` if its value was out of date from the start.
    """

    current: frozenset[int] | None
    in_flight: dict[int, int]

    def copy(self) -> _FlowState:
        return _FlowState(self.current, dict(self.in_flight))

    def meet(self, other: _FlowState) -> _FlowState:
        """Returns what holds in both."""
        if self.current is None or other.current is None:
            current = other.current if self.current is None else self.current
        else:
            current = self.current & other.current
        in_flight = {copy: max(time, other.in_flight.get(copy, time)) for copy, time in self.in_flight.items()}
        return _FlowState(current, in_flight)


@dataclass
class _Moment:
    """What happens to a buffer at one time: copies, by number, and accesses, `(kind, residency)`."""

    time: int
    awaited: list[int] = field(default_factory=list)
    issued: list[int] = field(default_factory=list)
    accesses: list[tuple[AccessKind, int]] = field(default_factory=list)


def check_values(checked: CheckedPlan) -> Iterator[Violation]:
    """Yields reads and copies of values that are out of date, and results that are not where they belong.

    Buffers whose accesses are served by something that does not exist are left out: their values cannot be followed.
    """
    problem, plan = checked.problem, checked.plan
    moments: list[dict[int, _Moment]] = [{} for _ in problem.buffers]
    broken = [len(plan.served) != len(problem.accesses)] * len(problem.buffers)
    still = _still_residencies(checked)

    def at(buffer: int, time: int) -> _Moment:
        moment = moments[buffer].get(time)
        if moment is None:
            moment = moments[buffer][time] = _Moment(time)
        return moment

    for (time, access), residency in zip(problem.accesses, plan.served, strict=False):
        alone = still[access.buffer]
        if alone < 0:
            continue
        r = plan.residencies[alone]
        if residency != alone or not r.start <= time < r.end:
            still[access.buffer] = -1
    for (time, access), residency in zip(problem.accesses, plan.served, strict=False):
        if still[access.buffer] >= 0:
            continue
        if not checked.knows(residency) or plan.residencies[residency].buffer != access.buffer:
            broken[access.buffer] = True
        else:
            at(access.buffer, time).accesses.append((access.kind, residency))
    left_behind: dict[int, list[int]] = {}
    for number in checked.copies:
        copy = plan.copies[number]
        moved = plan.residencies[copy.source].buffer
        if copy.start == BEFORE:
            left_behind.setdefault(moved, []).append(number)
        elif 0 <= copy.start <= copy.done <= problem.end:
            at(moved, copy.start).issued.append(number)
            if copy.start < copy.done:
                at(moved, copy.done).awaited.append(number)
    starts: list[list[int]] = [[] for _ in problem.buffers]
    for number, r in enumerate(plan.residencies):
        if checked.is_known[number] and r.start == 0 and r.space == problem.buffers[r.buffer].initial_space:
            starts[r.buffer].append(number)

    regions = _Regions(checked)
    for number, buffer in enumerate(problem.buffers):
        if broken[number] or still[number] >= 0:
            continue
        at(number, problem.end)
        ordered = [moments[number][time] for time in sorted(moments[number])]
        flow = _BufferFlow(checked, regions, number, ordered)
        current = None if buffer.initial_space is None else frozenset(starts[number][:1])
        before = left_behind.get(number, ())
        if current is not None:
            current |= {plan.copies[copy].destination for copy in before}
        state = flow.run(0, len(ordered), 0, _FlowState(current, {}))
        yield from flow.violations
        yield from _final(checked, number, state, before)


def _still_residencies(checked: CheckedPlan) -> list[int]:
    """Returns per buffer its only residency if that always holds the value; -1 where values must be followed.

    Such a residency is where the value begins and where it must end, no copy touches it, and it lasts for the whole
    live range. Execution leaves that range and comes back only through a loop around a part of it, so the range lies
    within one region, or is that of the whole program.
    """
    problem, plan = checked.problem, checked.plan
    count, last = [0] * len(problem.buffers), [-1] * len(problem.buffers)
    for number, r in enumerate(plan.residencies):
        if checked.is_known[number]:
            count[r.buffer] += 1
            last[r.buffer] = number
    for number in checked.copies:
        count[plan.residencies[plan.copies[number].source].buffer] = 0
    within: list[int | None] = [None] * len(problem.buffers)  # region of all accesses; -1 for several
    for time, access in problem.accesses:
        region = checked.region[time]
        if within[access.buffer] != region:
            within[access.buffer] = region if within[access.buffer] is None else -1
    still = [-1] * len(problem.buffers)
    for number, buffer in enumerate(problem.buffers):
        if count[number] != 1:
            continue
        r = plan.residencies[last[number]]
        begins = buffer.initial_space is None or (r.start == 0 and r.space == buffer.initial_space)
        ends = buffer.final_space is None or (r.end == problem.end + 1 and r.space == buffer.final_space)
        if not begins or not ends or r.start > buffer.start or r.end < buffer.end:
            continue
        around = within[number]
        if (r.start == 0 and r.end >= problem.end) or around in (None, 0):
            still[number] = last[number]
        elif around is not None and around > 0:
            inside = problem.regions[around]
            if inside.start <= buffer.start and buffer.end <= inside.end:
                still[number] = last[number]
    return still


def _final(checked: CheckedPlan, number: int, state: _FlowState, before: Sequence[int]) -> Iterator[Violation]:
    """Yields what is missing when the program ends."""
    problem, plan = checked.problem, checked.plan
    buffer = problem.buffers[number]
    current = state.current if state.current is not None else _all_of(checked, number)
    lasting = [r for r in sorted(current) if plan.residencies[r].end == problem.end + 1]
    if buffer.final_space is not None:
        there = [r for r in lasting if plan.residencies[r].space == buffer.final_space]
        if buffer.ends_at_home:
            there = [r for r in there if plan.residencies[r].start == buffer.start]
        if not there:
            space = problem.spaces[buffer.final_space].name
            where = "at the place that the caller knows" if buffer.ends_at_home else f"in {space}"
            yield Violation("final", f"{buffer.name} is not {where} when the program ends", number, problem.end)
    for copy in before:
        place = plan.residencies[plan.copies[copy].destination]
        left = [plan.residencies[r] for r in lasting]
        if not any((r.space, r.offset) == (place.space, place.offset) for r in left):
            where = f"{problem.spaces[place.space].name} at offset {place.offset:,}"
            message = (
                f"{checked.copy(copy)}: the next run expects {buffer.name} in {where}, "
                f"but no residency there holds it when this run ends"
            )
            yield Violation("cross-program", message, number, problem.end)


def _all_of(checked: CheckedPlan, buffer: int) -> frozenset[int]:
    return frozenset(
        number
        for number, r in enumerate(checked.plan.residencies)
        if checked.is_known[number] and r.buffer == buffer and r.end == checked.problem.end + 1
    )


class _Regions:
    """The tree of regions, calls looked through."""

    def __init__(self, checked: CheckedPlan):
        self.all = checked.problem.regions
        self.of_time, self.parent = checked.region, checked.parent
        self.branches: dict[tuple[int, int], list[int]] = {}
        for number, region in enumerate(self.all):
            if region.kind is RegionKind.BRANCH:
                self.branches.setdefault(self._group(number), []).append(number)

    def _group(self, number: int) -> tuple[int, int]:
        return (self.parent[number], self.all[number].group)

    def alternatives(self, number: int) -> list[int]:
        """Returns a branch and the others of its conditional."""
        return self.branches[self._group(number)]

    def child_at(self, region: int, time: int) -> int:
        """Returns the region right inside `region` that contains `time`; -1 if `region` itself is the innermost one."""
        inner, child = self.of_time[time], -1
        while inner != region:
            child, inner = inner, self.parent[inner]
        return child


class _BufferFlow:
    """Follows one buffer.

    Attributes:
      violations: of the last run.
    """

    def __init__(self, checked: CheckedPlan, regions: _Regions, buffer: int, moments: list[_Moment]):
        self.checked, self.regions, self.buffer, self.moments = checked, regions, buffer, moments
        self.times = [moment.time for moment in moments]
        self.violations: list[Violation] = []

    def run(self, low: int, high: int, region: int, state: _FlowState) -> _FlowState:
        """Returns the state after `moments[low:high]`, all within one execution of `region`."""
        i = low
        while i < high:
            child = self.regions.child_at(region, self.times[i])
            if child < 0:
                state = self._moment(self.moments[i], state)
                i += 1
            elif self.regions.all[child].kind is RegionKind.LOOP:
                after = self._before(self.regions.all[child].end, high)
                state = self._loop(i, after, child, state)
                i = after
            else:
                outcomes, after = [], i + 1
                for branch in self.regions.alternatives(child):
                    first = max(self._before(self.regions.all[branch].start, high), i)
                    last = max(self._before(self.regions.all[branch].end, high), first)
                    outcomes.append(self.run(first, last, branch, state.copy()))
                    after = max(after, last)
                state = outcomes[0]
                for outcome in outcomes[1:]:
                    state = state.meet(outcome)
                i = after
        return state

    def _before(self, time: int, high: int) -> int:
        return min(bisect.bisect_left(self.times, time), high)

    def _loop(self, low: int, high: int, region: int, entry: _FlowState) -> _FlowState:
        loop, buffer = self.regions.all[region], self.checked.problem.buffers[self.buffer]
        carried = buffer.start < loop.start or (buffer.start == loop.start and buffer.end >= loop.end)
        state = self._alive(entry, loop.start)
        already = len(self.violations)
        while True:
            after = self.run(low, high, region, state.copy())
            if not carried:
                return after
            again = state.meet(self._alive(self._alive(after, loop.end - 1), loop.start))
            if again.current == state.current and again.in_flight == state.in_flight:
                return after
            state = again
            del self.violations[already:]

    def _alive(self, state: _FlowState, time: int) -> _FlowState:
        """Returns what is left of a state when execution reaches `time`."""
        if state.current is None:
            return state
        residencies = self.checked.plan.residencies
        alive = frozenset(r for r in state.current if residencies[r].start <= time < residencies[r].end)
        return _FlowState(alive, state.in_flight)

    def _moment(self, moment: _Moment, state: _FlowState) -> _FlowState:
        plan = self.checked.plan
        state = self._alive(state, moment.time)
        current, in_flight = state.current, state.in_flight
        for number in moment.awaited:
            outdated = in_flight.pop(number, _REPORTED)
            current = self._arrive(number, outdated, current)
        for number in moment.issued:
            copy = plan.copies[number]
            outdated = _SOUND
            if current is not None and copy.source not in current:
                outdated = _REPORTED
                message = (
                    f"{self.checked.copy(number)}: its source, residency {copy.source}, does not hold the value then"
                )
                self.violations.append(Violation("source", message, self.buffer, copy.start))
            if current is not None:
                current -= {copy.destination}
            if copy.start == copy.done:
                current = self._arrive(number, outdated, current)
            else:
                in_flight[number] = outdated
        for kind, residency in moment.accesses:
            if kind is not AccessKind.WRITE and current is not None and residency not in current:
                message = (
                    f"{self.checked.operation(moment.time)} {kind.value}s {self.checked.buffer(self.buffer)} from "
                    f"{self.checked.residency(residency)}, which does not hold its value then"
                )
                self.violations.append(Violation("value", message, self.buffer, moment.time))
            if kind is not AccessKind.READ:
                current = frozenset([residency])
                for number, outdated in in_flight.items():
                    if outdated == _SOUND:
                        in_flight[number] = moment.time
        return _FlowState(current, in_flight)

    def _arrive(self, number: int, outdated: int, current: frozenset[int] | None) -> frozenset[int] | None:
        """Returns what is current after a copy is done."""
        copy = self.checked.plan.copies[number]
        if outdated == _SOUND:
            return current if current is None else current | {copy.destination}
        if outdated != _REPORTED:
            writer = self.checked.operation(outdated)
            message = f"{self.checked.copy(number)}: {writer} overwrites {self.checked.buffer(self.buffer)} meanwhile"
            self.violations.append(Violation("source", message, self.buffer, copy.start))
        return current if current is None else current - {copy.destination}
