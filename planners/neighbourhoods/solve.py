"""The planner `neighbourhoods`: one window of a plan after another is rearranged, as the emulator's clock judges it.

This is large neighbourhood search (Shaw, "Using constraint programming and local search methods to solve vehicle
routing problems", 1998) on what lies in the fast memory, where, and when it is copied:

    memory ┤  ▒▒▒▒┌────────────┐░░░░       What is alive in the window alone is moved, put in and taken out. What is
           │▓▓▓▓▓▓│   window   │▓▓▓▓▓▓     also alive elsewhere stays as it is (`stays/moves_kernel.py`).
           └──────┴────────────┴──────►

A program that is not large is one window. Of a large program, the windows that lose most time come first: what their
operations take beyond having everything in the fast memory, and what they wait. The borders change with each sweep.

It starts from the plan that the budget knows, so its plan is never worse.
"""

from __future__ import annotations

import contextlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.hardware.roofline import durations
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import greedy
from memplan.planners.incumbent import Incumbent
from memplan.planners.planner import Budget, Planner
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.rearrangement import MOST_OPERATIONS, Moves, Rearrangement
from memplan.planners.stays.small_problem import small_problem

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Accesses of a window of a large program, about.
_ACCESSES = 300

# The moves in a program that is one window, by effort.
_MOST = 2**62
_MOVES = (Moves(_MOST, 300, 50_000_000), Moves(_MOST, 2_000, 400_000_000), Moves(_MOST, 10_000, 6_000_000_000))

# Rounds for each item of a large program in all its sweeps, and in all, by effort, and the sweeps.
_LARGE_ROUNDS, _LARGE_WORK, _SWEEPS = (10, 600, 10_000), (1_000_000, 40_000_000, 400_000_000), (1, 4, 8)

# The temperature at first in a window, as a part of what operations take on average.
_WINDOW_HEAT = 1e-2


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the best plan found, never worse than the one that the budget knows, or else than greedy's.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    start = budget.known or greedy.solve(problem, budget)
    best = Incumbent(problem, budget, "neighbourhoods", start)
    with contextlib.suppress(KeyboardInterrupt), best.keeping_for_plan():
        if problem.end <= MOST_OPERATIONS:
            best.rearrange(budget.effort.of(*_MOVES), budget.seed)
        else:
            search = _Search(best)
            for space in fast_spaces(problem):
                search.improve(space)
    return best.plan


class _Search:
    """The sweeps over a large program, in one fast space after another."""

    def __init__(self, best: Incumbent):
        self.best, self.problem, self.budget, self.emulator = best, best.problem, best.budget, best.emulator
        self.generator = np.random.default_rng(best.budget.seed)

    def improve(self, space: int) -> None:
        """Improves the stays in one space; those in the others remain as they are."""
        found = self.best.rearrangement(space, int(self.generator.integers(2**62)))
        if found is None:
            return
        made, others = found
        effort, mean = self.budget.effort, made.latency / self.problem.end
        sweeps, pool = effort.of(*_SWEEPS), made.pool(0, self.problem.end + 1)
        rounds = min(effort.of(*_LARGE_ROUNDS), effort.of(*_LARGE_WORK) // max(len(pool), 1))
        for sweep in range(sweeps):
            before = made.latency
            self._sweep(made, sweep, rounds // sweeps, _WINDOW_HEAT * mean)
            if made.latency < before:
                self.best.offer_stays([*others, *made.decisions.stays(made.offsets)], method="rearrangement")
            if self.budget.guard.reached():
                return

    def _sweep(self, made: Rearrangement, sweep: int, rounds: int, heat: float) -> None:
        """Rearranges all windows in which time is lost, with some rounds for each of their items."""
        for start, end in self._windows(made.decisions, sweep):
            if self.budget.guard.reached():
                return
            pool, margin = made.pool(start, end), end - start
            made.anneal(pool, start - margin, end + margin, rounds * len(pool), heat, self.budget.guard)

    def _windows(self, decisions: Decisions, sweep: int) -> list[tuple[int, int]]:
        """Returns windows that together are the program; those that lose most come first, without those that do not."""
        losses, borders = self._losses(decisions), self._borders(decisions.frame, sweep)
        lost = np.add.reduceat(losses, borders[:-1])
        order = np.lexsort((np.arange(len(lost)), -lost))
        return [(borders[k], borders[k + 1]) for k in order.tolist() if lost[k] > 0.0]

    def _borders(self, frame: Frame, sweep: int) -> list[int]:
        """Returns the borders of windows: in even sweeps where few bytes are alive, in odd ones between."""
        n, chains = self.problem.end, frame.chains
        counts = [len(operation.accesses) for operation in self.problem.operations]
        done = np.concatenate([[0], np.cumsum(counts)])  # accesses before each operation
        wanted = np.arange(_ACCESSES if sweep % 2 == 0 else _ACCESSES // 2, int(done[-1]), _ACCESSES)
        times = np.searchsorted(done, wanted)
        if sweep % 2 == 0:
            first, last = chains.first[chains.first < chains.last], chains.last[chains.first < chains.last] - 1
            size = frame.sizes[chains.buffer[chains.first < chains.last]]
            change = np.bincount(chains.start[first] + 1, size, minlength=n + 3)
            change -= np.bincount(chains.end[last], size, minlength=n + 3)
            alive = np.cumsum(change)
            lows, highs = (np.searchsorted(done, wanted + sign * (_ACCESSES // 3)) for sign in (-1, 1))
            spans = zip(lows.tolist(), np.maximum(np.minimum(highs, n), lows + 1).tolist(), strict=True)
            times = np.array([low + int(np.argmin(alive[low:high])) for low, high in spans], np.int64)
        return [0, *np.unique(times[(times > 0) & (times < n)]).tolist(), n]

    def _losses(self, decisions: Decisions) -> Floats:
        """Returns `[n]` seconds that operations lose against having everything in the fast memory, with their waits."""
        operations, accesses = decisions.tables.operations, decisions.tables.accesses
        now = durations(operations["floor"], operations["demand"])
        saving = np.where(accesses["is_fast"], 0.0, np.maximum(accesses["saving"], 0.0))
        rest = operations["demand"] - np.bincount(accesses["time"], saving, minlength=len(operations))
        waits = np.nan_to_num(self.emulator.emulate(decisions.sketch()).stall[:-1])
        return operations["repetitions"] * (now - durations(operations["floor"], rest) + waits)


@cache
def prepare() -> None:
    """Compiles the kernels, or loads them."""
    greedy.prepare()
    solve(small_problem(), Budget())


PLANNER = Planner(
    "neighbourhoods",
    "One window of greedy's plan after another, rearranged.",
    solve,
    prepare=prepare,
)
