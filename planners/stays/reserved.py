"""What operations reserve of a memory for themselves, as blocks that are packed with the others."""

from __future__ import annotations

from memplan.compiler.mapping.problem import MappingProblem


def reserved_runs(problem: MappingProblem, space: int, unit: int = 1) -> list[tuple[int, int, int]]:
    """Returns start, end (half-open) and size of what is reserved; neighbours that reserve as much are one block.

    Args:
      problem: whose operations reserve it, from the bottom of the space.
      space: index.
      unit: bytes in which sizes are counted, rounded up.
    """
    runs: list[tuple[int, int, int]] = []
    for time, operation in enumerate(problem.operations):
        size = -(-operation.reserved[space] // unit)
        if runs and runs[-1][1] == time and runs[-1][2] == size:
            runs[-1] = (runs[-1][0], time + 1, size)
        elif size:
            runs.append((time, time + 1, size))
    return runs
