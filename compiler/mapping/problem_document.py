"""What a mapping problem's JSON must hold: the types and ranges of its values, and that they fit together.

The rules are those that `problem.py` states for the parts of a MappingProblem. They are checked on the JSON values,
before anything is made of them, so that a message names the place in the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.errors import PlanError
from memplan.compiler.mapping import documents
from memplan.compiler.mapping.documents import boolean, check_fields, integer, number, one_of, optional, row, rows, text

SCHEMA = "memplan.problem/1"

# Sizes and times of real programs, and their sums, stay far below these. No planner's arithmetic overflows then.
MAX_BYTES = 2**62
MAX_SECONDS = 1e30

# Memories, links, queues and channels: the emulator keeps a figure per operation and channel.
MAX_PARTS = 64

# Loops, branches and calls around an operation.
MAX_NESTING = 200

_KINDS = {kind.value for kind in RegionKind}
_ACCESS_ORDER = {AccessKind.READ.value: 0, AccessKind.UPDATE.value: 0, AccessKind.WRITE.value: 1}

_seconds = number(at_least=0.0, at_most=MAX_SECONDS)
_rate = number(above=0.0, at_most=MAX_SECONDS)
_count = number(at_least=0.0, at_most=MAX_SECONDS)
_size = integer(0, MAX_BYTES)

_SPACE = row(
    name=text, capacity=_size, alignment=integer(1, MAX_BYTES), bandwidth=_rate, channel=integer(-1, MAX_PARTS)
)


def check_problem_document(data: dict[str, Any], file: str) -> None:
    """Checks all of a problem's document but `given`; raises PlanError that names the file and the place."""
    check_fields(data, file, spaces=rows(_SPACE, at_least=1, at_most=MAX_PARTS), buffers=rows(documents.anything))
    check_fields(data, file, operations=rows(documents.anything), regions=rows(documents.anything, at_least=1))
    if "assumptions" in data:
        check_fields(data, file, assumptions=rows(row(loop=text, trip_count=_count, reason=text)))
    num_spaces, n = len(data["spaces"]), len(data["operations"])
    part, space, time = integer(0, MAX_PARTS), integer(0, num_spaces), integer(0, n + 1)
    access = row(
        buffer=integer(0, len(data["buffers"])),
        kind=one_of(_ACCESS_ORDER),
        bytes=_size,
        cost=rows(_seconds, num_spaces),
    )
    operation = row(
        name=text,
        opcode=text,
        floor=_seconds,
        overhead=_seconds,
        reserved=rows(_size, num_spaces),
        region=integer(0, len(data["regions"])),
        accesses=rows(access),
    )
    buffer = row(
        name=text,
        size=_size,
        start=time,
        end=integer(0, n + 2),
        spaces=rows(space, at_least=1),
        initial_space=optional(space),
        final_space=optional(space),
        persistent=boolean,
        values=rows(text),
    )
    check_fields(
        data,
        file,
        name=text,
        target=text,
        links=rows(row(source=space, destination=space, bandwidth=_rate, latency=_seconds, queue=part, channel=part)),
        regions=rows(
            row(kind=one_of(_KINDS), start=time, end=time, parent=integer(-1), trip_count=_seconds, group=integer(-1))
        ),
        operations=rows(operation),
        buffers=rows(buffer),
        given=documents.anything,
        clock=_seconds,
        cross_program_prefetches=integer(0, 2**31),
    )
    if "notes" in data:
        check_fields(data, file, notes=rows(text))
    for check in (_links, _regions, _operations, _buffers):
        for place, message in check(data):
            raise PlanError(f"{file}: {place}: {message}")


Faults = Iterator[tuple[str, str]]


def _links(data: dict[str, Any]) -> Faults:
    """Yields links that lead nowhere, or twice from one memory to the same other one."""
    seen: set[tuple[int, int]] = set()
    for i, (source, destination, *_) in enumerate(data["links"]):
        if source == destination:
            yield f"links[{i}]", "it leads from a memory to itself"
        if (source, destination) in seen:
            yield f"links[{i}]", "another link joins the same memories in this direction"
        seen.add((source, destination))


