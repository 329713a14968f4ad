"""Improves decisions by what the emulator says: parts are given up and decided again, and copies are shifted in time.

This is ruin and recreate (Schrimpf et al., "Record breaking optimization results using the ruin and recreate
principle", 2000): a change that is not worse is kept. It takes care of what the relaxation does not see, which is
queues, latencies of links, and offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.planners.ilp.sweep import earliest_start, move_start, sweep
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.placing import offsets_of, placed
from memplan.planners.stays.tables import NONE

Integers = NDArray[np.int64]

# The share of the trials that only shift a copy.
_SHARE_OF_SHIFTS = 0.5

# Constraint programming looks for offsets where at most this many runs found none.
_FEW = 6

# The starts of copies that are tried before the changes, for each of them.
_TRIALS = 4

# How often the search goes on with less memory around what found no offset, and by how much it tries less then.
_REPACKS, _LESS = 6, 4


@dataclass(frozen=True)
class PolishWork:
    """How much to try.

    Attributes:
      rounds: how many changes are tried at first; fewer are tried after each packing.
      exact: deterministic seconds of constraint programming for each run that finds no offset otherwise.
    """

    rounds: int
    exact: float = 0.0


@dataclass(frozen=True)
class Packed:
    """Decisions that have offsets.

    Attributes:
      decisions: all of them.
      offsets: `[num_homes + num_runs]` bytes.
      latency: seconds.
    """

    decisions: Decisions
    offsets: Integers
    latency: float


class Polish:
    """The improvement of decisions on one fast space.

    Args:
      frame: of the space.
      emulator: of the frame's problem.
      generator: of random numbers.
      goal: seconds of latency that are low enough.
      guard: ends it early.
    """

    def __init__(
        self, frame: Frame, emulator: TimingEmulator, generator: np.random.Generator, goal: float, guard: Guard
    ):
        self.frame, self.emulator, self.generator = frame, emulator, generator
        self.goal, self.guard = goal, guard

    def packed(self, found: Decisions, work: PolishWork) -> Iterator[Packed]:
        """Yields improved decisions that have offsets, each time that there are new ones."""
        for attempt in range(_REPACKS + 1):
            if attempt == 0:
                found = sweep(found, self.emulator, _TRIALS * work.rounds, self.guard)
            found = self.improved(found, work if attempt == 0 else replace(work, rounds=work.rounds // _LESS))
            packed, left_out = self._placed(found, 0.0 if self.guard.reached() else work.exact)
            yield packed
            if not len(left_out) or attempt == _REPACKS or self.guard.reached():
                return
            found = found.squeezed(left_out)

    def latency(self, decisions: Decisions) -> float:
        """Returns the seconds of the program under the decisions."""
        return self.emulator.latency_of(*decisions.arrays())

    def improved(self, best: Decisions, work: PolishWork) -> Decisions:
        """Returns the best of what results from random changes."""
        best_latency = self.latency(best)
        for _ in range(work.rounds):
            if best_latency <= self.goal or self.guard.reached():
                break
            if self.generator.random() < _SHARE_OF_SHIFTS:
                trial = best.copy()
                if not self._shift(trial):
                    continue
            else:
                trial = best.partly_redecided(self.generator)
            if (latency := self.latency(trial)) <= best_latency:
                best, best_latency = trial, latency
        return best

    def _shift(self, decisions: Decisions) -> bool:
        """Lets a random copy into fast memory start at another time; returns whether there is room for it."""
        tables, slots, draw = decisions.tables, self.frame.slots, self.generator
        runs = decisions.runs()
        runs = runs[tables.items["prefetch_start"][runs] != NONE]
        if not len(runs):
            return False
        run = int(runs[draw.integers(len(runs))])
        item = tables.items[run]
        start, done = int(item["prefetch_start"]), int(item["prefetch_done"])
        way = max(1, int(2.0 ** draw.uniform(0.0, 6.0)))
        start += way if draw.random() < 0.4 else -way
        start = min(max(start, earliest_start(decisions, run)), done)
        while start < done and not slots.is_operation[start]:
            start += 1
        return start != item["prefetch_start"] and move_start(decisions, run, start)

    def _placed(self, decisions: Decisions, exact: float) -> tuple[Packed, Integers]:
        """Returns the decisions without the runs that find no offset, and those runs."""
        made, offsets, left_out = placed(decisions, offsets_of(decisions, _FEW, exact))
        return Packed(made, offsets, self.latency(made)), left_out
