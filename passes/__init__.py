"""Rewrites of programs, one file a pass. Read `base.py` first: it says what a pass is, and where it is registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.passes.base import Context as Context
    from memplan.passes.base import Finding as Finding
    from memplan.passes.base import GraphContext as GraphContext
    from memplan.passes.base import GraphPass as GraphPass
    from memplan.passes.base import Pass as Pass
    from memplan.passes.base import Rewritten as Rewritten
    from memplan.passes.base import RewrittenGraph as RewrittenGraph
    from memplan.passes.base import register as register
    from memplan.passes.base import register_graph_pass as register_graph_pass
    from memplan.passes.graph_manager import chosen_graph_passes as chosen_graph_passes
    from memplan.passes.graph_manager import run_graph_passes as run_graph_passes
    from memplan.passes.jaxprs import Replacement as Replacement
    from memplan.passes.jaxprs import edited as edited
    from memplan.passes.jaxprs import where as where

_PLACES = {
    "Context": "memplan.passes.base:Context",
    "Finding": "memplan.passes.base:Finding",
    "GraphContext": "memplan.passes.base:GraphContext",
    "GraphPass": "memplan.passes.base:GraphPass",
    "Pass": "memplan.passes.base:Pass",
    "Replacement": "memplan.passes.jaxprs:Replacement",
    "Rewritten": "memplan.passes.base:Rewritten",
    "RewrittenGraph": "memplan.passes.base:RewrittenGraph",
    "chosen_graph_passes": "memplan.passes.graph_manager:chosen_graph_passes",
    "edited": "memplan.passes.jaxprs:edited",
    "register": "memplan.passes.base:register",
    "register_graph_pass": "memplan.passes.base:register_graph_pass",
    "run_graph_passes": "memplan.passes.graph_manager:run_graph_passes",
    "where": "memplan.passes.jaxprs:where",
}

__all__ = sorted(_PLACES)

__getattr__, __dir__ = lazy_names(__name__, _PLACES)
