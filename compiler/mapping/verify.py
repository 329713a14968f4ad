"""What makes a plan valid: every rule, checked by straight code that knows nothing of how the plan was made.

The rules about single residencies and copies, and about residencies that would overlap, are here; whether every access
finds the value that it needs is in `value_flow.py`. `RULES` lists them by the names that violations carry.

Residencies need no rule about loops and branches of their own: a residency holds what it held as long as every moment
that is really executed lies within its interval, and `value_flow` follows the path of execution. So one that ends in
the middle of a loop does not carry its value into the next iteration.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator

import numpy as np

from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.collection import collection_paused
from memplan.compiler.errors import PlanError
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import Access, MappingProblem
from memplan.compiler.mapping.value_flow import check_values
from memplan.compiler.mapping.violation import CheckedPlan, Violation

__all__ = ["MAX_VIOLATIONS_PER_RULE", "RULES", "Violation", "check_belongs", "verify"]

RULES = {
    "index": "numbers of buffers, spaces and residencies name things that exist; `served` has one entry per access",
    "live-range": "a residency is not empty and lies within its buffer's live range",
    "space": "the buffer may lie in that space",
    "offset": "an offset is not negative and is a multiple of the space's alignment",
    "capacity": "a residency ends within its space",
    "reserved": "it is clear of what each operation meanwhile keeps for itself at the bottom of the space",
    "overlap": "no two residencies of a space share a byte at a time",
    "link": "a copy joins two residencies of one buffer, in spaces that have a link",
    "window": "a copy starts at or before its done, within the program",
    "region": "a copy starts and is done in the same iteration of a loop, in the same branch",
    "source": "a copy's source lasts from its start until its done, and holds the buffer's value all that time",
    "destination": "a copy's destination lasts from its start until after its done",
    "served": "an access is served by a residency of its buffer that exists at that time",
    "write": "all writes of one operation to a buffer go to one residency",
    "unwritten": "the program reads no buffer that nothing has written, which no plan could mend",
    "value": "a read finds the current value",
    "initial": "an argument has one residency in its initial space at time 0",
    "final": "a result is in its final space when the program ends",
    "persistent": "a buffer whose address the caller knows stays at one place for its whole live range",
    "cross-program": "a copy of the previous run is of an unchanged argument, and this run leaves it for the next",
}

# A hostile plan may break a rule for every pair of residencies; a list longer than this has no reader.
MAX_VIOLATIONS_PER_RULE = 10_000


def check_belongs(problem: MappingProblem, plan: Plan) -> None:
    """Raises PlanError if a plan was made for another problem or target."""
    if plan.target != problem.target:
        raise PlanError(
            f"the plan of {plan.name!r} was made for target {plan.target!r}, not {problem.target!r}: "
            f"plan again, or name the plan's target"
        )
    if plan.problem != problem.fingerprint:
        name = "another version of it" if plan.name == problem.name else f"module {plan.name!r}"
        raise PlanError(
            f"the plan does not belong to module {problem.name!r}: it was made for {name} "
            f"(fingerprint {plan.problem:.12}…, not {problem.fingerprint:.12}…)"
        )


@collection_paused()
def verify(problem: MappingProblem, plan: Plan) -> list[Violation]:
    """Returns every violation of a plan, those of one rule together; none means that it is valid.

    It does not look at which problem the plan says it belongs to, see `check_belongs`.
    """
    checked = CheckedPlan(problem, plan)
    by_rule: dict[str, list[Violation]] = {rule: [] for rule in RULES}
    unlisted: dict[str, int] = {}
    for check in (_residencies, _overlaps, _copies, _served, _ends, _unwritten, check_values):
        for violation in check(checked):
            found = by_rule[violation.rule]
            if len(found) < MAX_VIOLATIONS_PER_RULE:
                found.append(violation)
                continue
            unlisted[violation.rule] = unlisted.get(violation.rule, 0) + 1
            if check is _overlaps:  # their number may be quadratic
                break
    for rule, more in unlisted.items():
        count = "more" if rule == "overlap" else f"{more:,} more"
        by_rule[rule].append(Violation(rule, f"and {count}; only the first {MAX_VIOLATIONS_PER_RULE:,} are listed"))
    return [violation for found in by_rule.values() for violation in found]


def _residencies(checked: CheckedPlan) -> Iterator[Violation]:
    """Yields what is wrong with single residencies."""
    problem = checked.problem
    most_reserved = [_RangeMaximum([o.reserved[s] for o in problem.operations]) for s in range(len(problem.spaces))]
    for number, r in enumerate(checked.plan.residencies):
        if not checked.is_known[number]:
            what = f"buffer {r.buffer}" if not 0 <= r.buffer < len(problem.buffers) else f"space {r.space}"
            yield Violation("index", f"residency {number} names {what}, which does not exist", time=r.start)
            continue
        buffer, space = problem.buffers[r.buffer], problem.spaces[r.space]
        breaches = []
        if r.start >= r.end:
            breaches.append(("live-range", "is empty"))
        elif r.start < buffer.start or r.end > buffer.end:
            breaches.append(("live-range", f"is not within the live range [{buffer.start}, {buffer.end})"))
        if r.space not in buffer.spaces:
            allowed = ", ".join(problem.spaces[s].name for s in buffer.spaces)
            breaches.append(("space", f"is in a space that is not allowed (allowed: {allowed})"))
        if r.offset < 0:
            breaches.append(("offset", f"has offset {r.offset:,}"))
        elif r.offset % space.alignment:
            breaches.append(("offset", f"has offset {r.offset:,}, which is not a multiple of {space.alignment}"))
        if r.offset + buffer.size > space.capacity:
            breaches.append(("capacity", f"ends at byte {r.offset + buffer.size:,} of {space.capacity:,}"))
        for rule, message in breaches:
            yield Violation(rule, f"{checked.residency(number)} {message}", r.buffer, r.start)
        low, high = max(r.start, 0), min(r.end, problem.end)
        if buffer.size > 0 and low < high and 0 <= r.offset < most_reserved[r.space].over(low, high):
            time = next(t for t in range(low, high) if problem.operations[t].reserved[r.space] > r.offset)
            reserved = problem.operations[time].reserved[r.space]
            message = f"reaches into the {reserved:,} bytes that {checked.operation(time)} keeps for itself"
            yield Violation(
                "reserved", f"{checked.residency(number)}, at offset {r.offset:,}, {message}", r.buffer, time
            )


class _RangeMaximum:
    """Answers for the maximum of `values[low:high]`, from the maxima of all runs of 2^k values."""

    def __init__(self, values: list[int]):
        self.levels = [np.array(values, dtype=np.int64)]
        width = 1
        while 2 * width <= len(values):
            last = self.levels[-1]
            self.levels.append(np.maximum(last[:-width], last[width:]))
            width *= 2

    def over(self, low: int, high: int) -> int:
        level = (high - low).bit_length() - 1
        values = self.levels[level]
        return max(int(values[low]), int(values[high - (1 << level)]))


def _overlaps(checked: CheckedPlan) -> Iterator[Violation]:
    """Yields every pair of residencies of one space that share a byte at a time.

    A sweep over time keeps those that are alive: the ones that are disjoint sorted by offset, where a newcomer meets
    only its neighbours, and those that already overlapped something apart, in the hope that they are few.
    """
    problem, residencies = checked.problem, checked.plan.residencies
    for space in range(len(problem.spaces)):
        numbers = [
            number
            for number, r in enumerate(residencies)
            if checked.is_known[number] and r.space == space and r.start < r.end and problem.buffers[r.buffer].size > 0
        ]
        by_start = sorted(numbers, key=lambda number: residencies[number].start)
        by_end = sorted(numbers, key=lambda number: residencies[number].end)
        low = {number: residencies[number].offset for number in numbers}
        high = {number: low[number] + problem.buffers[residencies[number].buffer].size for number in numbers}
        disjoint: list[tuple[int, int]] = []  # (offset, residency), ascending
        others: dict[int, None] = {}
        ended = 0
        for number in by_start:
            while residencies[by_end[ended]].end <= residencies[number].start:
                gone = by_end[ended]
                if gone in others:
                    del others[gone]
                else:
                    del disjoint[bisect.bisect_left(disjoint, (low[gone], gone))]
                ended += 1
            place = bisect.bisect_left(disjoint, (low[number], -1))
            first = place - 1 if place > 0 and high[disjoint[place - 1][1]] > low[number] else place
            met = []
            while first < len(disjoint) and disjoint[first][0] < high[number]:
                met.append(disjoint[first][1])
                first += 1
            met += [other for other in others if low[other] < high[number] and low[number] < high[other]]
            for other in met:
                message = (
                    f"{checked.residency(other)}, bytes [{low[other]:,}, {high[other]:,}), overlaps "
                    f"{checked.residency(number)}, bytes [{low[number]:,}, {high[number]:,})"
                )
                yield Violation("overlap", message, residencies[number].buffer, residencies[number].start)
            if met:
                others[number] = None
            else:
                disjoint.insert(place, (low[number], number))


def _copies(checked: CheckedPlan) -> Iterator[Violation]:
    """Yields what is wrong with single copies, but for the values that they carry."""
    problem, plan = checked.problem, checked.plan
    sound = set(checked.copies)
    for number, copy in enumerate(plan.copies):
        if number not in sound:
            wrong = next((r for r in (copy.source, copy.destination) if not checked.knows(r)), None)
            if wrong is not None:
                yield Violation(
                    "index", f"copy {number} names residency {wrong}, which does not exist", time=copy.start
                )
            else:
                names = [checked.residency(r) for r in (copy.source, copy.destination)]
                yield Violation("link", f"copy {number} joins {names[0]} and {names[1]}", time=copy.start)
            continue
        source, destination = plan.residencies[copy.source], plan.residencies[copy.destination]
        name, buffer = checked.copy(number), source.buffer
        if (source.space, destination.space) not in problem.link_between:
            yield Violation("link", f"{name} has no link to go by", buffer, copy.start)
        if copy.start == BEFORE:
            yield from _cross_program(checked, number)
            continue
        if not 0 <= copy.start <= copy.done <= problem.end:
            yield Violation("window", f"{name} does not run within the program, or backwards", buffer, copy.start)
            continue
        if checked.region[copy.start] != checked.region[copy.done]:
            message = f"{name} crosses the border of a loop or branch"
            yield Violation("region", message, buffer, copy.start)
        if not source.start <= copy.start or not max(copy.done, copy.start + 1) <= source.end:
            yield Violation(
                "source", f"{name} outlasts its source, {checked.residency(copy.source)}", buffer, copy.start
            )
        if not (destination.start <= copy.start and copy.done < destination.end):
            message = f"{name} is not within its destination, {checked.residency(copy.destination)}"
            yield Violation("destination", message, buffer, copy.start)
    before = dict.fromkeys(
        plan.residencies[copy.source].buffer
        for copy in (plan.copies[number] for number in checked.copies)
        if copy.start == BEFORE
    )
    if len(before) > problem.cross_program_prefetches:
        listed = ", ".join(problem.buffers[buffer].name for buffer in before)
        message = (
            f"{len(before)} arguments stay from the previous run ({listed}), {problem.cross_program_prefetches} may"
        )
        yield Violation("cross-program", message)


def _cross_program(checked: CheckedPlan, number: int) -> Iterator[Violation]:
    """Yields what is wrong with a copy of the previous run; what is left for the next is a matter of values."""
    problem, plan = checked.problem, checked.plan
    copy, name = plan.copies[number], checked.copy(number)
    source, destination = plan.residencies[copy.source], plan.residencies[copy.destination]
    buffer = problem.buffers[source.buffer]

    def breach(message: str) -> Violation:
        return Violation("cross-program", f"{name}: {message}", source.buffer, BEFORE)

    if copy.done != 0:
        yield breach("it starts before the program, so it must be done at 0")
    if destination.start != 0:
        yield breach("its destination must start at 0")
    if buffer.initial_space is None or source.start != 0 or source.space != buffer.initial_space:
        yield breach("its source must be where an argument lies when the program starts")
    writes = [
        problem.accesses[access][0]
        for access in problem.accesses_of[source.buffer]
        if problem.accesses[access][1].kind is not AccessKind.READ
    ]
    if writes:
        yield breach(f"the program changes the argument at {checked.operation(writes[0])}")


def _served(checked: CheckedPlan) -> Iterator[Violation]:
    """Yields accesses that no residency of their buffer serves, and operations that write one buffer in two places."""
    problem, plan = checked.problem, checked.plan
    if len(plan.served) != len(problem.accesses):
        message = f"{len(plan.served)} accesses are served, but the program makes {len(problem.accesses)}"
        yield Violation("index", message)
    written: dict[tuple[int, int], int] = {}
    for (time, access), residency in zip(problem.accesses, plan.served, strict=False):
        if not checked.knows(residency):
            message = f"is served by residency {residency}, which does not exist"
            yield Violation("index", f"{_subject(checked, time, access)} {message}", access.buffer, time)
            continue
        r = plan.residencies[residency]
        if r.buffer != access.buffer:
            message = f"is served by {checked.residency(residency)}"
            yield Violation("served", f"{_subject(checked, time, access)} {message}", access.buffer, time)
        elif not r.start <= time < r.end:
            message = f"is served by {checked.residency(residency)}, which does not exist then"
            yield Violation("served", f"{_subject(checked, time, access)} {message}", access.buffer, time)
        if access.kind is not AccessKind.READ:
            first = written.setdefault((time, access.buffer), residency)
            if first != residency:
                message = f"is served by residency {residency} here, and by residency {first} in another access"
                yield Violation("write", f"{_subject(checked, time, access)} {message}", access.buffer, time)


def _subject(checked: CheckedPlan, time: int, access: Access) -> str:
    """Names an access, to begin a sentence."""
    return f"{checked.operation(time)}, which {access.kind.value}s {checked.buffer(access.buffer)},"


def _unwritten(checked: CheckedPlan) -> Iterator[Violation]:
    """Yields the faults of the problem itself."""
    for fault in checked.problem.faults:
        yield Violation("unwritten", fault.message, fault.buffer, fault.time)


def _ends(checked: CheckedPlan) -> Iterator[Violation]:
    """Yields arguments that are not where they were put, and buffers that leave an address that the caller knows."""
    problem = checked.problem
    at_start: dict[int, list[int]] = {}
    whole: set[int] = set()
    for number, r in enumerate(checked.plan.residencies):
        if checked.is_known[number]:
            buffer = problem.buffers[r.buffer]
            if r.start == 0 and r.space == buffer.initial_space:
                at_start.setdefault(r.buffer, []).append(number)
            if r.space == buffer.home and (r.start, r.end) == (buffer.start, buffer.end):
                whole.add(r.buffer)
    for number, buffer in enumerate(problem.buffers):
        if buffer.initial_space is not None:
            found, space = at_start.get(number, []), problem.spaces[buffer.initial_space].name
            if not found:
                yield Violation("initial", f"{buffer.name} is not in {space} when the program starts", number, 0)
            elif len(found) > 1:
                message = f"{buffer.name} is in {space} more than once when the program starts: residencies {found}"
                yield Violation("initial", message, number, 0)
        if buffer.persistent and number not in whole:
            message = f"{buffer.name} must stay at one place over its whole live range [{buffer.start}, {buffer.end})"
            yield Violation("persistent", message, number, buffer.start)
