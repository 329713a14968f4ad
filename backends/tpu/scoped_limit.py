"""Which scoped limit to try next: both ways from the default, then by bisection.

The scoped limit is the fast memory that an instruction may keep for itself. A larger one makes some instructions
faster, a smaller one leaves more room to tensors. Which way pays depends on the program, and the best limit is rarely
the end of the way:

    4 MiB     8 MiB     12 MiB    16 MiB                      32 MiB
                3         4       default                        2        8 MiB is better: half way to its neighbours
"""

from __future__ import annotations

from collections.abc import Mapping

# Limits are multiples of this many KiB, and no two that are tried are nearer than it.
_STEP = 2048


def next_limit(tried: Mapping[int, float], most: int) -> int | None:
    """Returns the limit to try next, in KiB; None if nothing is left between and beside those that were tried.

    >>> next_limit({16384: 1.0}, 100_000), next_limit({16384: 1.0, 32768: 1.1}, 100_000)
    (32768, 8192)
    >>> next_limit({16384: 1.0, 32768: 1.1, 8192: 0.9}, 100_000)
    4096
    >>> next_limit({16384: 1.0, 32768: 1.1, 8192: 0.9, 4096: 1.2}, 100_000)
    12288

    Args:
      tried: limits in KiB and the latencies of their modules; infinite where the compile failed.
      most: a limit that is too large.
    """
    order = sorted(tried)
    best = min(order, key=lambda limit: (tried[limit], limit))
    place = order.index(best)
    above = order[place + 1] if place + 1 < len(order) else None
    below = order[place - 1] if place else None
    if above is None and 2 * best < most:
        return 2 * best
    if below is None and best // 2 >= _STEP:
        return _rounded(best // 2)
    # The neighbour with the lower latency is on the side where the lowest may be.
    sides = sorted((tried[limit], limit) for limit in (below, above) if limit is not None)
    for _, limit in sides:
        between = _rounded((best + limit) // 2)
        if min(abs(between - best), abs(between - limit)) >= _STEP:
            return between
    return None


def _rounded(limit: int) -> int:
    return max(limit // _STEP, 1) * _STEP
