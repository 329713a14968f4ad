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
import time
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
from memplan.planners.ilp.joint import Joint, kept_in
from memplan.planners.ilp.linear_solver import ProgramSolution, SolverTask
from memplan.planners.ilp.model import Precision, Relaxation, longest
from memplan.planners.ilp.polish import Effort, Polish
from memplan.planners.ilp.relaxation import relax
from memplan.planners.ilp.runs import Realization
from memplan.planners.ilp.windows import improve_windows
from memplan.planners.planner import Budget, Planner, Role
from memplan.planners.stays.assembly import Stay, assemble
from memplan.planners.stays.booking_kernel import has_room
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.small_problem import FOR_PREPARATION, small_problem

Integers = NDArray[np.int64]

# A plan whose relative gap to the bound is less counts as optimal; the rounding of emulator and solvers is smaller.
OPTIMAL_WITHIN = 1e-4

# Programs with more accesses than this are solved window by window.
_MAX_ACCESSES = 2000

# The shares of the budget for greedy, the linear relaxations and the integer programs; polishing takes the rest.
_FOR_GREEDY, _FOR_BOUND, _FOR_INTEGERS = 0.3, 0.15, 0.75

# Changes tried by a polish, in all and for each access, and the deterministic seconds of constraint programming for
# each run that finds no offset otherwise.
_ROUNDS, _ROUNDS_PER_ACCESS, _EXACT_EFFORT = 3000, 20, 0.2

# The ratios of the models (see `Precision`), one after another; those of programs with more than `_MAX_FINE_ACCESSES`.
# A finer model is tried if at least `_LEAST_ROUND` seconds are left, and `_FINER` times those that the last one took to
# write.
_RATIOS, _COARSE_RATIOS, _MAX_FINE_ACCESSES, _LEAST_ROUND = (0.5, 0.1, 0.02), (1.0, 0.5, 0.1), 700, 2.0
_FINER = 10.0

# How often a solution without offsets is cut off in each round, and the share of the time for finding the reason.
_MAX_CUTS, _FOR_SUBSET = 8, 0.1

# The deterministic seconds of the constraint program of small problems.
_JOINT_EFFORT = 1.0


class _Incumbent:
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
    best = _Incumbent(problem, budget, plan)
    with contextlib.suppress(KeyboardInterrupt):
        if not best.is_optimal:
            _search(problem, budget, best, start)
    return best.finished()


def _search(problem: MappingProblem, budget: Budget, best: _Incumbent, start: float) -> None:
    deadline = start + 0.97 * budget.seconds
    best.raise_bound(lower_bound(problem, min(_FOR_BOUND * budget.seconds, deadline - time.monotonic())).value)
    if best.is_optimal or len(problem.spaces) == 1:
        return
    if len(problem.accesses) > _MAX_ACCESSES:
        for plan in improve_windows(problem, budget.seed, best.emulator, deadline):
            best.offer(plan, "integer programs of windows")
        return
    polishing = partial(_plans, problem, best, budget.seed)
    solvers_until = start + _FOR_INTEGERS * budget.seconds
    ratios = _RATIOS if len(problem.accesses) <= _MAX_FINE_ACCESSES else _COARSE_RATIOS
    for number, ratio in enumerate(ratios):
        begin = time.monotonic()
        pair = _Pair(problem, ratio, solvers_until)
        written = time.monotonic() - begin
        try:
            if number == 0:
                now = time.monotonic()
                _try_jointly(problem, best, now + 0.5 * (solvers_until - now))
                for plan in polishing(_greedy_decisions, solvers_until):
                    best.offer(plan, "ruin and recreate")
            # The order does not depend on which is done first, so that the same problem has the same plan.
            relaxation = pair.relaxed.solution
            best.raise_bound(min(relaxation.bound * pair.relaxed.model.unit, longest(problem)))
            for name, program in (("integer program", pair.strict), ("relaxation", pair.relaxed)):
                if best.is_optimal:
                    return
                if program.solution.values is None:
                    continue
                now = time.monotonic()
                until = deadline if program is pair.relaxed else now + 0.6 * (deadline - now)
                for plan in polishing(partial(_realized, program, best.emulator), until):
                    best.offer(plan, name)
            pair.strict.cut_and_solve(problem, best, deadline)
        finally:
            pair.stop()
        now = time.monotonic()
        # A finer model takes several times as long to write.
        needed = max(_LEAST_ROUND, _FINER * written)
        if best.is_optimal or not relaxation.is_optimal or now > deadline - needed:
            return
        solvers_until = now + _FOR_INTEGERS * (deadline - now)


