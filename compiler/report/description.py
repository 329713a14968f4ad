"""What the program tells of a problem's parts beyond the problem itself: its buffers and operations, for a person."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.compiler.ir import Source
from memplan.compiler.mapping.build import BuiltProblem
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.buffers import BufferDescription, Sources, describe_bare, describe_buffers


@dataclass(frozen=True)
class ProgramDescription:
    """A program, for a person.

    Attributes:
      buffers: `[num_buffers]` shape, source line, group and more of each.
      sources: `[n]` where each operation comes from.
    """

    buffers: tuple[BufferDescription, ...]
    sources: tuple[Source, ...]


def describe(built: BuiltProblem) -> ProgramDescription:
    """Returns what the program tells of a problem that was built from it."""
    program = built.program
    sources = Sources(program.graph)
    steps = [program.steps[t] if t >= 0 else None for t in built.times.steps]  # Points at loops are no steps.
    return ProgramDescription(
        describe_buffers(built),
        tuple(
            Source() if step is None else sources.of(program.graph.computations[step.computation], step.index)
            for step in steps
        ),
    )


def describe_problem(problem: MappingProblem) -> ProgramDescription:
    """Returns what a problem alone tells: no shapes and no lines."""
    return ProgramDescription(describe_bare(problem), (Source(),) * problem.end)
