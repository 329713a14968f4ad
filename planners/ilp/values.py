"""Where the values of buffers are, in the relaxation of the mapping (see `model.py`, *Values* and *Copies*)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.problem import Buffer
from memplan.planners.ilp.linear import ONE, ZERO, Affine, add_up, column
from memplan.planners.ilp.stages import inner_regions, make_stages
from memplan.planners.stays.chains import make_slots

if TYPE_CHECKING:
    from memplan.planners.ilp.model import Relaxation

# Where the value of a buffer is, by space; None where it is undefined, so that any memory holds it.
State = dict[int, Affine] | None

# Units of the objective that a copy costs in a program whose solutions become plans: none is made for nothing.
_COPY_COST = 3e-5

# Expressions of more terms than this become columns.
_MAX_TERMS = 4


@dataclass
class Gap:
    """A gap between two points of a buffer's life, as the model sees it.

    Attributes:
      buffer, region: indices.
      access: first access of the point after it; -1 for the end of the region.
      first, last: times of the operations strictly between the points, half-open.
      kept: by space, whether the value is kept there.
      copied: by `(source, destination)`, whether a copy is done here.
      moved: by `(source, destination)`, the positions in which the copy can move, and what part of it does there.
    """

    buffer: int
    region: int
    access: int
    first: int
    last: int
    kept: dict[int, Affine] = field(default_factory=dict)
    copied: dict[tuple[int, int], Affine] = field(default_factory=dict)
    moved: dict[tuple[int, int], list[tuple[int, int, Affine]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Flight:
    """A copy, and how long it is in flight at least.

    Attributes:
      region: in which it is made.
      link: index.
      start, done: the earliest time at which it can start, the latest at which it can be done.
      copied: whether it is made.
      seconds: that it moves for, of the whole program.
      times: how often it is made in the whole program, at least.
    """

    region: int
    link: int
    start: int
    done: int
    copied: Affine
    seconds: float
    times: float


def home(buffer: Buffer) -> int:
    """Returns the space where a persistent buffer stays."""
    if buffer.initial_space is not None:
        return buffer.initial_space
    return buffer.final_space if buffer.final_space is not None else buffer.spaces[0]


def write_values(model: Relaxation) -> None:
    """Adds to a model where every buffer is that has a choice of spaces, and what that takes of memory and channels."""
    _Values(model).write()


class _Values:
    """Writes where the values of all buffers are."""

    def __init__(self, model: Relaxation):
        self.model, self.problem, self.program = model, model.problem, model.program
        self.slots = make_slots(model.problem)
        self.of_region, self.parent = self.slots.of_region.tolist(), self.slots.parent.tolist()
        self.region_of_time = self.slots.region_of_time.tolist()
        self.branches: dict[tuple[int, int], list[int]] = {}
        for number, region in enumerate(self.problem.regions):
            if region.kind is RegionKind.BRANCH:
                self.branches.setdefault((self.parent[number], region.group), []).append(number)
        self.cheapest = self._cheapest_crossing()
        self.inner = inner_regions(self.slots)

    def write(self) -> None:
        """Follows every buffer that has a choice of spaces."""
        span = self.model.span
        for number, buffer in enumerate(self.problem.buffers):
            if len(self.model.spaces_of(buffer)) < 2 or not self.problem.accesses_of[number]:
                continue
            accesses = [
                a for a in self.problem.accesses_of[number] if span.first <= self.problem.accesses[a][0] < span.last
            ]
            if accesses:
                _Life(self, number, accesses).write()

    def _cheapest_crossing(self) -> list[float]:
        """Returns per region how often a copy is made at least, for each run of the region, if it has to be on the way.

        A copy inside of a loop that may run less than once, or of branches one of which may not be taken, is made less
        often than one outside, but the value is where it is copied to all the same.
        """
        regions = self.problem.regions
        cheapest = [1.0] * len(regions)
        grouped: dict[tuple[int, int], float] = {}
        for number in range(len(regions) - 1, 0, -1):
            region, around = regions[number], self.parent[number]
            if region.kind is RegionKind.CALL:
                continue
            times = region.trip_count * cheapest[number]
            if region.kind is RegionKind.BRANCH:
                key = (around, region.group)
                grouped[key] = grouped.get(key, 0.0) + times
                if number != self.branches[key][0]:
                    continue
                times = grouped[key]
            cheapest[around] = min(cheapest[around], times)
        return cheapest


@dataclass
class _Stretch:
    """Times `[first, last)` of a buffer's life: by space, what is kept there, and what occupies it beyond that."""

    first: int
    last: int
    kept: dict[int, Affine] = field(default_factory=dict)
    beyond: dict[int, Affine] = field(default_factory=dict)


