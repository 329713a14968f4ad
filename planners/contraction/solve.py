"""The entry: the best order of contraction that is found, and the proof.

Greedy trees with noise, improved part by part, give an order. The dynamic program over subsets then looks for a better
one under caps that rise to it: a cap that no order is within is a bound.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from memplan.compiler.effort import Effort
from memplan.compiler.errors import PlannerError
from memplan.planners.contraction.baselines import plan_of_tree
from memplan.planners.contraction.bound import easy_bound
from memplan.planners.contraction.exact import MAX_NODES, SubsetSearch
from memplan.planners.contraction.greedy import greedy_tree
from memplan.planners.contraction.network import TensorNetwork, network_of
from memplan.planners.contraction.plan import ContractionPlan
from memplan.planners.contraction.problem import ContractionProblem
from memplan.planners.contraction.reconfigure import reconfigure
from memplan.planners.contraction.tree import TreeNode, leaf, tree_of

# Caps rise by this factor.
_RISE = 8.0

# The trees of the greedy runs that are improved.
_IMPROVED = 4


@dataclass(frozen=True)
class _Amounts:
    """How much work an effort is.

    Attributes:
      runs: greedy trees with noise.
      size: nodes of a part that is searched exactly.
      rounds: of such searches.
      pairs: that the dynamic program looks at.
    """

    runs: int
    size: int
    rounds: int
    pairs: float


_FAST, _NORMAL, _HIGH = _Amounts(16, 6, 4, 1e7), _Amounts(128, 8, 12, 1.5e8), _Amounts(1024, 10, 40, 2e9)

# Greedy trees are fewer where there are more tensors than this.
_MANY = 200


def solve_contraction(problem: ContractionProblem, effort: Effort = Effort.NORMAL, seed: int = 0) -> ContractionPlan:
    """Returns the best order that is found, with a bound that no order beats.

    A product of three matrices and a vector is cheapest from the right:

    >>> from memplan.planners.contraction import contraction_problem
    >>> plan = solve_contraction(contraction_problem("ij,jk,kl,l->i", dict(i=64, j=64, k=64, l=64)))
    >>> plan.path, plan.flops, plan.is_optimal
    (((2, 3), (1, 4), (0, 5)), 24576, True)

    Args:
      problem: the tensors, and what to minimize.
      effort: how many trees are tried, and how many subsets the dynamic program makes.
      seed: of the noise.

    Raises:
      PlannerError: the problem is malformed, or no order is found within the limit; the message says the least that
        was found, and whether it is proven that there is none.
    """
    problem.check()
    network = network_of(problem)
    if len(network.leaves) == 1:
        best, bound, method = leaf(network, 0), math.inf, "exact"
    else:
        best, bound, method = _solved(problem, network, effort, seed)
    if problem.minimize == "flops":
        bound += network.first_flops
    plan = plan_of_tree(problem, network, best, bound, method)
    limited = plan.peak if problem.limited == "peak" else plan.flops
    if problem.limit is not None and limited > problem.limit:
        if len(network.leaves) == 1:
            raise PlannerError(f"no order has {_within(problem)}: the least is {limited:,}")
        raise AssertionError("an order beyond the limit was taken for one within it")
    return plan


def _solved(
    problem: ContractionProblem, network: TensorNetwork, effort: Effort, seed: int
) -> tuple[TreeNode, float, str]:
    """Returns the best tree, the bound, and the method."""
    amounts = effort.of(_FAST, _NORMAL, _HIGH)
    limit = math.inf if problem.limit is None else problem.limit
    if problem.limited == "flops":
        limit -= network.first_flops
    best = _searched(problem, network, limit, amounts, seed)
    if _values(problem, best)[1] > limit:
        best = _within_limit(problem, network, effort, seed)
    bound, method = easy_bound(network, problem.minimize), "search"
    if len(network.leaves) <= MAX_NODES:
        found, proven = _proven(problem, network, limit, bound, best, amounts.pairs)
        if found is not None:
            best, method = found, "exact"
        bound = max(bound, proven)
    return best, bound, method


def _within_limit(problem: ContractionProblem, network: TensorNetwork, effort: Effort, seed: int) -> TreeNode:
    """Returns a tree within the limit; raises PlannerError if the least of what it limits is beyond it."""
    least = solve_contraction(replace(problem, minimize=problem.limited, limit=None), effort, seed)
    if problem.limit is not None and least.minimized > problem.limit:
        if least.is_optimal:
            raise PlannerError(f"no order has {_within(problem)}: the least is {least.minimized:,}")
        raise PlannerError(
            f"found no order with {_within(problem)}: the least that was found is {least.minimized:,}, and the least "
            f"that is possible is above {math.floor(least.bound):,}"
        )
    return tree_of(network, least.path)


def _within(problem: ContractionProblem) -> str:
    return f"a peak within {problem.limit:,} bytes" if problem.limited == "peak" else f"flops within {problem.limit:,}"


def _searched(
    problem: ContractionProblem, network: TensorNetwork, limit: float, amounts: _Amounts, seed: int
) -> TreeNode:
    """Returns the best of greedy trees, the better ones improved."""

    def rank(tree: TreeNode) -> tuple[float, ...]:
        value, other = _values(problem, tree)
        return (max(0.0, other - limit), value, other)

    draw = random.Random(seed)
    runs = max(_IMPROVED, amounts.runs * _MANY // max(_MANY, len(network.leaves)))
    trees = [greedy_tree(network), *(greedy_tree(network, draw) for _ in range(runs))]
    best = sorted(trees, key=rank)[:_IMPROVED]
    improved = [
        reconfigure(network, tree, rank, problem.minimize, limit, amounts.size, amounts.rounds) for tree in best
    ]
    return min(improved, key=rank)


def _proven(
    problem: ContractionProblem, network: TensorNetwork, limit: float, least: float, best: TreeNode, pairs: float
) -> tuple[TreeNode | None, float]:
    """Returns the best tree if the dynamic program gets to it, and what no tree is below."""
    known = float(_values(problem, best)[0])
    search = SubsetSearch(
        network, [leaf(network, number) for number in range(len(network.leaves))], problem.minimize, limit
    )
    rises = max(0, math.ceil(math.log(max(known, 1.0) / max(least, 1.0), _RISE)))
    bound = least
    for rise in reversed(range(rises + 1)):
        cap = known / _RISE**rise
        result = search.run(cap, pairs)
        pairs -= result.work
        if not result.finished:
            return None, bound
        if result.tree is not None:
            return result.tree, float(_values(problem, result.tree)[0])
        bound = cap
    return None, bound


def _values(problem: ContractionProblem, tree: TreeNode) -> tuple[int, int]:
    """Returns what is minimized, and the other."""
    return (tree.flops, tree.peak) if problem.minimize == "flops" else (tree.peak, tree.flops)
