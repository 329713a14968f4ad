"""What comes before any plan: the kernels are compiled, once after an installation, or loaded from their cache."""

from __future__ import annotations

from functools import cache

from memplan.planners.fit.order import Orderer
from memplan.planners.fit.problem import FitNode, FitProblem, FitValue
from memplan.planners.fit.searcher import FitSearcher

# Two values are kept for the end; room is there for one of them and the value at hand.
_SIZE, _LIMIT = 2, 7


@cache
def prepare() -> None:
    """Plans a problem of six nodes by every method that has kernels."""
    problem = _problem()
    orderer = Orderer(problem, _LIMIT)
    order = orderer.improved(range(len(problem.nodes)), 10, 0)
    searcher = FitSearcher(problem, order, _LIMIT)
    searcher.start()
    searcher.go_on(10, 0.0)
    searcher.plan()


def _problem() -> FitProblem:
    """Returns a forward pass of three nodes and the backward pass that reads what it made."""
    values = [FitValue("x", 1)]
    nodes = []
    for k, inputs in enumerate(((0,), (1,), (2,), (3,), (4, 2), (5, 1))):
        values.append(FitValue(f"value {k}", _SIZE, k, is_result=k == 5))
        nodes.append(FitNode(f"node {k}", inputs, (k + 1,), 1.0))
    return FitProblem(tuple(values), tuple(nodes))
