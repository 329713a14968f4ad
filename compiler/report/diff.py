"""What differs between two programs, or two plans: bytes at the peak and seconds, group by group.

Two sides are compared by the names of their groups, with the layers of both folded together, so that a layer more is a
row that grew and not another row. An operation counts for the group of the largest buffer that it writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memplan.compiler.emulator.timing import Timeline, emulate
from memplan.compiler.hardware.target import Target
from memplan.compiler.mapping.build import BuiltProblem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.buffers import BufferDescription, GroupBy, describe_buffers, labels_of
from memplan.compiler.report.peak import occupancy_of
from memplan.compiler.report.usage import usage


@dataclass(frozen=True)
class Side:
    """One of two programs or plans.

    Attributes:
      name: as the user gave it.
      program, target: names.
      memories: names, the main memory first.
      peaks: bytes of each memory's peak, by its name.
      latency: seconds of one run.
      buffers: what a person may know of each.
      at_peak: `[num_buffers]` bytes that each takes at the peak of the main memory.
      places: `[num_buffers]` names of the memories in which each is, in order of time.
      seconds: `[num_buffers]` seconds of the operations that count for each.
    """

    name: str
    program: str
    target: str
    memories: tuple[str, ...]
    peaks: Mapping[str, int]
    latency: float
    buffers: tuple[BufferDescription, ...]
    at_peak: tuple[int, ...]
    places: tuple[tuple[str, ...], ...]
    seconds: tuple[float, ...]

    @property
    def peak(self) -> int:
        """Bytes of the main memory's peak."""
        return self.peaks[self.memories[0]]


@dataclass(frozen=True)
class GroupSide:
    """A group on one side.

    Attributes:
      buffers: how many it has.
      bytes: of all of them.
      at_peak: bytes at the peak of the main memory.
      seconds: of its operations.
      places: names of the memories in which its buffers are, sorted.
    """

    buffers: int = 0
    bytes: int = 0
    at_peak: int = 0
    seconds: float = 0.0
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupDifference:
    """A group on both sides.

    Attributes:
      label: of the group.
      before, after: the sides; without buffers where it is not there.
    """

    label: str
    before: GroupSide
    after: GroupSide

    @property
    def what(self) -> str:
        """What happened to it: "appeared", "gone", "grew", "shrank", "moved", or "" for nothing of these."""
        if not self.before.buffers or not self.after.buffers:
            return "appeared" if self.after.buffers else "gone"
        if self.before.bytes != self.after.bytes:
            return "grew" if self.after.bytes > self.before.bytes else "shrank"
        return "moved" if self.before.places != self.after.places else ""

    @property
    def is_change(self) -> bool:
        """Whether anything of it differs."""
        return self.before != self.after


@dataclass(frozen=True)
class Difference:
    """Two sides, compared.

    Attributes:
      before, after: the sides.
      by: what groups have in common.
      groups: those in which anything differs; those that change the peak most first, then those that change the time.
    """

    before: Side
    after: Side
    by: GroupBy
    groups: tuple[GroupDifference, ...]

    @property
    def growth(self) -> int:
        """Bytes by which the peak of the main memory grew; negative if it shrank."""
        return self.after.peak - self.before.peak


def compare(before: Side, after: Side, by: GroupBy) -> Difference:
    """Compares two sides group by group."""
    labels = labels_of((*before.buffers, *after.buffers), by)
    groups = [
        _groups(side, part) for side, part in zip((before, after), _split(labels, len(before.buffers)), strict=True)
    ]
    found = [
        GroupDifference(label, groups[0].get(label, GroupSide()), groups[1].get(label, GroupSide()))
        for label in dict.fromkeys([*groups[0], *groups[1]])
    ]
    changed = [each for each in found if each.is_change]
    changed.sort(
        key=lambda each: (
            -abs(each.after.at_peak - each.before.at_peak),
            -abs(each.after.seconds - each.before.seconds),
            -abs(each.after.bytes - each.before.bytes),
        )
    )
    return Difference(before, after, by, tuple(changed))


