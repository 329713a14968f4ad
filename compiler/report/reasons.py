"""Why a buffer is where it is: what stood in the way of serving each access from the memory that would be fastest.

The reasons follow from the problem, the plan and its timeline alone, for the plans of any planner. They are checked in
the order of `_OBSTACLES`, hard limits first, and the first that holds is given. If none does, the report says so: the
planner left it, and another might not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.emulator.timing import Timeline
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation
from memplan.compiler.report.costs import BufferCosts
from memplan.compiler.report.units import print_bytes, print_seconds
from memplan.compiler.report.usage import Usage, buffer_kind

# How many buffers are named as those that take the room.
_NAMED = 3

# A weight may be read thousands of times; the accesses that cost most tell enough.
_EXAMINED = 200


@dataclass(frozen=True)
class BufferStory:
    """One buffer's part in the latency.

    Attributes:
      buffer: index.
      name: of its first value.
      size: bytes.
      kind: "argument" (or constant), "result", "updated" or "temporary".
      places: names of the spaces in which it resides, in order of time.
      lost, waited, saved: seconds per run, see `BufferCosts`.
      reasons: sentences, without a full stop.
    """

    buffer: int
    name: str
    size: int
    kind: str
    places: tuple[str, ...]
    lost: float
    waited: float
    saved: float
    reasons: tuple[str, ...]


class StoryTeller:
    """Tells the stories of a plan's buffers.

    Args:
      problem, plan, timeline: the plan and what the emulator says of it.
      usage: `[num_spaces]` what it occupies.
      costs: what its buffers cost.
    """

    def __init__(
        self, problem: MappingProblem, plan: Plan, timeline: Timeline, usage: tuple[Usage, ...], costs: BufferCosts
    ):
        self.problem, self.plan, self.timeline, self.usage, self.costs = problem, plan, timeline, usage, costs
        rows = [(r.buffer, r.space, r.offset, r.start, r.end) for r in plan.residencies]
        self.residencies = np.array(rows, np.int64).reshape(len(rows), 5)
        self._operations_busy: dict[int, np.ndarray] = {}

    def taken_by_operations(self, start: int, end: int, channel: int) -> float:
        """Returns the seconds for which operations `[start, end)` use a channel."""
        if channel not in self._operations_busy:
            taken = np.zeros(self.problem.end + 1)
            for number, (t, access) in enumerate(self.problem.accesses):
                space = self.problem.spaces[self.plan.residencies[self.plan.served[number]].space]
                if space.channel == channel >= 0:
                    taken[t + 1] += access.bytes / space.bandwidth
            self._operations_busy[channel] = np.cumsum(taken)
        busy = self._operations_busy[channel]
        return float(busy[end] - busy[start])

    def taken_by_copies(self, start: float, end: float) -> float:
        """Returns the seconds for which copies move between two moments, each copy counted."""
        overlap = np.minimum(self.timeline.end, end) - np.maximum(self.timeline.begin, start)
        return float(np.nansum(np.maximum(overlap, 0.0)))

    def tell(self, buffer: int) -> BufferStory:
        """Returns what a buffer costs and why."""
        rows = self.residencies[self.residencies[:, 0] == buffer]
        rows = rows[np.lexsort((rows[:, 1], rows[:, 3]))]
        described = self.problem.buffers[buffer]
        return BufferStory(
            buffer=buffer,
            name=described.name,
            size=described.size,
            kind=buffer_kind(self.problem, buffer),
            places=tuple(dict.fromkeys(self.problem.spaces[space].name for space in rows[:, 1])),
            lost=float(self.costs.lost[buffer]),
            waited=float(self.costs.waited[buffer]),
            saved=float(self.costs.saved[buffer]),
            reasons=tuple(self._reasons(buffer)),
        )

    def _reasons(self, buffer: int) -> Iterator[str]:
        problem, plan = self.problem, self.plan
        numbers = problem.accesses_of[buffer]
        fast = [number for number in numbers if plan.residencies[plan.served[number]].space != 0]
        if fast:
            spaces = dict.fromkeys(problem.spaces[plan.residencies[plan.served[number]].space].name for number in fast)
            first, last = problem.accesses[fast[0]][0], problem.accesses[fast[-1]][0]
            share = "all" if len(fast) == len(numbers) else f"{len(fast)} of"
            where = " and ".join(spaces)
            yield f"{share} {_plural(len(numbers), 'access')} served from {where}, {_between(first, last)}"

        lost = self.costs.access_lost
        costly = sorted((number for number in numbers if lost[number] > 0), key=lambda number: -lost[number])
        told: dict[str, list[tuple[int, str]]] = {}
        for number in costly[:_EXAMINED]:
            kind, sentence = self._obstacle(number)
            told.setdefault(kind, []).append((number, sentence))
        for group in sorted(told.values(), key=lambda group: -sum(lost[number] for number, _ in group)):
            sentence = group[0][1]
            if len(group) > 1:
                times = [problem.accesses[number][0] for number, _ in group]
                sentence += f" (and {len(group) - 1} more like it, {_between(min(times), max(times))})"
            yield sentence
        if self.costs.waited[buffer] > 0:
            yield f"operations wait {print_seconds(float(self.costs.waited[buffer]))} for its copies"

    def _obstacle(self, number: int) -> tuple[str, str]:
        """Returns the kind of what stands in the way at an access, and the sentence for it."""
        case = _Case(self, number)
        for kind, check in _OBSTACLES.items():
            sentence = check(case)
            if sentence is not None:
                return kind, sentence
        return "left", f"{case.space.name} had room {_between(*case.window)}; {self.plan.planner} did not use it"


class _Case:
    """An access that is not served from the space that would be best for it, and what the checks ask about it."""

    def __init__(self, teller: StoryTeller, number: int):
        self.teller = teller
        self.problem = teller.problem
        self.number = number
        self.time: int
        self.access: Access
        self.time, self.access = teller.problem.accesses[number]
        self.operation: Operation = teller.problem.operations[self.time]
        self.buffer: Buffer = teller.problem.buffers[self.access.buffer]
        self.space_index = int(teller.costs.access_best[number])
        self.space: MemorySpace = teller.problem.spaces[self.space_index]
        self.size = print_bytes(self.buffer.size)
        link = teller.problem.link_between.get((0, self.space_index))
        self.link: Link | None = None if link is None else teller.problem.links[link]

    @cached_property
    def siblings(self) -> tuple[int, ...]:
        return self.problem.accesses_of[self.access.buffer]

    @cached_property
    def previous(self) -> int:
        """Time of the access before it; -1 where there is none."""
        place = self.siblings.index(self.number)
        times = [self.problem.accesses[number][0] for number in self.siblings[:place]]
        return max((t for t in times if t < self.time), default=-1)

    @cached_property
    def needs_copy(self) -> bool:
        """Whether the value is elsewhere before: it is neither written by this operation nor left there by the last."""
        if self.access.kind is AccessKind.WRITE:
            return False
        rows = self.teller.residencies
        here = (rows[:, 0] == self.access.buffer) & (rows[:, 1] == self.space_index)
        return not bool(np.any(here & (rows[:, 3] <= self.previous) & (rows[:, 4] > self.previous)))

    @cached_property
    def copy_time(self) -> float:
        assert self.link is not None
        return self.link.latency + self.buffer.size / self.link.bandwidth

    @cached_property
    def copy_runs(self) -> float:
        """How often a copy would have to be made: once around all loops that only read the value."""
        problem = self.problem
        accesses = [problem.accesses[number] for number in self.siblings]
        written = [t for t, access in accesses if access.kind is not AccessKind.READ]
        region = self.operation.region
        while region and not any(problem.regions[region].start <= t < problem.regions[region].end for t in written):
            region = problem.regions[region].parent
        return problem.repetitions[region]

    @cached_property
    def window(self) -> tuple[int, int]:
        """First and last time at which there must be room at least."""
        if self.access.kind is AccessKind.WRITE:
            later = [self.problem.accesses[n][0] for n in self.siblings]
            following = min((t for t in later if t > self.time), default=self.time)
            return self.time, following
        return (self.time if self.needs_copy else self.previous), self.time

    @cached_property
    def crowded(self) -> int:
        """The time in the window at which least is free."""
        start, end = self.window
        used = self.teller.usage[self.space_index]
        return start + int(np.argmax((used.live + used.reserved)[start : end + 1]))

    @cached_property
    def occupants(self) -> list[tuple[int, int, int]]:
        """`(offset, size, buffer)` of what else is there at the crowded time, by offset."""
        rows = self.teller.residencies
        there = (rows[:, 1] == self.space_index) & (rows[:, 3] <= self.crowded) & (rows[:, 4] > self.crowded)
        there &= rows[:, 0] != self.access.buffer
        return sorted((int(r[2]), self.problem.buffers[r[0]].size, int(r[0])) for r in rows[there])

    @cached_property
    def reserved(self) -> int:
        """Bytes that the operation at the crowded time keeps for itself."""
        return int(self.teller.usage[self.space_index].reserved[self.crowded])

    @cached_property
    def free(self) -> int:
        return self.space.capacity - self.reserved - sum(size for _, size, _ in self.occupants)

    @cached_property
    def passed(self) -> tuple[float, float]:
        """From when to when a copy could run: after the last access to the value, until this one."""
        timeline = self.teller.timeline
        start = 0.0
        if self.previous >= 0:
            start = float(timeline.start[self.previous] + timeline.duration[self.previous])
        return start, float(timeline.start[self.time])


def _capacity(case: _Case) -> str | None:
    if case.buffer.size <= case.space.capacity:
        return None
    return f"its {case.size} do not fit {case.space.name}, which has {print_bytes(case.space.capacity)}"


def _forbidden(case: _Case) -> str | None:
    return None if case.space_index in case.buffer.spaces else f"it may not lie in {case.space.name}"


def _reserved(case: _Case) -> str | None:
    reserved = case.operation.reserved[case.space_index]
    if case.buffer.size <= case.space.capacity - reserved:
        return None
    return (
        f"its {case.size} do not fit {case.space.name} beside the {print_bytes(reserved)} that "
        f"{_moment(case, case.time)} keeps for itself"
    )


def _no_link(case: _Case) -> str | None:
    if not case.needs_copy or case.link is not None:
        return None
    return f"nothing copies from {case.problem.spaces[0].name} to {case.space.name}"


def _gain(case: _Case) -> str | None:
    """A copy that takes longer than all the uses that it could serve would save."""
    if not case.needs_copy:
        return None
    gain, uses = 0.0, 0
    for number in case.siblings[case.siblings.index(case.number) :]:
        if case.problem.accesses[number][1].kind is AccessKind.WRITE:
            break
        gain += float(case.teller.costs.access_lost[number])
        uses += 1
    gain /= case.copy_runs
    if gain >= case.copy_time:
        return None
    use = "its use" if uses == 1 else f"its {uses} uses from there on"
    return (
        f"a copy to {case.space.name} for {_moment(case, case.time)} takes {print_seconds(case.copy_time)}, and {use} "
        f"would save {print_seconds(gain)}"
    )


def _room(case: _Case) -> str | None:
    if case.free >= case.buffer.size:
        return None
    largest = sorted(case.occupants, key=lambda occupant: -occupant[1])[:_NAMED]
    takers = [f"{case.problem.buffers[buffer].name} {print_bytes(size)}" for _, size, buffer in largest]
    if len(case.occupants) > len(largest):
        takers.append(f"{len(case.occupants) - len(largest)} more")
    if case.reserved:
        takers.append(f"{case.problem.operations[case.crowded].name} itself {print_bytes(case.reserved)}")
    taken = f" (taken by {', '.join(takers)})" if takers else ""
    return (
        f"no room in {case.space.name} {_between(*case.window)}: it needs {case.size}, and "
        f"{print_bytes(max(case.free, 0))} are free{_then(case)}{taken}"
    )


def _pieces(case: _Case) -> str | None:
    hole, top = 0, case.reserved
    for offset, size, _ in case.occupants:
        hole, top = max(hole, offset - top), max(top, offset + size)
    hole = max(hole, case.space.capacity - top)
    if hole >= case.buffer.size:
        return None
    return (
        f"room in {case.space.name} only in pieces {_between(*case.window)}: it needs {case.size}, and of "
        f"{print_bytes(case.free)} free{_then(case)} the largest piece has {print_bytes(hole)}"
    )


def _time(case: _Case) -> str | None:
    """The program gives a copy too little time, or leaves its bus too little of it."""
    if not case.needs_copy:
        return None
    start, end = case.passed
    since = _moment(case, case.previous) if case.previous >= 0 else "the start"
    need = f"a copy to {case.space.name} for {_moment(case, case.time)} takes {print_seconds(case.copy_time)}"
    if end - start < case.copy_time:
        return f"{need}, and {print_seconds(end - start)} pass since {since}"
    assert case.link is not None
    busy = case.teller.taken_by_operations(case.previous + 1, case.time, case.link.channel)
    left = end - start - busy - case.teller.taken_by_copies(start, end)
    if left >= case.copy_time:
        return None
    return (
        f"{need}, and of the {print_seconds(end - start)} since {since} the operations and other copies leave the bus "
        f"{print_seconds(max(left, 0.0))}"
    )


# Hard limits first, then what a person would change first.
_OBSTACLES: dict[str, Callable[[_Case], str | None]] = {
    "capacity": _capacity,
    "forbidden": _forbidden,
    "reserved": _reserved,
    "link": _no_link,
    "gain": _gain,
    "room": _room,
    "pieces": _pieces,
    "time": _time,
}


def _moment(case: _Case, t: int) -> str:
    return f"{case.problem.operations[t].name} (t={t})"


def _then(case: _Case) -> str:
    """Says which moment of the window is meant, where it has several."""
    return "" if case.window[0] == case.window[1] else f" at t={case.crowded}"


def _between(first: int, last: int) -> str:
    return f"at t={first}" if first == last else f"from t={first} to t={last}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun if count == 1 else noun + 'es'}"
