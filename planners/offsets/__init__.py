"""Static memory allocation: blocks of fixed times get offsets, so that none overlap and the height is low enough.

>>> from memplan.planners.offsets import Instance, pack
>>> instance = Instance.of(lower=[0, 3, 0, 9, 0], upper=[3, 9, 9, 21, 21], size=[4, 4, 4, 4, 4])
>>> packing = pack(instance, capacity=12)
>>> packing.status, packing.height
(<Status.FITS: 'fits'>, 12)

Read `instance.py` first, then `pack.py`.
"""

from memplan.planners.offsets.check import check
from memplan.planners.offsets.infeasible import InfeasibleSubset, irreducible_infeasible_subset
from memplan.planners.offsets.instance import Instance, InstanceError
from memplan.planners.offsets.pack import Packing, Status, pack

__all__ = [
    "InfeasibleSubset",
    "Instance",
    "InstanceError",
    "Packing",
    "Status",
    "check",
    "irreducible_infeasible_subset",
    "pack",
]
