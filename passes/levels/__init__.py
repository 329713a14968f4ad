"""Networks with a level of compression for each weight: ranks, or bits. `network.py` is the entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.passes.levels.network import CompressedProgram as CompressedProgram
    from memplan.passes.levels.network import compress as compress

__all__ = ["CompressedProgram", "compress"]

__getattr__, __dir__ = lazy_names(__name__, {name: f"memplan.passes.levels.network:{name}" for name in __all__})
