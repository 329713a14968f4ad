"""A peak that no plan can be below, whatever it recomputes, moves or reorders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memplan.planners.fit.problem import FitProblem

Integers = NDArray[np.int64]

# The most nodes for which all ancestors are known: a bit for each pair of nodes.
MAX_RELATED = 20_000


class Relations:
    """Which nodes must first run before which others, in every order.

    Attributes:
      ancestors: `[nodes, ceil(nodes / 8)]` bits, in the order of `numpy.packbits`.
    """

    def __init__(self, problem: FitProblem):
        n = len(problem.nodes)
        self.num_nodes = n
        self.ancestors = np.zeros((n, -(-n // 8)), np.uint8)
        for k, node in enumerate(problem.nodes):
            row = self.ancestors[k]
            for v in node.inputs:
                p = problem.values[v].producer
                if p is not None:
                    np.bitwise_or(row, self.ancestors[p], out=row)
                    row[p >> 3] |= 128 >> (p & 7)

    def before(self, k: int) -> NDArray[np.bool_]:
        """Returns which nodes run before node k, `[nodes]`."""
        return np.unpackbits(self.ancestors[k], count=self.num_nodes).astype(np.bool_)

    def after(self, k: int) -> NDArray[np.bool_]:
        """Returns which nodes run after node k, `[nodes]`."""
        return (self.ancestors[:, k >> 3] & (128 >> (k & 7))) != 0


class Across:
    """Which values must be alive, or dropped and made again, while a node first runs, in every order.

    Attributes:
      relations: of the nodes; None where they are not known.
      local: `[nodes]` bytes of the inputs, outputs and workspace of each node, less what may be computed in place, and
        with the arguments that stay.
      end: bytes of the results and of the arguments that stay.
    """

    def __init__(self, problem: FitProblem, relations: Relations | None):
        self._problem, self.relations = problem, relations
        t = problem.tables
        self._kept = int(t.size[t.stays].sum())
        self.local = np.array([self._local(k) for k in range(len(problem.nodes))], np.int64)
        self.end = self._kept + int(t.size[t.is_result & ~t.stays].sum())
        self._readers = np.repeat(np.arange(len(t.size)), np.diff(t.use_start))

    def _local(self, k: int) -> int:
        t, node = self._problem.tables, self._problem.nodes[k]
        shared: dict[int, int] = {}
        for output, read in node.in_place:
            if not t.stays[read]:
                shared[output] = max(shared.get(output, 0), min(int(t.size[output]), int(t.size[read])))
        moving = sum(int(t.size[v]) for v in node.inputs if not t.stays[v])
        made = sum(int(t.size[v]) for v in node.outputs)
        return self._kept + moving + made + node.workspace - sum(shared.values())

    def values(self, k: int) -> NDArray[np.bool_]:
        """Returns which values are made before node k first runs and are needed after it, `[values]`.

        Its own inputs and outputs, and the arguments that stay, are not among them.
        """
        t, related = self._problem.tables, self.relations
        if related is None:
            return np.zeros(len(t.size), np.bool_)
        made = np.append(related.before(k), True)[t.producer]
        needed = t.is_result.copy()
        needed[self._readers[related.after(k)[t.uses]]] = True
        across = made & needed & ~t.stays
        across[list(self._problem.nodes[k].inputs)] = False
        across[list(self._problem.nodes[k].outputs)] = False
        return across


def least_peak(problem: FitProblem, across: Across) -> int:
    """Returns bytes that any plan needs at some step.

    Each node needs its inputs, outputs and workspace at once, beside the arguments that stay. A value that can be
    neither computed again nor stored on the host stays from its first run to its last use.
    """
    t = problem.tables
    repeatable = np.append(t.can_repeat, False)[t.producer]
    fixed = ~repeatable & ~t.can_offload & ~t.stays
    least = across.end
    any_fixed = bool(fixed.any())
    for k in range(len(problem.nodes)):
        here = int(across.local[k])
        if any_fixed:
            here += int(t.size[across.values(k) & fixed].sum())
        least = max(least, here)
    return least
