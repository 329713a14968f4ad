"""What a compiler states about the memory of a program, beside what stands at our peak.

XLA gives blocks of memory to a program: one for each argument, result and constant, and one in which temporaries lie.
At the peak, some bytes of these blocks hold nothing: results that are not made yet, donated arguments that were read
for the last time, and gaps between temporaries. They are what a compiler's figure is above ours.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from memplan.compiler.analysis.buffer_assignment import Allocation, BufferAssignment
from memplan.compiler.analysis.occupancy import Interval, Occupancy

ARGUMENTS, RESULTS, CONSTANTS, TEMPORARIES = "arguments", "results", "constants", "temporaries"


@dataclass(frozen=True)
class StatedPart:
    """Blocks of one kind.

    Attributes:
      kind: "arguments" (with the results that lie in those that are donated), "results", "constants" or "temporaries".
      bytes: of the blocks.
      idle: bytes of these that hold nothing at our peak; None where the compiler does not state what lies where.
    """

    kind: str
    bytes: int
    idle: int | None = None


@dataclass(frozen=True)
class MemoryStatement:
    """What a compiler states.

    Attributes:
      by: who states it, such as "XLA's buffer assignment".
      parts: what it adds up to.
      uncounted: bytes that stand at our peak and lie in no block, such as the tables of tuples.
      assignment: what lies where, if the compiler says it.
    """

    by: str
    parts: tuple[StatedPart, ...]
    uncounted: int = 0
    assignment: BufferAssignment | None = None

    @property
    def total(self) -> int:
        """Bytes of all blocks."""
        return sum(part.bytes for part in self.parts)

    @property
    def idle(self) -> int | None:
        """Bytes of the blocks that hold nothing at our peak; None where the compiler does not state what lies where."""
        known = [part.idle for part in self.parts if part.idle is not None]
        return sum(known) if len(known) == len(self.parts) else None

    def beside(self, occupancy: Occupancy, time: int) -> MemoryStatement:
        """Returns the statement with what its blocks hold while what stands at a time does."""
        if self.assignment is None:
            return self
        storages = occupancy.program.storages
        storage_of = {value: number for number, storage in enumerate(storages) for value in storage.values}
        standing = dict(occupancy.standing(0, time))
        idle: dict[str, int] = defaultdict(int)
        sizes: dict[str, int] = defaultdict(int)
        placed: set[int] = set()
        for allocation in self.assignment.allocations:
            if allocation.is_thread_local or allocation.color:
                continue
            here = [value for value in allocation.values if storage_of.get(value.name, -1) in standing]
            placed.update(storage_of[value.name] for value in here)
            held = _covered([(value.offset, value.offset + value.size) for value in here])
            kind = _kind(allocation)
            sizes[kind] += allocation.size
            idle[kind] += allocation.size - held
        parts = tuple(StatedPart(kind, sizes[kind], idle[kind]) for kind in _KINDS if sizes[kind])
        uncounted = sum(size for storage, size in standing.items() if storage not in placed)
        return replace(self, parts=parts, uncounted=uncounted)


_KINDS = (ARGUMENTS, RESULTS, CONSTANTS, TEMPORARIES)


def statement_of(assignment: BufferAssignment) -> MemoryStatement:
    """Returns what a report of XLA's buffer assignment states about the default memory."""
    sizes: dict[str, int] = defaultdict(int)
    for allocation in assignment.allocations:
        if not allocation.is_thread_local and not allocation.color:
            sizes[_kind(allocation)] += allocation.size
    parts = tuple(StatedPart(kind, sizes[kind]) for kind in _KINDS if sizes[kind])
    return MemoryStatement("XLA's buffer assignment", parts, assignment=assignment)


def stated_by_jax(analysis: Any) -> MemoryStatement:
    """Returns what `memory_analysis()` of a `jax.stages.Compiled` states."""
    sizes = {
        ARGUMENTS: analysis.argument_size_in_bytes,
        RESULTS: analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        TEMPORARIES: analysis.temp_size_in_bytes,
    }
    return MemoryStatement("memory_analysis()", tuple(StatedPart(kind, int(size)) for kind, size in sizes.items()))


def _kind(allocation: Allocation) -> str:
    if allocation.parameter >= 0:
        return ARGUMENTS
    if allocation.is_constant:
        return CONSTANTS
    return RESULTS if allocation.is_live_out else TEMPORARIES


def _covered(intervals: list[Interval]) -> int:
    """Returns how many bytes some half-open intervals cover, each byte counted once."""
    covered, reached = 0, 0
    for start, end in sorted(intervals):
        covered += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return covered
