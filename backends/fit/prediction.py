"""What a compiler will state for a program that runs by a FitPlan.

XLA gives every result a buffer for the whole program, and puts values into it that fit and are dead before the result
is made (xla/service/buffer_assignment.cc). The buffers of donated arguments take results only. All other values share
one block, which is about as large as the most bytes of them that are alive at once.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from memplan.passes.fit.program import FitProgram
from memplan.planners.fit.plan import FitPlan
from memplan.planners.fit.problem import FitProblem
from memplan.planners.fit.verifier import FitCheck, verify_fit

# How many buffers of results are tried for a value.
_TRIES = 64


def predicted_total(program: FitProgram, plan: FitPlan) -> int:
    """Returns the bytes that a compiler is expected to state, before any correction."""
    return interface_bytes(program) + predicted_temporaries(program.problem, plan)


def interface_bytes(program: FitProgram) -> int:
    """Returns the bytes of arguments and results; results lie in the memory of donated arguments where they can."""
    values = program.problem.values
    arguments = sum(value.size for value in values if value.producer is None)
    donated = sum(value.size for value in values if value.is_donated)
    results = sum(value.size for value in values if value.is_result and value.producer is not None)
    return arguments + max(results - donated, 0)


def predicted_temporaries(problem: FitProblem, plan: FitPlan) -> int:
    """Returns the bytes that a compiler needs beside arguments and results, as the model has it."""
    check = verify_fit(problem, plan)
    steps = len(check.bytes)
    if steps == 0:
        return 0
    t = problem.tables
    size = t.size[check.instance_value]
    is_argument, is_result = t.producer[check.instance_value] < 0, t.is_result[check.instance_value]
    in_donated = np.isin(check.instance_value, list(_in_donated(problem)))
    hidden = _within_results(check, size, is_argument | is_result, is_result & ~is_argument & ~in_donated)
    apart = is_argument | is_result | hidden
    change = np.zeros(steps + 1, np.int64)
    np.add.at(change, check.instance_start[apart], size[apart])
    np.subtract.at(change, np.minimum(check.instance_end[apart] + 1, steps), size[apart])
    return int(max((check.bytes - np.cumsum(change)[:steps]).max(), 0))


def _in_donated(problem: FitProblem) -> Iterator[int]:
    """Yields the results that lie in the buffers of donated arguments: in turn, the first that fits one."""
    free = Counter(value.shape for value in problem.values if value.is_donated)
    for number, value in enumerate(problem.values):
        if value.is_result and value.producer is not None and free[value.shape] > 0:
            free[value.shape] -= 1
            yield number


def _within_results(
    check: FitCheck, size: NDArray[np.int64], apart: NDArray[np.bool_], is_result: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Returns which values lie in the buffers of results that are made after they are dead, the largest first."""
    hidden = np.zeros(len(size), np.bool_)
    results = np.flatnonzero(is_result)
    results = results[np.argsort(-size[results], kind="stable")]
    taken: list[list[tuple[int, int]]] = [[] for _ in results]
    open_results = [k for k, result in enumerate(results) if check.instance_start[result] > 0]
    for value in np.argsort(-size, kind="stable").tolist():
        if apart[value] or size[value] == 0:
            continue
        start, end = int(check.instance_start[value]), int(check.instance_end[value])
        tries = 0
        for k in open_results:
            result = results[k]
            if size[result] < size[value] or tries >= _TRIES:
                break
            if end >= check.instance_start[result]:
                continue
            tries += 1
            place = bisect_left(taken[k], (start, end))
            before_ends = place == 0 or taken[k][place - 1][1] < start
            if before_ends and (place == len(taken[k]) or end < taken[k][place][0]):
                insort(taken[k], (start, end))
                hidden[value] = True
                break
    return hidden
