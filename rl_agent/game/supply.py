"""What operations take with everything at home, and what they leave to copies: the game's *supply*.

Rounding. The rules compare whole numbers, *ticks* of time. Supply is rounded down and demand up, so that a copy that
fits here fits in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.hardware.roofline import durations
from memplan.compiler.mapping.problem import Link, MappingProblem
from memplan.planners.stays.assembly import home_of
from memplan.planners.stays.chains import Slots
from memplan.rl_agent.game.moves import CLOSED, EVICTION, NEVER, NONE, PASSED, PREFETCH

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Ticks of all operations together, everything at home, and those that all loops offer at most over which copies may be
# in flight: small enough for sums of 32 bits, large enough that a short operation still has many.
_ALL_TICKS, _PASSING_TICKS = 2**27, 2**29


@dataclass(frozen=True)
class Supply:
    """The supply of a problem: times of its operations, and of copies. Pairs are by `PREFETCH` and `EVICTION`.

    Attributes:
      tick: seconds.
      home_latency: seconds, everything at home.
      floor, demand, taken, repetitions: `[num_slots]` of an operation: ticks that it takes at least, ticks of memory
        time and of the link's channel with everything at home, and how often it runs; 0 for loops and conditionals. The
        end of the program takes no time.
      floor_seconds, demand_seconds, taken_seconds: `[num_slots]` float64, the first three in seconds.
      duration_seconds: `[num_slots]` float64, of an operation, everything at home.
      access_saving, access_traffic: `[num_accesses]` float64, seconds of memory time and of the link's channel that
        each access saves in fast memory.
      idle: `[num_slots]` ticks that an operation, and the loops behind it, leave to copies, everything at home;
        `PASSED` for those loops; `CLOSED` for other loops and conditionals, and for operations that no other one of
        their region follows.
      awaited: `[num_slots]` the time at which a copy is awaited that has ticks up to a slot.
      before: `[num_slots]` see `Move`; `carrier`, `trips` and `carried` are those of all its operations.
      links: None where there is none.
      queue: numbers of the links' queues, -1 for none.
      latency_seconds, latency: of the links, in seconds, and in ticks, rounded down.
      copy_seconds: `[num_buffers]` float64 each, how long a link moves each buffer's bytes.
      can_wait: whether an operation may wait for a copy: both links must be on one channel.
    """

    tick: float
    home_latency: float
    floor: Integers
    demand: Integers
    taken: Integers
    repetitions: Floats
    floor_seconds: Floats
    demand_seconds: Floats
    taken_seconds: Floats
    duration_seconds: Floats
    access_saving: Floats
    access_traffic: Floats
    idle: Integers
    awaited: Integers
    before: Integers
    carrier: Integers
    trips: Integers
    carried: Integers
    links: tuple[Link | None, Link | None]
    queue: tuple[int, int]
    latency_seconds: tuple[float, float]
    latency: tuple[int, int]
    copy_seconds: tuple[Floats, Floats]
    can_wait: bool

    def ticks_below(self, seconds: Floats) -> Integers:
        """Returns ticks, rounded down."""
        return _ticks_below(seconds, self.tick)

    def ticks_above(self, seconds: Floats) -> Integers:
        """Returns ticks, rounded up, but not more than `NEVER`."""
        return _ticks_above(seconds, self.tick)

    def copy_ticks(self, way: int, size: int) -> int:
        """Returns the ticks of supply that a copy of so many bytes takes one way; `NEVER` if there is no link."""
        link = self.links[way]
        if link is None:
            return NEVER
        return max(1, int(self.ticks_above(np.array(link.latency + size / link.bandwidth))))


def supply_of(problem: MappingProblem, slots: Slots, space: int) -> Supply:
    """Returns the supply of a problem's operations for copies between the slow memory and a fast space.

    Args:
      problem: that is played.
      slots: of the problem.
      space: the fast one.
    """
    links = _link(problem, 0, space), _link(problem, space, 0)
    channels = {link.channel for link in links if link is not None}
    # If the links have two channels, the busier one counts; their sum is an upper bound of it.
    busy = np.array([1.0 / s.bandwidth if s.channel in channels and s.channel >= 0 else 0.0 for s in problem.spaces])
    cost = np.array([access.cost for _, access in problem.accesses], np.float64).reshape(-1, len(problem.spaces))
    moved = np.array([access.bytes for _, access in problem.accesses], np.float64)
    time = np.array([t for t, _ in problem.accesses], np.int64)
    home = np.array([home_of(problem, access.buffer) for _, access in problem.accesses], np.int64)
    rows = np.arange(len(time))

    n = problem.end
    slot = slots.of_time[:n]
    floor, demand, taken, repetitions = (np.zeros(len(slots.time)) for _ in range(4))
    floor[slot] = [operation.floor for operation in problem.operations]
    demand[slot] = [operation.overhead for operation in problem.operations]
    np.add.at(demand, slots.of_time[time], cost[rows, home])
    np.add.at(taken, slots.of_time[time], moved * busy[home])
    repetitions[slot] = np.array(problem.repetitions)[slots.region_of_time[:n]]
    repetitions[slots.of_time[n]] = 1.0  # the end of the program, which may wait for copies home
    duration = durations(floor, demand)
    tick = max(float(duration.sum()), 1e-30) / _ALL_TICKS
    ticks = _ticks_below(floor, tick), _ticks_below(demand, tick), _ticks_above(taken, tick)

    size = np.array([buffer.size for buffer in problem.buffers], np.float64)
    prefetch, eviction = (0.0 if link is None else link.latency for link in links)
    into, back = (size * 0.0 if link is None else size / link.bandwidth for link in links)
    return Supply(
        tick=tick,
        home_latency=float(repetitions @ duration),
        floor=ticks[0],
        demand=ticks[1],
        taken=ticks[2],
        repetitions=repetitions,
        floor_seconds=floor,
        demand_seconds=demand,
        taken_seconds=taken,
        duration_seconds=duration,
        access_saving=cost[rows, home] - cost[:, space],
        access_traffic=moved * (busy[home] - busy[space]),
        **_left_to_copies(problem, slots, *ticks),
        links=links,
        queue=(_queue(links[PREFETCH]), _queue(links[EVICTION])),
        latency_seconds=(prefetch, eviction),
        latency=(int(_ticks_below(np.array(prefetch), tick)), int(_ticks_below(np.array(eviction), tick))),
        copy_seconds=(into, back),
        can_wait=links[PREFETCH] is not None and len(channels) == 1,
    )


def _link(problem: MappingProblem, source: int, target: int) -> Link | None:
    number = problem.link_between.get((source, target))
    return None if number is None else problem.links[number]


def _queue(link: Link | None) -> int:
    return NONE if link is None else link.queue


def _ticks_below(seconds: Floats, tick: float) -> Integers:
    return np.floor(seconds / tick * (1 - 1e-12)).astype(np.int64)


def _ticks_above(seconds: Floats, tick: float) -> Integers:
    return np.ceil(np.minimum(seconds / tick * (1 + 1e-12), NEVER)).astype(np.int64)


def _left_to_copies(
    problem: MappingProblem, slots: Slots, floor: Integers, demand: Integers, taken: Integers
) -> dict[str, Integers]:
    """Returns what operations leave to copies, and which loops copies may be in flight over: fields of `Supply`."""
    count = len(slots.time)
    lasting = durations(floor, demand)
    spare = np.maximum(lasting - taken, 0)
    idle, awaited, before = np.full(count, CLOSED), slots.end.copy(), np.arange(count)
    carrier, trips, carried = np.full(count, NONE), np.zeros(count, np.int64), np.zeros_like(spare)
    passed = _passed(problem, slots)
    for first, last in zip(slots.first.tolist(), slots.last.tolist(), strict=True):
        for slot in range(first, last):
            end = slot + 1
            while end < last and end in passed:
                end += 1
            if end == last or not (slots.is_operation[slot] and slots.is_operation[end]):
                continue
            for loop in range(slot + 1, end):
                body, iterations = passed[loop]
                most = _PASSING_TICKS // (len(passed) * max(1, int(lasting[body].sum())))
                carrier[body], trips[body] = slot, min(iterations, most)
                carried[slot] += min(iterations, most) * int(spare[body].sum())
                idle[loop] = PASSED
            idle[slot] = spare[slot] + carried[slot]
            awaited[slot:end] = slots.time[end]
            before[end] = slot
    return {
        "idle": idle, "awaited": awaited, "before": before, "carrier": carrier, "trips": trips, "carried": carried,
    }  # fmt: skip


def _passed(problem: MappingProblem, slots: Slots) -> dict[int, tuple[slice, int]]:
    """Returns the loops that copies may pass, if an operation is before and after: slots inside, and iterations."""
    found = {}
    for number, region in enumerate(problem.regions):
        body = slice(int(slots.first[number]), int(slots.last[number]))
        if region.kind is RegionKind.LOOP and region.trip_count >= 1.0 and slots.is_operation[body].all():
            found[int(slots.of_region[number])] = (body, int(region.trip_count))
    return found