class _Program:
    """An integer program that is being solved."""

    def __init__(self, model: Relaxation, until: float):
        self.model = model
        self.task = SolverTask(model.program.finished(), True, max(until - time.monotonic(), 0.1), OPTIMAL_WITHIN / 4.0)

    @cached_property
    def solution(self) -> ProgramSolution:
        """What the solver found, when it is done."""
        return self.task.result()

    def cut_and_solve(self, problem: MappingProblem, best: _Incumbent, deadline: float) -> None:
        """Adds cuts and solves again while the solution has no offsets; offers the first plan that has some."""
        spaces = fast_spaces(problem)
        for _ in range(_MAX_CUTS if len(spaces) == 1 else 0):
            now = time.monotonic()
            values = self.solution.values
            if best.is_optimal or values is None or not self.solution.is_optimal or now > deadline - _LEAST_ROUND:
                return
            realization = Realization(Frame(problem, spaces[0]), self.model, values)
            found = realization.decisions(Rules(), best.emulator)
            offsets = found_offsets(found)
            if offsets is not None:
                best.offer(_assembled(problem, found, offsets), "integer program with cuts")
                return
            if not add_cut(realization, found, _FOR_SUBSET * (deadline - now)):
                return
            until = now + _FOR_INTEGERS * (deadline - now)
            seconds = max(until - time.monotonic(), 0.1)
            self.task = SolverTask(self.model.program.finished(), True, seconds, OPTIMAL_WITHIN / 4.0)
            del self.solution


class _Pair:
    """The relaxation and the strict program of one precision."""

    def __init__(self, problem: MappingProblem, ratio: float, until: float):
        self.strict, self.relaxed = (
            _Program(relax(problem, precision=Precision(ratio, whole=True, strict=is_strict)), until)
            for is_strict in (True, False)
        )

    def stop(self) -> None:
        """Ends the solvers, if they still run."""
        for program in (self.strict, self.relaxed):
            program.task.stop()


def _try_jointly(problem: MappingProblem, best: _Incumbent, until: float) -> None:
    """Solves a problem by a constraint program if it is small and has one fast space."""
    spaces = fast_spaces(problem)
    if len(spaces) != 1 or best.is_optimal:
        return
    frame = Frame(problem, spaces[0])
    if not Joint.is_small(frame):
        return
    found = Joint(frame, kept_in(best.plan)).solve(best.plan, best.emulator, _JOINT_EFFORT, until)
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
    problem: MappingProblem, best: _Incumbent, seed: int, decide: Callable[[Frame], Decisions], deadline: float
) -> Iterator[Plan]:
    """Yields better and better plans that decisions become, one fast space after another."""
    stays: list[Stay] = []
    home_offsets: dict[int, int] = {}
    spaces = fast_spaces(problem)
    rounds = min(_ROUNDS, _ROUNDS_PER_ACCESS * len(problem.accesses))
    for space in spaces:
        frame = Frame(problem, space, stays)
        polish = Polish(frame, best.emulator, np.random.default_rng(seed), best.goal)
        found = decide(frame)
        latency = np.inf
        chosen = None
        for packed in polish.packed(found, Effort(rounds, deadline, _EXACT_EFFORT)):
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
    solve(small_problem(layers=3), Budget(FOR_PREPARATION))
    # Polishing calls this too, but a problem that is solved in no time is not polished.
    has_room(Decisions(Frame(small_problem(), 1), Rules()).tables, 0, 1, 1)


PLANNER = Planner(
    "ilp",
    "An integer program, with a bound that no plan beats, and often a proof of optimality.",
    solve,
    role=Role.MEMBER,
    prepare=prepare,
)
