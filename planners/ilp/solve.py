"""The planner `ilp`: the mapping as an integer program, solved until its bound is met.

Two integer programs of one model (`relaxation.py`) are solved at once, each by a process of its own:

    relaxed   allows everything that a plan can do             no plan beats its bound
    strict    counts the memory of copies as plans take it     its solutions become plans

A solution says what stays in fast memory and in which windows copies move. It becomes decisions with exact times
(`runs.py`), which are improved by what the emulator says (`polish.py`) and get offsets. While the solvers work,
greedy's decisions are improved in the same way, and a small problem is solved completely, offsets included
(`joint.py`). If both programs are solved and the plan does not meet the bound, time is cut finer. The search starts
from greedy's plan, so the result is never worse.

A long program is improved window by window instead, each window an integer program (`windows.py`). Its bound is that of
linear relaxations (`bound.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, cached_property, partial

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import greedy
from memplan.planners.bound import lower_bound
from memplan.planners.ilp.cuts import add_cut, found_offsets
from memplan.planners.ilp.cutting import cut_relaxation
from memplan.planners.ilp.integer_solver import ProgramSolution, SolverTask
from memplan.planners.ilp.joint import Joint, kept_in
from memplan.planners.ilp.model import Precision, Relaxation, longest
from memplan.planners.ilp.polish import Polish, PolishWork
from memplan.planners.ilp.relaxation import relax
from memplan.planners.ilp.runs import Realization
from memplan.planners.ilp.windows import improve_windows
from memplan.planners.incumbent import Incumbent
from memplan.planners.planner import Budget, Effort, Planner, Role
from memplan.planners.stays.assembly import Stay, assemble
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.small_problem import small_problem

Integers = NDArray[np.int64]

# A plan whose relative gap to the bound is less counts as optimal; the rounding of emulator and solvers is smaller.
OPTIMAL_WITHIN = 1e-4

# Programs with more accesses than this are solved window by window.
_MAX_ACCESSES = 2000

# The nodes of the tree of each integer program by effort: at most this many for each entry of its rows.
_NODES = (500_000, 10_000_000, 200_000_000)

# Their work by effort, see `Simplex`. A node counts as much as the linear program without cuts, and the first node, in
# which SCIP looks for solutions, as much as `_FIRST_NODE` others. Programs whose first node takes more are not solved.
_WORK, _FIRST_NODE = (2_000_000_000, 12_000_000_000, 200_000_000_000), 30

# Rounds of cuts that SCIP adds to the relaxation before it branches, by effort. Each may take as long as many nodes.
_CUTS = (0, 5, 20)

# The work on linear programs that find cuts for each of the integer programs, by effort, see `Simplex`.
_CUT_WORK = (500_000_000, 4_000_000_000, 40_000_000_000)

# Programs of more entries than this are not solved as integer programs, by effort.
_MOST_ENTRIES = (20_000, 150_000, 2_000_000)

# Changes tried by a polish, in all by effort and for each access, and the deterministic seconds of constraint
# programming for each run that finds no offset otherwise.
_ROUNDS, _ROUNDS_PER_ACCESS, _EXACT_EFFORT = (300, 3000, 10_000), 20, 0.03

# The ratios of the models (see `Precision`), one after another, and how many of them are tried by effort; those of
# programs with more than `_MAX_FINE_ACCESSES`.
_RATIOS, _COARSE_RATIOS, _NUM_RATIOS, _MAX_FINE_ACCESSES = (0.5, 0.1, 0.02), (1.0, 0.5, 0.1), (1, 2, 3), 700

# How often a solution without offsets is cut off in each round.
_MAX_CUTS = 8

# The deterministic seconds of the constraint program of small problems, by effort.
_JOINT_EFFORT = (1, 1, 10)


class _Incumbent(Incumbent):
    """The best plan so far, and the best bounds: of all, and of those whose proof was checked exactly."""

    def __init__(self, problem: MappingProblem, budget: Budget, plan: Plan):
        super().__init__(problem, budget, "ilp", plan, "greedy")
        self.bound = self.bound_checked = self.emulator.lower_bound()

    def raise_bound(self, bound: float, checked: float = 0.0) -> None:
        """Takes bounds if they are better."""
        self.bound, self.bound_checked = max(self.bound, bound), max(self.bound_checked, checked)

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
            "bound_checked": self.bound_checked,
            "optimal": self.is_optimal,
            "optimal_within": OPTIMAL_WITHIN,
            "method": self.method,
        }
        return replace(self.plan, info=info)


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the best plan found, never worse than greedy's.

    `info` has a latency that no plan beats (`bound`, seconds), as much of it as holds without the word of an integer
    solver (`bound_checked`), whether the plan is `optimal`: within a relative
    `optimal_within` of that bound, and the `method` that made it.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    plan = greedy.solve(problem, replace(budget, on_plan=lambda _: None))
    best = _Incumbent(problem, budget, plan)
    with contextlib.suppress(KeyboardInterrupt):
        if not best.is_optimal:
            _search(problem, budget, best)
            best.finish(best.goal)
    return best.finished()


def _search(problem: MappingProblem, budget: Budget, best: _Incumbent) -> None:
    proven = lower_bound(problem, budget.effort, budget.guard)
    best.raise_bound(proven.value, proven.checked)
    if best.is_optimal or len(problem.spaces) == 1:
        return
    if len(problem.accesses) > _MAX_ACCESSES:
        for plan in improve_windows(problem, budget, best.emulator):
            best.offer(plan, "integer programs of windows")
        return
    polishing = partial(_plans, problem, best, budget)
    ratios = _RATIOS if len(problem.accesses) <= _MAX_FINE_ACCESSES else _COARSE_RATIOS
    for number, ratio in enumerate(ratios[: budget.effort.of(*_NUM_RATIOS)]):
        pair = _Pair(problem, ratio, budget)
        try:
            if number == 0:
                _try_jointly(problem, best, budget)
                for plan in polishing(_greedy_decisions):
                    best.offer(plan, "ruin and recreate")
            if pair.is_too_large:
                return
            # The order does not depend on which is done first, so that the same problem has the same plan.
            relaxation = pair.relaxed.solution
            best.raise_bound(min(relaxation.bound * pair.relaxed.model.unit, longest(problem)))
            for name, program in (("integer program", pair.strict), ("relaxation", pair.relaxed)):
                if best.is_optimal:
                    return
                if program.solution.values is None:
                    continue
                for plan in polishing(partial(_realized, program, best.emulator)):
                    best.offer(plan, name)
            pair.strict.cut_and_solve(problem, best)
        finally:
            pair.stop()
        if best.is_optimal or not relaxation.is_optimal or budget.guard.reached():
            return


class _Program:
    """An integer program that is being solved.

    Attributes:
      model: what it is of.
      nodes: of its tree, that the effort affords; 0 if it is too large, or before `add_cuts`.
    """

    def __init__(self, model: Relaxation, budget: Budget):
        self.model, self._budget = model, budget
        self._rows, self.nodes = model.program.finished(), 0
        self.task: SolverTask | None = None

    def add_cuts(self) -> None:
        """Adds the cuts of the linear program, which help the integer program too, and counts the nodes."""
        effort = self._budget.effort
        if len(self._rows.values) > effort.of(*_MOST_ENTRIES):
            return
        found = cut_relaxation(self.model, effort.of(*_CUT_WORK), self._budget.guard)
        self._rows = found.rows
        if found.is_done:
            affordable = int(effort.of(*_WORK) / max(1.0, found.first_work)) - _FIRST_NODE
            self.nodes = max(0, min(affordable, effort.of(*_NODES) // max(1, len(found.rows.values))))

    def start(self) -> None:
        """Begins to solve the program."""
        # Solutions of the strict program become plans, and of the relaxation it is the bound that counts.
        cuts = 0 if self.model.precision.strict else self._budget.effort.of(*_CUTS)
        self.task = SolverTask(self._rows, self.nodes, self._budget.guard, OPTIMAL_WITHIN / 4.0, cuts)

    @cached_property
    def solution(self) -> ProgramSolution:
        """What the solver found, when it is done."""
        assert self.task is not None
        return self.task.result()

    def cut_and_solve(self, problem: MappingProblem, best: _Incumbent) -> None:
        """Adds cuts and solves again while the solution has no offsets; offers the first plan that has some."""
        spaces, guard = fast_spaces(problem), self._budget.guard
        # All of these solutions together may take as many nodes as the first one.
        self.nodes = (self.nodes + _FIRST_NODE) // _MAX_CUTS - _FIRST_NODE
        for _ in range(_MAX_CUTS if len(spaces) == 1 else 0):
            values = self.solution.values
            if best.is_optimal or values is None or not self.solution.is_optimal or guard.reached():
                return
            realization = Realization(Frame(problem, spaces[0]), self.model, values)
            found = realization.decisions(Rules(), best.emulator)
            offsets = found_offsets(found)
            if offsets is not None:
                best.offer(_assembled(problem, found, offsets), "integer program with cuts")
                return
            if self.nodes <= 0 or not add_cut(realization, found, guard):
                return
            self._rows = self.model.program.finished()
            self.start()
            del self.solution


class _Pair:
    """The relaxation and the strict program of one precision, which are being solved unless they are too large.

    Attributes:
      strict, relaxed: the programs.
      is_too_large: whether the effort does not suffice for them.
    """

    def __init__(self, problem: MappingProblem, ratio: float, budget: Budget):
        self.strict, self.relaxed = (
            _Program(relax(problem, precision=Precision(ratio, whole=True, strict=is_strict)), budget)
            for is_strict in (True, False)
        )
        for program in (self.relaxed, self.strict):
            program.add_cuts()
            self.is_too_large = program.nodes == 0
            if self.is_too_large:
                return
        for program in (self.strict, self.relaxed):
            program.start()

    def stop(self) -> None:
        """Ends the solvers, if they still run."""
        for program in (self.strict, self.relaxed):
            if program.task is not None:
                program.task.stop()


def _try_jointly(problem: MappingProblem, best: _Incumbent, budget: Budget) -> None:
    """Solves a problem by a constraint program if it is small and has one fast space."""
    spaces = fast_spaces(problem)
    if len(spaces) != 1 or best.is_optimal:
        return
    frame = Frame(problem, spaces[0])
    if not Joint.is_small(frame):
        return
    joint = Joint(frame, kept_in(best.plan))
    found = joint.solve(best.plan, best.emulator, budget.effort.of(*_JOINT_EFFORT), budget.guard)
    if found is not None:
        best.offer(_assembled(problem, found.decisions, found.offsets), "constraint program")


def _assembled(problem: MappingProblem, decisions: Decisions, offsets: Integers) -> Plan:
    """Returns the plan of decisions on the only fast space, with the offsets of its homes and stays."""
    home_offsets = dict(zip(decisions.frame.homes, offsets.tolist(), strict=False))
    return assemble(problem, decisions.stays(offsets), "ilp", home_offsets=home_offsets).plan


def _greedy_decisions(frame: Frame) -> Decisions:
    """Returns the first decisions of greedy."""
    decisions = Decisions(frame, Rules())
    decisions.run(Order("density", channel_weight=1.0), np.random.default_rng(0))
    return decisions


def _realized(program: _Program, emulator: TimingEmulator, frame: Frame) -> Decisions:
    """Returns what a program's solution decides."""
    values = program.solution.values
    assert values is not None
    return Realization(frame, program.model, values).decisions(Rules(), emulator)


