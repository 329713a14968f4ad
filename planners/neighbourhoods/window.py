"""A window of a plan: the stays that are decided again, and the rectangles that compete for their room.

All stays that are alive in the window are freed, and with them their accesses outside of it. Two kinds of rectangles
compete: the freed stays, each with its times and its copies as they are, and runs of accesses that need no copy. Stays
that are not freed are obstacles; they keep their offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.planners.ilp.runs import ItemRun
from memplan.planners.neighbourhoods.placed import Placed, run_of
from memplan.planners.neighbourhoods.rectangles_kernel import RECTANGLE_ROW, rearrange
from memplan.planners.stays.rules import until_next_run, writer_to_evict
from memplan.planners.stays.tables import NONE

Integers = NDArray[np.int64]

# A run of more items than this competes only if it is all of a chain.
_MOST_ITEMS = 8

# The temperature of the last round, as a part of that of the first.
_COLDEST = 1e-2


@dataclass(frozen=True)
class Annealing:
    """How rectangles are rearranged.

    Attributes:
      rounds: for each rectangle.
      heat: the temperature of the first round, as a part of what a placed rectangle saves on average.
    """

    rounds: int
    heat: float


class FreedWindow:
    """Times `[start, end)` of a plan.

    Attributes:
      freed: runs that are given up.
      runs: of the freed runs first, then of those that compete with them.
      rows: `[num_rectangles]` RECTANGLE_ROW, of the runs and then of the obstacles.
    """

    def __init__(self, placed: Placed, start: int, end: int, reserved: Integers):
        """Takes the window out of a plan.

        Args:
          placed: the plan.
          start, end: half-open times.
          reserved: `[n + 1]` units that operations reserve.
        """
        self.placed, self._reserved = placed, reserved
        self._decisions = placed.decisions
        self._tables, self._chains = self._decisions.tables, self._decisions.frame.chains
        taken = self._decisions.runs()
        items = self._tables.items
        is_alive = (items["run_start"][taken] < end) & (items["run_end"][taken] > start)
        is_alive &= taken != self._decisions.kept_item
        self.freed = taken[is_alive].tolist()
        self.runs = [run_of(items[run]) for run in self.freed]
        self.runs += self._competing(start, end)
        self.rows = self._rectangles(taken[~is_alive])

    def _competing(self, start: int, end: int) -> list[ItemRun]:
        """Returns the runs that need no copy and whose items are in the window or in a freed run."""
        chains, items = self._chains, self._tables.items
        free = (chains.start < end) & (chains.end > start) & (items["run"] == NONE)
        free &= ~items["closed"]
        freed_accesses: set[int] = set()
        for run in self.freed:
            last = items["run_last"][run]
            free[run : last + 1] = True
            freed_accesses.update(chains.accesses[chains.first_access[run] : chains.last_access[last]].tolist())
        numbers = np.flatnonzero(free)
        is_new = (np.diff(numbers) != 1) | (np.diff(chains.chain[numbers]) != 0)
        known = {(run.first, run.last) for run in self.runs}
        found = []
        for group in np.split(numbers, np.flatnonzero(is_new) + 1) if len(numbers) else []:
            low, high = int(group[0]), int(group[-1])
            for first in range(low, high + 1):
                if chains.reads[first]:
                    continue
                for last in {*range(first, min(high, first + _MOST_ITEMS) + 1), high}:
                    if (first, last) not in known and self._needs_no_copy(first, last, freed_accesses):
                        found.append(ItemRun(first, last, int(chains.start[first]), int(chains.end[last])))
        return sorted(found, key=lambda run: (run.first, run.last))

    def _needs_no_copy(self, first: int, last: int, freed: set[int]) -> bool:
        """Whether a run is possible without a copy, where the accesses of the freed runs are not served."""
        tables, chains = self._tables, self._chains
        if writer_to_evict(tables.items, tables.chains, first, last) != NONE:
            return False
        accesses = chains.accesses[chains.first_access[first] : chains.last_access[last]]
        served = accesses[tables.accesses["is_fast"][accesses]]
        return tables.slots["repetitions"][chains.slot[first]] > 0.0 and freed.issuperset(served.tolist())

    def _rectangles(self, others: Integers) -> np.ndarray:
        frame, chains, placed = self._decisions.frame, self._chains, self.placed
        sizes = self._tables.buffers["size"]
        rows = np.zeros(len(self.runs), RECTANGLE_ROW)
        for number, (row, run) in enumerate(zip(rows, self.runs, strict=True)):
            row["start"], row["end"] = run.start, run.end
            row["size"] = sizes[chains.buffer[chains.chain[run.first]]]
            row["offset"] = placed.offset[run.first] // frame.unit if number < len(self.freed) else NONE
            row["floor"] = self._reserved[run.start : run.end].max(initial=0)
            row["first_access"] = chains.first_access[run.first]
            row["last_access"] = chains.last_access[run.last]
        first, last = int(rows["start"].min(initial=frame.problem.end)), int(rows["end"].max(initial=0))
        obstacles = self._obstacles(others, first, last)
        fixed = np.zeros(len(obstacles), RECTANGLE_ROW)
        fixed["is_fixed"] = True
        for row, (start, end, offset, size) in zip(fixed, obstacles, strict=True):
            row["start"], row["end"], row["offset"], row["size"] = start, end, offset, size
        return np.concatenate([rows, fixed])

    def _obstacles(self, others: Integers, first: int, last: int) -> list[tuple[int, int, int, int]]:
        """Returns start, end, offset and size in units of what is not freed within times: homes and runs."""
        decisions, frame, placed = self._decisions, self._decisions.frame, self.placed
        n, unit, items = frame.problem.end, frame.unit, self._tables.items
        found = []
        for number, offset in zip(frame.homes, placed.homes.tolist(), strict=True):
            buffer = frame.problem.buffers[number]
            found.append((buffer.start, buffer.end, offset // unit, -(-buffer.size // unit)))
        # The kept run may lie elsewhere in time as well.
        is_near = (items["run_start"][others] < last) & (items["run_end"][others] > first)
        others = others[is_near | (others == decisions.kept_item)]
        sizes = self._tables.buffers["size"][self._chains.buffer[self._chains.chain[others]]]
        rows = zip(
            items["run_start"][others], items["run_end"][others], placed.offset[others] // unit, sizes, strict=True
        )
        for run, (start, end, offset, size) in zip(others.tolist(), rows, strict=True):
            if run == decisions.kept_item:
                end, again = until_next_run(int(end), decisions.kept_again, n + 1)
                found.append((again, n + 1, int(offset), int(size)))
            found.append((int(start), int(end), int(offset), int(size)))
        return [row for row in found if row[0] < last and row[1] > first]

    def rearranged(self, annealing: Annealing, seed: int) -> tuple[float, list[tuple[ItemRun, int]]]:
        """Returns the seconds that the best arrangement saves, without waits, and its runs with offsets in bytes."""
        tables = self._tables._replace(accesses=self._tables.accesses.copy(), operations=self._tables.operations.copy())
        frame = self._decisions.frame
        rounds = annealing.rounds * len(self.runs)
        gained = self._decisions.gains(np.array(self.freed, np.int64))
        heat = annealing.heat * max(float(gained.mean()) if len(gained) else 0.0, 1e-12)
        capacity = frame.problem.spaces[frame.space].capacity // frame.unit
        random = np.array([seed], np.uint64)
        saved = rearrange(tables, self.rows, capacity, rounds, heat, _COLDEST ** (1.0 / max(rounds, 1)), random)
        best = self.rows["best"][: len(self.runs)].tolist()
        return saved, [(run, at * frame.unit) for run, at in zip(self.runs, best, strict=True) if at != NONE]
