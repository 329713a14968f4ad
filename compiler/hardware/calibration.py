"""What an instruction costs in every placement, made to agree with the compiler's estimate in the one it chose.

An instruction takes `max(floor, overhead + Σ cost)`. Without an estimate this is the roofline: launch and arithmetic at
least, or launch and the time of its data. With the compiler's estimate `E` for the placement that the dump has, the sum
is `E` there, and what other placements change depends on the kind of instruction. Modules that were compiled twice,
with and without a fast memory, show how (`fidelity.py` compares them; the constants are in the targets' files):

    move     copies and broadcasts   data is all they do: E is split over the accesses by their exposed time, up to
                                     `MOST_INEFFICIENT` times of it; the rest of E is overhead
    vector   everything else         each byte adds its exposed time, much of which the arithmetic hides; none at all
                                     where all data, in slow memory, needs less than `HIDDEN_BELOW` of E
    matrix   with a matrix product   each byte adds its exposed time; the floor is the time of the matrix units

Exposed time is bytes / exposed bandwidth of the space and kind. Where it exceeds E already, it is scaled to E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.compiler.hardware.cost_model import compute_seconds
from memplan.compiler.hardware.estimates import estimated_cycles, reserved_bytes, states_reserved
from memplan.compiler.hardware.target import Target
from memplan.compiler.hardware.work import Work, WorkCounter
from memplan.compiler.ir import Computation, Graph, Instruction

# Of copies in HBM, the compiler's estimates exceed the exposed time by this factor at most; and below this part of its
# estimate, the data of an instruction of the vector unit never mattered: seen in the pairs of modules for v5e and v4.
MOST_INEFFICIENT = 2.6
HIDDEN_BELOW = 0.4

_MOVES = frozenset({"copy", "broadcast", "iota", "transpose"})

# An instruction that touches less than one tile of a TPU's registers (8 x 128 words) runs on the scalar unit.
_ONE_TILE = 4096


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
        return max(self.floor, self.overhead + costs)


class InstructionCosts:
    """Costs the instructions of a Graph on a target."""

    def __init__(self, graph: Graph, target: Target):
        self._target, self._counter = target, WorkCounter(graph)
        self._states_reserved = any(states_reserved(instruction) for _, instruction in graph.instructions())

    def of(
        self, computation: Computation, instruction: Instruction, accesses: Sequence[tuple[int, int]]
    ) -> InstructionCost:
        """Returns the cost of an instruction.

        Args:
          computation: that holds it.
          instruction: itself.
          accesses: per access, its bytes and the index of the space where the dump has it.
        """
        target = self._target
        work = self._counter.of(computation, instruction)
        cycles = estimated_cycles(instruction) if target.clock else None
        estimate = None if cycles is None else cycles / target.clock
        floor, overhead, rows = instruction_cost(target, instruction.opcode, work, accesses, estimate)
        if self._states_reserved or sum(size for size, _ in accesses) <= _ONE_TILE:
            reserved = [0] * len(target.spaces)
        else:
            # The program was not compiled for this target yet: what the compiler sets aside is all that is known.
            reserved = [space.scoped_limit for space in target.spaces]
        for number, size in reserved_bytes(instruction).items():
            space = target.space_of_xla(number)
            if space >= 0:
                reserved[space] = min(size, target.spaces[space].capacity)
        return InstructionCost(floor, overhead, rows, tuple(reserved))


def kind_of(opcode: str, work: Work) -> str:
    """Returns which of `target.KINDS` an instruction is.

    >>> kind_of("copy", Work()), kind_of("fusion", Work(flops=1.0))
    ('move', 'vector')
    """
    if work.matrix:
        return "matrix"
    return "move" if opcode in _MOVES else "vector"


def instruction_cost(
    target: Target, opcode: str, work: Work, accesses: Sequence[tuple[int, int]], estimate: float | None
) -> tuple[float, float, tuple[tuple[float, ...], ...]]:
    """Returns floor and overhead of an instruction, and the seconds of each access in each space.

    Args:
      target: the hardware.
      opcode, work: of the instruction.
      accesses: per access, its bytes and the space where the dump has it.
      estimate: seconds that the compiler states for that placement; None if it states nothing.
    """
    compute = compute_seconds(work, target)
    launch = target.compute.launch_seconds if sum(size for size, _ in accesses) > _ONE_TILE else 0.0
    if estimate is None:
        rows = tuple(tuple(size / space.bandwidth for space in target.spaces) for size, _ in accesses)
        return launch + compute, launch, rows
    kind = kind_of(opcode, work)
    bandwidths = [space.exposed_bandwidth[kind] for space in target.spaces]
    exposed = [[size / bandwidth for bandwidth in bandwidths] for size, _ in accesses]
    here = sum(row[space] for row, (_, space) in zip(exposed, accesses, strict=True))
    scale = min(1.0, estimate / here) if here > 0.0 else 1.0
    floor = min(launch + compute, estimate)
    if kind == "move":
        scale = min(MOST_INEFFICIENT, estimate / here) if here > 0.0 else 1.0
        floor = 0.0
    elif kind == "vector":
        in_slow_memory = sum(size for size, _ in accesses) / target.spaces[0].bandwidth
        if in_slow_memory < HIDDEN_BELOW * (estimate - launch):
            floor = estimate
    rows = tuple(tuple(seconds * scale for seconds in row) for row in exposed)
    overhead = max(0.0, estimate - scale * here) if floor < estimate else 0.0
    return floor, overhead, rows
