"""The EmbeddedProgram: buffers, and steps that run one after another, each one nest of loops in C.

    for (i0 …) for (i1 …)                     the loops of the step, one iteration for each element that it stores
        for (i2 …) accumulator += body        a reduction in the expression has loops of its own
        store[index(i0, i1)] = expression     several stores may share what they compute

All loads of an iteration come before its stores. The order of `EmbeddedProgram.steps` says what a step reads: the last
value stored before it. A plan may run the steps in another order in which each reads the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from memplan.compiler.embedded.affine import AffineIndex
from memplan.compiler.embedded.expressions import (
    COMBINES,
    ITEM_SIZES,
    OPERATIONS,
    Constant,
    Divisible,
    Element,
    Expression,
    Guarded,
    Reduction,
    ScalarOperation,
    children,
    indices,
    walk,
)
from memplan.compiler.errors import PlanError

# Blocks of the arena begin at multiples of it and are padded to it, bytes.
ALIGNMENT = 4


class StorageKind(Enum):
    """What a buffer is to the program."""

    INPUT = "input"  # written into the arena by the caller before each run, and gone after its last use
    CONSTANT = "constant"  # in flash, outside of the arena
    STATE = "state"  # kept from run to run, and updated in place
    TEMPORARY = "temporary"
    RESULT = "result"  # in the arena after each run


@dataclass(frozen=True, eq=False)
class EmbeddedBuffer:
    """A row-major array.

    Attributes:
      name: for messages, comments and identifiers; any text.
      shape, dtype: of the array; the dtype is one of `ITEM_SIZES`.
      kind: see `StorageKind`.
      is_packed: a bool array in which an element takes one bit.
      value: `shape` of the dtype: a constant, or the first value of a state; None otherwise.
      origin: the source line that it comes from; "" if it is not known.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: StorageKind
    is_packed: bool = False
    value: Any = None
    origin: str = ""

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def item_size(self) -> int:
        """Bytes of an element, if it is not packed."""
        return ITEM_SIZES[self.dtype]

    @property
    def num_bytes(self) -> int:
        return -(-self.num_elements // 8) if self.is_packed else self.num_elements * self.item_size

    @property
    def size(self) -> int:
        """Bytes of its block in the arena; 0 for a constant."""
        return 0 if self.kind is StorageKind.CONSTANT else -(-self.num_bytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, eq=False)
class ElementStore:
    """Where a step writes a value: `buffer[index] = value`."""

    buffer: int
    index: AffineIndex
    value: Expression


@dataclass(frozen=True)
class InPlaceWay:
    """A way in which a step may write over a buffer that it reads for the last time; both begin at one address.

    The step's result for some of its iterations, a *part*, is collected in a workspace, and written when all that they
    read has been read. What later parts read is not written over.

    Attributes:
      store: index in `LoopNest.stores`.
      buffer: that is written over.
      num_outer: parts are the iterations of so many outer loops, in order; with `slices` it is 1.
      is_descending: whether the outer loops run backwards, as where the result is larger than what is written over.
      slices: the loop that is made the outermost one, as each of its iterations has elements of its own in both
        buffers (a channel of a depthwise convolution); None if the loops keep their order.
      width: how many iterations of the loop `slices` are a part; 1 without it.
      workspace: bytes, a multiple of the alignment; 0 if a part is one element.
    """

    store: int
    buffer: int
    num_outer: int
    is_descending: bool = False
    slices: int | None = None
    width: int = 1
    workspace: int = 0


@dataclass(frozen=True, eq=False)
class LoopNest:
    """One nest of loops.

    Attributes:
      name: what it computes, such as `conv_general_dilated`.
      loops: extents of the loops, outermost first; loop k is `LoopIndex(k, loops[k])`.
      stores: what is written in each iteration; no two write one element, in one iteration or in different ones.
      in_place: ways in which it may write over what it reads, best first.
      origin: the source line that it comes from; "" if it is not known.
    """

    name: str
    loops: tuple[int, ...]
    stores: tuple[ElementStore, ...]
    in_place: tuple[InPlaceWay, ...] = ()
    origin: str = ""

    @cached_property
    def expressions(self) -> tuple[Expression, ...]:
        """All expressions, each once."""
        return tuple(walk(*(store.value for store in self.stores)))

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """The buffers that are read, each once, ascending."""
        return tuple(sorted({each.buffer for each in self.expressions if isinstance(each, Element)}))

    @cached_property
    def writes(self) -> tuple[int, ...]:
        """The buffers that are written, ascending."""
        return tuple(sorted(store.buffer for store in self.stores))

    @cached_property
    def num_operations(self) -> int:
        """Iterations of the innermost loops."""
        inner = sum(
            math.prod(loop.extent for loop in each.loops) for each in self.expressions if isinstance(each, Reduction)
        )
        return math.prod(self.loops) * max(inner, 1)


@dataclass(frozen=True, eq=False)
class EmbeddedProgram:
    """A program for one arena.

    Attributes:
      name: for messages and identifiers; any text.
      buffers: named by their indices.
      steps: in an order in which each reads what it is meant to read.
      inputs, states, results: buffers in the order of the program's arguments and results.

    Raises:
      PlanError: on construction, the parts do not fit together; the message names the place.
    """

    name: str
    buffers: tuple[EmbeddedBuffer, ...]
    steps: tuple[LoopNest, ...]
    inputs: tuple[int, ...] = ()
    states: tuple[int, ...] = ()
    results: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for place, message in _faults(self):
            raise PlanError(f"{self.name}: {place}: {message}")

    @cached_property
    def predecessors(self) -> tuple[frozenset[int], ...]:
        """`[steps]` the steps that must run before each: what it reads is written, and what it writes was read."""
        found: list[set[int]] = []
        writer: dict[int, int] = {}
        readers: dict[int, list[int]] = {}
        for k, step in enumerate(self.steps):
            before = {writer[buffer] for buffer in (*step.reads, *step.writes) if buffer in writer}
            for buffer in step.writes:
                before |= set(readers.pop(buffer, ()))
                writer[buffer] = k
            for buffer in step.reads:
                readers.setdefault(buffer, []).append(k)
            found.append(before - {k})
        return tuple(frozenset(before) for before in found)

    @property
    def flash(self) -> int:
        """Bytes of all constants, and of the first values of the states."""
        return sum(each.num_bytes for each in self.buffers if each.kind in (StorageKind.CONSTANT, StorageKind.STATE))


def _faults(program: EmbeddedProgram) -> Iterator[tuple[str, str]]:
    """Yields `(place, message)` for all that contradicts itself."""
    for b, buffer in enumerate(program.buffers):
        place = f"buffers[{b}] ({buffer.name})"
        if buffer.dtype not in ITEM_SIZES:
            yield place, f"its dtype is {buffer.dtype}"
            return
        if min(buffer.shape, default=1) < 1:
            yield place, f"its shape is {buffer.shape}"
        if buffer.is_packed and (buffer.dtype != "bool" or buffer.kind is not StorageKind.TEMPORARY):
            yield place, "only temporary bools are packed"
        needs_value = buffer.kind in (StorageKind.CONSTANT, StorageKind.STATE)
        if needs_value != (buffer.value is not None):
            yield place, f"it is of kind {buffer.kind.value} and has {'no' if needs_value else 'a'} value"
        elif needs_value and (buffer.value.shape != buffer.shape or buffer.value.dtype.name != buffer.dtype):
            yield place, "its value has another shape or dtype"
    written = {
        b for b, each in enumerate(program.buffers) if each.kind not in (StorageKind.TEMPORARY, StorageKind.RESULT)
    }
    for k, step in enumerate(program.steps):
        for message in _step_faults(program, step, written):
            yield f"steps[{k}] ({step.name})", message
        written |= set(step.writes)
    for kind, listed in (
        (StorageKind.INPUT, program.inputs),
        (StorageKind.STATE, program.states),
        (StorageKind.RESULT, program.results),
    ):
        for b in listed:
            if program.buffers[b].kind is not kind:
                yield f"buffers[{b}] ({program.buffers[b].name})", f"it is listed as {kind.value}"
            if b not in written:
                yield f"buffers[{b}] ({program.buffers[b].name})", "nothing writes it"


def _step_faults(program: EmbeddedProgram, step: LoopNest, written: set[int]) -> Iterator[str]:
    if min(step.loops, default=1) < 1:
        yield f"its loops run {step.loops} times"
    if len(set(step.writes)) < len(step.writes):
        yield "two stores are to one buffer"
    for store in step.stores:
        buffer = program.buffers[store.buffer]
        low, high = store.index.bounds
        if not (low >= 0 and high < buffer.num_elements):
            yield f"it stores {buffer.name}[{low} … {high}] of {buffer.num_elements}"
        if buffer.kind in (StorageKind.CONSTANT, StorageKind.INPUT):
            yield f"it writes {buffer.name}, which is of kind {buffer.kind.value}"
        if store.value.dtype != buffer.dtype:
            yield f"it stores {store.value.dtype} in {buffer.name}, which is {buffer.dtype}"
        if not store.index.loops <= set(range(len(step.loops))):
            yield f"the index into {buffer.name} has loops that are not the step's"
        yield from _expression_faults(program, store.value, set(range(len(step.loops))), False, written, set())


def _expression_faults(
    program: EmbeddedProgram,
    root: Expression,
    loops: set[int],
    is_guarded: bool,
    written: set[int],
    seen: set[tuple[int, bool]],
) -> Iterator[str]:
    stack = [(root, frozenset(loops), is_guarded)]
    while stack:
        each, known, guarded = stack.pop()
        if (id(each), guarded) in seen:
            continue
        seen.add((id(each), guarded))
        for index in indices(each):
            if not index.loops <= known:
                yield "an index has loops that are not around it"
        match each:
            case Element():
                buffer = program.buffers[each.buffer]
                low, high = each.index.bounds
                if each.buffer not in written:
                    yield f"it reads {buffer.name}, which nothing before has written"
                if each.dtype != buffer.dtype:
                    yield f"it reads {buffer.name} as {each.dtype}"
                if not guarded and not (low >= 0 and high < buffer.num_elements):
                    yield f"it reads {buffer.name}[{low} … {high}] of {buffer.num_elements}"
            case ScalarOperation():
                if OPERATIONS.get(each.name) != len(each.operands):
                    yield f"{each.name} has {len(each.operands)} operands"
            case Reduction():
                numbers = {loop.number for loop in each.loops}
                if each.combine not in COMBINES or numbers & known or len(numbers) < len(each.loops):
                    yield f"the reduction {each.combine} is malformed"
                known = known | numbers
            case Guarded():
                if any(isinstance(condition, Divisible) and condition.divisor < 2 for condition in each.conditions):
                    yield "a condition divides by less than 2"
                guarded = True
            case Constant():
                if each.dtype not in ITEM_SIZES:
                    yield f"a constant is {each.dtype}"
        stack += [(child, known, guarded) for child in children(each)]
