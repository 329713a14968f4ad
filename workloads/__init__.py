"""Programs to plan, in plain JAX, and dumps of them compiled for real targets.

>>> from memplan import workloads
>>> fun, args = workloads.get("lstm").build()

A workload is a function that builds a program, under the decorator `workload`. Each file here holds those of one
family, the files `seed_*.py` those of the papers that memplan grew from, and the files `zoo_*.py` those made with the
libraries of the extra `zoo`. `scripts/make_dumps` compiles them and stores the modules under `dumps/`.
"""

from memplan.workloads.registry import Workload, dumped_names, dumps_folder, get, left_out, names, register, workload

__all__ = ["Workload", "dumped_names", "dumps_folder", "get", "left_out", "names", "register", "workload"]