def _plans(
    problem: MappingProblem, best: _Incumbent, budget: Budget, decide: Callable[[Frame], Decisions]
) -> Iterator[Plan]:
    """Yields better and better plans that decisions become, one fast space after another."""
    stays: list[Stay] = []
    home_offsets: dict[int, int] = {}
    spaces = fast_spaces(problem)
    rounds = min(budget.effort.of(*_ROUNDS), _ROUNDS_PER_ACCESS * len(problem.accesses))
    for space in spaces:
        frame = Frame(problem, space, stays)
        polish = Polish(frame, best.emulator, np.random.default_rng(budget.seed), best.goal, budget.guard)
        found = decide(frame)
        latency = np.inf
        chosen = None
        for packed in polish.packed(found, PolishWork(rounds, _EXACT_EFFORT)):
            if packed.latency < latency:
                latency, chosen = packed.latency, packed
                if space == spaces[-1]:
                    offsets = home_offsets | dict(zip(frame.homes, packed.offsets.tolist(), strict=False))
                    made = [*stays, *packed.decisions.stays(packed.offsets)]
                    yield assemble(problem, made, "ilp", home_offsets=offsets).plan
        if chosen is not None:
            home_offsets.update(zip(frame.homes, chosen.offsets.tolist(), strict=False))
            stays += chosen.decisions.stays(chosen.offsets)


@cache
def prepare() -> None:
    """Compiles the kernels, or loads them."""
    greedy.prepare()
    solve(small_problem(layers=3), Budget(Effort.FAST))


PLANNER = Planner(
    "ilp",
    "An integer program, with a bound that no plan beats, and often a proof of optimality.",
    solve,
    role=Role.MEMBER,
    prepare=prepare,
)
