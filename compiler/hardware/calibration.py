"""What an instruction costs in every placement, made to agree with the compiler's estimate in the one it chose.

An instruction takes `max(floor, overhead + Σ cost)`. Without an estimate this is the roofline: launch and arithmetic at
least, or launch and the time of its data; on processors that wait for their data it is the sum of all three. Where the
compiler states an estimate `E`, the duration is `E` in the placement of the dump. The effect of other placements is
learned from modules that were compiled several times with their tensors in different places: `fidelity.py` compares
them, and `scripts/fit_cost_model` fits the constants in the targets' files.

    cost        of an access: latency + bytes / rate, by memory, direction and kind of instruction; the fast memories
                have no latency, which is why small instructions gain most by them
    arithmetic  the rest of `E`. Data hides behind a part of it, or it behind data:

                    E = max(arithmetic, exposed · arithmetic + Σ cost)

                    exposed = 1   ├── arithmetic ──┼── data ──┤     they take turns
                    exposed < 1   ├── arithmetic ──┤                a part of it is overlapped
                                       ├──────── data ────────┤

If the data would take longer than `E` leaves beside the counted arithmetic, its costs are scaled down to fit. The costs
of `SCALED` kinds, which do nothing but move data, are scaled up as well where the compiler states more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from memplan.compiler.hardware.cost_model import compute_seconds
from memplan.compiler.hardware.estimates import estimated_cycles, reserved_bytes, states_reserved
from memplan.compiler.hardware.interconnect import awaited_seconds, has_collectives
from memplan.compiler.hardware.roofline import duration
from memplan.compiler.hardware.target import Exposure, Target
from memplan.compiler.hardware.work import Work, WorkCounter
from memplan.compiler.ir import Computation, Graph, Instruction, Shape

# Copies are up to this much slower than others of their kind, seen in the pairs of modules for v5e and v4.
MOST_INEFFICIENT = 2.6
SCALED = frozenset({"move", "reorder"})

_MOVES = frozenset({"copy", "broadcast", "iota", "transpose"})

# An instruction that touches less than one tile of a TPU's registers (8 x 128 words) runs on the scalar unit.
_ONE_TILE = 4096


class Touched(NamedTuple):
    """An access of an instruction.

    Attributes:
      bytes: that are touched.
      space: index of the memory where the dump has them.
      is_written: whether they are written or updated.
    """

    bytes: int
    space: int
    is_written: bool = False


@dataclass(frozen=True, slots=True)
class InstructionCost:
    """Duration of an instruction as a function of where its data is: `max(floor, overhead + Σ access_seconds[i][s_i])`.

    Attributes:
      floor, overhead: seconds.
      access_seconds: `[num_accesses][num_spaces]`.
      reserved: bytes at the bottom of each space that it needs for itself, `[num_spaces]`.
    """

    floor: float
    overhead: float
    access_seconds: tuple[tuple[float, ...], ...]
    reserved: tuple[int, ...]

    def seconds(self, spaces: Sequence[int]) -> float:
        """Returns the duration when access `i` is in space `spaces[i]`."""
        costs = sum(seconds[space] for seconds, space in zip(self.access_seconds, spaces, strict=True))
        return duration(self.floor, self.overhead + costs)


class InstructionCosts:
    """Costs the instructions of a Graph on a target."""

    def __init__(self, graph: Graph, target: Target):
        self._graph, self._target, self._counter = graph, target, WorkCounter(graph)
        self._interconnect = target.interconnect if has_collectives(graph) else None
        self._states_reserved = any(states_reserved(instruction) for _, instruction in graph.instructions())

    def of(self, computation: Computation, instruction: Instruction, accesses: Sequence[Touched]) -> InstructionCost:
        """Returns the cost of an instruction.

        Args:
          computation: that holds it.
          instruction: itself.
          accesses: what it touches, where the dump has it.
        """
        target = self._target
        work = self._counter.of(computation, instruction)
        cycles = estimated_cycles(instruction) if target.clock else None
        estimate = None if cycles is None else cycles / target.clock
        kind = kind_of(computation, instruction, work)
        busy = compute_seconds(work, target)
        if estimate is None and self._interconnect is not None:
            busy = max(busy, awaited_seconds(self._graph, computation, instruction, self._interconnect))
        floor, overhead, rows = instruction_cost(target, kind, busy, accesses, estimate)
        reserved = self._reserved(accesses)
        for number, size in reserved_bytes(instruction).items():
            space = target.space_of_xla(number)
            if space >= 0:
                reserved[space] = min(size, target.spaces[space].capacity)
        return InstructionCost(floor, overhead, rows, tuple(reserved))

    def of_copies(self, accesses: Sequence[Touched]) -> InstructionCost:
        """Returns the cost of `copy` instructions that together touch `accesses`, one for each that is written."""
        _, _, rows = instruction_cost(self._target, "move", 0.0, accesses, None)
        launches = sum(access.is_written and 2 * access.bytes > _ONE_TILE for access in accesses)
        launch = launches * self._target.compute.launch_seconds
        return InstructionCost(launch, launch, rows, tuple(self._reserved(accesses)))

    def _reserved(self, accesses: Sequence[Touched]) -> list[int]:
        """Returns what an instruction keeps of each space for itself, as far as it does not say so itself."""
        if self._states_reserved or sum(access.bytes for access in accesses) <= _ONE_TILE:
            return [0] * len(self._target.spaces)
        # The program was not compiled for this target yet: what the compiler sets aside is all that is known.
        return [space.scoped_limit for space in self._target.spaces]


def kind_of(computation: Computation, instruction: Instruction, work: Work) -> str:
    """Returns which of `target.KINDS` an instruction of a computation is."""
    if work.matrix:
        return "matrix"
    if instruction.opcode not in _MOVES:
        return "vector"
    if instruction.opcode == "copy":
        source = computation.instructions[instruction.operands[0]].shape
        if _innermost(source) != _innermost(instruction.shape):
            return "reorder"
    return "move"


def _innermost(shape: Shape) -> int:
    """Returns the dimension whose neighbours are neighbours in memory; -1 where that is not stated."""
    return shape.layout.minor_to_major[0] if shape.layout is not None and shape.layout.minor_to_major else -1


def instruction_cost(
    target: Target, kind: str, arithmetic: float, accesses: Sequence[Touched], estimate: float | None
) -> tuple[float, float, tuple[tuple[float, ...], ...]]:
    """Returns floor and overhead of an instruction, and the seconds of each access in each space.

    Args:
      target: the hardware.
      kind: one of `target.KINDS`.
      arithmetic: seconds that its arithmetic takes by the data sheets.
      accesses: what it touches, where the dump has it.
      estimate: seconds that the compiler states for that placement; None if it states nothing.
    """
    if estimate is None:
        is_tiny = sum(access.bytes for access in accesses) <= _ONE_TILE
        launch = 0.0 if is_tiny else target.compute.launch_seconds
        rows = tuple(tuple(access.bytes / space.bandwidth for space in target.spaces) for access in accesses)
        return launch + arithmetic, launch if target.compute.overlap else launch + arithmetic, rows
    exposures = [space.exposed[kind] for space in target.spaces]
    costs = [tuple(_seconds(exposure, access) for exposure in exposures) for access in accesses]
    here = sum(row[access.space] for row, access in zip(costs, accesses, strict=True))
    exposed = target.compute.exposed[kind]
    left = estimate - exposed * min(arithmetic, estimate)
    most = MOST_INEFFICIENT if kind in SCALED else 1.0
    scale = min(most, left / here) if here > 0.0 else 1.0
    floor = min(estimate, max(0.0, estimate - scale * here) / exposed)
    return floor, exposed * floor, tuple(tuple(seconds * scale for seconds in row) for row in costs)


def _seconds(exposure: Exposure, access: Touched) -> float:
    """Returns what an access costs in a memory."""
    if access.is_written:
        rate, latency = exposure.write, exposure.write_latency
    else:
        rate, latency = exposure.read, exposure.read_latency
    return access.bytes / rate + (latency if access.bytes >= _ONE_TILE else 0.0)
