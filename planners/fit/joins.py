"""Nodes that say when values which several nodes read together are all there.

Gradients whose norm is clipped are read once for the norm, and once for the update, which reads all parts of the norm
too. Before the first update, whichever it is, all gradients are needed, and none of the updates has made room. No node
of the program stands at this moment. A join does:

    parts of the norm ──┬─────┬─────┐            parts ── join ── token ──┬─────┬─────┐
                     update  update  update                            update  update  update

A join reads values that the same nodes read, takes no time and makes a value of no bytes. A plan stays one if a join
runs just before the first of its readers, at the same peak: what it reads is there. A plan for the problem with joins
is one for the problem without, if they are left out. So bounds of either hold for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from memplan.planners.fit.plan import FitPlan, Run
from memplan.planners.fit.problem import FitNode, FitProblem, FitValue

Integers = NDArray[np.int64]


class JoinedProblem:
    """A problem with its joins.

    Args:
      original: a problem that is sound.

    Attributes:
      problem: with joins; the original one if it has none.
    """

    def __init__(self, original: FitProblem):
        self._joins = _joins(original)  # by the first node that reads it, the values that each one reads
        self._original_of: list[int] = []  # of each node, -1 for a join
        self._number_of = [0] * len(original.nodes)
        self.problem = self._joined(original) if self._joins else original

    def _joined(self, original: FitProblem) -> FitProblem:
        nodes: list[FitNode] = []
        tokens: list[FitValue] = []
        reads: list[list[int]] = [[] for _ in original.nodes]
        for number, node in enumerate(original.nodes):
            for together, readers in self._joins.get(number, ()):
                token = len(original.values) + len(tokens)
                tokens.append(FitValue(f"join.{len(tokens)}", 0, len(nodes), can_offload=False))
                nodes.append(FitNode(f"join.{len(nodes)}", together, (token,), 0.0))
                self._original_of.append(-1)
                for reader in readers:
                    reads[reader].append(token)
            self._number_of[number] = len(nodes)
            self._original_of.append(number)
            nodes.append(replace(node, inputs=(*node.inputs, *reads[number])))
        values = [
            value if value.producer is None else replace(value, producer=self._number_of[value.producer])
            for value in original.values
        ]
        return FitProblem((*values, *tokens), tuple(nodes), original.host, original.name)

    def order(self, order: Sequence[int]) -> list[int]:
        """Returns an order of the original nodes with each join just before the first of its readers."""
        if not self._joins:
            return list(order)
        values, done = self.problem.values, set[int]()
        found: list[int] = []
        for number in order:
            node = self._number_of[number]
            makers = (values[value].producer for value in self.problem.nodes[node].inputs)
            joins = (maker for maker in makers if maker is not None and self._original_of[maker] < 0)
            for added in (*joins, node):
                if added not in done:
                    done.add(added)
                    found.append(added)
        return found

    def plan(self, plan: FitPlan) -> FitPlan:
        """Returns the plan for the original problem, from one for the problem with joins."""
        if not self._joins:
            return plan
        steps = (
            replace(step, node=self._original_of[step.node]) if isinstance(step, Run) else step for step in plan.steps
        )
        return FitPlan(tuple(step for step in steps if not isinstance(step, Run) or step.node >= 0))


def _joins(problem: FitProblem) -> dict[int, list[tuple[tuple[int, ...], list[int]]]]:
    """Returns the values that the same nodes read, with these nodes, by the first of them."""
    t = problem.tables
    together: dict[tuple[int, ...], list[int]] = {}
    for value in np.flatnonzero((np.diff(t.use_start) > 1) & (t.producer >= 0)).tolist():
        readers = tuple(t.uses[t.use_start[value] : t.use_start[value + 1]].tolist())
        together.setdefault(readers, []).append(value)
    found: dict[int, list[tuple[tuple[int, ...], list[int]]]] = {}
    for readers, values in together.items():
        if len({int(t.producer[value]) for value in values}) > 1:
            found.setdefault(readers[0], []).append((tuple(values), list(readers)))
    return found
