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
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.hardware.roofline import durations
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import greedy
from memplan.planners.neighbourhoods.placed import Placed
from memplan.planners.planner import Budget, Planner
from memplan.planners.stays.assembly import Stay, assemble, home_offsets_of
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.rearrangement import Rearrangement
from memplan.planners.stays.small_problem import small_problem
from memplan.planners.stays.tables import NONE
from memplan.planners.xla import placed_stays

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A program of at most so many operations is one window. Accesses of a window of others, about.
_WHOLE, _ACCESSES = 2_000, 300

# Rounds for each item of a program that is one window, and rounds times operations and items in all, by effort.
_ROUNDS, _WORK = (300, 2_000, 10_000), (50_000_000, 400_000_000, 6_000_000_000)

# Rounds for each item of a large program in all its sweeps, and in all, by effort, and the sweeps.
_LARGE_ROUNDS, _LARGE_WORK, _SWEEPS = (10, 600, 10_000), (1_000_000, 40_000_000, 400_000_000), (1, 4, 8)

# The temperature at first, as a part of what operations take on average, of a whole program and of a window.
_HEAT, _WINDOW_HEAT = 3.5e-3, 1e-2


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the best plan found, never worse than the one that the budget knows, or else than greedy's.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    start = budget.known or greedy.solve(problem, budget)
    search = _Search(problem, budget, replace(start, planner="neighbourhoods", info={}))
    with contextlib.suppress(KeyboardInterrupt):
        for space in fast_spaces(problem):
            search.improve(space)
    return search.best


class _Search:
    """The sweeps over a program, in one fast space after another.

    Attributes:
      best: the plan so far.
    """

    def __init__(self, problem: MappingProblem, budget: Budget, plan: Plan):
        self.problem, self.budget, self.best = problem, budget, plan
        self.emulator = TimingEmulator(problem)
        self.latency = self.emulator.latency(plan)
        self.generator = np.random.default_rng(budget.seed)

    def improve(self, space: int) -> None:
        """Improves the stays in one space; those in the others remain as they are."""
        stays = placed_stays(self.problem, self.best)
        elsewhere = [stay for stay in stays if stay.space != space and stay.accesses]
        frame = Frame(self.problem, space, elsewhere)
        offsets = home_offsets_of(self.problem, self.best)
        homes = [offsets.get(buffer, NONE) for buffer in frame.homes]
        if min([*homes, *(stay.offset for stay in stays)], default=0) < 0:
            return  # The plan is not one of homes and stays.
        placed = Placed.of(frame, self.emulator, [stay for stay in stays if stay.space == space], homes)
        if placed.latency > self.latency * (1.0 + 1e-9):
            return  # The plan has a stay that is no run of accesses.
        seed = int(self.generator.integers(2**62))
        made = Rearrangement(placed.decisions, placed.offsets, self.emulator, seed)
        effort, n = self.budget.effort, self.problem.end
        pool, mean = made.pool(0, n + 1), made.latency / max(n, 1)
        others = [stay for stay in stays if stay.space != space]
        if n <= _WHOLE:
            rounds = min(effort.of(*_ROUNDS) * len(pool), effort.of(*_WORK) // (n + len(pool) + 1))
            made.anneal(pool, 0, n + 1, rounds, _HEAT * mean, self.budget.guard)
            self._offer([*others, *made.decisions.stays(made.offsets)])
            return
        sweeps = effort.of(*_SWEEPS)
        rounds = min(effort.of(*_LARGE_ROUNDS), effort.of(*_LARGE_WORK) // max(len(pool), 1))
        for sweep in range(sweeps):
            before = made.latency
            self._sweep(made, sweep, rounds // sweeps, _WINDOW_HEAT * mean)
            if made.latency < before:
                self._offer([*others, *made.decisions.stays(made.offsets)])
            if self.budget.guard.reached():
                return

    def _offer(self, stays: list[Stay]) -> None:
        """Makes a plan of stays, and takes it if it is better."""
        homes = home_offsets_of(self.problem, self.best)
        plan = assemble(self.problem, stays, "neighbourhoods", home_offsets=homes).plan
        latency = self.emulator.latency(plan)
        if latency < self.latency:
            self.best, self.latency = plan, latency
            self.budget.on_plan(plan)

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