class _Life:
    """Writes where the value of one buffer is."""

    def __init__(self, values: _Values, number: int, accesses: list[int]):
        self.values, self.number, self.accesses = values, number, accesses
        self.model, self.problem, self.program = values.model, values.problem, values.program
        self.buffer = self.problem.buffers[number]
        self.spaces = self.model.spaces_of(self.buffer)
        self.times = [self.problem.accesses[access][0] for access in accesses]
        self.changes = [self.problem.accesses[access][1].kind is not AccessKind.READ for access in accesses]
        self.home = home(self.buffer) if self.buffer.persistent else -1
        # By space: what occupies it at the access before a gap.
        self.at_access: dict[int, Affine] = {}
        self.stretches: list[_Stretch] = []

    def write(self) -> None:
        """Follows the value from the start of the span to its end."""
        span, problem = self.model.span, self.problem
        at_start: State = None
        kept: dict[int, Affine] = {}
        if span.first > 0:
            defined = self.buffer.start < span.first or self.buffer.initial_space is not None
            at_start = dict.fromkeys(self.spaces, ONE) if defined else None
        elif self.buffer.initial_space is not None:
            kept = self._kept_between_runs()
            at_start = {space: kept.get(space, ZERO) for space in self.spaces}
            at_start[self.buffer.initial_space] = ONE
        wanted = span.last == problem.end and (self.buffer.final_space is not None or bool(kept))
        state = self._follow(0, 0, len(self.accesses), at_start, wanted)
        if not wanted or state is None:
            return
        if self.buffer.final_space is not None:
            self.program.at_most(ONE - state.get(self.buffer.final_space, ZERO))
        for space, part in kept.items():
            self.program.at_most(part - state[space])

    def _kept_between_runs(self) -> dict[int, Affine]:
        """Returns by space whether the previous run of the program left the buffer there."""
        # It must be left behind for the next run, so it lives beyond the end of this one.
        if self.problem.cross_program_prefetches <= 0 or self.buffer.end <= self.problem.end:
            return {}
        accesses = self.problem.accesses_of[self.number]
        if any(self.problem.accesses[access][1].kind is not AccessKind.READ for access in accesses):
            return {}
        kept = {}
        for space in self.spaces:
            if (self.buffer.initial_space, space) in self.problem.link_between:
                kept[space] = self.program.binary()
        self.model.kept_between_runs[self.number] = kept
        return kept

    def _follow(self, region: int, low: int, high: int, state: State, wanted: bool) -> State:
        """Returns where the value is at the end of one run of a region, whose accesses are `[low, high)`.

        Args:
          region: number.
          low, high: positions in `accesses`.
          state: at its start.
          wanted: whether somebody needs the value at its end.
        """
        described, problem = self.problem.regions[region], self.problem
        start, end, last_time = described.start, described.end, described.end - 1
        if region == 0:
            start, end = self.model.span.first, self.model.span.last
            last_time = problem.end
        at, changed, position = start, start, low
        self.at_access = {}
        while position < high:
            child, first, last, until = self._item(region, position, high)
            is_operation = child < 0
            following = self.accesses[position]
            state = self._gap(region, following, state, at, first, changed, first if is_operation else first - 1)
            writes = any(self.changes[position:until])
            if is_operation:
                state = self._access(position, until, state)
            else:
                state = self._inside(region, child, position, until, state, wanted or until < high)
                self.at_access = {}
            at = last
            changed = last if writes else changed
            position = until
        return self._gap(region, -1, state, at, end, changed, last_time) if wanted else None

    def _item(self, region: int, position: int, high: int) -> tuple[int, int, int, int]:
        """Returns the region right inside `region` of an access, -1 for none, its times, and the position after it."""
        time = self.times[position]
        inner, child = self.values.region_of_time[time], -1
        while inner != region:
            child, inner = inner, self.values.parent[inner]
        if child < 0:
            first, last = time, time + 1
        else:
            slot = self.values.of_region[child]
            first, last = int(self.values.slots.time[slot]), int(self.values.slots.end[slot])
        until = position
        while until < high and self.times[until] < last:
            until += 1
        return child, first, last, until

    def _inside(self, region: int, child: int, low: int, high: int, state: State, wanted: bool) -> State:
        """Returns where the value is after a loop or conditional with accesses."""
        described = self.problem.regions[child]
        if described.kind is RegionKind.LOOP:
            buffer = self.buffer
            is_carried = buffer.start < described.start or (
                buffer.start == described.start and buffer.end >= described.end
            )
            if not is_carried:
                return self._follow(child, low, high, state, wanted)
            at_start = {space: self.program.fraction() for space in self.spaces}
            stretches, gaps = len(self.stretches), len(self.model.gaps)
            after = self._follow(child, low, high, dict(at_start), True)
            self._carry(at_start, self.stretches[stretches:], self.model.gaps[gaps:])
            for space, part in at_start.items():
                if state is not None:
                    self.program.at_most(part - state[space])
                if after is not None:
                    self.program.at_most(part - after[space])
            return after
        outcomes = []
        for branch in self.values.branches[region, described.group]:
            around = self.problem.regions[branch]
            first = next((i for i in range(low, high) if self.times[i] >= around.start), high)
            last = next((i for i in range(first, high) if self.times[i] >= around.end), high)
            outcome = self._follow(branch, first, last, None if state is None else dict(state), wanted)
            if outcome is not None:
                outcomes.append(outcome)
        if not outcomes:
            return None
        met = {space: self.program.fraction() for space in self.spaces}
        for outcome in outcomes:
            for space, part in met.items():
                self.program.at_most(part - outcome[space])
        return met

    def _access(self, low: int, high: int, state: State) -> State:
        """Returns where the value is after the accesses of one operation; notes which memory they take."""
        time, program = self.times[low], self.program
        occupied = {space: column(program.add_column(0.0, 1.0)) for space in self.spaces if self._is_limited(space)}
        written: dict[int, Affine] | None = None
        for position in range(low, high):
            access = self.accesses[position]
            kind = self.problem.accesses[access][1].kind
            if kind is AccessKind.READ:
                served = self._choice(is_integer=False)
            else:
                written = written or self._choice(is_integer=True)
                served = written
            if kind is not AccessKind.WRITE and state is not None:
                for space, part in served.items():
                    if not state[space].terms and state[space].constant >= 1.0:
                        continue
                    program.at_most(part - state[space])
            if written is not None and kind is not AccessKind.READ:
                state = dict(written)
            self.model.served[access] = served
            for space, part in occupied.items():
                program.at_most(served[space] - part)
        for space, part in occupied.items():
            self.model.occupy_times(space, time, time + 1, self.number, part)
        self.at_access = occupied
        self.stretches.append(_Stretch(time, time + 1, beyond=occupied))
        return state

    def _choice(self, is_integer: bool) -> dict[int, Affine]:
        """Returns by space whether that is the one, of all spaces of the buffer."""
        parts = {space: self.program.binary() if is_integer else self.program.fraction() for space in self.spaces[1:]}
        first = ONE - add_up(parts.values())
        if len(parts) > 1:
            self.program.at_most(add_up(parts.values()), 1.0)
        return {self.spaces[0]: first, **parts}

    def _is_limited(self, space: int) -> bool:
        """Whether the buffer takes memory in a space that counts: homes of persistent buffers are taken anyway."""
        return space != 0 and space != self.home

    def _gap(self, region: int, access: int, state: State, first: int, last: int, start: int, done: int) -> State:
        """Returns where the value is after a gap.

        Args:
          region: whose copies can be made in it.
          access: first access of the point after it; -1 for the end of the region.
          state: before it.
          first, last: times strictly between the two points, half-open.
          start, done: earliest time at which a copy can start, latest at which it can be done.
        """
        before, self.at_access = self.at_access, {}
        program = self.program
        if state is None:
            self.stretches.append(_Stretch(first, last))
            return None
        gap = Gap(self.number, region, access, first, last)
        self.stretches.append(_Stretch(first, last, gap.kept))
        self.model.gaps.append(gap)
        state = {space: self._short(part) for space, part in state.items()}
        for space, part in state.items():
            if not self._is_limited(space):
                gap.kept[space] = part
                continue
            if part == ZERO:
                continue
            kept = program.binary()
            program.at_most(kept - part)
            gap.kept[space] = kept
            self.model.occupy_times(space, first, last, self.number, kept)
            if space in before:
                program.at_most(kept - before[space])
        windows = [
            (source, target)
            for source in self.spaces
            for target in self.spaces
            if (source, target) in self.problem.link_between
            and start <= done
            and (state[target] != ONE or self._is_limited(target))
        ]
        for source, target in windows:
            cost = _COPY_COST if self.model.precision.strict else 0.0
            gap.copied[source, target] = column(program.add_column(0.0, 1.0, cost, is_integer=True))
        # A value that nobody has is not copied: nor one that was copied here from where it goes, to the slow memory.
        for (source, target), copied in gap.copied.items():
            arrives = [
                part for (origin, there), part in gap.copied.items()
                if there == source and not (origin == target and target == 0)
            ]  # fmt: skip
            available = add_up([state[source], *arrives])
            if available.terms or available.constant < 1.0:
                program.at_most(copied - available)
            if source in before and not arrives:
                program.at_most(copied - before[source])
            self._copy(gap, source, target, copied, start, done)
        return {
            space: add_up(
                [gap.kept.get(space, ZERO), *(part for (_, there), part in gap.copied.items() if there == space)]
            )
            for space in self.spaces
        }

    def _carry(self, carried: dict[int, Affine], stretches: list[_Stretch], gaps: list[Gap]) -> None:
        """Occupies memory for what a loop carries to its next iteration: in a residency that lasts through all of it.

        A copy within the loop may be from or to that same residency, whose memory is counted then already.
        """
        for space, part in carried.items():
            if not self._is_limited(space):
                continue
            copied = add_up(made for gap in gaps for ends, made in gap.copied.items() if space in ends)
            alone = part - copied
            for stretch in stretches:
                if stretch.first >= stretch.last:
                    continue
                if space not in stretch.beyond:
                    stretch.beyond[space] = self.program.fraction()
                    self.model.occupy_times(space, stretch.first, stretch.last, self.number, stretch.beyond[space])
                self.program.at_most(alone - stretch.kept.get(space, ZERO) - stretch.beyond[space])

    def _short(self, part: Affine) -> Affine:
        if len(part.terms) <= _MAX_TERMS:
            return part
        short = self.program.fraction()
        self.program.at_most(short - part)
        return short

    def _whole(self, part: Affine) -> Affine:
        """Returns whether anything of a copy has moved, given how much of it has."""
        if not self.model.precision.whole or not part.terms:
            return part
        any_moved = self.program.binary()
        self.program.at_most(part - any_moved)
        return any_moved

    def _copy(self, gap: Gap, source: int, target: int, copied: Affine, start: int, done: int) -> None:
        """Writes what a copy takes of its channel, and of memory while it is in flight."""
        model, program = self.model, self.program
        link = self.problem.links[self.problem.link_between[source, target]]
        times = self.problem.repetitions[gap.region] * self.values.cheapest[gap.region]
        seconds = self.buffer.size / link.bandwidth * times
        if seconds <= 0.0:
            return
        # Before the span, it may have moved already.
        is_open = gap.region == 0 and start == model.span.first > 0
        if not is_open:
            number = self.problem.link_between[source, target]
            model.flights.append(Flight(gap.region, number, start, done, copied, seconds, times))
        fine_start, fine_end = self._is_limited(source), self._is_limited(target)
        stages = make_stages(
            model.tree, model.precision.ratio, self.values.inner[gap.region], start, done, fine_start, fine_end
        )
        nodes = [node for stage in stages for node in stage.nodes]
        # What moved before each node, and before the end.
        moved = [program.fraction() if is_open else ZERO]
        moved += [program.fraction() for _ in nodes[1:]] + [copied]
        for node, before, after in zip(nodes, moved, moved[1:], strict=False):
            if before.terms:
                program.at_most(before - after)
            model.move(link.channel, node, (after - before).scaled(seconds))
            gap.moved.setdefault((source, target), []).append((*model.tree.interval(node), after - before))
        previous, number = moved[0], 0
        for stage in stages:
            before, after = moved[number], moved[number + len(stage.nodes)]
            number += len(stage.nodes)
            first, last = model.tree.interval(stage.nodes[0])[0], model.tree.interval(stage.nodes[-1])[1]
            is_exact = model.precision.strict or stage.is_whole
            if fine_end:
                # What moves in a node was issued by its last operation.
                begun = self._whole(after)
                for node in stage.nodes:
                    model.occupy(target, node, self.number, begun if is_exact else previous)
                if not is_exact:
                    model.occupy(target, model.tree.size + last - 1, self.number, begun - previous)
                previous = begun
            if fine_start and first >= 2 * gap.first and last <= 2 * gap.last:
                left = copied - (before if is_exact else after)
                kept = gap.kept.get(source, ZERO)
                beyond = program.binary() if model.precision.whole else program.fraction()
                program.at_most(left - kept - beyond)
                for node in stage.nodes:
                    model.occupy(source, node, self.number, beyond)
