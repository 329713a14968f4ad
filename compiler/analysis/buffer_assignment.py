"""Reads the report of XLA's buffer assignment: the memory that XLA itself gives to a module.

With `xla_dump_to` set, XLA on the CPU writes `NAME.cpu_after_optimizations-buffer-assignment.txt` beside each module:

    BufferAssignment:
    allocation 0: size 524288, parameter 0, shape |f32[512,256]| at ShapeIndex {}:
     value: <32 x.1 @0> (size=524288,offset=0): f32[512,256]{1,0}
    allocation 1: size 65668, preallocated-temp:
     value: <24 copy.4 @0> (size=4,offset=65600): s32[]
     …
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from memplan.compiler import limits
from memplan.compiler.errors import ParseError
from memplan.compiler.files import read_text


@dataclass(frozen=True, slots=True)
class AssignedValue:
    """A value in an allocation.

    Attributes:
      name: `instruction` or `instruction{tuple index}`.
      size: bytes.
      offset: from the start of the allocation.
    """

    name: str
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """One block of memory.

    Attributes:
      index: its number.
      size: bytes.
      color: XLA's number of the memory space.
      parameter: number of the entry's parameter that it is, or -1.
      is_constant: whether it holds a constant.
      is_thread_local: whether each thread has one of its own, for the scalars of a reduction's combiner and the like.
      is_temporary: whether it is the heap in which values that do not outlive the program are packed.
      is_live_out: whether the caller may look at it after the program.
      values: what lies in it.
    """

    index: int
    size: int
    color: int
    parameter: int
    is_constant: bool
    is_thread_local: bool
    is_temporary: bool
    is_live_out: bool
    values: tuple[AssignedValue, ...]


@dataclass(frozen=True, slots=True)
class BufferAssignment:
    """All memory of a module.

    Attributes:
      allocations: in order of their number.
    """

    allocations: tuple[Allocation, ...]

    @property
    def total(self) -> int:
        """Bytes of all allocations but the thread-local ones."""
        return sum(allocation.size for allocation in self.allocations if not allocation.is_thread_local)

    @property
    def temporary(self) -> int:
        """Bytes of the heap."""
        return sum(allocation.size for allocation in self.allocations if allocation.is_temporary)


_ALLOCATION = re.compile(r"allocation ([0-9]{1,18}): size ([0-9]{1,18})\b(.*):$")
_VALUE = re.compile(r" value: <[0-9]+ (.+?)(?: \(phi\))? @-?[0-9]+> \(size=([0-9]{1,18}),offset=([0-9]{1,18})\): ")
_SHAPE = re.compile(r"\|[^|]*\|")


def parse_buffer_assignment(text: str, file: str = "<string>") -> BufferAssignment:
    """Returns the allocations that a report lists; raises ParseError, with the line, where it is none.

    >>> report = "BufferAssignment:\\nallocation 0: size 8, constant:\\n value: <3 c @0> (size=8,offset=0): f32[2]\\n"
    >>> parse_buffer_assignment(report).total
    8
    """
    lines = text.splitlines()
    if not lines or lines[0].strip() != "BufferAssignment:":
        raise ParseError("expected BufferAssignment: as the first line", file, 1, 1)
    heads: list[tuple[int, int, str]] = []
    values: list[list[AssignedValue]] = []
    for number, line in enumerate(lines[1:], start=2):
        if match := _ALLOCATION.match(line):
            heads.append((int(match.group(1)), int(match.group(2)), _SHAPE.sub("", match.group(3))))
            values.append([])
        elif (match := _VALUE.match(line)) and heads:
            name = match.group(1).removesuffix("{}")
            values[-1].append(AssignedValue(name, int(match.group(2)), int(match.group(3))))
        elif line.strip():
            raise ParseError(f"expected an allocation or a value, found {line.strip()!r:.60}", file, number, 1)
    return BufferAssignment(tuple(_allocation(head, tuple(inside)) for head, inside in zip(heads, values, strict=True)))


def read_buffer_assignment(path: str | Path) -> BufferAssignment:
    """Returns the report in a file."""
    return parse_buffer_assignment(read_text(path, limits.BUFFER_ASSIGNMENT), str(path))


def _allocation(head: tuple[int, int, str], values: tuple[AssignedValue, ...]) -> Allocation:
    index, size, rest = head
    color = re.search(r"\bcolor ([0-9]{1,18})\b", rest)
    parameter = re.search(r"\bparameter ([0-9]{1,18})\b", rest)
    return Allocation(
        index,
        size,
        int(color.group(1)) if color else 0,
        int(parameter.group(1)) if parameter else -1,
        "constant" in rest,
        "thread-local" in rest,
        "preallocated-temp" in rest,
        "maybe-live-out" in rest,
        values,
    )


_RANGE = re.compile(r"    (\S.*?)(\{[0-9,]*\}):(-?[0-9]{1,18})-(-?[0-9]{1,18})$")


def parse_live_ranges(text: str, file: str = "<string>") -> dict[str, tuple[int, int]]:
    """Returns the live range of each value from a `-live-range.txt` report: first and last time, both inclusive.

    >>> parse_live_ranges("HloLiveRange (max 3):\\n  BufferLiveRange:\\n    x{}:0-3\\n    while{1}:1-2\\n")
    {'x': (0, 3), 'while{1}': (1, 2)}
    """
    lines = text.splitlines()
    if not lines or not lines[0].startswith("HloLiveRange"):
        raise ParseError("expected HloLiveRange as the first line", file, 1, 1)
    ranges: dict[str, tuple[int, int]] = {}
    for line in lines:
        if match := _RANGE.match(line):
            name, index, start, end = match.groups()
            ranges[name + index.removesuffix("{}")] = (int(start), int(end))
    return ranges


def occupied_peak(assignment: BufferAssignment, live_ranges: Mapping[str, tuple[int, int]]) -> int:
    """Returns the most bytes that XLA's assignment has in use at one time, gaps in its allocations not counted.

    Arguments and constants are in use all the time; every other byte while a value that lies on it is live.
    """
    always = 0
    events: dict[int, list[tuple[int, int, int]]] = {}
    base = 0
    for allocation in assignment.allocations:
        if allocation.is_thread_local:
            continue
        if allocation.is_constant:
            always += allocation.size
            continue
        for value in allocation.values:
            if value.name in live_ranges:
                start, end = live_ranges[value.name]
                for time in (start, end + 1):
                    events.setdefault(time, []).append((base + value.offset, value.size, 1 if time == start else -1))
        base += allocation.size
    # Ends of values in ascending order, and how many live values cover the bytes between neighbours.
    ends = sorted({edge for changes in events.values() for at, size, _ in changes for edge in (at, at + size)})
    number = {edge: i for i, edge in enumerate(ends)}
    covered = [0] * max(len(ends) - 1, 0)
    used = peak = 0
    for time in sorted(events):
        for at, size, change in events[time]:
            for i in range(number[at], number[at + size]):
                before = covered[i] > 0
                covered[i] += change
                used += ((covered[i] > 0) - before) * (ends[i + 1] - ends[i])
        peak = max(peak, used)
    return always + peak
