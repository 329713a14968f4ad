"""A lower bound of the seconds that any plan within a limit adds, in any order, by linear programming.

Choose nodes `k_1, …, k_m` that depend on each other in this order, so that they first run in this order in every plan.
They cut a plan into stages: stage j ends with the first run of `k_j`. For any plan let

    R[j, p]     whether node p runs in stage j
    S[j, v]     whether value v has its room while `k_j` first runs, and is needed afterwards
    L[j, v]     whether a load of value v from the host is issued in stage j
    Y[i, j, p]  whether node p runs in any of the stages i … j; Y[j, j, p] is R[j, p]

Then the following holds for any stages i <= j, with A = S[i - 1, v] + Y[i, j, producer of v] + sum of L[i … j, v]:

    Y[i, j, p] <= A              for each input v of p: its instance was resident before, or is made or loaded here
    S[j, v] <= A                 for the same reason
    1 <= A                       for each result v, if j is the last stage
    Y[i, j, p] <= Y[i, l, p] + Y[l + 1, j, p], and neither of these is more than Y[i, j, p]
    Y[i, j, p] = 1               if p must first run in these stages, in any order

What is resident while `k_j` runs, with its inputs and outputs, is within the limit. The program that minimizes the
seconds of all R, less one run of each node, is a relaxation. In the linear program, fractions of R may spread over
several stages. The rows with i < j bind them together, so that one more cut never lowers the bound.

The transfers of one direction follow each other. A load that is issued after the first run of `k_j` ends before the
plan does, so all of these take no longer than the runs in the stages after j, and the waits in them. A value that is
loaded after `k_j`, is not made again after it and has no room while `k_j` runs, was stored before. All of these stores
take no longer than the runs in the stages up to j, and the waits in them.

This is Checkmate's integer program (Jain et al., 2020, equations 1 and 7) for any order, with fewer stages, with rows
for several stages at once, and without the memory in between. The linear program is solved, and its bound is proven by
weak duality (`planners/ilp/linear.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.planners.fit.least_peak import Across
from memplan.planners.fit.problem import FitProblem
from memplan.planners.ilp.integer_solver import SolverTask
from memplan.planners.ilp.linear import ONE, ZERO, Affine, LinearProgram, add_up, column
from memplan.planners.ilp.simplex import Simplex

Integers = NDArray[np.int64]

# Numbers of cuts that are tried, and the most columns of a program, of one with more than one cut that is solved in
# integers, and of one with a single cut.
_CUTS = (1, 4, 30)
_MOST_COLUMNS, _MOST_INTEGERS, _MOST_OF_ONE = 20_000, 2_500, 5_000


def choose_cuts(problem: FitProblem, across: Across, limit: int, most: int) -> list[int]:
    """Returns nodes that depend on each other, in their order: those around which most bytes lie above the limit."""
    n = len(problem.nodes)
    sizes = problem.tables.size
    excess = np.array([float(across.local[k] + sizes[across.values(k)].sum() - limit) for k in range(n)])
    weight = np.maximum(excess, 0.0)
    if not weight.any():
        return []
    best, via = weight.copy(), np.full(n, -1)
    for k, node in enumerate(problem.nodes):
        producers = {p for v in node.inputs if (p := problem.values[v].producer) is not None}
        for p in sorted(producers):
            if best[p] + weight[k] > best[k]:
                best[k], via[k] = best[p] + weight[k], p
    path, k = [], int(np.argmax(best))
    while k >= 0:
        if weight[k] > 0.0:
            path.append(k)
        k = int(via[k])
    path.reverse()
    if len(path) <= most:
        return path
    # The one with the most bytes, and others at equal distances.
    peak = int(np.argmax(weight[path]))
    chosen = {round(i * (len(path) - 1) / max(1, most - 1)) for i in range(most)}
    nearest = min(chosen, key=lambda i: abs(i - peak))
    return [path[i] for i in sorted(chosen - {nearest} | {peak})]


@dataclass(frozen=True)
class _Stages:
    """The stages in which each node may run first, `[nodes]`; the stages count from 0, the last ends the program."""

    first: Integers
    last: Integers


class StageProgram:
    """The linear program of the relaxation.

    Args:
      problem: that is sound.
      across: of the problem, with relations.
      cuts: the nodes that end the stages but the last.
      limit: bytes.

    Attributes:
      program: in units of all seconds of the program together.
      waits: its columns of seconds, by stage; all others are 0 or 1 in a plan. Empty without a host.
      unit: bytes in one unit of the rows of memory.
      memory_rows: the numbers of these rows.
    """

    def __init__(self, problem: FitProblem, across: Across, cuts: list[int], limit: int):
        self.problem, self.across, self.cuts, self.limit = problem, across, cuts, limit
        self.t = problem.tables
        self.total = max(float(self.t.seconds.sum()), 1e-300)
        self.program = LinearProgram()
        self.waits: list[int] = []
        self.unit, self.memory_rows = max(1.0, float(limit)), set[int]()
        self.stages = self._stages()
        self._run: dict[tuple[int, int, int], Affine] = {}
        self._stay: dict[tuple[int, int], Affine] = {}
        self._load: dict[tuple[int, int], Affine] = {}
        self._write()

    def _stages(self) -> _Stages:
        relations, n, m = self.across.relations, len(self.problem.nodes), len(self.cuts)
        assert relations is not None
        first, last = np.zeros(n, np.int64), np.full(n, m, np.int64)
        for j, k in enumerate(self.cuts):
            first[relations.after(k)] = j + 1
        for j, k in reversed(list(enumerate(self.cuts))):
            last[relations.before(k)] = j
        for j, k in enumerate(self.cuts):
            first[k] = last[k] = j
        return _Stages(first, last)

    def _write(self) -> None:
        program, t, m = self.program, self.t, len(self.cuts)
        for p in range(len(self.problem.nodes)):
            first, last = int(self.stages.first[p]), int(self.stages.last[p])
            cost = float(t.seconds[p]) / self.total
            for j in range(first, (m if t.can_repeat[p] else last) + 1):
                low = 1.0 if first == last == j else 0.0
                self._run[j, j, p] = column(program.add_column(low, 1.0, cost))
            if not t.can_repeat[p]:
                program.at_most(add_up(self._run[j, j, p] for j in range(first, last + 1)), 1.0)
            program.constant -= cost
        read = np.diff(t.use_start) > 0
        self._movers = [v for v in range(len(t.size)) if not t.stays[v] and (read[v] or t.is_result[v])]
        self._add_columns_of_values(m)
        for width in range(m + 1):
            for i in range(m + 1 - width):
                if width > 0:
                    self._join_runs(i, i + width)
                self._serve_reads(i, i + width)
        self._limit_memory()
        self._limit_transfers()

    def _add_columns_of_values(self, m: int) -> None:
        for v in self._movers:
            p = int(self.t.producer[v])
            for j in range(int(self.stages.first[p]) if p >= 0 else 0, m + 1):
                if self.t.can_offload[v]:
                    self._load[j, v] = load = self.program.fraction()
                    if p >= 0 and j < self.stages.last[p]:
                        # What is loaded was made before.
                        made = (self._run[i, i, p] for i in range(int(self.stages.first[p]), j + 1))
                        self.program.at_most(load - add_up(made))
                if j < m:
                    self._stay[j, v] = self.program.fraction()

    def _join_runs(self, i: int, j: int) -> None:
        """Writes whether each node runs in any of the stages i … j, given the same of fewer stages."""
        program = self.program
        for p in range(len(self.problem.nodes)):
            parts = [(self._run.get((i, k, p)), self._run.get((k + 1, j, p))) for k in range(i, j)]
            known = [part for pair in parts for part in pair if part is not None]
            is_sure = bool(i <= self.stages.first[p] and self.stages.last[p] <= j)
            if not known:
                continue
            joined = ONE if is_sure else program.fraction()
            self._run[i, j, p] = joined
            for left, right in parts:
                program.at_most(joined - (left or ZERO) - (right or ZERO))
            if not is_sure:
                for part in known:
                    program.at_most(part - joined)

    def _serve_reads(self, i: int, j: int) -> None:
        """Requires that what the stages i … j read, and what is resident after them, comes from somewhere."""
        program, t, m = self.program, self.t, len(self.cuts)
        available = {v: self._available(i, j, v) for v in self._movers}
        for p, node in enumerate(self.problem.nodes):
            runs = self._run.get((i, j, p))
            if runs is not None:
                for v in node.inputs:
                    if not t.stays[v]:
                        program.at_most(runs - available[v])
        for v in self._movers:
            if (j, v) in self._stay:
                program.at_most(self._stay[j, v] - available[v])
            if j == m and t.is_result[v]:
                program.at_most(ONE - available[v])

    def _available(self, i: int, j: int, v: int) -> Affine:
        """Returns in how far a value can be read in the stages i … j."""
        p = int(self.t.producer[v])
        # A donated argument is resident at first.
        before = ONE if i == 0 and p < 0 else self._stay.get((i - 1, v), ZERO)
        loads = add_up(self._load[k, v] for k in range(i, j + 1) if (k, v) in self._load)
        return before + (self._run.get((i, j, p), ZERO) if p >= 0 else ZERO) + loads

    def _limit_memory(self) -> None:
        t = self.t
        for j, k in enumerate(self.cuts):
            room = float(self.limit - self.across.local[k])
            node = self.problem.nodes[k]
            own = {*node.inputs, *node.outputs}
            terms = (
                self._stay[j, v].scaled(float(t.size[v]) / self.unit)
                for v in self._movers
                if (j, v) in self._stay and v not in own
            )
            self.memory_rows.add(len(self.program.row_low))
            self.program.at_most(add_up(terms), room / self.unit)

    def runs(self, solution: NDArray[np.float64]) -> list[list[int]]:
        """Returns the nodes that run in each stage of a solution in integers, `[columns]`: ascending, its cut last."""
        nodes, last = range(len(self.problem.nodes)), len(self.cuts)
        found = [
            [p for p in nodes if (j, j, p) in self._run and self._run[j, j, p].value(solution) > 0.5]
            for j in range(last + 1)
        ]
        return [sorted(stage, key=lambda p: (p == cut, p)) for stage, cut in zip(found, [*self.cuts, -1], strict=True)]

    def _limit_transfers(self) -> None:
        host, t, program, m = self.problem.host, self.t, self.program, len(self.cuts)
        if host is None or not self._load:
            return
        moved = sorted({v for _, v in self._load})
        loads = {v: (host.latency + float(t.size[v]) / host.from_host) / self.total for v in moved}
        stores = {v: (host.latency + float(t.size[v]) / host.to_host) / self.total for v in moved}
        most = (m + 1) * sum(loads.values()) + sum(stores.values())
        self.waits = [program.add_column(0.0, most, 1.0) for _ in range(m + 1)]
        elapsed = [
            column(self.waits[j])
            + add_up(
                self._run[j, j, p].scaled(float(t.seconds[p]) / self.total)
                for p in range(len(self.problem.nodes))
                if (j, j, p) in self._run
            )
            for j in range(m + 1)
        ]
        for i in range(m + 1):
            late = add_up(load.scaled(loads[v]) for (j, v), load in self._load.items() if j >= i)
            program.at_most(late - add_up(elapsed[i:]))
        for j in range(m + 1):
            stored = {v: program.fraction() for v in moved}
            for (k, v), load in self._load.items():
                if k > j:
                    made = self._run.get((j + 1, m, int(t.producer[v])), ZERO)
                    program.at_most(load - self._stay.get((j, v), ZERO) - made - stored[v])
                elif j == m:
                    program.at_most(load - stored[v])
            early = add_up(store.scaled(stores[v]) for v, store in stored.items())
            program.at_most(early - add_up(elapsed[: j + 1]))


def cost_bound(problem: FitProblem, across: Across, limit: int, work: float, nodes: int, guard: Guard) -> float:
    """Returns seconds that any plan within the limit adds at least; 0 if that is all that is proven.

    More cuts give better bounds in theory. Their programs are larger, and some are not solved to the end, so the best
    of several is returned. Small programs are solved in integers too.

    Args:
      problem: that is sound.
      across: of the problem, with relations.
      limit: bytes; at least `least_peak`.
      work: of the simplex method for each program: iterations times entries.
      nodes: of the tree of the integer program; 0 to leave it out.
      guard: ends it early.
    """
    best = 0.0
    for wanted in _CUTS:
        most = _most_cuts(problem, wanted)
        cuts = choose_cuts(problem, across, limit, most)
        if not cuts or guard.reached():
            break
        stages = StageProgram(problem, across, cuts, limit)
        rows = stages.program.finished()
        best = max(best, Simplex(rows, work, guard).solve().bound * stages.total)
        if nodes > 0 and len(rows.low) <= (_MOST_OF_ONE if len(cuts) == 1 else _MOST_INTEGERS):
            is_integer = np.ones(len(rows.low), np.bool_)
            is_integer[stages.waits] = False
            integer = replace(rows, is_integer=is_integer)
            best = max(best, SolverTask(integer, nodes, guard, 1e-6, 5).result().bound * stages.total)
        if len(cuts) < most or most < wanted:
            break
    return best


def _most_cuts(problem: FitProblem, wanted: int) -> int:
    """Returns how many cuts a program may have so that its columns are few enough; at least one."""
    n, num_values = len(problem.nodes), len(problem.values)
    fits = (k for k in range(wanted, 1, -1) if (k + 1) * ((k + 2) * n / 2 + 2 * num_values) <= _MOST_COLUMNS)
    return next(fits, 1)
