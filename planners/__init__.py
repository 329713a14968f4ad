"""Methods that answer a MappingProblem, one file each. Read `planner.py` first.

>>> from memplan import planners
>>> planners.names()
['agent', 'auto', 'bestfit', 'evolution', 'greedy', 'hybrid', 'ilp', 'neighbourhoods', 'search', 'slow', 'xla']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.planners.planner import Budget as Budget
    from memplan.planners.planner import Effort as Effort
    from memplan.planners.planner import Planner as Planner
    from memplan.planners.planner import get as get
    from memplan.planners.planner import names as names
    from memplan.planners.planner import register as register

__all__ = ["Budget", "Effort", "Planner", "get", "names", "register"]

__getattr__, __dir__ = lazy_names(__name__, {name: f"memplan.planners.planner:{name}" for name in __all__})
