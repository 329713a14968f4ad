"""What an instruction costs in every placement, made to agree with the compiler's estimate in the one it chose.

An instruction takes `max(floor, overhead + Σ cost)`: its arithmetic at least, and the time that its data takes. With `M`
the time of the data where the dump has it, `C` that of the arithmetic, and `E` the compiler's estimate:

    E ≥ M ≥ C    memory-bound, plus something:      floor C, overhead E - M
    M ≥ C, E < M the data is faster than we think:  costs scaled by E / M, floor min(C, E)
    C > M        compute-bound:                     floor E; costs as they are, scaled to E where they exceed it

In each case the sum is `E` exactly when the data is where the dump has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.compiler.hardware.cost_model import compute_seconds
from memplan.compiler.hardware.estimates import estimated_cycles, reserved_bytes
from memplan.compiler.hardware.target import Target
from memplan.compiler.hardware.work import WorkCounter
from memplan.compiler.ir import Computation, Graph, Instruction


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
        cycles = estimated_cycles(instruction) if target.clock else None
        estimate = None if cycles is None else cycles / target.clock
        compute = compute_seconds(self._counter.of(computation, instruction), target)
        launch = target.compute.launch_seconds if accesses or compute else 0.0
        seconds = [tuple(size / space.bandwidth for space in target.spaces) for size, _ in accesses]
        here = sum(row[space] for row, (_, space) in zip(seconds, accesses, strict=True))
        floor, overhead, scale = agree(estimate, compute, here, launch)
        reserved = [0] * len(target.spaces)
        for number, size in reserved_bytes(instruction).items():
            space = target.space_of_xla(number)
            if space >= 0:
                reserved[space] = min(size, target.spaces[space].capacity)
        rows = seconds if scale == 1.0 else [tuple(value * scale for value in row) for row in seconds]
        return InstructionCost(floor, overhead, tuple(rows), tuple(reserved))


def agree(estimate: float | None, compute: float, memory: float, launch: float) -> tuple[float, float, float]:
    """Returns floor and overhead in seconds, and the factor of the costs of memory.

    Args:
      estimate: seconds that the compiler states for the dump's placement; None if it states nothing.
      compute: seconds of the arithmetic.
      memory: seconds of the data in the dump's placement.
      launch: seconds that starting an instruction costs, used where there is no estimate.

    >>> agree(estimate=5.0, compute=1.0, memory=3.0, launch=0.0)
    (1.0, 2.0, 1.0)
    >>> agree(estimate=2.0, compute=1.0, memory=4.0, launch=0.0)
    (1.0, 0.0, 0.5)
    >>> agree(estimate=5.0, compute=4.0, memory=3.0, launch=0.0)
    (5.0, 0.0, 1.0)
    """
    if estimate is None:
        return compute, launch, 1.0
    scale = estimate / memory if memory > estimate else 1.0
    if compute > memory:
        return estimate, 0.0, scale
    return min(compute, estimate), max(estimate - memory, 0.0), scale
