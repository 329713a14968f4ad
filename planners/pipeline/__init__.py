"""A chain of layers split over devices that work as a pipeline, under a memory limit. `solve.py` is the entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.planners.pipeline.baselines import equal_layers as equal_layers
    from memplan.planners.pipeline.baselines import equal_parameters as equal_parameters
    from memplan.planners.pipeline.plan import PipelinePlan as PipelinePlan
    from memplan.planners.pipeline.problem import PipelineLayer as PipelineLayer
    from memplan.planners.pipeline.problem import PipelineProblem as PipelineProblem
    from memplan.planners.pipeline.solve import solve_pipeline as solve_pipeline
    from memplan.planners.pipeline.verifier import verify_pipeline as verify_pipeline

_PLACES = {
    "PipelineLayer": "memplan.planners.pipeline.problem:PipelineLayer",
    "PipelinePlan": "memplan.planners.pipeline.plan:PipelinePlan",
    "PipelineProblem": "memplan.planners.pipeline.problem:PipelineProblem",
    "equal_layers": "memplan.planners.pipeline.baselines:equal_layers",
    "equal_parameters": "memplan.planners.pipeline.baselines:equal_parameters",
    "solve_pipeline": "memplan.planners.pipeline.solve:solve_pipeline",
    "verify_pipeline": "memplan.planners.pipeline.verifier:verify_pipeline",
}

__all__ = sorted(_PLACES)

__getattr__, __dir__ = lazy_names(__name__, _PLACES)
