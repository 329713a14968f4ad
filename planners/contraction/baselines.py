"""What orders are compared with: tensors from left to right, and the plain greedy order."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.planners.contraction.greedy import greedy_tree
from memplan.planners.contraction.network import TensorNetwork, network_of
from memplan.planners.contraction.plan import ContractionPlan
from memplan.planners.contraction.problem import ContractionProblem
from memplan.planners.contraction.tree import TreeNode, path_of, tree_of


def left_to_right(problem: ContractionProblem) -> ContractionPlan:
    """Returns the order in which the expression is written; it may be beyond the limit."""
    count = len(problem.operands)
    path = [(0 if number == 0 else count + number - 1, number + 1) for number in range(count - 1)]
    return plan_of_path(problem, path, "left to right")


def greedy_order(problem: ContractionProblem) -> ContractionPlan:
    """Returns the order by the pair that shrinks memory most; it may be beyond the limit."""
    network = network_of(problem)
    return plan_of_tree(problem, network, greedy_tree(network), 0.0, "greedy")


def plan_of_path(problem: ContractionProblem, path: Sequence[Sequence[int]], method: str) -> ContractionPlan:
    """Returns the plan of a path, such as another library's, in the order of execution that has the least peak."""
    network = network_of(problem)
    return plan_of_tree(problem, network, tree_of(network, path), 0.0, method)


def plan_of_tree(
    problem: ContractionProblem, network: TensorNetwork, root: TreeNode, bound: float, method: str
) -> ContractionPlan:
    """Returns the plan of a tree over all tensors."""
    flops, peak = network.first_flops + root.flops, root.peak
    if root.sides is None:
        peak = network.elements(root.indices) * network.itemsize
    least = min(max(bound, 0.0), flops if problem.minimize == "flops" else peak)
    path = path_of(root, len(problem.operands))
    return ContractionPlan(path, flops, peak, problem.minimize, least, method)
