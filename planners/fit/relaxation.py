"""Plans from relaxations: programs of stages with more and more cuts, until the solution of one is a plan.

A program of stages (`bound.py`) limits the memory only while the nodes of its cuts run. Its optimum bounds the cost of
every plan. Its solution says what runs again and where, so an order of these runs within the limit is a plan at the
cost of the bound, and no plan is cheaper:

    cuts = the node with the most bytes above the limit
    repeat
        solve the program in integers                             a bound, and runs in stages
        order the runs so that they need little memory            a plan, if the peak is within the limit
        or else drop more, by the search (`searcher.py`)          a plan that costs more
        add a cut where the order needs most

A cut must depend on the other cuts, or they on it. If the order needs most elsewhere, the nearest node that does is
taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.planners.fit.bound import StageProgram, choose_cuts
from memplan.planners.fit.expansion import Expansion
from memplan.planners.fit.least_peak import Across
from memplan.planners.fit.order import Orderer
from memplan.planners.fit.plan import FitPlan, Run
from memplan.planners.fit.problem import FitProblem
from memplan.planners.fit.searcher import FitSearcher
from memplan.planners.fit.stage_solver import solve_stages
from memplan.planners.fit.verifier import FitCheck, verify_fit

Integers = NDArray[np.int64]

# The most columns of a program that is solved in integers.
MOST_COLUMNS = 20_000

# The work of the search for an order, for each run, and of the search that repairs it.
_ORDER_WORK, _REPAIR_WORK = 100, 500_000

# The share of the work that is left which one program may take.
_SHARE = 0.5


class FitRelaxation:
    """The loop over programs of stages.

    Args:
      problem: that is sound.
      across: of the problem, with relations.
      order: of the nodes, that needs little memory.
      limit: bytes.
      work: deterministic seconds of CP-SAT, for all programs together.
      seed: of all that is drawn.
      guard: ends it early.

    Attributes:
      bound: seconds that any plan within the limit adds at least, as far as it is proven; infinite if there is none.
    """

    def __init__(
        self, problem: FitProblem, across: Across, order: Integers, limit: int, work: float, seed: int, guard: Guard
    ):
        self.problem, self.across, self.limit = problem, across, limit
        self._order = order
        self.bound = 0.0
        self._work, self._seed, self._guard = work, seed, guard
        relations = across.relations
        assert relations is not None
        self._cuts = choose_cuts(problem, across, limit, 1)
        self._can_cut = np.ones(len(problem.nodes), np.bool_)

    def run(self, rounds: int, offer: Callable[[FitPlan], object], is_done: Callable[[float], bool]) -> None:
        """Solves programs of stages and offers plans.

        Args:
          rounds: the most programs.
          offer: takes a plan.
          is_done: whether a bound is good enough.
        """
        if not self._cuts:
            # No node has bytes above the limit in every order, but some node has in the best order that was found.
            plan = FitPlan(tuple(Run(node) for node in self._order.tolist()))
            self._add_cut(plan, verify_fit(self.problem, plan))
        for _ in range(rounds if self._cuts else 0):
            if self._guard.reached() or self._work <= 0.0:
                return
            stages = StageProgram(self.problem, self.across, self._cuts, self.limit)
            if len(stages.program.low) > MOST_COLUMNS:
                return
            solution = solve_stages(stages, _SHARE * self._work, self._seed, self._guard)
            self._work -= solution.work
            self.bound = max(self.bound, solution.bound)
            if solution.runs is None:
                return
            ordered, check = self._realize(solution.runs, offer)
            if is_done(self.bound) or not self._add_cut(ordered, check):
                return

    def _realize(self, runs: list[list[int]], offer: Callable[[FitPlan], object]) -> tuple[FitPlan, FitCheck]:
        """Offers plans made of runs in stages; returns the one that runs nothing else."""
        expansion = Expansion(self.problem, runs)
        late = np.array(expansion.late_runs(self._order.tolist()), np.int64)
        work = _ORDER_WORK * len(expansion.problem.nodes)
        order = Orderer(expansion.problem, self.limit).best(work, self._seed, late)
        ordered = expansion.plan(FitPlan(tuple(Run(node) for node in order.tolist())))
        offer(ordered)
        check = verify_fit(self.problem, ordered)
        if check.peak > self.limit:
            searcher = FitSearcher(expansion.problem, order, self.limit, self._seed)
            searcher.start()
            searcher.go_on(_REPAIR_WORK, 0.0)
            repaired = expansion.plan(searcher.plan())
            # Two instances of a value can be on their way to the host at once in the expanded problem alone.
            if not verify_fit(self.problem, repaired).violations:
                offer(repaired)
        return ordered, check

    def _add_cut(self, ordered: FitPlan, check: FitCheck) -> bool:
        """Adds a cut where a plan needs most, or near to it; returns whether there is one."""
        relations = self.across.relations
        assert relations is not None
        position = _first_runs(ordered, len(self.problem.nodes))
        for k in self._cuts:
            self._can_cut &= relations.before(k) | relations.after(k)
        possible = np.flatnonzero(self._can_cut)
        if check.peak <= self.limit or not len(possible):
            return False
        nearest = int(possible[np.argmin(np.abs(position[possible] - check.peak_step))])
        later = [k for k in self._cuts if relations.before(k)[nearest]]
        self._cuts.insert(len(self._cuts) - len(later), nearest)
        return True


def _first_runs(plan: FitPlan, num_nodes: int) -> Integers:
    """Returns the step of the first run of each node, `[nodes]`."""
    position = np.zeros(num_nodes, np.int64)
    for step, made in reversed(list(enumerate(plan.steps))):
        if isinstance(made, Run):
            position[made.node] = step
    return position
