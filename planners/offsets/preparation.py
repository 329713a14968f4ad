"""What comes before any packing: the kernels are compiled, once after an installation, or loaded from their cache."""

from __future__ import annotations

from functools import cache

import numpy as np

from memplan.compiler.effort import Guard
from memplan.planners.offsets.branching import BranchAndBound
from memplan.planners.offsets.heuristics import Fitter
from memplan.planners.offsets.instance import Instance
from memplan.planners.offsets.skyline import SkylinePacker

# Two blocks that overlap in time, and one that fits beside neither.
_BLOCKS = Instance.of(lower=[0, 1, 2], upper=[2, 3, 4], size=[2, 1, 3])
_HEIGHT = 4


@cache
def prepare() -> None:
    """Packs three blocks by every method that has kernels."""
    stop = np.zeros(1, np.int64)
    SkylinePacker(_BLOCKS).best(0, 0, 0, Guard())
    Fitter(_BLOCKS).best(0, 100, 0, Guard())
    BranchAndBound(_BLOCKS, _HEIGHT).fixed_orders().go_on(100, stop)
