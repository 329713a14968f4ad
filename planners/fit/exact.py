"""The optimum of small problems in any order, by CP-SAT: which node runs in which slot, and what is resident then.

A plan without transfers is a sequence of runs, one a slot. Let x[s, p] be whether node p runs in slot s, and S[s, v]
whether value v is resident before it and stays for a later use or until it is read there:

    x[s, p] <= S[s, v]                                for each input v of p
    S[s + 1, v] <= S[s, v] + x[s, producer of v]
    what is resident in a slot, with what its node makes and needs, is within the limit

A plan with fewer runs leaves the last slots empty. A plan with more runs than there are slots costs at least the
cheapest run for each, which limits the bound. Often there are as many slots as a plan can have that costs no more than
a known one, and then the optimum of the program is that of all plans. These are the retention intervals of MOCCASIN
(Bartan et al., "Moccasin: efficient tensor rematerialization for neural networks", 2023, arXiv 2304.14463), indexed by
time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from memplan.compiler.effort import Guard
from memplan.planners.fit.plan import FitPlan, Run
from memplan.planners.fit.problem import FitProblem

# The most nodes, and the most slots per node.
_MOST_NODES, _MOST_SLOTS = 14, 2.5

# Numbers of the solver stay below these: bytes as they are, seconds in ticks.
_MOST_BYTES, _TICKS = 2**50, 2.0**30


class ExactModel:
    """The program of a problem, a limit and the best plan that is known.

    Args:
      problem: that `can_solve` takes.
      limit: bytes.
      known: a plan within the limit; None if there is none.
      seed: of the solver.
    """

    def __init__(self, problem: FitProblem, limit: int, known: FitPlan | None, seed: int):
        # OR-Tools loads pandas: only those who solve wait for it.
        from ortools.sat.python import cp_model

        self.problem, self.limit, self._known = problem, limit, known
        t, n = problem.tables, len(problem.nodes)
        self._second = _TICKS / max(float(t.seconds.sum()), 1e-300)
        # Rounded down, so that a bound in ticks is one in seconds.
        self._ticks = np.floor(t.seconds * self._second).astype(np.int64).tolist()
        most = int(_MOST_SLOTS * n)
        again = [float(t.seconds[p]) for p in range(n) if t.can_repeat[p]]
        self._cheapest = min(again, default=math.inf)
        extra = float(most - n)
        if known is not None and self._cheapest > 0.0:
            extra = min(extra, math.floor(known.cost / self._cheapest * (1.0 + 1e-9)))
        self.num_slots = n + (int(extra) if again else 0)
        self._model = model = cp_model.CpModel()
        self._solver = cp_model.CpSolver()
        self._solver.parameters.num_workers = 1
        self._solver.parameters.catch_sigint_signal = False
        self._solver.parameters.random_seed = seed % 2**31
        slots = range(self.num_slots)
        self._run = [[model.new_bool_var("") for _ in range(n)] for _ in slots]
        self._stay = [[self._first_stay(v, s) for v in range(len(t.size))] for s in range(self.num_slots + 1)]
        for p in range(n):
            runs = [self._run[s][p] for s in slots]
            model.add(sum(runs) >= 1) if t.can_repeat[p] else model.add(sum(runs) == 1)
        for s in slots:
            model.add(sum(self._run[s]) <= 1)
            if s > 0:
                model.add(sum(self._run[s]) <= sum(self._run[s - 1]))
            self._write_slot(s)
        for v in np.flatnonzero(t.is_result).tolist():
            model.add(self._stay[self.num_slots][v] == 1)
        base = sum(self._ticks)
        model.minimize(sum(self._ticks[p] * self._run[s][p] for s in slots for p in range(n)) - base)
        self._hint()

    @staticmethod
    def can_solve(problem: FitProblem, limit: int) -> bool:
        """Whether the problem is small enough, and has no host."""
        t = problem.tables
        total = int(t.size.sum()) + int(t.workspace.sum())
        return 0 < len(problem.nodes) <= _MOST_NODES and not t.can_offload.any() and max(total, limit) < _MOST_BYTES

    def _first_stay(self, v: int, s: int) -> Any:
        """Returns whether a value is resident before slot s: a variable, or a constant where it is known."""
        t = self.problem.tables
        if t.stays[v] or (s == 0 and t.producer[v] < 0):
            return self._model.new_constant(1)
        return self._model.new_constant(0) if s == 0 else self._model.new_bool_var("")

    def _write_slot(self, s: int) -> None:
        t, model, stay, run = self.problem.tables, self._model, self._stay, self._run[s]
        size = t.size.tolist()
        needed: list[Any] = []
        for v in range(len(size)):
            p = int(t.producer[v])
            if t.stays[v]:
                needed.append(size[v])
                continue
            made = run[p] if p >= 0 else 0
            model.add(stay[s + 1][v] <= stay[s][v] + made)
            if p >= 0:
                # A run ends the instance before it.
                model.add(stay[s][v] + made <= 1)
            needed.append(size[v] * (stay[s][v] + made))
        for p, node in enumerate(self.problem.nodes):
            for v in node.inputs:
                model.add(run[p] <= stay[s][v])
            needed.append(node.workspace * run[p])
            taken: dict[tuple[str, int], list[Any]] = {}
            for output, read in node.in_place:
                if not t.stays[read]:
                    shares = model.new_bool_var("")
                    model.add(shares <= run[p])
                    model.add(shares + stay[s + 1][read] <= 1)
                    taken.setdefault(("output", output), []).append(shares)
                    taken.setdefault(("input", read), []).append(shares)
                    needed.append(-min(size[output], size[read]) * shares)
            for several in taken.values():
                model.add(sum(several) <= 1)
        model.add(sum(needed) <= self.limit)

    def _hint(self) -> None:
        if self._known is None:
            return
        nodes = [step.node for step in self._known.steps if isinstance(step, Run)]
        for s in range(self.num_slots):
            for p in range(len(self.problem.nodes)):
                self._model.add_hint(self._run[s][p], int(s < len(nodes) and nodes[s] == p))

    def solve(self, effort: float, guard: Guard) -> tuple[FitPlan | None, float, bool]:
        """Returns a plan, or None; a bound of the added seconds; and whether it is proven that no plan exists.

        Args:
          effort: deterministic seconds of the solver.
          guard: ends it early.
        """
        from ortools.sat.python import cp_model

        self._solver.parameters.max_deterministic_time = effort
        if guard.is_limited:
            self._solver.parameters.max_time_in_seconds = max(guard.left(), 0.01)
        status = self._solver.solve(self._model)
        guard.reached()
        if status == cp_model.INFEASIBLE:
            # With more slots there may be a plan, unless nothing can be repeated.
            return None, self._beyond(), self._cheapest == math.inf
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None, 0.0, False
        nodes = [p for runs in self._run for p, ran in enumerate(runs) if self._solver.value(ran)]
        bound = max(0.0, float(self._solver.best_objective_bound)) / self._second
        return FitPlan(tuple(Run(node) for node in nodes)), min(bound, self._beyond()), False

    def _beyond(self) -> float:
        """Returns what a plan costs at least that has more runs than there are slots."""
        extra = self.num_slots - len(self.problem.nodes) + 1
        return extra * self._cheapest if self._cheapest < math.inf else math.inf
