"""The order in which a network of tensors is contracted pair by pair: flops and peak. `solve.py` is the entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.planners.contraction.baselines import greedy_order as greedy_order
    from memplan.planners.contraction.baselines import left_to_right as left_to_right
    from memplan.planners.contraction.baselines import plan_of_path as plan_of_path
    from memplan.planners.contraction.plan import ContractionPlan as ContractionPlan
    from memplan.planners.contraction.problem import ContractionProblem as ContractionProblem
    from memplan.planners.contraction.problem import contraction_problem as contraction_problem
    from memplan.planners.contraction.solve import solve_contraction as solve_contraction
    from memplan.planners.contraction.verifier import verify_contraction as verify_contraction

_PLACES = {
    "ContractionPlan": "memplan.planners.contraction.plan:ContractionPlan",
    "ContractionProblem": "memplan.planners.contraction.problem:ContractionProblem",
    "contraction_problem": "memplan.planners.contraction.problem:contraction_problem",
    "greedy_order": "memplan.planners.contraction.baselines:greedy_order",
    "left_to_right": "memplan.planners.contraction.baselines:left_to_right",
    "plan_of_path": "memplan.planners.contraction.baselines:plan_of_path",
    "solve_contraction": "memplan.planners.contraction.solve:solve_contraction",
    "verify_contraction": "memplan.planners.contraction.verifier:verify_contraction",
}

__all__ = sorted(_PLACES)

__getattr__, __dir__ = lazy_names(__name__, _PLACES)
