"""Programs for microcontrollers: steps, each one nest of loops in C, over buffers in one static arena.

Read `program.py` first, then `plan.py`; `expressions.py` and `affine.py` say what a step computes.
"""

from __future__ import annotations

from memplan.compiler.embedded.plan import EmbeddedPlan
from memplan.compiler.embedded.program import (
    ElementStore,
    EmbeddedBuffer,
    EmbeddedProgram,
    InPlaceWay,
    LoopNest,
    StorageKind,
)

__all__ = ["ElementStore", "EmbeddedBuffer", "EmbeddedPlan", "EmbeddedProgram", "InPlaceWay", "LoopNest", "StorageKind"]
