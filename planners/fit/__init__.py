"""Plans that fit a program into a memory limit: keep, recompute, move to the host, or reorder.

`solve.py` is the entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.planners.fit.plan import FitError as FitError
    from memplan.planners.fit.plan import FitPlan as FitPlan
    from memplan.planners.fit.problem import FitNode as FitNode
    from memplan.planners.fit.problem import FitProblem as FitProblem
    from memplan.planners.fit.problem import FitValue as FitValue
    from memplan.planners.fit.problem import HostLink as HostLink
    from memplan.planners.fit.solve import solve_fit as solve_fit
    from memplan.planners.fit.verifier import verify_fit as verify_fit

_PLACES = {
    "FitError": "memplan.planners.fit.plan:FitError",
    "FitNode": "memplan.planners.fit.problem:FitNode",
    "FitPlan": "memplan.planners.fit.plan:FitPlan",
    "FitProblem": "memplan.planners.fit.problem:FitProblem",
    "FitValue": "memplan.planners.fit.problem:FitValue",
    "HostLink": "memplan.planners.fit.problem:HostLink",
    "solve_fit": "memplan.planners.fit.solve:solve_fit",
    "verify_fit": "memplan.planners.fit.verifier:verify_fit",
}

__all__ = sorted(_PLACES)

__getattr__, __dir__ = lazy_names(__name__, _PLACES)
