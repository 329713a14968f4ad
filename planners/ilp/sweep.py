"""The start of each copy into fast memory, one after another, by what the emulator says.

The emulator has queues that are first in, first out, and latencies of links, which the integer program leaves out. A
copy that starts later or earlier can be worth more than a better choice of what is copied. The sweep tries, for each
copy in the order of the operations that await them, starts at growing distances from its own, and takes the best.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.single_bookings_kernel import book
from memplan.planners.stays.tables import NONE

# Slots between the start of a copy and the starts that are tried instead.
_DISTANCES = (1, 2, 3, 5, 8, 13, 21, 34, 55)

# A sweep must lower the latency by this share, or it is the last.
_LEAST_GAIN = 1e-4


def sweep(decisions: Decisions, emulator: TimingEmulator, trials: int, guard: Guard) -> Decisions:
    """Returns decisions whose copies start when the emulator finds it best; their sums of sizes fit.

    Args:
      decisions: to begin with.
      emulator: of their problem.
      trials: how many starts may be tried in all.
      guard: ends it early.
    """
    made = decisions.copy()
    latency = emulator.latency_of(*made.arrays())
    before = np.inf
    while latency < before * (1.0 - _LEAST_GAIN):
        before, items = latency, made.tables.items
        runs = made.runs()
        runs = runs[items["prefetch_start"][runs] != NONE]
        for run in runs[np.argsort(items["prefetch_done"][runs], kind="stable")].tolist():
            start = int(items["prefetch_start"][run])
            best = start
            for candidate in _starts(made, run):
                if trials <= 0 or guard.reached():
                    break
                if move_start(made, run, candidate):
                    trials -= 1
                    if (found := emulator.latency_of(*made.arrays())) < latency:
                        best, latency = candidate, found
            move_start(made, run, best)
            if trials <= 0 or guard.reached():
                return made
    return made


def earliest_start(decisions: Decisions, run: int) -> int:
    """Returns the first slot at which the copy that fills a run can start: its region is entered, its value is home."""
    items, frame = decisions.tables.items, decisions.frame
    item = items[run]
    if item["writer"] == NONE:
        return int(frame.slots.first[frame.chains.region[item["chain"]]])
    writer = items[item["writer"]]
    return int(writer["ready"] if writer["run"] == NONE else items[writer["run"]]["eviction_done"])


def move_start(decisions: Decisions, run: int, start: int) -> bool:
    """Lets the copy that fills a run start at another slot, which is an operation; returns whether there is room."""
    tables, frame = decisions.tables, decisions.frame
    item = tables.items[run]
    if start == item["prefetch_start"]:
        return True
    size, first = int(tables.buffers["size"][frame.chains.buffer[item["chain"]]]), int(frame.slots.time[start])
    book(tables, run, -1)
    fits = bool((tables.free[first : item["run_end"]] >= size).all())
    if fits:
        tables.items["prefetch_start"][run], tables.items["run_start"][run] = start, first
    book(tables, run, 1)
    return fits


def _starts(decisions: Decisions, run: int) -> list[int]:
    """Returns the slots that are tried as the start of the copy that fills a run."""
    slots, item = decisions.frame.slots, decisions.tables.items[run]
    start, done, earliest = int(item["prefetch_start"]), int(item["prefetch_done"]), earliest_start(decisions, run)
    found: list[int] = []
    for distance in _DISTANCES:
        for slot in (start - distance, start + distance):
            if earliest <= slot <= done and slots.is_operation[slot]:
                found.append(slot)
    return found
