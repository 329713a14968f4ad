"""Where the values of buffers are, in the relaxation of the mapping (see `relaxation.py`, *Values*)."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.planners.ilp.copies import write_copy
from memplan.planners.ilp.linear import ONE, ZERO, Affine, add_up, column
from memplan.planners.ilp.model import Gap, Relaxation
from memplan.planners.ilp.nest import Nest

# Where the value of a buffer is, by space; None where it is undefined, so that any memory holds it.
State = dict[int, Affine] | None

# What a copy costs where solutions become plans, in units of the objective, so that no copy is made for nothing.
_COPY_COST = 3e-5

# Expressions of more terms than this become columns.
_MAX_TERMS = 4


def write_values(model: Relaxation) -> None:
    """Adds to a model where the value of each movable buffer is, and what that takes of memories and channels."""
    problem, span = model.problem, model.span
    nest = Nest.of(problem)
    for number, buffer in enumerate(problem.buffers):
        if len(model.spaces_of(buffer)) < 2:
            continue
        accesses = [a for a in problem.accesses_of[number] if span.first <= problem.accesses[a][0] < span.last]
        if accesses:
            _Life(model, nest, number, accesses).write()
    _limit_kept_between_runs(model)


def _limit_kept_between_runs(model: Relaxation) -> None:
    """Writes that no more arguments are kept between runs of the program than the target allows."""
    kept = []
    for parts in model.kept_between_runs.values():
        most = model.program.fraction()
        for part in parts.values():
            model.program.at_most(part - most)
        kept.append(most)
    if kept:
        model.program.at_most(add_up(kept), float(model.problem.cross_program_prefetches))


@dataclass
class _Stretch:
    """Times `[first, last)` of a buffer's life, with what is kept in each space and what occupies it beyond that."""

    first: int
    last: int
    kept: dict[int, Affine] = field(default_factory=dict)
    beyond: dict[int, Affine] = field(default_factory=dict)


class _Life:
    """Writes where the value of one buffer is."""

    def __init__(self, model: Relaxation, nest: Nest, number: int, accesses: list[int]):
        self.model, self.nest, self.number, self.accesses = model, nest, number, accesses
        self.problem, self.program = model.problem, model.program
        self.buffer = self.problem.buffers[number]
        self.spaces = self.model.spaces_of(self.buffer)
        self.times = [self.problem.accesses[access][0] for access in accesses]
        self.changes = [self.problem.accesses[access][1].kind is not AccessKind.READ for access in accesses]
        # What occupies each space at the access before a gap.
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
        # The buffer must be left behind for the next run, so it lives beyond the end of this one.
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
          wanted: whether the value is needed at its end.
        """
        described, problem = self.problem.regions[region], self.problem
        start, end, last_time = described.start, described.end, described.end - 1
        if region == 0:
            start, end = self.model.span.first, self.model.span.last
            last_time = problem.end
        at, changed, position = start, start, low
        self.at_access = {}
        while position < high:
            child, first, last = self.nest.item_at(region, self.times[position])
            until = bisect_left(self.times, last, position, high)
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
            self.program.positions = 2 * described.start, 2 * described.end
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
        for branch in self.nest.branches[region, described.group]:
            around = self.problem.regions[branch]
            first = next((i for i in range(low, high) if self.times[i] >= around.start), high)
            last = next((i for i in range(first, high) if self.times[i] >= around.end), high)
            outcome = self._follow(branch, first, last, None if state is None else dict(state), wanted)
            if outcome is not None:
                outcomes.append(outcome)
        if not outcomes:
            return None
        self.program.positions = 2 * self.times[low], 2 * described.end + 1
        met = {space: self.program.fraction() for space in self.spaces}
        for outcome in outcomes:
            for space, part in met.items():
                self.program.at_most(part - outcome[space])
        return met

    def _access(self, low: int, high: int, state: State) -> State:
        """Returns where the value is after the accesses of one operation; notes which memory they take."""
        time, program = self.times[low], self.program
        program.positions = 2 * time, 2 * time + 2
        occupied = {space: program.binary() for space in self.spaces if self._takes_room(space)}
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
        """Returns by space whether it is chosen; exactly one of the buffer's spaces is."""
        parts = {space: self.program.binary() if is_integer else self.program.fraction() for space in self.spaces[1:]}
        first = ONE - add_up(parts.values())
        if len(parts) > 1:
            self.program.at_most(add_up(parts.values()), 1.0)
        return {self.spaces[0]: first, **parts}

    def _takes_room(self, space: int) -> bool:
        return self.model.takes_room(self.number, space)

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
        # What is so between two points is about both of them.
        program.positions = 2 * first - 1, 2 * last + 2
        gap = Gap(self.number, region, access, first, last)
        self.stretches.append(_Stretch(first, last, gap.kept))
        self.model.gaps.append(gap)
        state = {space: self._short(part) for space, part in state.items()}
        for space, part in state.items():
            if not self._takes_room(space):
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
            and (state[target] != ONE or self._takes_room(target))
        ]
        for source, target in windows:
            cost = _COPY_COST if self.model.precision.strict else 0.0
            gap.copied[source, target] = column(program.add_column(0.0, 1.0, cost, is_integer=True))
        # A copy needs a current value at its source, other than one that came in this gap from the slow memory itself.
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
            write_copy(self.model, self.nest, gap, (source, target), copied, (start, done))
        return {
            space: add_up(
                [gap.kept.get(space, ZERO), *(part for (_, there), part in gap.copied.items() if there == space)]
            )
            for space in self.spaces
        }

    def _carry(self, carried: dict[int, Affine], stretches: list[_Stretch], gaps: list[Gap]) -> None:
        """Occupies memory for what a loop carries to its next iteration, in a residency that lasts through all of it.

        The memory of a copy within the loop is counted already, and may be that of the same residency.
        """
        for space, part in carried.items():
            if not self._takes_room(space):
                continue
            copied = add_up(made for gap in gaps for ends, made in gap.copied.items() if space in ends)
            alone = part - copied
            for stretch in stretches:
                if stretch.first >= stretch.last:
                    continue
                if space not in stretch.beyond:
                    self.program.positions = 2 * stretch.first, 2 * stretch.last
                    stretch.beyond[space] = self.program.binary()
                    self.model.occupy_times(space, stretch.first, stretch.last, self.number, stretch.beyond[space])
                self.program.at_most(alone - stretch.kept.get(space, ZERO) - stretch.beyond[space])

    def _short(self, part: Affine) -> Affine:
        if len(part.terms) <= _MAX_TERMS:
            return part
        short = self.program.fraction()
        self.program.at_most(short - part)
        return short
