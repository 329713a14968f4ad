"""Random numbers whose state lies in an array, for searches that draw them in compiled loops.

SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import internal


@internal
def uniform(random: np.ndarray) -> float:
    """Returns a random number in [0, 1), given the state `[1] uint64`."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@internal
def below(random: np.ndarray, count: int) -> int:
    """Returns a random integer in [0, count), given the state `[1] uint64`."""
    return min(int(uniform(random) * count), count - 1)
