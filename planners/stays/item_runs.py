"""Runs of items with the times of their copies, and decisions that consist of such runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.planners.stays.booking_kernel import refresh
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.single_bookings_kernel import book, serve_fast
from memplan.planners.stays.tables import NONE


@dataclass
class RunCopy:
    """A copy that fills a run or brings its value home.

    Attributes:
      start, done: slots of its region; until it is scheduled, the earliest start and the latest end.
      low, high: the positions between which it is to move.
      seconds: for which it takes its channel, over all times that it is made.
    """

    start: int
    done: int
    low: int
    high: int
    seconds: float


@dataclass
class ItemRun:
    """Neighbouring items of a chain that one stay serves, and its copies.

    Attributes:
      first, last: items.
      start, end: half-open times of the stay.
      prefetch: the copy that fills it; None if it needs none.
      eviction: the copy that brings its value home; None if it needs none.
    """

    first: int
    last: int
    start: int
    end: int
    prefetch: RunCopy | None = None
    eviction: RunCopy | None = None


def commit(made: Decisions, runs: Sequence[ItemRun]) -> None:
    """Enters runs, whose copies are scheduled, into decisions that hold none yet."""
    tables, chains = made.tables, made.frame.chains
    for run in runs:
        first, last = chains.first_access[run.first], chains.last_access[run.last]
        for access in chains.accesses[first:last].tolist():
            serve_fast(tables, access)
    refresh(tables)
    for run in runs:
        tables.items["run"][run.first : run.last + 1] = run.first
        item = tables.items[run.first]
        item["run_last"], item["run_start"], item["run_end"], item["late"] = run.last, run.start, run.end, 0.0
        item["prefetch_start"] = item["prefetch_done"] = item["eviction_start"] = item["eviction_done"] = NONE
        if run.prefetch is not None:
            item["prefetch_start"], item["prefetch_done"] = run.prefetch.start, run.prefetch.done
        if run.eviction is not None:
            item["eviction_start"], item["eviction_done"] = run.eviction.start, run.eviction.done
        book(tables, run.first, 1)


def note_late(made: Decisions, emulator: TimingEmulator) -> None:
    """Notes which prefetches are late by the emulator's word, so that further copies are still accepted."""
    stall = np.nan_to_num(emulator.emulate(made.sketch()).stall)
    for run in made.runs().tolist():
        item = made.tables.items[run]
        if item["prefetch_done"] == NONE:
            continue
        late = stall[made.frame.slots.time[item["prefetch_done"]]]
        if late > 0.0:
            book(made.tables, run, -1)
            made.tables.items["late"][run] = late
            book(made.tables, run, 1)
    refresh(made.tables)
