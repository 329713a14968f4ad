"""Windows of time that are decided anew: giving up what is in one, and what could be there. Compiled by numba.

`window_model.py` chooses among what `probe` finds.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import entry
from memplan.planners.stays.runs_kernel import drop, refresh, try_all
from memplan.planners.stays.tables import NONE, Tables


@entry
def open_window(s: Tables, first: int, last: int) -> int:
    """Gives up the runs whose stays lie in the times [first, last); returns how many."""
    items, count = s.items, 0
    for number in range(len(items)):
        item = items[number]
        if item.run == number and item.run_start >= first and item.run_end <= last:
            drop(s, number)
            count += 1
    refresh(s)
    return count


@entry
def probe(
    s: Tables, lows: np.ndarray, highs: np.ndarray, first: int, last: int, price: float, rows: np.ndarray
) -> np.ndarray:
    """Takes each of some runs by itself, and gives it up again.

    Args:
      lows, highs: `[num_runs]` items, which lie in the window.
      first, last: half-open times of the window, in which a stay must lie.
      price: seconds that a second of the link's time is worth.
      rows: `[num_runs]` ITEM, to be filled: of the first item of each run.

    Returns:
      `[num_runs] bool` whether a run is possible and touches none that is taken.
    """
    items, only = s.items, np.zeros(1, np.int64)
    is_possible = np.zeros(len(lows), np.bool_)
    for i in range(len(lows)):
        is_free = True
        for number in range(lows[i], highs[i] + 1):
            is_free = is_free and items[number].run == NONE
        if not is_free or try_all(s, only, lows[i : i + 1], highs[i : i + 1], price, 24, 1.0) == 0:
            continue
        run = lows[i]
        is_possible[i] = items[run].run_start >= first and items[run].run_end <= last
        rows[i] = items[run]
        drop(s, run)
    return is_possible
