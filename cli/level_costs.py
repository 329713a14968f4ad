"""What a choice of levels costs in `memplan levels`: bytes, or the peak or latency of the program when planned."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan import pipeline
from memplan.backends.fit.limit import limit_of
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.report.units import print_bytes, print_seconds

if TYPE_CHECKING:
    from memplan.passes.levels import CompressedProgram, NetworkLevels

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")
_SECONDS = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?(s|ms|us|ns)")
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

# Choices that are tried where the cost is no sum.
EVALUATIONS = {Effort.FAST: 20, Effort.NORMAL: 60, Effort.HIGH: 200}


class Cost(StrEnum):
    """What the budget limits."""

    BYTES = "bytes"
    PEAK = "peak"
    LATENCY = "latency"


def print_cost(cost: Cost, amount: float) -> str:
    """Returns an amount with its unit."""
    return print_seconds(amount) if cost is Cost.LATENCY else print_bytes(int(amount))


def chosen(levels: NetworkLevels, cost: Cost, budget: str, target: str | Path, effort: Effort) -> CompressedProgram:
    """Returns the program of the choice of least error within a budget of the cost.

    Raises:
      MemplanError: the budget makes no sense, or no choice is within it.
    """
    from memplan.passes.levels import choose_for_objective, choose_levels

    if cost is Cost.BYTES:
        return choose_levels(levels, int(_amount(cost, budget, levels.before)), effort)

    def planned(program: Any, params: Any, inputs: tuple[Any, ...]) -> float:
        return planned_cost(cost, program, params, inputs, target)

    as_given = planned(*levels.rewrite(tuple(0 for _ in levels.layers)), levels.inputs)
    # Arguments stand in memory from the first instruction to the last one.
    is_bounded = cost is Cost.PEAK and levels.what == "parameters"
    return choose_for_objective(levels, _amount(cost, budget, as_given), planned, EVALUATIONS[effort], is_bounded)


def planned_cost(cost: Cost, program: Any, params: Any, inputs: tuple[Any, ...], target: str | Path) -> float:
    """Returns the peak of the main memory in bytes, or the latency in seconds of a plan that is verified.

    Raises:
      MemplanError: the program cannot be planned.
    """
    from memplan.compiler.frontends.jaxpr import trace

    graph = trace(program, params, *inputs)
    if cost is Cost.PEAK:
        return float(pipeline.peak(graph, target).main.bytes)
    problem = pipeline.problem(graph, target)
    plan = pipeline.plan(problem, planner="greedy", effort=Effort.FAST)
    if violations := pipeline.verify(problem, plan):
        raise MemplanError(f"the plan of the compressed program is not valid: {violations[0].message}")
    return pipeline.emulate(problem, plan).latency


def _amount(cost: Cost, budget: str, whole: float) -> float:
    """Returns the budget in bytes or seconds; a share is that of the program as it is given."""
    if share := _SHARE.fullmatch(budget.strip()):
        return whole * float(share[1]) / 100.0
    if cost is Cost.LATENCY:
        if seconds := _SECONDS.fullmatch(budget.strip()):
            return float(seconds[1]) * _UNITS[seconds[2]]
        raise MemplanError(f"--budget {budget}: must be a time, such as 20us or 1.5ms, or a share such as 30%")
    try:
        return limit_of(budget)
    except MemplanError:
        raise MemplanError(f"--budget {budget}: must be bytes, such as 12MiB, or a share such as 30%") from None
