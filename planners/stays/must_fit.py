"""Offsets for blocks that must all be placed, where heuristics left some over; or a proof that there are none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Effort
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.offsets.instance import FREE, Instance
from memplan.planners.offsets.pack import Status, pack
from memplan.planners.stays.reserved import reserved_runs

Integers = NDArray[np.int64]


def place_all(
    problem: MappingProblem, space: int, names: Sequence[str], blocks: Sequence[tuple[int, int, int]]
) -> Integers:
    """Returns the offsets of blocks, in bytes.

    Args:
      problem: says how large the space is, and what operations reserve of it.
      space: index.
      names: of the blocks.
      blocks: start, end (half-open) and bytes of each.

    Raises:
      PlannerError: it is proven that they do not fit, or no offsets were found; the message says which.
    """
    memory = problem.spaces[space]
    reserved = reserved_runs(problem, space)
    start, end, size = (
        np.array([*column, *extra], np.int64)
        for column, extra in zip(
            zip(*blocks, strict=True), zip(*reserved, strict=True) if reserved else ((), (), ()), strict=True
        )
    )
    fixed = [FREE] * len(blocks) + [0] * len(reserved)
    # What is reserved begins at the bottom, and needs no alignment of its own.
    alignment = [memory.alignment] * len(blocks) + [1] * len(reserved)
    found = pack(Instance.of(start, end, size, alignment, fixed), memory.capacity, Effort.FAST)
    if found.status is Status.FITS:
        return found.offsets[: len(blocks)]
    largest = int(np.argmax([rows[2] for rows in blocks]))
    what = f"{names[largest]} ({blocks[largest][2]:,} bytes) and what is alive with it"
    if found.status is Status.INFEASIBLE:
        raise PlannerError(
            f"{what} do not fit {memory.name}, which has {memory.capacity:,}, where the program wants them: "
            f"plan for a target with more memory"
        )
    raise PlannerError(
        f"no offsets were found in {memory.name}, which has {memory.capacity:,} bytes, for {what}, nor was it proven "
        f"that there are none: plan for a target with more memory"
    )
