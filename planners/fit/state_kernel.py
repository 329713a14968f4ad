"""The decisions on a program under a memory limit as one array of cells, with a log of all that changes.

`events_kernel.py` says what events and stages are. Compiled by numba.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import internal

Integers = NDArray[np.int64]

MADE, KEEP, RECOMPUTE, HOST, FREE = range(5)

# Fields of an event in `cells`: its value, stage, how many read it in the stage, how it is served, its neighbours among
# the events of its value, and among those of its stage. HOST has bookings, and stages in which they end and start.
VALUE, STAGE, NEED, MODE, PREV, NEXT, BEFORE, AFTER, BOOKED, STORED_AT, LOADED_FROM, WIDTH = range(12)

# Entries of `totals`: the sum of bytes above the limit, the log's length, whether a move became too large, the number
# of operations that wait, the number of stages to look at again, the last stamp, and all operations so far.
OVER, LOGGED, FULL, WAITING, DIRTY, STAMP, WORK, NUM_TOTALS = range(8)

# Entries of `state`, which are logged: seconds of repeated runs in ticks, and the number of free rows.
COST, NUM_FREE = range(2)


class FitState(NamedTuple):
    """The decisions, the program in its order, and scratch.

    Attributes:
      size, producer, first: `[values]` units, node, row of the first event (-1 for a value that stays throughout).
      can_repeat, ticks: `[nodes]`.
      can_host, store_ticks, load_ticks: `[values]`.
      input_start, inputs, output_start, outputs: ranges of each node.
      cells: events in rows of WIDTH, then `[n + 1]` the first event of each stage, `[n + 1]` the bytes of what each
        stage does by itself, `[n + 1]` free ticks to the host, `[n + 1]` from it, the stack of free rows, the state.
      offset: where each part of `cells` begins.
      need: `[n + 1]` bytes of each stage.
      limit: `[1]` units, without what stays throughout.
      policy: `[2]` ticks per unit above which an input is kept for a recomputation, and whether it is kept if it fits.
      totals: see above.
      log_at, log_low, log_value: the log: the cell and its old value, or -1, a range of stages and what was added.
      waiting: operations that are still to be done: value, stage, +1 or -1.
      dirty, dirty_stamp: stages to look at again.
      finger: `[values]` the event that was found last.
    """

    size: Integers
    producer: Integers
    first: Integers
    can_repeat: NDArray[np.bool_]
    ticks: Integers
    can_host: NDArray[np.bool_]
    store_ticks: Integers
    load_ticks: Integers
    input_start: Integers
    inputs: Integers
    output_start: Integers
    outputs: Integers
    cells: Integers
    offset: Integers
    need: Integers
    limit: Integers
    policy: NDArray[np.float64]
    totals: Integers
    log_at: Integers
    log_low: Integers
    log_value: Integers
    waiting: Integers
    dirty: Integers
    dirty_stamp: Integers
    finger: Integers


by_reference(FitState)

# Parts of `cells`, as `offset` lists them.
HEADS, LOCALS, TO_HOST, FROM_HOST, FREED, STATE = range(6)


@internal
def put(s: FitState, at: int, value: int) -> None:
    """Writes a cell, and its old value to the log."""
    k = s.totals[LOGGED]
    s.log_at[k], s.log_value[k] = at, s.cells[at]
    s.totals[LOGGED] = k + 1
    s.cells[at] = value


@internal
def _add(s: FitState, low: int, high: int, amount: int) -> None:
    over, limit = 0, s.limit[0]
    for t in range(low, high):
        before = s.need[t]
        after = before + amount
        s.need[t] = after
        over += max(after - limit, 0) - max(before - limit, 0)
    s.totals[OVER] += over
    s.totals[WORK] += (high - low) >> 6


@internal
def add_range(s: FitState, low: int, high: int, amount: int) -> None:
    """Adds bytes to the stages of `[low, high)`, and notes it in the log."""
    low = max(low, 0)
    if low >= high or amount == 0:
        return
    k = s.totals[LOGGED]
    s.log_at[k], s.log_low[k], s.log_value[k] = -1 - high, low, amount
    s.totals[LOGGED] = k + 1
    _add(s, low, high, amount)


@internal
def undo_to(s: FitState, mark: int) -> None:
    """Takes back all that was logged since the log had the length `mark`."""
    k = s.totals[LOGGED]
    while k > mark:
        k -= 1
        at = s.log_at[k]
        if at >= 0:
            s.cells[at] = s.log_value[k]
        else:
            _add(s, s.log_low[k], -1 - at, -s.log_value[k])
    s.totals[LOGGED] = mark
    s.totals[FULL] = 0
    s.totals[WAITING] = 0


@internal
def field(s: FitState, e: int, name: int) -> int:
    """Returns a field of an event."""
    return s.cells[e * WIDTH + name]
