"""The flattened program: what a Graph does to memory, in order of execution.

`flatten(graph)` (in `flatten.py`) lays the entry computation and everything that it calls on one line of time and
merges the values that must share memory.

Time `t` is an index into `FlatProgram.steps`. Times are half-open: a storage that is defined by step 3 and last read
by step 7 lives in `[3, 8)`. Results of the program are read by a virtual step at the end, `t = len(steps)`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from memplan.compiler.ir import Graph, Instruction


class RegionKind(enum.Enum):
    """Why a part of the schedule is a unit of its own."""

    PROGRAM = "program"
    LOOP = "loop"
    BRANCH = "branch"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class StepRegion:
    """A contiguous part of the flattened schedule: the program, a loop (condition and body), a branch, a call.

    Attributes:
      kind: what it is.
      start, end: half-open times.
      parent: index of the region around it; -1 for the program, which is region 0.
      trip_count: how often it runs each time that its parent runs: the iterations of a loop, the probability of a
        branch.
      known: whether the program states the trip count; otherwise it is an assumption.
      owner: time of the `while`, `conditional` or `call` step that it belongs to; -1 for the program. The owner's
        step comes right after its last region, so branches of one conditional have the same owner.
    """

    kind: RegionKind
    start: int
    end: int
    parent: int
    trip_count: float
    known: bool
    owner: int


class _Repeated(Protocol):
    @property
    def parent(self) -> int: ...

    @property
    def trip_count(self) -> float: ...


def repetitions(regions: Iterable[_Repeated]) -> tuple[float, ...]:
    """Returns how often each region runs in one run of the program: the product of the trip counts around it.

    Args:
      regions: of a FlatProgram or of a MappingProblem, parents before children.
    """
    counts: list[float] = []
    for region in regions:
        counts.append(region.trip_count * (counts[region.parent] if region.parent >= 0 else 1.0))
    return tuple(counts)


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction in the flattened schedule.

    Attributes:
      computation: name of the computation that holds it.
      index: its index there.
      instruction: itself.
      region: index of the innermost region around it.
    """

    computation: str
    index: int
    instruction: Instruction
    region: int


class AccessKind(enum.Enum):
    """What a step does to a storage. An UPDATE reads the old content and overwrites a part of it in place."""

    READ = "read"
    WRITE = "write"
    UPDATE = "update"


COPIED = -2  # operand of what an implicit copy reads and writes


@dataclass(frozen=True, slots=True)
class StorageAccess:
    """A step's access to a storage.

    Attributes:
      time: of the step; `len(steps)` for the virtual step that reads the results.
      storage: index of the storage.
      kind: read, write or update.
      operand: number of the operand that a READ reads or an UPDATE updates; -1 for a WRITE; COPIED for the READ and
        the WRITE of an `ImplicitCopy`, which is made after all else that the step does.
      tuple_index: tuple index into the operand, or into the result.
      bytes: bytes that move between the storage and the processor: all of it, or, for slices and in-place updates,
        only the part that is touched. 0 where a step only waits: `copy-done` needs both ends of its copy to be there;
        and where it allocates memory that may be read before anything fills it.
    """

    time: int
    storage: int
    kind: AccessKind
    operand: int
    tuple_index: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory for one alias set: all values that must lie at the same place.

    Attributes:
      name: of its first value: `instruction` or `instruction{tuple index}`.
      values: names of all values in it.
      size: bytes, padded; the largest of its values.
      memory_space: XLA's number of the memory that the module's layouts say.
      start, end: half-open live range over steps. Arguments and constants start at 0; results end at `len(steps) + 1`.
      parameters: `(number, tuple index)` of the arguments that lie in it.
      result_indices: tuple indices of the results that lie in it.
      is_constant: whether its content is fixed before the program starts.
      holes: parts of `[start, end)` in which its content is not needed, half-open and ascending: it is written before
        it is read again. A donated argument has one between its last use and the result that lies there.
    """

    name: str
    values: tuple[str, ...]
    size: int
    memory_space: int
    start: int
    end: int
    parameters: tuple[tuple[int, tuple[int, ...]], ...] = ()
    result_indices: tuple[tuple[int, ...], ...] = ()
    is_constant: bool = False
    holes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ImplicitCopy:
    """A copy that the program needs although no instruction of it says so.

    Loops and branches hand their values over in fixed places, and each result has a place of its own. Where a value
    cannot be in that place already, because something else is needed there, it is copied at the end of a step. Copies
    at the end of one step happen at once: all are read before any is written. Optimized modules need none: their
    compiler inserted `copy` instructions instead.

    Attributes:
      time: of the step.
      source, destination: indices of storages.
      bytes: copied.
      reason: which place is filled, such as `while.3{1}`.
    """

    time: int
    source: int
    destination: int
    bytes: int
    reason: str


@dataclass(frozen=True)
class FlatProgram:
    """A Graph on one line of time.

    Attributes:
      graph: what was flattened.
      steps: in order of execution, `[num_steps]`.
      regions: nested; region 0 is the program; parents stand before children.
      storages: one per alias set, in order of their start.
      accesses: sorted by time; within a step, reads before updates before writes. A READ and a WRITE for each of
        `copies` are among them, the last of their kind in the step, in the order of `copies`.
      copies: that no instruction states, in order of time.
    """

    graph: Graph
    steps: tuple[Step, ...]
    regions: tuple[StepRegion, ...]
    storages: tuple[Storage, ...]
    accesses: tuple[StorageAccess, ...]
    copies: tuple[ImplicitCopy, ...] = ()
