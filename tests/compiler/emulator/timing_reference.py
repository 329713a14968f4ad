"""A slow, exact reading of the timing rules, and random problems to compare the emulator with it.

Loops are run iteration by iteration, branches one after another from copies of the state, all in fractions. Nothing is
shared with the emulator, nor skipped, nor rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan, Residency
from memplan.compiler.mapping.problem import (
    Access,
    Buffer,
    Link,
    MappingProblem,
    MemorySpace,
    Operation,
    Region,
)

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass
class Flight:
    """A copy in a queue: bytes left, and time until it may move."""

    copy: int
    left: Fraction
    wait: Fraction


@dataclass
class State:
    """What is in the queues now, and the seconds so far, all of them and those that were waited."""

    queues: dict[int, list[Flight]]
    clock: Fraction = Fraction(0)
    stalled: Fraction = Fraction(0)

    def clone(self) -> State:
        queues = {q: [Flight(f.copy, f.left, f.wait) for f in flights] for q, flights in self.queues.items()}
        return State(queues, self.clock, self.stalled)


@dataclass
class Reference:
    """Runs a plan; `run` returns `(latency, stalled seconds)`."""

    problem: MappingProblem
    plan: Plan
    served: list[list[int]] = field(default_factory=list)

    def run(self) -> tuple[Fraction, Fraction]:
        first = 0
        for operation in self.problem.operations:
            count = len(operation.accesses)
            self.served.append([self.plan.residencies[r].space for r in self.plan.served[first : first + count]])
            first += count
        state = State({link.queue: [] for link in self.problem.links})
        n = len(self.problem.operations)
        state = self.region(0, state)
        self.arrive(n, state)
        return state.clock, state.stalled

    def region(self, r: int, state: State) -> State:
        """Runs one iteration of a region."""
        region = self.problem.regions[r]
        t = region.start
        while t < region.end:
            child = next(
                (c for c, x in enumerate(self.problem.regions) if c and x.parent == r and x.start == t < x.end), None
            )
            if child is None:
                self.arrive(t, state)
                self.operate(t, state)
                t += 1
            elif self.problem.regions[child].kind is RegionKind.BRANCH:
                group = self.problem.regions[child].group
                outcomes = []
                while child is not None:
                    branch = self.problem.regions[child]
                    probability = Fraction(branch.trip_count)
                    if probability > 0:
                        outcomes.append((probability, self.region(child, state.clone())))
                    t = branch.end
                    child = next(
                        (
                            c
                            for c, x in enumerate(self.problem.regions)
                            if c and x.parent == r and x.start == t < x.end and x.group == group >= 0
                        ),
                        None,
                    )
                state = expected(outcomes, state)
            else:
                loop = self.problem.regions[child]
                trips = Fraction(loop.trip_count)
                while trips > 0:
                    after = self.region(child, state.clone())
                    state = after if trips >= 1 else expected([(trips, after)], state)
                    trips -= 1
                t = loop.end
        return state

    def arrive(self, t: int, state: State) -> None:
        arrived = state.clock
        for i, copy in enumerate(self.plan.copies):
            if copy.start != BEFORE and copy.done == t > copy.start:
                self.drain(state, {i}, None)
        for i, copy in sorted(enumerate(self.plan.copies), key=lambda pair: pair[1].start):
            if copy.start == t:
                link = self.link(i)
                size = self.problem.buffers[self.plan.residencies[copy.source].buffer].size
                state.queues[link.queue].append(Flight(i, Fraction(size), Fraction(link.latency)))
                if copy.done == t:
                    self.drain(state, {i}, None)
        state.stalled += state.clock - arrived

    def operate(self, t: int, state: State) -> None:
        operation = self.problem.operations[t]
        duration = Fraction(operation.overhead)
        taken: dict[int, Fraction] = {}
        for access, space in zip(operation.accesses, self.served[t], strict=True):
            duration += Fraction(access.cost[space])
            memory = self.problem.spaces[space]
            if memory.channel >= 0:
                taken[memory.channel] = taken.get(memory.channel, Fraction(0)) + Fraction(access.bytes) / Fraction(
                    memory.bandwidth
                )
        duration = max(duration, Fraction(operation.floor))
        if duration > 0:
            part = {channel: max(Fraction(0), 1 - busy / duration) for channel, busy in taken.items()}
            self.drain(state, set(), duration, part)

    def link(self, i: int) -> Link:
        copy = self.plan.copies[i]
        ends = self.plan.residencies[copy.source].space, self.plan.residencies[copy.destination].space
        return next(x for x in self.problem.links if (x.source, x.destination) == ends)

    def drain(
        self, state: State, awaited: set[int], duration: Fraction | None, part: dict[int, Fraction] | None = None
    ) -> None:
        """Lets time pass: `duration`, or until the awaited copies are gone."""
        part = part or {}
        while True:
            for flights in state.queues.values():
                while flights and flights[0].left <= 0 and flights[0].wait <= 0:
                    flights.pop(0)
            in_flight = {f.copy for flights in state.queues.values() for f in flights}
            if duration is None and not awaited & in_flight:
                return
            if duration is not None and duration <= 0:
                return
            heads = [flights[0] for flights in state.queues.values() if flights and flights[0].wait <= 0]
            channels = [self.link(f.copy).channel for f in heads]
            rates = [
                Fraction(self.link(f.copy).bandwidth) * part.get(channel, Fraction(1)) / channels.count(channel)
                for f, channel in zip(heads, channels, strict=True)
            ]
            events = [f.left / rate for f, rate in zip(heads, rates, strict=True) if rate > 0]
            events += [f.wait for flights in state.queues.values() for f in flights if f.wait > 0]
            if duration is not None:
                events.append(duration)
            step = min(events)
            for f, rate in zip(heads, rates, strict=True):
                f.left -= rate * step
            for flights in state.queues.values():
                for f in flights:
                    f.wait = max(Fraction(0), f.wait - step)
            state.clock += step
            if duration is not None:
                duration -= step


def expected(outcomes: list[tuple[Fraction, State]], before: State) -> State:
    """Returns the expectation over outcomes; with the probability that is missing to 1 nothing happened."""
    missing = 1 - sum((p for p, _ in outcomes), Fraction(0))
    if missing > 0:
        outcomes = [*outcomes, (missing, before)]
    state = State({q: [] for q in before.queues})
    state.clock = sum((p * s.clock for p, s in outcomes), Fraction(0))
    state.stalled = sum((p * s.stalled for p, s in outcomes), Fraction(0))
    for q, flights in before.queues.items():
        for flight in flights:
            after = [(p, f) for p, s in outcomes for f in s.queues[q] if f.copy == flight.copy]
            if after:
                left = sum((p * f.left for p, f in after), Fraction(0))
                wait = sum((p * f.wait for p, f in after), Fraction(0))
                state.queues[q].append(Flight(flight.copy, left, wait))
    return state


@st.composite
def problems_and_plans(draw: Draw, branches: bool = True, max_trips: int = 6) -> tuple[MappingProblem, Plan]:
    """Draws a problem and a plan of it that the emulator can run, though not one that makes sense of memory.

    Numbers are small multiples of powers of two, so that floating point computes most of them exactly.
    """
    quarters = st.integers(0, 16).map(lambda k: k / 4)
    rates = st.sampled_from([0.5, 1.0, 2.0, 4.0])
    shares_a_bus = draw(st.booleans())
    spaces = (
        MemorySpace("slow", 1 << 30, 1, draw(rates), 0),
        MemorySpace("fast", 1 << 20, 1, draw(rates), draw(st.sampled_from([-1, -1, 0]))),
        MemorySpace("third", 1 << 20, 1, draw(rates), draw(st.sampled_from([-1, 1]))),
    )
    ends = [(0, 1), (1, 0), (0, 2), (2, 0)]
    links = tuple(
        Link(
            a, b, draw(rates), draw(st.sampled_from([0.0, 0.0, 0.25, 3.0])), draw(st.integers(0, 2)),
            0 if shares_a_bus or b == 1 else draw(st.integers(0, 1)),
        )
        for a, b in ends
    )  # fmt: skip
    buffers = tuple(
        Buffer(f"b{i}", size, 0, 1, (0, 1, 2), 0)
        for i, size in enumerate(draw(st.lists(st.integers(0, 24), min_size=1, max_size=4)))
    )
    regions = [Region(RegionKind.PROGRAM, 0, 0, -1, 1.0)]
    region_of: list[int] = []

    def fill(r: int, depth: int) -> None:
        for _ in range(draw(st.integers(1, 4 if depth == 0 else 2))):
            kind = draw(st.sampled_from(["op", "op", "loop", "branch"] if branches else ["op", "loop"]))
            if kind == "op" or depth >= 2:
                region_of.append(r)
            elif kind == "loop":
                trips = draw(st.integers(0, max_trips))
                add(RegionKind.LOOP, r, depth, trips + draw(st.sampled_from([0.0, 0.0, 0.5])) * branches, -1)
                region_of.append(r)
            else:
                group = len(regions)
                shares = draw(st.sampled_from([(0.5, 0.5), (0.25, 0.75), (1.0, 0.0), (0.25, 0.5), (0.5, 0.25, 0.25)]))
                for share in shares:
                    add(RegionKind.BRANCH, r, depth, share, group)
                region_of.append(r)

    def add(kind: RegionKind, parent: int, depth: int, trips: float, group: int) -> None:
        number, start = len(regions), len(region_of)
        regions.append(Region(kind, start, start, parent, trips, group))
        fill(number, depth + 1)
        regions[number] = Region(kind, start, len(region_of), parent, trips, group)

    fill(0, 0)
    n = len(region_of)
    regions[0] = Region(RegionKind.PROGRAM, 0, n, -1, 1.0)
    operations = []
    for t, r in enumerate(region_of):
        accesses = tuple(
            Access(b, AccessKind.READ, buffers[b].size, tuple(draw(quarters) for _ in spaces))
            for b in draw(st.lists(st.integers(0, len(buffers) - 1), max_size=2))
        )
        operations.append(Operation(f"o{t}", "op", draw(quarters), draw(quarters), (0, 0, 0), r, accesses))
    problem = MappingProblem("random", "test", spaces, links, tuple(regions), tuple(operations), buffers)
    # Residency 3 b + s is buffer b in space s.
    residencies = tuple(Residency(b, s, 0, 0, n) for b in range(len(buffers)) for s in range(3))
    served = tuple(3 * a.buffer + draw(st.integers(0, 2)) for o in operations for a in o.accesses)
    copies = []
    for _ in range(draw(st.integers(0, 8))):
        source, destination = draw(st.sampled_from(ends))
        buffer = draw(st.integers(0, len(buffers) - 1))
        start = draw(st.integers(-1, n))
        if start < 0:
            copies.append(Copy(3 * buffer, 3 * buffer + 1, BEFORE, 0))
            continue
        home = region_of[start] if start < n else 0
        done = draw(st.sampled_from([t for t in range(start, n + 1) if (region_of[t] if t < n else 0) == home]))
        copies.append(Copy(3 * buffer + source, 3 * buffer + destination, start, done))
    copies.sort(key=lambda copy: copy.start)
    return problem, Plan(problem.fingerprint, "random", "test", "random", residencies, tuple(copies), served)
