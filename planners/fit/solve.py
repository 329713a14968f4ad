"""The planner of fit: the cheapest schedule within a memory limit, with a bound that no plan beats.

    1. the least peak that any plan has (`least_peak.py`): below it, the limit is refused
    2. orders of the nodes that need little memory, which cost no time (`order.py`)
    3. relaxations in integers whose solutions are often plans, which are optimal then (`relaxation.py`)
    4. what to keep, recompute or move to the host, in the best orders, by ruin and recreate (`searcher.py`)
    5. the optimum of small problems by CP-SAT, in any order (`exact.py`)
    6. a lower bound of the added seconds by linear and integer programs (`bound.py`), unless the caller needs none

The work ends as soon as a bound proves that no plan costs less.

All work is counted: the same problem, limit, effort and seed give the same plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError
from memplan.planners.fit.bound import cost_bound
from memplan.planners.fit.exact import ExactModel
from memplan.planners.fit.joins import JoinedProblem
from memplan.planners.fit.least_peak import MAX_RELATED, Across, Relations, least_peak
from memplan.planners.fit.order import Orderer
from memplan.planners.fit.plan import FitError, FitPlan, Run
from memplan.planners.fit.problem import MAX_BYTES, FitProblem
from memplan.planners.fit.relaxation import FitRelaxation
from memplan.planners.fit.searcher import FitSearcher
from memplan.planners.fit.verifier import FitCheck, verify_fit
from memplan.planners.planner import STOPPED, Budget

Integers = NDArray[np.int64]

# Operations of the search in one slice, of which the guard is asked between two, and slices of one search.
_SLICE, _SLICES = 250_000, 4

# The temperature at first, in shares of the added seconds; it falls to nothing.
_HOT = 0.003

# Relative difference within which a cost counts as that of the bound.
_TOLERANCE = 1e-6

# Values of a message that stand at the peak.
_NAMED = 5

# Halvings of the distance between the proven and the found peak, where nothing fits.
_HALVINGS = 5


def solve_fit(
    problem: FitProblem, limit: int, budget: Budget | None = None, *, proves: bool = True, relaxes: bool = True
) -> FitPlan:
    """Returns a schedule whose peak is within the limit, at the least cost that is found.

    Its `info` holds `program_peak`, the peak of the program as it is; `least_peak`, a peak that no plan is below;
    `is_optimal`, whether the bound proves that no plan costs less; and `stopped`, if a time limit ended the work.

    Args:
      problem: the program.
      limit: bytes.
      budget: how much work to do; by default, the effort `normal`.
      proves: whether to look for a bound as `cost_floor` does, where the work before has not proven an optimum.
        Without it, the plan is the same, and its bound may be lower.
      relaxes: whether to solve relaxations in integers first. They are idle work where they prove nothing, and tend to
        do so at all limits of a problem or at none.

    Raises:
      PlanError: the problem has faults.
      PlannerError: the limit is no number of bytes.
      FitError: no plan within the limit exists, or none was found.
    """
    _check(problem, limit)
    solver = _Solver(problem, limit, budget or Budget())
    plan, is_proven = solver.solve(relaxes)
    if proves and not is_proven:
        plan = solver.answer(max(plan.bound, solver.floor()))
    return plan


def cost_floor(problem: FitProblem, limit: int, budget: Budget | None = None) -> float:
    """Returns seconds that any plan within a limit adds at least, infinity if there is none; it makes no plan.

    Args:
      problem, limit, budget: see `solve_fit`.

    Raises:
      PlanError: the problem has faults.
      PlannerError: the limit is no number of bytes.
    """
    _check(problem, limit)
    solver = _Solver(problem, limit, budget or Budget())
    return math.inf if solver.least > limit else solver.floor()


def _check(problem: FitProblem, limit: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MAX_BYTES:
        raise PlannerError(f"the memory limit must be an integer from 0 to {MAX_BYTES:,} bytes, not {limit!r}")
    problem.check()


class _Solver:
    def __init__(self, problem: FitProblem, limit: int, budget: Budget):
        self.problem, self.limit, self.budget, self.guard = problem, limit, budget, budget.guard
        self.joined = JoinedProblem(problem)
        whole = self.joined.problem
        self.across = Across(whole, Relations(whole) if len(whole.nodes) <= MAX_RELATED else None)
        self.least = least_peak(whole, self.across)
        self.best: tuple[float, int, FitPlan] | None = None
        self.lowest: tuple[int, float, FitPlan] | None = None
        self.total = math.fsum(node.seconds for node in problem.nodes)

    def solve(self, relaxes: bool) -> tuple[FitPlan, bool]:
        """Returns the best plan, and whether nothing more can be proven of it."""
        program = FitPlan(tuple(Run(node) for node in range(len(self.problem.nodes))))
        self.program_peak = self._offer(program).peak
        if self.best is not None:
            return self.answer(0.0), True
        orderer = Orderer(self.problem, self.limit)
        order = orderer.best(
            self.budget.effort.of(fast=20, normal=100, high=500) * len(self.problem.nodes), self.seed(0)
        )
        self._offer(FitPlan(tuple(Run(node) for node in order.tolist())))
        if self.best is not None:
            return self.answer(0.0), True
        if self.least > self.limit:
            self._lower_peak(order)
            raise self._error()
        bound = self._relax(order) if relaxes else 0.0
        if self._is_proven(bound):
            return self.answer(bound), True
        if bound == math.inf:
            self._lower_peak(order)
            raise self._error(is_infeasible=True)
        self._search(order)
        exact, is_infeasible = self._exact()
        bound = max(bound, exact)
        if self.best is None:
            self._lower_peak(order)
            raise self._error(is_infeasible)
        plan = self.answer(bound)
        return plan, bool(plan.info["is_optimal"])

    def floor(self) -> float:
        """Returns seconds that any plan adds at least."""
        if self.across.relations is None:
            return 0.0
        work = float(self.budget.effort.of(fast=2, normal=10, high=50)) * 1e8
        nodes = self.budget.effort.of(fast=20, normal=200, high=2000)
        return cost_bound(self.joined.problem, self.across, self.limit, work, nodes, self.guard)

    def _relax(self, order: Integers) -> float:
        """Returns a bound of the added seconds, from programs whose solutions are offered as plans."""
        if self.across.relations is None:
            return 0.0
        # A deterministic second of CP-SAT takes about five on a processor.
        work = self.budget.effort.of(fast=10, normal=80, high=800) / 100
        rounds = self.budget.effort.of(fast=3, normal=8, high=20)
        whole, ordered = self.joined.problem, np.array(self.joined.order(order.tolist()), np.int64)
        relaxation = FitRelaxation(whole, self.across, ordered, self.limit, work, self.seed(0), self.guard)
        relaxation.run(rounds, lambda plan: self._offer(self.joined.plan(plan)), self._is_proven)
        return relaxation.bound

    def _is_proven(self, bound: float) -> bool:
        """Whether a bound proves that no plan costs less than the best one."""
        if self.best is None:
            return False
        cost = self.best[0]
        return cost - bound <= _TOLERANCE * max(cost, self.total * 1e-9)

    def seed(self, number: int) -> int:
        """Returns the seed of one part of the work."""
        return (self.budget.seed * 1_000_003 + number) & (2**63 - 1)

    def _offer(self, plan: FitPlan) -> FitCheck:
        """Takes a plan if it is the best so far, by the verifier's word."""
        check = verify_fit(self.problem, plan)
        if check.violations:
            raise AssertionError(f"the planner made a schedule that is not valid: {check.violations[0].message}")
        plan = replace(plan, peak=check.peak, cost=check.added_seconds)
        if check.peak <= self.limit and (self.best is None or (plan.cost, plan.peak) < self.best[:2]):
            self.best = (plan.cost, plan.peak, plan)
        if self.lowest is None or (plan.peak, plan.cost) < self.lowest[:2]:
            self.lowest = (plan.peak, plan.cost, plan)
        return check

    def _orders(self, best: Integers) -> Iterator[Integers]:
        """Yields the orders in which the search runs; the program's own one too, as far as it differs."""
        for _ in range(self.budget.effort.of(fast=1, normal=2, high=6)):
            yield best
            program = np.arange(len(best), dtype=np.int64)
            if not np.array_equal(best, program):
                yield program

    def _search(self, best: Integers) -> None:
        slices = _SLICES * self.budget.effort.of(fast=1, normal=3, high=10)
        for number, order in enumerate(self._orders(best)):
            if self.guard.reached():
                return
            searcher = FitSearcher(self.problem, order, self.limit, self.seed(number))
            searcher.start()
            self._offer(searcher.plan())
            for k in range(slices):
                if self.guard.reached() or (searcher.is_feasible and searcher.cost <= 0.0):
                    break
                cost = searcher.cost if searcher.is_feasible else 0.0
                searcher.go_on(_SLICE, _HOT * cost * (1.0 - (k + 1) / slices))
            self._offer(searcher.plan())

    def _exact(self) -> tuple[float, bool]:
        """Returns a bound, and whether it is exact; a small problem is solved to optimality."""
        found = None if self.best is None else self.best[2]
        if not ExactModel.can_solve(self.problem, self.limit):
            return 0.0, False
        model = ExactModel(self.problem, self.limit, found, self.seed(0))
        plan, bound, is_infeasible = model.solve(self.budget.effort.of(fast=1, normal=5, high=50), self.guard)
        if plan is not None:
            self._offer(plan)
        return (math.inf if is_infeasible else bound), is_infeasible

    def _lower_peak(self, order: Integers) -> None:
        """Looks for the least peak, whatever it costs, by searches with higher limits."""
        assert self.lowest is not None
        low = max(self.least, self.limit)
        for number in range(_HALVINGS):
            if self.guard.reached() or self.lowest[0] <= low:
                return
            limit = (low + self.lowest[0]) // 2
            searcher = FitSearcher(self.problem, order, limit, self.seed(number))
            searcher.start()
            searcher.go_on(_SLICE, 0.0)
            if self._offer(searcher.plan()).peak > limit:
                low = limit + 1

    def answer(self, bound: float) -> FitPlan:
        """Returns the best plan that was found, with a bound."""
        assert self.best is not None
        plan = self.best[2]
        # The bound holds for sums in real numbers; that of the plan is rounded.
        bound = min(bound, plan.cost)
        info: dict[str, Any] = {
            "program_peak": self.program_peak,
            "least_peak": self.least,
            "is_optimal": self._is_proven(bound),
        }
        if self.guard.met:
            info["stopped"] = STOPPED
        return replace(plan, bound=bound, info=info)

    def _error(self, is_infeasible: bool = False) -> FitError:
        assert self.lowest is not None
        plan = self.lowest[2]
        check = verify_fit(self.problem, plan)
        standing = tuple(check.standing(self.problem, check.peak_step))
        names = ", ".join(self._describe(value, size) for value, size in standing[:_NAMED])
        more = f" and {len(standing) - _NAMED:,} more" if len(standing) > _NAMED else ""
        proven = max(self.least, self.limit + 1) if is_infeasible else self.least
        if proven > self.limit:
            what = f"no plan fits into {self.limit:,} bytes: any plan needs at least {proven:,}"
        else:
            what = f"no plan within {self.limit:,} bytes was found, and none needs less than {proven:,}"
        message = f"{what}; the least peak found is {plan.peak:,} bytes, where these stand: {names}{more}"
        return FitError(message, self.limit, proven, plan, standing)

    def _describe(self, value: int, size: int) -> str:
        described = self.problem.values[value]
        details = [detail for detail in (described.shape, described.origin) if detail]
        return f"{described.name} ({', '.join([*details, f'{size:,} bytes'])})"
