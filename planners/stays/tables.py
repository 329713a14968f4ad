"""The tables that the compiled search works on: one NumPy record array each, a row for each slot, chain, item, ….

What a search decides stands in the same rows as what it is about, so each search works on copies of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NONE = -1

# Of a slot: the half-open times and regions (`inner[inner_first:inner_last]`) that it stands for, how often its region
# runs, and of a loop how many iterations one execution of the slot makes. What a loop or conditional offers to copies
# that span it (`idle`), seconds of copies that start here (`arrivals`), seconds of earlier copies that are left when it
# begins (`backlog`), and by how much the copies that start here may be delayed before one is late (`slack`).
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

# Of a region: its slots, half-open.
REGION_SLOTS_ROW = np.dtype([("first", np.int64), ("last", np.int64)], align=True)

# Of a chain: see `_chains.Chains`.
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

# Of an item: see `_chains.Chains`, and if no run has it: whether it must have none (`closed`, because another fast
# space serves it), the slot from which the value that it writes is at home (`ready`), the slot by which it wants it
# there (`wanted`). The run that it belongs to, named by its first item, -1 for none. Of a first item: the run's last
# item, the half-open times of its stay, the slots of the copies that fill it and bring it home, -1 for none, and the
# seconds by which it is known that the prefetch comes too late.
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

# Of an operation: how often it runs, its floor, overhead and memory time (`demand`), and the seconds that it takes of
# the link's channel (`taken`).
ROOFLINE_ROW = np.dtype(
    [("repetitions", np.float64), ("floor", np.float64), ("demand", np.float64), ("taken", np.float64)], align=True
)

# Of an access: its time, the seconds of memory time that the fast space saves, the seconds that it takes of the link's
# channel if served at home, and whether the fast space serves it.
ACCESS_ROW = np.dtype(
    [("time", np.int64), ("saving", np.float64), ("traffic", np.float64), ("is_fast", np.bool_)], align=True
)

# Of a buffer: its size in units of the alignment, and the seconds of a copy from home and of one back.
BUFFER_ROW = np.dtype(
    [("size", np.int64), ("prefetch_seconds", np.float64), ("eviction_seconds", np.float64)], align=True
)

# Of the search: the buffer that stays in the fast space from one run of the program to the next (cross-program
# prefetch), the item with which the run begins that keeps it, and the time at which the copy for the next run starts;
# -1 for none. Whether there is a link from home, and one back.
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


class StayTables(NamedTuple):
    """All of them.

    Attributes:
      slots, regions, chains, items, operations, accesses, buffers: records, see above.
      order: access numbers, by item: what `first_access` and `last_access` index.
      inner: regions, by slot.
      children: chains inside of items, by item.
      free: `[n + 1]` units of the fast space that are free at each time.
      facts: one record.
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

    def copy(self) -> StayTables:
        """Returns tables to decide in, independent of these."""
        return self._replace(
            slots=self.slots.copy(),
            items=self.items.copy(),
            operations=self.operations.copy(),
            accesses=self.accesses.copy(),
            free=self.free.copy(),
            facts=self.facts.copy(),
        )
