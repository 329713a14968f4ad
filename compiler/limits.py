"""The largest file that each reader takes, in bytes. A gzipped file may not unpack to more either.

A larger file is refused with an error that states the limit. `docs/formats.md` has the same table.
"""

from __future__ import annotations

from typing import Final

PROGRAM: Final = 2 << 30  # HLO, StableHLO, jax.export; a module of a million instructions takes a tenth of it
PROBLEM: Final = 1 << 30  # memplan.problem
PLAN: Final = 1 << 30  # memplan.plan
BUFFER_ASSIGNMENT: Final = 1 << 30  # XLA's -buffer-assignment.txt
BLOCKS: Final = 256 << 20  # CSV of `memplan pack`
TARGET: Final = 1 << 20  # TOML
LAYERS: Final = 16 << 20  # JSON of `memplan pipeline`
CHECKPOINT: Final = 64 << 20  # each JSON file of a training run
RESULTS: Final = 64 << 20  # JSON of `memplan bench`
CACHED: Final = 1 << 30  # an entry of the cache of compiled modules

LIMITS: Final = {
    "a program": PROGRAM,
    "a problem": PROBLEM,
    "a plan": PLAN,
    "a buffer assignment": BUFFER_ASSIGNMENT,
    "blocks to pack": BLOCKS,
    "a target": TARGET,
    "layers of a pipeline": LAYERS,
    "a JSON file of a training run": CHECKPOINT,
    "results of a bench": RESULTS,
    "an entry of the compile cache": CACHED,
}


def print_limit(limit: int) -> str:
    """Returns a limit in the largest unit that it is a whole number of.

    >>> print_limit(TARGET), print_limit(PROGRAM), print_limit(1000)
    ('1 MiB', '2 GiB', '1000 bytes')
    """
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if limit % (1 << shift) == 0:
            return f"{limit >> shift} {unit}"
    return f"{limit} bytes"
