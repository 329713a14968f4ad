"""The roofline: how long an operation lasts, by what it computes and by what it moves.

An operation's *floor* is what its arithmetic takes at least; its *demand* is its overhead and what its accesses cost
together. Both are in seconds, or in any one unit of time. It lasts as long as the larger of the two
(Williams, Waterman and Patterson, "Roofline", 2009).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def duration(floor: Any, demand: Any) -> Any:
    """Returns how long one operation lasts. Numbers of any kind; numba compiles it."""
    return max(floor, demand)


def durations(floor: Any, demand: Any, xp: Any = np) -> Any:
    """Returns how long operations last. Arrays of one shape, of the module `xp`: numpy or jax.numpy."""
    return xp.maximum(floor, demand)


def idle_fraction(duration: Any, taken: Any) -> Any:
    """Returns the part of a channel that an operation leaves to copies, if it takes the channel for `taken` seconds."""
    return max(1.0 - taken / duration if duration > 0.0 else 0.0, 0.0)


def idle_fractions(duration: Any, taken: Any) -> Any:
    """Returns the part of each channel that each operation leaves to copies.

    Args:
      duration: `[n]` seconds.
      taken: `[n, num_channels]` seconds that each operation takes each channel for.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(duration[:, None] > 0.0, 1.0 - taken / duration[:, None], 0.0)
    return np.maximum(left, 0.0)
