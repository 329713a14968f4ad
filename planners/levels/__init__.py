"""One level for each layer under a budget: ranks, bits, widths. `solve.py` is the entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.planners.levels.baselines import bucket_choice as bucket_choice
    from memplan.planners.levels.baselines import uniform_choice as uniform_choice
    from memplan.planners.levels.objective import solve_for_objective as solve_for_objective
    from memplan.planners.levels.plan import LevelPlan as LevelPlan
    from memplan.planners.levels.problem import LayerLevels as LayerLevels
    from memplan.planners.levels.problem import Level as Level
    from memplan.planners.levels.problem import LevelProblem as LevelProblem
    from memplan.planners.levels.solve import solve_levels as solve_levels
    from memplan.planners.levels.verifier import verify_levels as verify_levels

_PLACES = {
    "LayerLevels": "memplan.planners.levels.problem:LayerLevels",
    "Level": "memplan.planners.levels.problem:Level",
    "LevelPlan": "memplan.planners.levels.plan:LevelPlan",
    "LevelProblem": "memplan.planners.levels.problem:LevelProblem",
    "bucket_choice": "memplan.planners.levels.baselines:bucket_choice",
    "solve_for_objective": "memplan.planners.levels.objective:solve_for_objective",
    "solve_levels": "memplan.planners.levels.solve:solve_levels",
    "uniform_choice": "memplan.planners.levels.baselines:uniform_choice",
    "verify_levels": "memplan.planners.levels.verifier:verify_levels",
}

__all__ = sorted(_PLACES)

__getattr__, __dir__ = lazy_names(__name__, _PLACES)
