"""The planner `search`: simulated annealing. `solve.py` is its entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.planners.search.solve import SearchOptions as SearchOptions
    from memplan.planners.search.solve import solve_with as solve_with

_PLACES = {
    "SearchOptions": "memplan.planners.search.solve:SearchOptions",
    "solve_with": "memplan.planners.search.solve:solve_with",
}

__all__ = sorted(_PLACES)

__getattr__, __dir__ = lazy_names(__name__, _PLACES)
