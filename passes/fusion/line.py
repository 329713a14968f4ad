"""A computation as the fusion pass sees it: its instructions in a line, and arrays of what each reads and costs.

Three kinds of instructions:

    on the line    what takes time, and views of it: each is a value at a position of the line
    free           constants, broadcasts and numbering (`iota`): each group that reads one computes it again for itself
    outside        parameters, large constants, tuples and their elements: values that exist already

Instructions on the line that can be part of no fusion, such as loops, are barriers.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from memplan.compiler.hardware.cost_model import compute_seconds, matrix_seconds
from memplan.compiler.hardware.roofline import duration
from memplan.compiler.hardware.target import Target
from memplan.compiler.hardware.work import WorkCounter
from memplan.compiler.ir import Computation, Graph, Instruction
from memplan.passes.fusion.axes import RESULT, Axes, axes_of, dims_of

FREE, OUTSIDE, ON_LINE, BARRIER = range(4)

# The sizes of a matrix product, and the sides of its operands.
ROWS, COLUMNS, DEPTH = range(3)

_FREE_OPCODES = frozenset({"constant", "iota", "broadcast"})
_VIEWS = frozenset({"bitcast", "reshape", "get-tuple-element"})
_SLICING = frozenset({"slice", "dynamic-slice", "gather"})

# An instruction that touches less than one tile of registers costs no launch, as in `hardware/calibration.py`.
ONE_TILE = 4096

Array = np.ndarray[Any, Any]


class LineArrays(NamedTuple):
    """What the dynamic program sees: `n` positions on the line, `m` values (all instructions), `d` of their dimensions.

    Ragged arrays are flat, with the first entry of each position in `…_start`, `[n + 1]`.

    Attributes:
      order: `[n]` value at each position.
      position: `[m]` of each value; -1 if it is not on the line.
      bytes: `[m]` of each value.
      dim_start: `[m + 1]` first dimension of each value.
      dim_size: `[d]`.
      barrier: `[n]` whether it can be part of no fusion.
      viewed: `[n]` value that it is a view of, else -1.
      first_user, last_user: `[n]` positions of the first and the last that read it, directly or through free ones; n
        and -1 if there is none.
      leaves: `[n]` whether something outside of the line reads it.
      single: `[n]` seconds of the instruction by itself, with its part of the free ones that it reads.
      transfer: `[n]` seconds that its data takes then.
      vector, transcendental, matrix: `[n]` seconds of its arithmetic; of `matrix` without padding.
      sizes: `[n, 3]` ROWS, COLUMNS and DEPTH of its matrix product; 0 where it has none.
      join_start, join_a, join_b: dimensions that are one axis.
      whole_start, whole: dimensions that are taken whole.
      sum_start, summed: dimensions that are summed over.
      matrix_start, matrix_dim, matrix_side: dimensions of its product, and which of ROWS, COLUMNS and DEPTH each is.
      read_start, read_value, read_bytes, read_part: values that it reads, the bytes, and whether that is a part chosen
        by itself, as in a gather.
    """

    order: Array
    position: Array
    bytes: Array
    dim_start: Array
    dim_size: Array
    barrier: Array
    viewed: Array
    first_user: Array
    last_user: Array
    leaves: Array
    single: Array
    transfer: Array
    vector: Array
    transcendental: Array
    matrix: Array
    sizes: Array
    join_start: Array
    join_a: Array
    join_b: Array
    whole_start: Array
    whole: Array
    sum_start: Array
    summed: Array
    matrix_start: Array
    matrix_dim: Array
    matrix_side: Array
    read_start: Array
    read_value: Array
    read_bytes: Array
    read_part: Array


@dataclass(frozen=True)
class Line:
    """A computation in a line.

    Attributes:
      computation: that it is made of.
      kind: `[m]` one of FREE, OUTSIDE, ON_LINE, BARRIER.
      arrays: see there.
    """

    computation: Computation
    kind: tuple[int, ...]
    arrays: LineArrays


def make_line(
    graph: Graph, computation: Computation, target: Target, slow: int, counter: WorkCounter, order: Sequence[int]
) -> Line:
    """Returns the line of a computation.

    Args:
      graph: that holds it.
      computation: any.
      target: that costs are for.
      slow: index of the memory that values lie in if they are not kept in a fast one.
      counter: of the Graph.
      order: legal order of its instructions.
    """
    instructions = computation.instructions
    tied = {p for i in instructions for p in i.control_predecessors}
    axes = [
        None
        if i in tied or instruction.control_predecessors
        else axes_of(instruction, [instructions[operand].shape for operand in instruction.operands])
        for i, instruction in enumerate(instructions)
    ]
    kind = _kinds(instructions, axes)
    positions = [i for i in order if kind[i] in (ON_LINE, BARRIER)]
    position = np.full(len(instructions), -1, np.int64)
    position[positions] = np.arange(len(positions))
    dim_start = np.zeros(len(instructions) + 1, np.int64)
    dims = [dims_of(instruction.shape) for instruction in instructions]
    np.cumsum([len(each) for each in dims], out=dim_start[1:])
    dim_size = np.array([size for each in dims for size in each], np.int64)
    first, last, leaves = _users(computation, kind, position, len(positions))
    rows = _Rows(computation, kind, axes, dim_start, dim_size)
    for i in positions:
        rows.add(i)
    costs = _costs(computation, kind, target, slow, counter, positions)
    arrays = LineArrays(
        order=np.array(positions, np.int64),
        position=position,
        bytes=np.array([instruction.shape.bytes for instruction in instructions], np.int64),
        dim_start=dim_start,
        dim_size=dim_size,
        barrier=np.array([kind[i] == BARRIER for i in positions], np.bool_),
        viewed=np.array([_viewed(instructions[i]) for i in positions], np.int64),
        first_user=first,
        last_user=last,
        leaves=leaves,
        **costs,
        **rows.arrays(),
    )
    return Line(computation, tuple(kind), arrays)


def chain_order(computation: Computation) -> list[int]:
    """Returns a legal order that follows chains: an instruction is followed by one that only waited for it, if any."""
    instructions = computation.instructions
    followers: list[list[int]] = [[] for _ in instructions]
    missing = [0] * len(instructions)
    for i, instruction in enumerate(instructions):
        for before in {*instruction.operands, *instruction.control_predecessors}:
            followers[before].append(i)
            missing[i] += 1
    # Take the earliest of those that became ready last; what was ready from the start comes when nothing else is left.
    ready = [(0, i) for i, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, i = heapq.heappop(ready)
        order.append(i)
        for follower in followers[i]:
            missing[follower] -= 1
            if missing[follower] == 0:
                heapq.heappush(ready, (-len(order), follower))
    return order


def _kinds(instructions: Sequence[Instruction], axes: Sequence[Axes | None]) -> list[int]:
    kind: list[int] = []
    for i, instruction in enumerate(instructions):
        opcode = instruction.opcode
        if opcode in _FREE_OPCODES and axes[i] is not None:
            is_large = opcode == "constant" and instruction.shape.bytes > ONE_TILE
            kind.append(OUTSIDE if is_large else FREE)
        elif opcode in ("parameter", "constant", "tuple") or (
            opcode == "get-tuple-element" and kind[instruction.operands[0]] in (OUTSIDE, BARRIER)
        ):
            kind.append(OUTSIDE)
        else:
            kind.append(BARRIER if axes[i] is None else ON_LINE)
    return kind


def _viewed(instruction: Instruction) -> int:
    return instruction.operands[0] if instruction.opcode in ("bitcast", "reshape") else -1


def _users(computation: Computation, kind: Sequence[int], position: Array, count: int) -> tuple[Array, Array, Array]:
    """Returns the positions of the first and last user of each value on the line, and whether others read it."""
    first, last = np.full(count, count, np.int64), np.full(count, -1, np.int64)
    leaves = np.zeros(count, np.bool_)
    # The users of a free value count as users of its operands. Users stand after their operands.
    reach: list[tuple[int, int, bool]] = [(count, -1, False)] * len(kind)
    for i in reversed(range(len(kind))):
        low, high, leaves_line = count, -1, i == computation.root
        for user in computation.users[i]:
            if kind[user] == FREE:
                user_low, user_high, user_leaves = reach[user]
            elif kind[user] == OUTSIDE:
                user_low, user_high, user_leaves = count, -1, True
            else:
                user_low = user_high = int(position[user])
                user_leaves = False
            low, high, leaves_line = min(low, user_low), max(high, user_high), leaves_line or user_leaves
        reach[i] = (low, high, leaves_line)
        if position[i] >= 0:
            first[position[i]], last[position[i]], leaves[position[i]] = low, high, leaves_line
    return first, last, leaves


class _Rows:
    """Fills the ragged arrays, position by position."""

    def __init__(
        self,
        computation: Computation,
        kind: Sequence[int],
        axes: Sequence[Axes | None],
        dim_start: Array,
        dim_size: Array,
    ):
        self._instructions, self._kind, self._axes = computation.instructions, kind, axes
        self._dim_start, self._dim_size = dim_start, dim_size
        self._joins: list[list[tuple[int, int]]] = []
        self._whole: list[list[int]] = []
        self._summed: list[list[int]] = []
        self._matrix: list[list[tuple[int, int]]] = []
        self._reads: list[list[tuple[int, int, int]]] = []

    def add(self, i: int) -> None:
        """Adds the instruction at the next position."""
        joins: list[tuple[int, int]] = []
        whole: list[int] = []
        reads: list[tuple[int, int, int]] = []
        axes = self._axes[i]
        summed, matrix = [], []
        if axes is not None:
            summed = self._dims(i, axes.summed)
            for side, places in ((ROWS, axes.rows), (COLUMNS, axes.columns), (DEPTH, axes.depth)):
                matrix += [(dim, side) for dim in self._dims(i, places)]
        pending, seen = [i], set()
        while pending:
            at = pending.pop()
            if at in seen:
                continue
            seen.add(at)
            around = self._axes[at]
            if around is not None:
                whole += self._dims(at, around.whole)
                joins += [
                    (a, b)
                    for pair in around.same
                    for a, b in [(self._dim(at, pair[0]), self._dim(at, pair[1]))]
                    if self._dim_size[a] > 1 and self._dim_size[b] > 1
                ]
            instruction = self._instructions[at]
            for number, operand in enumerate(instruction.operands):
                if self._kind[operand] == FREE:
                    pending.append(operand)
                    continue
                is_part = number == 0 and instruction.opcode in _SLICING
                shape = self._instructions[operand].shape
                size = min(instruction.shape.bytes, shape.bytes) if is_part else shape.bytes
                reads.append((operand, size, int(is_part)))
        self._joins.append(joins)
        self._whole.append(whole)
        self._summed.append(summed)
        self._matrix.append(matrix)
        self._reads.append(reads)

    def _dim(self, i: int, place: tuple[int, int]) -> int:
        number, dimension = place
        value = i if number == RESULT else self._instructions[i].operands[number]
        return int(self._dim_start[value]) + dimension

    def _dims(self, i: int, places: Sequence[tuple[int, int]]) -> list[int]:
        return [dim for dim in (self._dim(i, place) for place in places) if self._dim_size[dim] > 1]

    def arrays(self) -> dict[str, Array]:
        """Returns the arrays by name."""
        arrays: dict[str, Array] = {}
        for name, rows, columns in (
            ("join", self._joins, ("join_a", "join_b")),
            ("whole", [[(dim,) for dim in row] for row in self._whole], ("whole",)),
            ("sum", [[(dim,) for dim in row] for row in self._summed], ("summed",)),
            ("matrix", self._matrix, ("matrix_dim", "matrix_side")),
            ("read", self._reads, ("read_value", "read_bytes", "read_part")),
        ):
            start = np.zeros(len(rows) + 1, np.int64)
            np.cumsum([len(row) for row in rows], out=start[1:])
            arrays[f"{name}_start"] = start
            flat = np.array([entry for row in rows for entry in row], np.int64).reshape(-1, len(columns))
            for number, column in enumerate(columns):
                arrays[column] = np.ascontiguousarray(flat[:, number])
        return arrays


def _costs(
    computation: Computation,
    kind: Sequence[int],
    target: Target,
    slow: int,
    counter: WorkCounter,
    positions: Sequence[int],
) -> dict[str, Array]:
    """Returns what each position takes by itself, with all that it touches in slow memory (the roofline)."""
    instructions, bandwidth = computation.instructions, target.spaces[slow].bandwidth
    compute = target.compute
    share = [0.0] * len(instructions)  # seconds of making a free value, for each of its users
    for i, instruction in enumerate(instructions):
        if kind[i] == FREE and instruction.opcode != "constant" and instruction.shape.bytes > ONE_TILE:
            read = sum(instructions[operand].shape.bytes for operand in instruction.operands)
            seconds = compute.launch_seconds + (read + instruction.shape.bytes) / bandwidth
            share[i] = seconds / max(1, len(computation.users[i]))
    count = len(positions)
    single, transfer, vector, transcendental, matrix = (np.zeros(count) for _ in range(5))
    sizes = np.zeros((count, 3))
    for p, i in enumerate(positions):
        instruction = instructions[i]
        single[p] = sum(share[operand] for operand in instruction.operands)
        if kind[i] == BARRIER or instruction.opcode in _VIEWS:
            continue
        work = counter.of(computation, instruction)
        vector[p] = work.flops / compute.vector_flops
        transcendental[p] = work.transcendentals / compute.transcendental_rate
        if work.matrix:
            part = work.matrix[0]
            unpadded = type(part)(part.dtype, part.precision, part.flops, 0, 0, 0)
            matrix[p] = matrix_seconds(unpadded, target)
            sizes[p] = part.rows, part.columns, part.contracted
        size = _touched(instruction, instructions)
        transfer[p] = size / bandwidth
        launch = compute.launch_seconds if size > ONE_TILE else 0.0
        single[p] += launch + duration(compute_seconds(work, target), transfer[p])
    return {
        "single": single, "transfer": transfer, "vector": vector, "transcendental": transcendental, "matrix": matrix,
        "sizes": sizes,
    }  # fmt: skip


def _touched(instruction: Instruction, instructions: Sequence[Instruction]) -> int:
    """Returns the bytes that an instruction reads and writes."""
    size = instruction.shape.bytes
    for number, operand in enumerate(instruction.operands):
        shape = instructions[operand].shape
        is_part = number == 0 and instruction.opcode in _SLICING
        size += min(instruction.shape.bytes, shape.bytes) if is_part else shape.bytes
    return size
