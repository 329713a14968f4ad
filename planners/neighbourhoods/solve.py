"""The planner `neighbourhoods`: one window of a plan after another is packed again, and kept if the emulator agrees.

This is large neighbourhood search (Shaw, "Using constraint programming and local search methods to solve vehicle
routing problems", 1998) on what lies in the fast memory, and where:

    memory ┤  ▒▒▒▒┌────────────┐░░░░       The stays that are alive in the window are given up. They and all runs that
           │▓▓▓▓▓▓│   window   │▓▓▓▓▓▓     need no copy compete for the room between the stays of other windows
           └──────┴────────────┴──────►    (`rectangles_kernel.py`).

The windows that lose most time come first: what their operations take beyond having everything in the fast memory, and
what they wait. A window's work depends on the window alone. In each sweep the borders lie elsewhere, and the sweeps end
when one gains next to nothing or when the work is spent.

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
from memplan.planners.neighbourhoods.window import Annealing, FreedWindow
from memplan.planners.planner import Budget, Planner
from memplan.planners.stays.assembly import Stay, assemble, home_offsets_of
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.small_problem import small_problem
from memplan.planners.stays.tables import NONE
from memplan.planners.xla import placed_stays

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Accesses of a window, about. A window is at least one operation.
_ACCESSES = 300

# How a window is rearranged, by effort: rounds for each rectangle.
_ROUNDS, _HEAT = (20, 100, 400), 0.3

# The rounds of all windows by effort, and the most sweeps.
_WORK, _SWEEPS = (500_000, 6_000_000, 60_000_000), (1, 6, 20)

# A sweep must lower the latency by this share, or it is the last but one: those after it have other borders.
_LEAST_GAIN, _PATIENCE = 1e-5, 2


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
        self.work = budget.effort.of(*_WORK)
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
        patience = _PATIENCE
        for sweep in range(self.budget.effort.of(*_SWEEPS)):
            before = placed.latency
            placed = self._swept(placed, sweep)
            if placed.latency < self.latency:
                others = [stay for stay in stays if stay.space != space]
                self._offer([*others, *placed.decisions.stays(placed.offsets)])
            patience = _PATIENCE if placed.latency < before * (1.0 - _LEAST_GAIN) else patience - 1
            if patience == 0 or self.work <= 0 or self.budget.guard.reached():
                return

    def _offer(self, stays: list[Stay]) -> None:
        """Makes a plan of stays, and takes it if it is better."""
        homes = home_offsets_of(self.problem, self.best)
        plan = assemble(self.problem, stays, "neighbourhoods", home_offsets=homes).plan
        latency = self.emulator.latency(plan)
        if latency < self.latency:
            self.best, self.latency = plan, latency
            self.budget.on_plan(plan)

    def _swept(self, placed: Placed, sweep: int) -> Placed:
        """Returns the stays after one sweep over all windows in which time is lost."""
        frame = placed.decisions.frame
        annealing = Annealing(self.budget.effort.of(*_ROUNDS), _HEAT)
        reserved = np.array([*(operation.reserved[frame.space] for operation in self.problem.operations), 0], np.int64)
        reserved = -(-reserved // frame.unit)
        for start, end in self._windows(placed, sweep):
            if self.work <= 0 or self.budget.guard.reached():
                break
            window = FreedWindow(placed, start, end, reserved)
            self.work -= annealing.rounds * len(window.runs)
            saved, runs = window.rearranged(annealing, int(self.generator.integers(2**62)))
            if saved > 0.0:
                trial = placed.replaced(window.freed, runs, self.emulator)
                if trial.latency < placed.latency:
                    placed = trial
        return placed

    def _windows(self, placed: Placed, sweep: int) -> list[tuple[int, int]]:
        """Returns windows that together are the program; those that lose most come first, without those that do not."""
        losses, borders = self._losses(placed), self._borders(placed.decisions.frame, sweep)
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

    def _losses(self, placed: Placed) -> Floats:
        """Returns `[n]` seconds that operations lose against having everything in the fast memory, with their waits."""
        decisions = placed.decisions
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
    "One window of greedy's plan after another, packed again.",
    solve,
    prepare=prepare,
)
