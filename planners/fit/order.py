"""Orders in which the nodes may run so that they need little memory, without any recomputation: it costs no time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from memplan.planners.fit.order_kernel import FitOrder, fill_order, search_orders
from memplan.planners.fit.problem import FitProblem

Integers = NDArray[np.int64]

# The most places by which the local search takes a node at once.
_REACH = 200


class Orderer:
    """Finds orders of a problem's nodes with few bytes above a limit.

    Attributes:
      problem: that is sound.
      limit: bytes.
    """

    def __init__(self, problem: FitProblem, limit: int):
        self.problem, self.limit = problem, limit
        tables = problem.tables
        self.start = int(tables.size[tables.producer < 0].sum())
        n, num_values = len(problem.nodes), len(problem.values)
        self._order = FitOrder(
            size=tables.size,
            producer=tables.producer,
            stays=tables.stays,
            is_result=tables.is_result,
            workspace=tables.workspace,
            input_start=tables.input_start,
            inputs=tables.inputs,
            output_start=tables.output_start,
            outputs=tables.outputs,
            use_start=tables.use_start,
            uses=tables.uses,
            pair_start=tables.pair_start,
            pair_output=tables.pair_output,
            pair_input=tables.pair_input,
            order=np.arange(n, dtype=np.int64),
            position=np.zeros(n, np.int64),
            need=np.zeros(n, np.int64),
            left=np.zeros(n, np.int64),
            last=np.zeros(num_values, np.int64),
            trial_need=np.zeros(n, np.int64),
            trial_left=np.zeros(n, np.int64),
            trial=np.zeros(n, np.int64),
            reads=np.zeros(num_values, np.int64),
            over=np.zeros(2),
        )

    def measured(self, order: Sequence[int] | Integers) -> tuple[float, int]:
        """Returns the bytes above the limit, summed over the stages, and the peak of an order."""
        self._order.order[:] = order
        fill_order(self._order, self.start, self.limit)
        return float(self._order.over[0]), int(self._order.need.max(initial=self.start))

    def improved(self, order: Sequence[int] | Integers, work: int, seed: int) -> Integers:
        """Returns an order by local search, given the nodes to look at."""
        self.measured(order)
        search_orders(self._order, self.start, self.limit, work, _REACH, np.array([seed & (2**64 - 1)], np.uint64))
        return self._order.order.copy()

    def best(self, work: int, seed: int, *given: Integers) -> Integers:
        """Returns the best order found: of the program, those that are given, by rules, and by local search."""
        program = np.arange(len(self.problem.nodes), dtype=np.int64)
        eager = eager_order(self.problem, program)
        late = late_order(self.problem, program)
        starts = [program, *given, eager, late, eager_order(self.problem, late)]
        # Of equal ones, the first: the program's own order, if it is as good.
        found = [self.measured(start) for start in starts]
        number = found.index(min(found))
        return starts[number] if found[number][0] == 0.0 else self.improved(starts[number], work, seed)


class _Agenda:
    """The nodes that are still to run: those that were offered come first, the others in a given order.

    Args:
      order: the nodes.

    Attributes:
      done: `[nodes]` whether each was taken.
    """

    def __init__(self, order: Integers):
        self._order = order.tolist()
        self._rank = np.argsort(order).tolist()
        self._offered: list[tuple[int, int]] = []
        self._position = 0
        self.done = [False] * len(order)

    def offer(self, node: int) -> None:
        """Lets a node come before those that are not offered, if it is not done."""
        if not self.done[node]:
            heapq.heappush(self._offered, (self._rank[node], node))

    def __iter__(self) -> Iterator[int]:
        """Yields each node once; others may be offered in between."""
        for _ in self._order:
            while self._offered and self.done[self._offered[0][1]]:
                heapq.heappop(self._offered)
            if self._offered:
                node = heapq.heappop(self._offered)[1]
            else:
                while self.done[self._order[self._position]]:
                    self._position += 1
                node = self._order[self._position]
            self.done[node] = True
            yield node


def eager_order(problem: FitProblem, order: Integers) -> Integers:
    """Returns an order in which nodes that free at least what they make run as soon as they can.

    The others run as in the given order.
    """
    tables = problem.tables
    uses_left = np.diff(tables.use_start).tolist()
    size, movable = tables.size.tolist(), (~tables.stays & ~tables.is_result).tolist()
    waits = [sum(tables.producer[v] >= 0 for v in node.inputs) for node in problem.nodes]
    net = [sum(size[v] for v in node.outputs if uses_left[v] or problem.values[v].is_result) for node in problem.nodes]
    readers = [tables.uses[tables.use_start[v] : tables.use_start[v + 1]].tolist() for v in range(len(size))]
    agenda = _Agenda(order)

    def offer(node: int) -> None:
        if waits[node] == 0 and net[node] <= 0:
            agenda.offer(node)

    def last_reader(v: int) -> None:
        if uses_left[v] == 1 and movable[v]:
            node = next(reader for reader in readers[v] if not agenda.done[reader])
            net[node] -= size[v]
            offer(node)

    for v in range(len(size)):
        last_reader(v)
    result: list[int] = []
    for node in agenda:
        result.append(node)
        for v in problem.nodes[node].inputs:
            uses_left[v] -= 1
            last_reader(v)
        for v in problem.nodes[node].outputs:
            for reader in readers[v]:
                waits[reader] -= 1
                offer(reader)
    return np.array(result, np.int64)


def late_order(problem: FitProblem, order: Integers) -> Integers:
    """Returns an order in which nodes that make at least what they free run as late as they can."""
    tables = problem.tables
    size = tables.size.tolist()
    uses = np.diff(tables.use_start).tolist()
    live = [problem.values[v].is_result or bool(tables.stays[v]) for v in range(len(size))]
    waits = [sum(uses[v] for v in node.outputs) for node in problem.nodes]
    # What is resident before a node minus what is resident after it, looked at from the end.
    net = [
        sum(size[v] for v in node.inputs if not live[v])
        - sum(size[v] for v in node.outputs if uses[v] or problem.values[v].is_result)
        for node in problem.nodes
    ]
    agenda = _Agenda(order[::-1])

    def offer(node: int) -> None:
        if waits[node] == 0 and net[node] <= 0:
            agenda.offer(node)

    for node in range(len(order)):
        offer(node)
    result: list[int] = []
    for node in agenda:
        result.append(node)
        for v in problem.nodes[node].inputs:
            if not live[v]:
                live[v] = True
                for reader in tables.uses[tables.use_start[v] : tables.use_start[v + 1]].tolist():
                    net[reader] -= size[v]
                    offer(reader)
            producer = problem.values[v].producer
            if producer is not None:
                waits[producer] -= 1
                offer(producer)
    return np.array(result[::-1], np.int64)
