"""Compares each decision of a plan with the compiled module: whether the compiler obeyed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memplan.backends.tpu.outcome import BufferDecision
from memplan.backends.tpu.steering import Site
from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir import Graph, Shape
from memplan.compiler.ir.opcodes import ASYNCHRONOUS_COPIES
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem

# An operand that was copied into its memory is the result of one of these.
_ARRIVALS = frozenset(f"{copy}-done" for copy in ASYNCHRONOUS_COPIES)


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a compiled module has an operand or a result, and whether a copy brought it there."""

    space: int
    copied: bool


class Placement:
    """Where a compiled module has the operands and results of its instructions, by name."""

    def __init__(self, graph: Graph, target: Target):
        self._target = target
        self._of = {
            instruction.name: (computation, instruction)
            for computation in graph.computations.values()
            for instruction in computation.instructions
        }

    def of(self, site: Site) -> _Found | None:
        """Returns where an access is served; None if the module has no such instruction or operand."""
        found = self._of.get(site.instruction)
        if found is None:
            return None
        computation, instruction = found
        if site.kind is AccessKind.WRITE or site.operand < 0:
            shape, copied = instruction.shape, False
        elif site.operand >= len(instruction.operands):
            return None
        else:
            operand = computation.instructions[instruction.operands[site.operand]]
            shape, copied = (
                operand.shape,
                operand.opcode in _ARRIVALS or "ConcatBitcast" in operand.attribute("custom_call_target"),
            )
        leaf = _leaf(shape, site.tuple_index)
        if leaf is None:
            return None
        return _Found(self._target.space_of_xla(leaf.memory_space), copied)


def _leaf(shape: Shape, tuple_index: Sequence[int]) -> Shape | None:
    for index in tuple_index:
        if not shape.is_tuple or index >= len(shape.elements):
            return None
        shape = shape.elements[index]
    return shape if shape.is_array else None


def decisions(
    problem: MappingProblem,
    plan: Plan,
    where: Sequence[Site],
    default: Placement,
    compiled: Placement,
    dropped: Mapping[int, str],
) -> tuple[BufferDecision, ...]:
    """Returns the decisions in which a plan differs from the compiler's default, each with its state.

    Args:
      problem, plan: what was planned.
      where: the site of each access.
      default: the placement without the plan.
      compiled: the placement with the plan.
      dropped: by buffer, why the compiler refused its demands.
    """
    fills = {copy.destination for copy in plan.copies if plan.residencies[copy.destination].space != 0}
    found: list[BufferDecision] = []
    for number, site in enumerate(where):
        _, access = problem.accesses[number]
        residency = plan.served[number]
        space = plan.residencies[residency].space
        before, now = default.of(site), compiled.of(site)
        if before is not None and (before.space > 0) == (space > 0):
            continue
        wanted = "slow" if space == 0 else "prefetch" if residency in fills else "fast"
        if now is None:
            state, place = "ignored", "gone"
        else:
            place = "slow" if now.space <= 0 else "prefetch" if now.copied else "fast"
            state = "obeyed" if (now.space > 0) == (space > 0) else "ignored"
        reason = ""
        if access.buffer in dropped and state != "obeyed":
            state, reason = "dropped", dropped[access.buffer]
        buffer = problem.buffers[access.buffer]
        operand = -1 if site.kind is AccessKind.WRITE else site.operand
        found.append(BufferDecision(site.instruction, operand, buffer.name, buffer.size, wanted, place, state, reason))
    return tuple(found)
