"""A problem in which every run of a plan is a node of its own.

Where it is decided which nodes run again and what they serve, the order is all that is open. The expanded problem has
a node for each run, and a value for each instance, so orders are found for it as for any other program, and a search
may recompute more of it. A plan for it is one for the original problem at the same peak, or at a lower one.

    original:   f ── a ─┬─ g          f runs twice:   f ── a ── g
                        └─ h                          f'── a'── h
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memplan.planners.fit.plan import FitPlan, FitStep, Run
from memplan.planners.fit.problem import FitProblem, FitValue

# Stands for the run that makes an argument.
_AT_FIRST = -1


class Expansion:
    """The expanded problem of runs in stages.

    What a run reads was made by the last run of the producer before it. A run that nothing reads is left out if its
    node runs elsewhere too.

    Args:
      problem: the original one.
      runs: the nodes that run in each stage, in an order in which what they read is made before.

    Attributes:
      problem: the expanded one.
      added: seconds of all runs beyond the first of each node.
    """

    def __init__(self, problem: FitProblem, runs: Sequence[Sequence[int]]):
        self._original = problem
        flat = [node for stage in runs for node in stage]
        reads, results = _instances(problem, flat)
        kept = _kept(problem, flat, reads, results)
        self._node_of = [flat[run] for run in kept]
        self._value_of: list[int] = []
        self.problem = self._expanded(kept, reads, results)
        self.added = sum(node.seconds for node in self.problem.nodes) - sum(node.seconds for node in problem.nodes)

    def _expanded(self, kept: list[int], reads: list[dict[int, int]], results: dict[int, int]) -> FitProblem:
        original = self._original
        values: list[FitValue] = []
        number: dict[tuple[int, int], int] = {}

        def make(value: int, run: int, producer: int | None) -> int:
            is_result = original.values[value].is_result and results[value] == run
            number[value, run] = len(values)
            self._value_of.append(value)
            values.append(replace(original.values[value], producer=producer, is_result=is_result))
            return number[value, run]

        for value, described in enumerate(original.values):
            if described.producer is None:
                make(value, _AT_FIRST, None)
        nodes = []
        for place, run in enumerate(kept):
            node, read = original.nodes[self._node_of[place]], reads[run]
            outputs = {value: make(value, run, place) for value in node.outputs}
            nodes.append(
                replace(
                    node,
                    inputs=tuple(number[value, read[value]] for value in node.inputs),
                    outputs=tuple(outputs.values()),
                    in_place=tuple((outputs[output], number[value, read[value]]) for output, value in node.in_place),
                )
            )
        return FitProblem(tuple(values), tuple(nodes), original.host, original.name)

    def late_runs(self, order: Sequence[int]) -> list[int]:
        """Returns an order of the expanded problem: first runs as in a given order, others when they are first read."""
        first: dict[int, int] = {}
        for run, node in enumerate(self._node_of):
            first.setdefault(node, run)
        done: dict[int, None] = {}
        for node in order:
            stack = [first[node]]
            while stack:
                needed = self._not_done(stack[-1], done)
                if needed:
                    stack += needed
                else:
                    done.setdefault(stack.pop())
        # What makes results alone is read at the end.
        for run in range(len(self._node_of)):
            done.setdefault(run)
        return list(done)

    def _not_done(self, run: int, done: dict[int, None]) -> list[int]:
        """Returns the runs that make what a run reads and that are not done, the first one last."""
        made_by = (self.problem.values[value].producer for value in self.problem.nodes[run].inputs)
        return sorted({maker for maker in made_by if maker is not None and maker not in done}, reverse=True)

    def plan(self, plan: FitPlan) -> FitPlan:
        """Returns the plan for the original problem, from one for the expanded problem."""
        return FitPlan(tuple(map(self._step, plan.steps)))

    def _step(self, step: FitStep) -> FitStep:
        if isinstance(step, Run):
            return Run(self._node_of[step.node])
        return type(step)(self._value_of[step.value])


def _instances(problem: FitProblem, flat: list[int]) -> tuple[list[dict[int, int]], dict[int, int]]:
    """Returns the run that makes each value that each run reads, and the run that makes each result."""
    latest: dict[int, int] = {}
    made_by = [value.producer for value in problem.values]
    reads = []
    for run, node in enumerate(flat):
        inputs = problem.nodes[node].inputs
        reads.append({v: _AT_FIRST if (p := made_by[v]) is None else latest[p] for v in inputs})
        latest[node] = run
    results = {
        v: _AT_FIRST if (p := made_by[v]) is None else latest[p]
        for v, value in enumerate(problem.values)
        if value.is_result
    }
    return reads, results


def _kept(problem: FitProblem, flat: list[int], reads: list[dict[int, int]], results: dict[int, int]) -> list[int]:
    """Returns the runs without those that nothing reads, each node once at least."""
    readers, left = [0] * len(flat), [0] * len(problem.nodes)
    for makers in (*reads, results):
        for maker in makers.values():
            if maker != _AT_FIRST:
                readers[maker] += 1
    for node in flat:
        left[node] += 1
    kept = []
    for run in range(len(flat) - 1, -1, -1):
        if readers[run] == 0 and left[flat[run]] > 1:
            left[flat[run]] -= 1
            for maker in reads[run].values():
                if maker != _AT_FIRST:
                    readers[maker] -= 1
        else:
            kept.append(run)
    return kept[::-1]
