"""Programs to plan, in plain JAX, and dumps of them compiled for real targets.

>>> from memplan import workloads
>>> fun, args = workloads.get("lstm").build()

Each file here holds one or a few `Workload` objects. `scripts/make_dumps` compiles them and stores the modules under
`dumps/`.
"""

from memplan.workloads.workload import Workload, dumps_folder, get, names, register

__all__ = ["Workload", "dumps_folder", "get", "names", "register"]