def _regions(data: dict[str, Any]) -> Faults:
    """Yields regions that do not nest, and what is wrong with their counts."""
    regions, n = data["regions"], len(data["operations"])
    if regions[0][:4] != [RegionKind.PROGRAM.value, 0, n, -1]:
        yield "regions[0]", f"it must be the program: kind 'program', start 0, end {n}, parent -1"
        return
    runs, depth = [float(regions[0][4])], [0]
    parent_of_group: dict[int, int] = {}
    for i, (kind, start, end, parent, trip_count, group) in enumerate(regions[1:], 1):
        place = f"regions[{i}]"
        if kind == RegionKind.PROGRAM.value:
            yield place, "only the first region may be of the kind 'program'"
        if not 0 <= parent < i:
            yield place, f"its parent, {parent}, is no region before it"
            return
        if not regions[parent][1] <= start <= end <= regions[parent][2]:
            yield place, f"[{start}, {end}) is not within its parent, {parent}"
        depth.append(depth[parent] + 1)
        if depth[i] > MAX_NESTING:
            yield place, f"regions nest more than {MAX_NESTING} deep"
        runs.append(runs[parent] * trip_count)
        if runs[i] > MAX_SECONDS:
            yield place, f"it runs more than {MAX_SECONDS:g} times"
        if kind == RegionKind.BRANCH.value:
            if trip_count > 1.0:
                yield place, f"the probability of a branch is {trip_count:g}, more than 1"
            if group < 0 or parent_of_group.setdefault(group, parent) != parent:
                yield place, "a branch needs the group of its conditional, whose branches have one parent"
    previous = regions[0]
    for i in sorted(range(1, len(regions)), key=lambda i: (regions[i][3], regions[i][1], regions[i][2])):
        if regions[i][3] == previous[3] and regions[i][1] < previous[2]:
            yield f"regions[{i}]", f"it overlaps another region of its parent, [{previous[1]}, {previous[2]})"
        previous = regions[i]


def _operations(data: dict[str, Any]) -> Faults:
    """Yields operations whose region or accesses do not agree with the regions and buffers."""
    buffers, capacities = data["buffers"], [space[1] for space in data["spaces"]]
    longest = 0.0
    runs: list[float] = []
    for _, _, _, parent, trip_count, _ in data["regions"]:
        runs.append(trip_count * (runs[parent] if parent >= 0 else 1.0))
    for t, (innermost, operation) in enumerate(zip(_innermost(data), data["operations"], strict=True)):
        _, _, floor, overhead, reserved, region, accesses = operation
        place = f"operations[{t}]"
        if region != innermost:
            yield f"{place}.region", f"the innermost region at time {t} is {innermost}, not {region}"
        for space, (kept, capacity) in enumerate(zip(reserved, capacities, strict=True)):
            if kept > capacity:
                yield f"{place}.reserved[{space}]", f"{kept:,} bytes are more than the memory has, {capacity:,}"
        order = [_ACCESS_ORDER[kind] for _, kind, _, _ in accesses]
        if order != sorted(order):
            yield f"{place}.accesses", "a write stands before a read or an update"
        for i, (buffer, _, _, _) in enumerate(accesses):
            if not buffers[buffer][2] <= t < buffers[buffer][3]:
                live = f"[{buffers[buffer][2]}, {buffers[buffer][3]})"
                yield f"{place}.accesses[{i}]", f"time {t} is not in the live range {live} of buffer {buffer}"
        longest += runs[region] * (floor + overhead + sum(max(cost) for _, _, _, cost in accesses))
        if not longest <= MAX_SECONDS or math.isnan(longest):
            yield place, f"the program takes more than {MAX_SECONDS:g} seconds up to here"


def _innermost(data: dict[str, Any]) -> Iterator[int]:
    """Yields the innermost region of each time; the regions nest."""
    regions = data["regions"]
    order = sorted(range(len(regions)), key=lambda i: (regions[i][1], -regions[i][2], i))
    around: list[int] = []
    position = 0
    for t in range(len(data["operations"])):
        while around and regions[around[-1]][2] <= t:
            around.pop()
        while position < len(order) and regions[order[position]][1] <= t:
            if regions[order[position]][2] > t:
                around.append(order[position])
            position += 1
        yield around[-1]


def _buffers(data: dict[str, Any]) -> Faults:
    """Yields buffers whose live range and memories contradict what they are."""
    n, total, latest = len(data["operations"]), 0, 0
    for i, (_, size, start, end, spaces, initial, final, persistent, _) in enumerate(data["buffers"]):
        place = f"buffers[{i}]"
        total += size
        if total >= MAX_BYTES:
            yield f"{place}.size", f"the sizes up to here are {total:,} bytes together, not below {MAX_BYTES:,}"
        if start >= end:
            yield place, f"its live range [{start}, {end}) is empty"
        if start < latest:
            yield f"{place}.start", f"{start} is before the start of the buffer before it, {latest}"
        latest = start
        if len(set(spaces)) < len(spaces):
            yield f"{place}.spaces", "a memory is listed twice"
        for name, space in (("initial_space", initial), ("final_space", final)):
            if space is not None and space not in spaces:
                yield f"{place}.{name}", f"{space} is not among the memories where the buffer may lie"
        if initial is not None and start != 0:
            yield f"{place}.start", f"it lies in memory when the program starts, but its live range starts at {start}"
        if final is not None and end != n + 1:
            yield f"{place}.end", f"it is a result, so its live range must end at {n + 1}, not {end}"
        if persistent and initial is None and final is None:
            yield f"{place}.persistent", "only arguments and results may stay where the caller knows them to be"