def _split(labels: Sequence[str], at: int) -> Iterator[Sequence[str]]:
    yield labels[:at]
    yield labels[at:]


def _groups(side: Side, labels: Sequence[str]) -> dict[str, GroupSide]:
    members: dict[str, list[int]] = defaultdict(list)
    for number, label in enumerate(labels):
        members[label].append(number)
    return {
        label: GroupSide(
            buffers=len(numbers),
            bytes=sum(side.buffers[n].size for n in numbers),
            at_peak=sum(side.at_peak[n] for n in numbers),
            # Sums of the same times in another order differ in the last digits.
            seconds=float(f"{sum(side.seconds[n] for n in numbers):.12g}"),
            places=tuple(sorted({place for n in numbers for place in side.places[n]})),
        )
        for label, numbers in members.items()
    }


def side_of_program(name: str, built: BuiltProblem, target: Target, slow: Plan) -> Side:
    """Returns a program as its compiler laid it out.

    Args:
      name: as the user gave it.
      built: of the program.
      target: that it was built for.
      slow: a plan without fast memory, by which a program is timed that carries no plan of its own.
    """
    problem, program = built.problem, built.program
    occupancy, spaces = occupancy_of(built, target, program)
    standing = dict(occupancy.standing(0, int(np.argmax(occupancy.live(0)))))
    at_peak = [0] * len(problem.buffers)
    places: list[dict[str, None]] = [{} for _ in problem.buffers]
    for storage, buffer in enumerate(built.buffer_of_storage):
        if buffer >= 0:
            at_peak[buffer] += standing.get(storage, 0)
            places[buffer][spaces[program.storages[storage].memory_space].name] = None
    peaks = {space.name: occupancy.peak(number) for number, space in spaces.items()}
    return _side(name, built, emulate(problem, problem.given or slow), peaks, at_peak, places)


def side_of_plan(name: str, built: BuiltProblem, plan: Plan) -> Side:
    """Returns a program under a plan.

    Args:
      name: as the user gave it.
      built: of the program.
      plan: a valid plan for it.
    """
    problem = built.problem
    used = usage(problem, plan)
    peak = int(np.argmax(used[0].live))
    at_peak = [0] * len(problem.buffers)
    places: list[dict[str, None]] = [{} for _ in problem.buffers]
    for residency in sorted(plan.residencies, key=lambda residency: residency.start):
        places[residency.buffer][problem.spaces[residency.space].name] = None
        if residency.space == 0 and residency.start <= peak < residency.end:
            at_peak[residency.buffer] += problem.buffers[residency.buffer].size
    peaks = {space.name: each.peak for space, each in zip(problem.spaces, used, strict=True)}
    return _side(name, built, emulate(problem, plan), peaks, at_peak, places)


def _side(
    name: str,
    built: BuiltProblem,
    timeline: Timeline,
    peaks: Mapping[str, int],
    at_peak: Sequence[int],
    places: Sequence[Mapping[str, None]],
) -> Side:
    problem = built.problem
    return Side(
        name=name,
        program=problem.name,
        target=problem.target,
        memories=tuple(space.name for space in problem.spaces),
        peaks=peaks,
        latency=timeline.latency,
        buffers=describe_buffers(built),
        at_peak=tuple(at_peak),
        places=tuple(map(tuple, places)),
        seconds=_seconds(problem, timeline),
    )


def _seconds(problem: MappingProblem, timeline: Timeline) -> tuple[float, ...]:
    seconds = [0.0] * len(problem.buffers)
    durations = np.nan_to_num(timeline.duration)
    for t, operation in enumerate(problem.operations):
        touched = [access for access in operation.accesses if access.kind.value != "read"] or operation.accesses
        if touched:
            largest = max(touched, key=lambda access: access.bytes).buffer
            seconds[largest] += float(durations[t]) * problem.runs_at(t)
    return tuple(seconds)
