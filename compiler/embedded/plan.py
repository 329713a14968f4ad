"""The EmbeddedPlan: the order of a program's steps, what is written in place, and where buffers lie in the arena."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from memplan.compiler.embedded.program import EmbeddedProgram, InPlaceWay, StorageKind
from memplan.compiler.errors import PlanError


@dataclass(frozen=True)
class ArenaBlock:
    """Bytes of the arena that something takes.

    Attributes:
      buffer: index in `EmbeddedProgram.buffers`; None for the workspace of a step.
      offset, size: bytes.
      start, end: half-open times; step number t of the order runs at time t.
    """

    buffer: int | None
    offset: int
    size: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class EmbeddedPlan:
    """What runs when and lies where.

    Attributes:
      program: what is planned.
      order: `[steps]` the steps in the order in which they run.
      in_place: `[steps]` how each step, by its index in the program, writes over what it reads; None if it does not.
      blocks: of all buffers but constants, and of workspaces.
      bound: bytes; proven: in no order is the peak lower.
      arena_bound: bytes; proven: for this order and these steps in place, no arena is smaller.
      method: what found the order.
    """

    program: EmbeddedProgram
    order: tuple[int, ...]
    in_place: tuple[InPlaceWay | None, ...]
    blocks: tuple[ArenaBlock, ...]
    bound: int
    arena_bound: int
    method: str

    @cached_property
    def arena(self) -> int:
        """Bytes of the arena."""
        return max((block.offset + block.size for block in self.blocks), default=0)

    @cached_property
    def loads(self) -> tuple[int, ...]:
        """`[steps]` bytes that are in use at each time."""
        shared = {
            (way.buffer, self.program.steps[k].stores[way.store].buffer): min(
                self.program.buffers[way.buffer].size,
                self.program.buffers[self.program.steps[k].stores[way.store].buffer].size,
            )
            for k, way in enumerate(self.in_place)
            if way is not None
        }
        position = {k: t for t, k in enumerate(self.order)}
        loads = [0] * max(len(self.order), 1)
        for block in self.blocks:
            for t in range(block.start, block.end):
                loads[t] += block.size
        for k, way in enumerate(self.in_place):
            if way is not None:
                loads[position[k]] -= shared[way.buffer, self.program.steps[k].stores[way.store].buffer]
        return tuple(loads)

    @property
    def peak(self) -> int:
        """Bytes in use at the time when most are."""
        return max(self.loads)

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps in the order in which they run."""
        return tuple(self.program.steps[k].name for k in self.order)

    @property
    def is_proven(self) -> bool:
        """Whether no order and no layout of this program needs a smaller arena."""
        return self.arena == self.bound

    def offset(self, buffer: int) -> int:
        """Returns where a buffer begins, bytes."""
        return self._offsets[buffer]

    def workspace(self, step: int) -> int:
        """Returns where the workspace of a step, by its index in the program, begins, bytes."""
        time = self.order.index(step)
        return next(b.offset for b in self.blocks if b.buffer is None and b.start == time)

    @cached_property
    def _offsets(self) -> dict[int, int]:
        return {block.buffer: block.offset for block in self.blocks if block.buffer is not None}


def check_plan(plan: EmbeddedPlan) -> None:
    """Raises PlanError if a step would read what is not there: a wrong order, or blocks that overlap.

    The lifetimes are found here again, from the program and the order alone.
    """
    for message in _plan_faults(plan):
        raise PlanError(f"{plan.program.name}: {message}")


def _plan_faults(plan: EmbeddedPlan) -> Iterator[str]:
    program = plan.program
    if sorted(plan.order) != list(range(len(program.steps))):
        yield "the order does not name each step once"
        return
    position = {k: t for t, k in enumerate(plan.order)}
    for k, before in enumerate(program.predecessors):
        for other in before:
            if position[other] > position[k]:
                yield f"step {k} runs before step {other}, which it waits for"
    needed = dict(_lifetimes(program, plan.order))
    placed = {block.buffer: block for block in plan.blocks if block.buffer is not None}
    for b, (start, end) in needed.items():
        block = placed.get(b)
        if block is None or block.start > start or block.end < end or block.size < program.buffers[b].num_bytes:
            yield f"the block of buffer {b} ({program.buffers[b].name}) is missing, too short or too small"
    for k, way in enumerate(plan.in_place):
        if way is None:
            continue
        if way not in program.steps[k].in_place:
            yield f"step {k} has no such way to write in place"
        elif needed[way.buffer][1] != position[k] + 1:
            yield f"step {k} writes over buffer {way.buffer}, which is read later"
        if way.workspace and not any(
            b.buffer is None and b.start == position[k] and b.size >= way.workspace for b in plan.blocks
        ):
            yield f"step {k} has no workspace"
    yield from _overlaps(plan, position)


def _lifetimes(program: EmbeddedProgram, order: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yields `(buffer, (start, end))` for all that is in the arena."""
    used: dict[int, list[int]] = {}
    for time, k in enumerate(order):
        for b in (*program.steps[k].reads, *program.steps[k].writes):
            used.setdefault(b, []).append(time)
    for b, buffer in enumerate(program.buffers):
        times = used.get(b, [0])
        start = 0 if buffer.kind in (StorageKind.INPUT, StorageKind.STATE) else times[0]
        end = max(len(order), 1) if buffer.kind in (StorageKind.STATE, StorageKind.RESULT) else times[-1] + 1
        if buffer.kind is not StorageKind.CONSTANT:
            yield b, (start, end)


def _overlaps(plan: EmbeddedPlan, position: dict[int, int]) -> Iterator[str]:
    allowed = {}
    for k, way in enumerate(plan.in_place):
        if way is not None:
            allowed[way.buffer, plan.program.steps[k].stores[way.store].buffer] = position[k]
    blocks = sorted((b for b in plan.blocks if b.size), key=lambda b: b.offset)
    for i, low in enumerate(blocks):
        if low.offset < 0 or low.start >= low.end:
            yield f"a block lies at {low.offset} from {low.start} to {low.end}"
        for high in blocks[i + 1 :]:
            if high.offset >= low.offset + low.size:
                break
            if low.start >= high.end or high.start >= low.end:
                continue
            first, second = (low, high) if low.start <= high.start else (high, low)
            pair = (first.buffer, second.buffer)
            time = allowed.get(pair)  # type: ignore[arg-type]
            is_shared = (
                time is not None and low.offset == high.offset and second.start == time and first.end == time + 1
            )
            if not is_shared:
                yield f"blocks of buffers {low.buffer} and {high.buffer} overlap"
