"""An *arrangement*: the runs that have a stay, with their offsets, as searches change it one run after another.

`arrangement_kernel.py` holds the operations: runs are taken out and put in, and a journal undoes that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.rules import until_next_run
from memplan.planners.stays.tables import NONE

Integers = NDArray[np.int64]

# Of a run: its first and last item, the half-open times of its stay, the slots of its copies, -1 for none, its offset,
# and, in the journal, whether it was put in rather than taken out.
RUN_ROW = np.dtype(
    [
        ("run", np.int64),
        ("run_last", np.int64),
        ("run_start", np.int64),
        ("run_end", np.int64),
        ("prefetch_start", np.int64),
        ("prefetch_done", np.int64),
        ("eviction_start", np.int64),
        ("eviction_done", np.int64),
        ("offset", np.int64),
        ("is_added", np.bool_),
    ],
    align=True,
)

# Of what lies in the space: its run, -1 where it stays as it is, its half-open times and units, and its half-open
# accesses in `StayTables.order`.
PLACED_ROW = np.dtype(
    [
        ("run", np.int64),
        ("start", np.int64),
        ("end", np.int64),
        ("offset", np.int64),
        ("top", np.int64),
        ("first_access", np.int64),
        ("last_access", np.int64),
    ],
    align=True,
)

# How many rows of each list are in use; the half-open times in which runs may be put in; and the seconds of the program
# that changes saved, waits not counted, and those that it takes in the best arrangement.
COUNTS_ROW = np.dtype(
    [
        ("placed", np.int64),
        ("journal", np.int64),
        ("waiting", np.int64),
        ("best", np.int64),
        ("first", np.int64),
        ("last", np.int64),
        ("saved", np.float64),
        ("least", np.float64),
    ],
    align=True,
)


class Arrangement(NamedTuple):
    """Runs and offsets, in units of the alignment. For `n` operations.

    Attributes:
      placed: `[num_items + …]` PLACED_ROW of the runs and of what stays as it is, by offset.
      position: `[num_items]` of the run that begins with an item in `placed`.
      journal: RUN_ROW of what was changed since it was emptied.
      waiting: RUN_ROW of runs that were taken out and look for a place.
      best: RUN_ROW of the runs of the best arrangement.
      counts: `[1]` COUNTS_ROW.
      stay: `[2]` RUN_ROW, scratch.
      reserved: `[n + 2]` units that operations keep for themselves.
      capacity: `[1]` units of the space.
      is_open: `[num_items]` whether a run may hold the item.
      random: `[1] uint64` state of the random numbers.
    """

    placed: NDArray[np.void]
    position: Integers
    journal: NDArray[np.void]
    waiting: NDArray[np.void]
    best: NDArray[np.void]
    counts: NDArray[np.void]
    stay: NDArray[np.void]
    reserved: Integers
    capacity: Integers
    is_open: NDArray[np.bool_]
    random: NDArray[np.uint64]


def make_arrangement(decisions: Decisions, seed: int) -> Arrangement:
    """Returns an arrangement for decisions, which holds nothing; `arrange` places their runs.

    Args:
      decisions: on one fast space.
      seed: of the random numbers.
    """
    frame = decisions.frame
    problem, unit, num_items = frame.problem, frame.unit, len(frame.chains.chain)
    reserved = np.array([*(operation.reserved[frame.space] for operation in problem.operations), 0, 0], np.int64)
    most = num_items + len(frame.homes) + 3
    return Arrangement(
        placed=np.zeros(most, PLACED_ROW),
        position=np.full(num_items, NONE),
        journal=np.zeros(4 * num_items + 64, RUN_ROW),
        waiting=np.zeros(2 * num_items + 64, RUN_ROW),
        best=np.zeros(num_items + 1, RUN_ROW),
        counts=np.zeros(1, COUNTS_ROW),
        stay=np.zeros(2, RUN_ROW),
        reserved=-(-reserved // unit),
        capacity=np.array([problem.spaces[frame.space].capacity // unit], np.int64),
        is_open=_open_items(decisions),
        random=np.array([seed & (2**64 - 1)], np.uint64),
    )


def _open_items(decisions: Decisions) -> NDArray[np.bool_]:
    """Returns which items a run may hold: no other space serves them or what is around them, and they are executed."""
    chains, tables = decisions.frame.chains, decisions.tables
    closed = tables.items["closed"]
    is_open = ~closed & (tables.slots["repetitions"][chains.slot] > 0.0)
    if closed.any():
        is_chain_open = np.ones(len(chains.buffer), np.bool_)
        for chain, parent in enumerate(chains.parent.tolist()):  # parents come first
            if parent != NONE:
                is_chain_open[chain] = is_chain_open[chains.chain[parent]] and not closed[parent]
        is_open &= is_chain_open[chains.chain]
    if decisions.kept_item != NONE:
        # A run that begins with it takes its place again before the program ends, which moves do not know.
        is_open[decisions.kept_item] = False
    return np.asarray(is_open, np.bool_)


def arrange(made: Arrangement, decisions: Decisions, homes: Integers, offset: Integers, first: int, last: int) -> None:
    """Lets an arrangement hold what is alive in some times. Runs that are also alive at others stay as they are.

    Args:
      made: from `make_arrangement`.
      decisions: whose runs are placed.
      homes: `[num_homes]` bytes.
      offset: `[num_items]` bytes, the offset of the run that begins with an item.
      first, last: half-open times.
    """
    frame, items, chains = decisions.frame, decisions.tables.items, decisions.frame.chains
    n, unit, runs = frame.problem.end, frame.unit, decisions.runs()
    sizes = decisions.tables.buffers["size"]
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    for number, at in zip(frame.homes, homes.tolist(), strict=True):
        buffer, low = frame.problem.buffers[number], at // unit
        rows.append((NONE, buffer.start, buffer.end, low, low + int(sizes[number]), 0, 0))
    near = runs[(items["run_start"][runs] < last) & (items["run_end"][runs] > first)]
    placed = np.zeros(len(near), PLACED_ROW)
    placed["run"], placed["start"], placed["end"] = near, items["run_start"][near], items["run_end"][near]
    placed["offset"] = offset[near] // unit
    placed["top"] = placed["offset"] + sizes[chains.buffer[chains.chain[near]]]
    placed["first_access"] = chains.first_access[near]
    placed["last_access"] = chains.last_access[items["run_last"][near]]
    placed["run"][(placed["start"] < first) | (placed["end"] > last)] = NONE
    if (run := decisions.kept_item) != NONE and items["run"][run] == run:
        low = int(offset[run]) // unit
        top = low + int(sizes[chains.buffer[chains.chain[run]]])
        until, again = until_next_run(int(items["run_end"][run]), decisions.kept_again, n + 1)
        placed["end"][near == run] = until
        placed["run"][near == run] = NONE
        rows.append((NONE, again, n + 1, low, top, 0, 0))
    both = np.concatenate([np.array(rows, PLACED_ROW), placed])
    both = both[np.argsort(both["offset"], kind="stable")]
    made.placed[: len(both)] = both
    made.position[:] = NONE
    is_run = both["run"] != NONE
    made.position[both["run"][is_run]] = np.flatnonzero(is_run)
    made.counts[0] = (len(both), 0, 0, 0, first, last, 0.0, 0.0)
