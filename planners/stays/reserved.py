"""What operations reserve of a memory for themselves, as blocks that are packed with the others."""

from __future__ import annotations

import numpy as np

from memplan.compiler.mapping.problem import MappingProblem


def reserved_runs(problem: MappingProblem, space: int, unit: int = 1) -> list[tuple[int, int, int]]:
    """Returns start, end (half-open) and size of what is reserved; neighbours that reserve as much are one block.

    Args:
      problem: whose operations reserve it, from the bottom of the space.
      space: index.
      unit: bytes in which sizes are counted, rounded up.
    """
    sizes = np.array([operation.reserved[space] for operation in problem.operations], np.int64)
    sizes = -(-sizes // unit)
    starts = np.flatnonzero(np.diff(sizes, prepend=0) != 0)
    ends = np.append(starts[1:], len(sizes))
    rows = zip(starts.tolist(), ends.tolist(), sizes[starts].tolist(), strict=False)
    return [(start, end, size) for start, end, size in rows if size]
