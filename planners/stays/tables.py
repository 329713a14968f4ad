"""The tables that compiled searches work on: one NumPy record array each, with a row for each slot, chain, item, ….

A search writes its decisions into the same rows that describe what it decides on, so each works on a copy of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NONE = -1

# One for each slot, see `chains.Slots`.
#   time, end: the half-open times that it stands for. is_operation: whether that is one operation.
#   inner_first, inner_last: the regions inside of it are `inner[inner_first:inner_last]`.
#   repetitions: how often its region runs. trips: iterations of one execution of the slot, if it is a loop.
#   idle: seconds that it offers to copies that span it, if it is a loop or conditional.
#   arrivals: seconds of the copies that start here. backlog: seconds of earlier copies that are left when it begins.
#   slack: seconds by which the copies that start here may be delayed before one is late.
SLOT_ROW = np.dtype(
    [
        ("time", np.int64),
        ("end", np.int64),
        ("inner_first", np.int64),
        ("inner_last", np.int64),
        ("repetitions", np.float64),
        ("trips", np.float64),
        ("idle", np.float64),
        ("arrivals", np.float64),
        ("backlog", np.float64),
        ("slack", np.float64),
        ("is_operation", np.bool_),
    ],
    align=True,
)

# One for each region: its half-open slots.
REGION_SLOTS_ROW = np.dtype([("first", np.int64), ("last", np.int64)], align=True)

# One for each chain, see `chains.Chains`.
CHAIN_ROW = np.dtype(
    [
        ("buffer", np.int64),
        ("region", np.int64),
        ("first", np.int64),
        ("last", np.int64),
        ("parent", np.int64),
        ("needs_home", np.bool_),
    ],
    align=True,
)

# One for each item: the columns of `chains.Chains`, and these.
#   closed: whether no run may have it, because another fast space serves it.
#   ready, wanted: slots, if no run has it: from when the value that it writes is at home, until when it needs it there.
#   run: the run that it belongs to, named by its first item; -1 for none.
# In the row of a run's first item:
#   run_last: the run's last item. run_start, run_end: half-open times of its stay.
#   prefetch_start, prefetch_done, eviction_start, eviction_done: slots of the copies that fill it and bring its value
#     home; -1 for none. late: seconds by which the prefetch is known to come too late.
ITEM_ROW = np.dtype(
    [
        ("chain", np.int64),
        ("slot", np.int64),
        ("start", np.int64),
        ("end", np.int64),
        ("writer", np.int64),
        ("first_access", np.int64),
        ("last_access", np.int64),
        ("first_child", np.int64),
        ("last_child", np.int64),
        ("ready", np.int64),
        ("wanted", np.int64),
        ("run", np.int64),
        ("run_last", np.int64),
        ("run_start", np.int64),
        ("run_end", np.int64),
        ("prefetch_start", np.int64),
        ("prefetch_done", np.int64),
        ("eviction_start", np.int64),
        ("eviction_done", np.int64),
        ("late", np.float64),
        ("reads", np.bool_),
        ("writes", np.bool_),
        ("closed", np.bool_),
    ],
    align=True,
)

# One for each operation: how often it runs, its floor and its demand (see `hardware/roofline.py`) as decided so far,
# and the seconds that its accesses take of the link's channel (`taken`).
ROOFLINE_ROW = np.dtype(
    [("repetitions", np.float64), ("floor", np.float64), ("demand", np.float64), ("taken", np.float64)], align=True
)

# One for each access: its time, the seconds of memory time that the fast space saves, the seconds that it takes of the
# link's channel if it is served at home (`traffic`), and whether the fast space serves it.
ACCESS_ROW = np.dtype(
    [("time", np.int64), ("saving", np.float64), ("traffic", np.float64), ("is_fast", np.bool_)], align=True
)

# One for each buffer: its size in units of the alignment, and the seconds of a copy from home and of one back.
BUFFER_ROW = np.dtype(
    [("size", np.int64), ("prefetch_seconds", np.float64), ("eviction_seconds", np.float64)], align=True
)

# One for the search.
#   kept_buffer: the buffer that stays in the fast space from one run of the program to the next (cross-program
#     prefetch). kept_item: the item with which the run begins that keeps it. kept_again: the time at which its copy for
#     the next run starts. All are -1 for none.
#   can_prefetch, can_evict: whether there is a link from home, and one back.
FACTS_ROW = np.dtype(
    [
        ("kept_buffer", np.int64),
        ("kept_item", np.int64),
        ("kept_again", np.int64),
        ("can_prefetch", np.bool_),
        ("can_evict", np.bool_),
    ],
    align=True,
)

# Of a run that was given up, taken, or given other times: its first and its last item.
CHANGE_ROW = np.dtype([("run", np.int64), ("run_last", np.int64)], align=True)


class StayTables(NamedTuple):
    """All tables of a search.

    Attributes:
      slots, regions, chains, items, operations, accesses, buffers: rows as above.
      order: access numbers, by item: `first_access` and `last_access` index it.
      inner: regions, by slot.
      children: chains inside of items, by item.
      free: `[n + 1]` units of the fast space that are free at each time.
      facts: `[1]` FACTS_ROW.
      journal: `[most]` CHANGE_ROW of what was changed since it was emptied; `[0]` where nobody reads it.
      changes: `[1]` how many there were, which may be more than the journal has room for.
    """

    slots: np.ndarray
    regions: np.ndarray
    chains: np.ndarray
    items: np.ndarray
    operations: np.ndarray
    accesses: np.ndarray
    buffers: np.ndarray
    order: np.ndarray
    inner: np.ndarray
    children: np.ndarray
    free: np.ndarray
    facts: np.ndarray
    journal: np.ndarray
    changes: np.ndarray

    def copy(self) -> StayTables:
        """Returns a copy whose decisions change independently of these."""
        return self._replace(
            slots=self.slots.copy(),
            items=self.items.copy(),
            operations=self.operations.copy(),
            accesses=self.accesses.copy(),
            free=self.free.copy(),
            facts=self.facts.copy(),
        )
