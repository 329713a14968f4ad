"""How long operations take and how much time they leave to copies, in the relaxation (see `relaxation.py`)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

import numpy as np

from memplan.compiler.hardware.roofline import duration, durations
from memplan.compiler.mapping.problem import Access, Operation
from memplan.planners.ilp.linear import ONE, ZERO, Affine, add_up, column
from memplan.planners.ilp.model import Relaxation, RelaxedCopy

# Operations with more accesses than this that may be served from several spaces are not enumerated.
_MAX_ENUMERATED = 10

# The latency of copies is counted in windows of time that may be no longer than this many latencies.
_LATENCIES = 30.0


def write_clock(model: Relaxation) -> None:
    """Adds durations and waits to a model, and limits copies to the time in which their channels are idle."""
    _Clock(model).write()


class _Clock:
    """Writes how long operations take, and how much time of the channels they leave."""

    def __init__(self, model: Relaxation):
        self.model, self.problem, self.program = model, model.problem, model.program

    def write(self) -> None:
        """Adds the durations and waits to the objective, and limits the copies."""
        model, program, problem = self.model, self.program, self.problem
        channels = sorted({link.channel for link in problem.links})
        idle: dict[int, dict[int, Affine]] = {channel: {} for channel in channels}
        lasts: dict[int, Affine] = {}
        for t in range(model.span.first, model.span.last):
            operation = problem.operations[t]
            repetitions = problem.repetitions[operation.region]
            if repetitions <= 0.0:
                continue
            program.positions = 2 * t, 2 * t + 2
            seconds = self._duration(t, operation, repetitions)
            lasts[2 * t + 1] = seconds
            for channel in channels:
                taken = self._taken(t, operation, channel)
                idle[channel][2 * t + 1] = seconds - taken.scaled(repetitions / model.unit)
        # The wait after the last operation belongs to the next span; at the end of the program it belongs to this one.
        last = 2 * model.span.last + (model.span.last == problem.end)
        for position in range(2 * model.span.first, last, 2):
            program.positions = position, position + 1
            wait = column(program.add_column(0.0, 1000.0, cost=1.0))
            self.model.waits[position] = lasts[position] = wait
            for channel in channels:
                idle[channel][position] = wait
        model.idle = idle
        for channel in channels:
            self._limit_copies(channel, idle[channel])
        self._limit_times(lasts, idle)

    def _duration(self, t: int, operation: Operation, repetitions: float) -> Affine:
        """Returns the time of all runs of an operation, in units; it is part of the objective."""
        model, program = self.model, self.program
        demand = Affine(operation.overhead)
        least = most = operation.overhead
        for number, access in self._accesses(t, operation):
            served = model.served.get(number)
            if served is None:
                cost = min(access.cost[space] for space in model.spaces_of(self.problem.buffers[access.buffer]))
                demand, least, most = demand + Affine(cost), least + cost, most + cost
                continue
            costs = [access.cost[space] for space in served]
            demand = demand + add_up(part.scaled(access.cost[space]) for space, part in served.items())
            least, most = least + min(costs), most + max(costs)
        weight = repetitions / model.unit
        shortest = duration(operation.floor, least)
        if most <= shortest:
            program.constant += shortest * weight
            return Affine(shortest * weight)
        lasts = column(program.add_column(shortest * weight, most * weight, cost=1.0))
        program.at_most(demand.scaled(weight) - lasts)
        return lasts

    def _accesses(self, t: int, operation: Operation) -> list[tuple[int, Access]]:
        first = self.problem.access_start[t]
        return [(first + i, access) for i, access in enumerate(operation.accesses)]

    def _taken(self, t: int, operation: Operation, channel: int) -> Affine:
        """Returns the seconds of a channel that an operation takes, at most; never more than the operation lasts.

        What an operation leaves of the channel cannot be negative, and a linear program has no maximum to say so. Where
        accesses could take the channel for longer than the operation lasts, each access is counted for less.
        """
        model, spaces = self.model, self.problem.spaces
        # Whether an access takes the channel, the seconds that it takes, and the seconds that it adds to the operation.
        rows: list[tuple[Affine, float, float]] = []
        movable: list[tuple[int, Access]] = []
        for number, access in self._accesses(t, operation):
            served = model.served.get(number)
            if served is None:
                allowed = model.spaces_of(self.problem.buffers[access.buffer])
                if len(allowed) != 1:
                    continue
                served = {allowed[0]: ONE}
            elif len(served) > 1:
                movable.append((number, access))
            for space, part in served.items():
                if spaces[space].channel == channel:
                    rows.append((part, access.bytes / spaces[space].bandwidth, access.cost[space]))
        if not rows:
            return ZERO
        total = sum(seconds for _, seconds, _ in rows)
        if total <= operation.floor:
            share = 1.0
        elif len(movable) > _MAX_ENUMERATED:
            share = 0.0
        else:
            share = self._share(t, operation, channel)
        by_cost = sum(min(seconds, cost) for _, seconds, cost in rows) if operation.overhead >= 0.0 else 0.0
        if share * total >= by_cost:
            return add_up(part.scaled(share * seconds) for part, seconds, _ in rows)
        return add_up(part.scaled(min(seconds, cost)) for part, seconds, cost in rows)

    def _share(self, t: int, operation: Operation, channel: int) -> float:
        """Returns the least ratio of an operation's duration to the time that it takes of a channel, at most 1."""
        choices = np.array([[operation.overhead, 0.0]])
        for number, access in self._accesses(t, operation):
            served = self.model.served.get(number)
            spaces = list(served) if served is not None else self.model.spaces_of(self.problem.buffers[access.buffer])
            added = np.array([
                [access.cost[space], access.bytes / self.problem.spaces[space].bandwidth
                 if self.problem.spaces[space].channel == channel else 0.0]
                for space in spaces
            ])  # fmt: skip
            choices = (choices[:, None, :] + added[None, :, :]).reshape(-1, 2)
        lasts, takes = durations(operation.floor, choices[:, 0]), choices[:, 1]
        ratios = lasts[takes > 0.0] / takes[takes > 0.0]
        return float(max(0.0, min(1.0, ratios.min(initial=1.0))))

    def _limit_times(self, lasts: Mapping[int, Affine], idle: Mapping[int, Mapping[int, Affine]]) -> None:
        """Writes that each copy fits the time in which it can be in flight, and that nothing moves in its latency."""
        program = self.program
        least = np.zeros(2 * self.problem.end + 2)
        for position, part in lasts.items():
            least[position + 1] = part.constant + sum(program.low[number] for number, _ in part.terms)
        elapsed = np.cumsum(least)
        links, unit = self.problem.links, self.model.unit
        shortest = {
            channel: min(link.latency for link in links if link.channel == channel)
            for channel in {link.channel for link in links}
        }
        windows: dict[tuple[int, int, int, int], float] = {}
        for copy in self.model.copies:
            first, end, link = 2 * copy.start, 2 * copy.done + 1, links[copy.link]
            latency = shortest[link.channel] * copy.times / unit
            if elapsed[end] - elapsed[first] <= _LATENCIES * latency:
                windows[copy.start, copy.done, copy.region, link.channel] = latency
            seconds = (copy.seconds + link.latency * copy.times) / unit
            if elapsed[end] - elapsed[first] >= seconds:
                continue
            window = add_up(lasts[position] for position in range(first, end) if position in lasts)
            program.at_most(copy.copied.scaled(seconds) - window)
        by_start = sorted(self.model.copies, key=lambda copy: copy.start)
        starts = [copy.start for copy in by_start]
        for (start, done, region, channel), latency in sorted(windows.items()):
            members = [
                copy
                for copy in by_start[bisect_left(starts, start) : bisect_right(starts, done)]
                if links[copy.link].channel == channel and copy.done <= done
            ]
            self._limit_window(start, done, region, latency, members, lasts, idle[channel])

    def _limit_window(
        self,
        start: int,
        done: int,
        region: int,
        latency: float,
        members: Sequence[RelaxedCopy],
        lasts: Mapping[int, Affine],
        idle: Mapping[int, Affine],
    ) -> None:
        """Writes that what is copied within a window of time moves after the first latency in it.

        Before that, in each run of the region, the channel is idle for the latency less what operations take of it.
        With `most` at least as large as the part of each copy that is made:

            seconds of copies <= idle in the window - most * latency + (duration - idle) of what runs in the latency
        """
        program = self.program
        program.positions = 2 * start, 2 * done + 1
        most = program.fraction()
        for copy in members:
            program.at_most(copy.copied - most)
        early = set()
        passed = 0.0
        for time in range(start, done):
            if passed >= latency:
                break
            position = 2 * time + 1
            early.add(position)
            if position in lasts and self.problem.operations[time].region == region:
                seconds = lasts[position]
                passed += seconds.constant + sum(program.low[number] for number, _ in seconds.terms)
        offered = add_up(
            (lasts if position in early else idle)[position]
            for position in range(2 * start, 2 * done + 1)
            if position in lasts
        )
        moved = add_up(copy.copied.scaled(copy.seconds / self.model.unit) for copy in members)
        program.at_most(moved + most.scaled(latency) - offered)

    def _limit_copies(self, channel: int, idle: Mapping[int, Affine]) -> None:
        """Writes that copies move within each node for no longer than the channel is idle within it."""
        program, tree, moved = self.program, self.model.tree, self.model.moved[channel]
        inside = tree.ancestors(moved)

        def left(node: int) -> Affine:
            """Returns the idle time within a node that is left to copies whose nodes are larger."""
            if node in inside:
                rest = left(2 * node) + left(2 * node + 1)
            else:
                first, last = tree.interval(node)
                rest = add_up(idle[position] for position in range(first, last) if position in idle)
            if node not in moved:
                return rest
            rest = rest - add_up(moved[node])
            program.positions = tree.interval(node)
            slack = column(program.add_column(0.0, 3000.0))
            program.at_most(slack - rest)
            return slack

        if moved:
            left(1)
