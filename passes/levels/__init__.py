"""Networks with a level of compression for each part: ranks, bits, codebooks, bonds. `network.py` is the entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.passes.levels.network import CompressedProgram as CompressedProgram
    from memplan.passes.levels.network import choose_for_objective as choose_for_objective
    from memplan.passes.levels.network import choose_levels as choose_levels
    from memplan.passes.levels.network import compress as compress
    from memplan.passes.levels.network import levels_of as levels_of
    from memplan.passes.levels.network_levels import NetworkLevels as NetworkLevels

_NETWORK = ("CompressedProgram", "choose_for_objective", "choose_levels", "compress", "levels_of")
_PLACES = {name: f"memplan.passes.levels.network:{name}" for name in _NETWORK}
_PLACES["NetworkLevels"] = "memplan.passes.levels.network_levels:NetworkLevels"

__all__ = sorted(_PLACES)

__getattr__, __dir__ = lazy_names(__name__, _PLACES)
