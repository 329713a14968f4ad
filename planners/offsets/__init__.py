"""Static memory allocation: blocks of fixed times get offsets, so that none overlap and the height is low enough.

>>> from memplan.planners.offsets import Instance, pack
>>> instance = Instance.of(lower=[0, 3, 0, 9, 0], upper=[3, 9, 9, 21, 21], size=[4, 4, 4, 4, 4])
>>> packing = pack(instance, capacity=12)
>>> packing.status, packing.height
(<Status.FITS: 'fits'>, 12)

Read `instance.py` first, then `pack.py`. Neither loads compiled code nor a solver before first fit has failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names
from memplan.planners.offsets.check import check
from memplan.planners.offsets.instance import Block, Instance, InstanceError
from memplan.planners.offsets.pack import Packing, Status, pack

if TYPE_CHECKING:
    from memplan.planners.offsets.infeasible import InfeasibleSubset as InfeasibleSubset
    from memplan.planners.offsets.infeasible import irreducible_infeasible_subset as irreducible_infeasible_subset

__all__ = [
    "Block",
    "InfeasibleSubset",
    "Instance",
    "InstanceError",
    "Packing",
    "Status",
    "check",
    "irreducible_infeasible_subset",
    "pack",
]

# These load compiled code and solvers.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "InfeasibleSubset": "memplan.planners.offsets.infeasible:InfeasibleSubset",
        "irreducible_infeasible_subset": "memplan.planners.offsets.infeasible:irreducible_infeasible_subset",
    },
)
