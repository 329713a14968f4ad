"""The planner `ilp`: the mapping as an integer program, solved until its bound is met.

Two integer programs of one model (`_ilp_model.py`) are solved at once, each by a process of its own:

    relaxed   allows all that a plan can do                its bound is one that no plan beats
    strict    counts memory for copies as plans take it    its solutions become plans

A solution says what stays in fast memory and in which windows copies move. That becomes decisions with exact times
(`_ilp_runs.py`), is improved by what the emulator says (`_ilp_polish.py`), gets offsets, and is a plan. While the
solvers work, greedy's decisions are improved in the same way. It starts from greedy's plan and is never worse.

A long program is improved window by window instead, each an integer program of its own, the window first that loses
most to its bound; its bound is that of linear relaxations (`bound.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import greedy
from memplan.planners._assembly import Stay, assemble
from memplan.planners._decisions import Decisions, Order, Rules
from memplan.planners._frame import Frame, fast_spaces
from memplan.planners._ilp_model import Precision, Relaxation, longest
from memplan.planners._ilp_polish import Effort, Polish
from memplan.planners._ilp_runs import Realization
from memplan.planners._ilp_windows import improve_windows
from memplan.planners._linear import Rows
from memplan.planners._linear_solver import Task
from memplan.planners.bound import lower_bound
from memplan.planners.planner import Budget, Planner

Floats = NDArray[np.float64]

# A plan within this of the bound, relative, counts as optimal; the emulator's and the solvers' rounding is less.
OPTIMAL_WITHIN = 1e-4

# Programs with more accesses than this are solved window by window.
_MAX_ACCESSES = 2000

# Of the budget, what greedy, the linear relaxations and the integer programs may take; polishing takes the rest.
_FOR_GREEDY, _FOR_BOUND, _FOR_INTEGERS = 0.3, 0.15, 0.75

# Moves of a polish, and deterministic seconds of constraint programming for what finds no offset otherwise.
_ROUNDS, _EXACT_EFFORT = 3000, 0.2

# The ratio of the models (see `Precision`), and that of those for programs with more accesses than this.
_RATIO, _COARSE_RATIO, _MAX_FINE_ACCESSES = 0.5, 1.0, 700


class _Best:
    """The best plan so far, and the best bound."""

    def __init__(self, problem: MappingProblem, budget: Budget, plan: Plan):
        self.emulator, self.budget = TimingEmulator(problem), budget
        self.latency = self.emulator.latency(plan)
        self.bound, self.method = self.emulator.lower_bound(), "greedy"
        self.plan = plan
        self._tell(plan)

    def _tell(self, plan: Plan) -> None:
        self.plan = replace(plan, planner="ilp", info={})
        self.budget.on_plan(self.plan)

    def offer(self, plan: Plan, method: str) -> None:
        """Takes a plan if it is better."""
        latency = self.emulator.latency(plan)
        if latency < self.latency:
            self.latency, self.method = latency, method
            self._tell(plan)

    def raise_bound(self, bound: float) -> None:
        """Takes a bound if it is better."""
        self.bound = max(self.bound, bound)

    @property
    def goal(self) -> float:
        """The latency at which a plan is optimal."""
        return self.bound * (1.0 + OPTIMAL_WITHIN)

    @property
    def is_optimal(self) -> bool:
        return self.latency <= self.goal

    def finished(self) -> Plan:
        """Returns the plan, with what is known of it."""
        info = {
            "bound": self.bound,
            "optimal": self.is_optimal,
            "optimal_within": OPTIMAL_WITHIN,
            "method": self.method,
        }
        return replace(self.plan, info=info)


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the best plan found, never worse than greedy's.

    `info` has a latency that no plan beats (`bound`, seconds), whether the plan is `optimal`: within a relative
    `optimal_within` of that bound, and the `method` that made it.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    start = time.monotonic()
    plan = greedy.solve(problem, replace(budget, seconds=_FOR_GREEDY * budget.seconds, on_plan=lambda _: None))
    best = _Best(problem, budget, plan)
    with contextlib.suppress(KeyboardInterrupt):
        if not best.is_optimal:
            _search(problem, budget, best, start)
    return best.finished()


def _search(problem: MappingProblem, budget: Budget, best: _Best, start: float) -> None:
    deadline = start + 0.97 * budget.seconds
    best.raise_bound(lower_bound(problem, min(_FOR_BOUND * budget.seconds, deadline - time.monotonic())).value)
    if best.is_optimal or len(problem.spaces) == 1:
        return
    if len(problem.accesses) > _MAX_ACCESSES:
        for plan in improve_windows(problem, budget.seed, best.emulator, deadline):
            best.offer(plan, "integer programs of windows")
        return
    solvers_until = start + _FOR_INTEGERS * budget.seconds
    ratio = _RATIO if len(problem.accesses) <= _MAX_FINE_ACCESSES else _COARSE_RATIO
    strict, relaxed = (
        Relaxation(problem, precision=Precision(ratio, whole=True, strict=is_strict)) for is_strict in (True, False)
    )
    tasks = [_start(model.program.finished(), solvers_until) for model in (strict, relaxed)]
    polishing = partial(_plans, problem, best, budget.seed)
    try:
        for plan in polishing(_greedy_decisions, solvers_until):
            best.offer(plan, "ruin and recreate")
        # In this order, whichever is done first, so that the same problem has the same plan.
        relaxation = tasks[1].result()
        best.raise_bound(min(relaxation.bound * relaxed.unit, longest(problem)))
        for name, model, task in (("integer program", strict, tasks[0]), ("relaxation", relaxed, tasks[1])):
            if best.is_optimal:
                break
            solution = relaxation if model is relaxed else task.result()
            if solution.values is None:
                continue
            now = time.monotonic()
            until = deadline if model is relaxed else now + 0.6 * (deadline - now)
            realized = partial(_realized, model, solution.values, best.emulator)
            for plan in polishing(realized, until):
                best.offer(plan, name)
    finally:
        for task in tasks:
            task.stop()


def _start(rows: Rows, until: float) -> Task:
    return Task(rows, True, max(until - time.monotonic(), 0.1), OPTIMAL_WITHIN / 4.0)


def _greedy_decisions(frame: Frame) -> Decisions:
    """Returns what greedy decides at first."""
    decisions = Decisions(frame, Rules())
    decisions.run(Order("density", channel_weight=1.0), np.random.default_rng(0))
    return decisions


def _realized(model: Relaxation, solution: Floats, emulator: TimingEmulator, frame: Frame) -> Decisions:
    return Realization(frame, model, solution).decisions(Rules(), emulator)


def _plans(
    problem: MappingProblem, best: _Best, seed: int, decide: Callable[[Frame], Decisions], deadline: float
) -> Iterator[Plan]:
    """Yields plans that decisions become, better and better ones, one fast space after another."""
    stays: list[Stay] = []
    home_offsets: dict[int, int] = {}
    spaces = fast_spaces(problem)
    for space in spaces:
        frame = Frame(problem, space, stays)
        polish = Polish(frame, best.emulator, np.random.default_rng(seed), best.goal)
        found = decide(frame)
        latency = np.inf
        chosen = None
        for packed in polish.packed(found, Effort(_ROUNDS, deadline, _EXACT_EFFORT)):
            if packed.latency < latency:
                latency, chosen = packed.latency, packed
                if space == spaces[-1]:
                    offsets = home_offsets | dict(zip(frame.homes, packed.offsets.tolist(), strict=False))
                    made = [*stays, *packed.decisions.stays(packed.offsets)]
                    yield assemble(problem, made, "ilp", home_offsets=offsets).plan
        if chosen is not None:
            home_offsets.update(zip(frame.homes, chosen.offsets.tolist(), strict=False))
            stays += chosen.decisions.stays(chosen.offsets)


PLANNER = Planner("ilp", "An integer program, with a bound that no plan beats, and often a proof of optimality.", solve)
