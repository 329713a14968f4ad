"""Decisions that have offsets: what a plan decides on one fast space, as the search for windows changes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.planners.stays.assembly import Stay
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.item_runs import ItemRun, RunCopy, commit, note_late
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.tables import NONE

Integers = NDArray[np.int64]


@dataclass
class Placed:
    """Decisions and offsets.

    Attributes:
      decisions: on one fast space.
      homes: `[num_homes]` bytes, offsets of the homes in the space.
      offset: `[num_items]` bytes, the offset of the run that begins with an item; without a meaning for other items.
      latency: seconds.
    """

    decisions: Decisions
    homes: Integers
    offset: Integers
    latency: float

    @staticmethod
    def of(frame: Frame, emulator: TimingEmulator, stays: Sequence[Stay], homes: Sequence[int]) -> Placed:
        """Returns stays of a plan, which have offsets, as decisions; those that are no runs of the frame are left out.

        Args:
          frame: of the space.
          emulator: of the frame's problem.
          stays: of the plan in this space.
          homes: offsets of the frame's homes in bytes.
        """
        runs: list[tuple[ItemRun, int]] = []
        kept = NONE
        finder = _RunFinder(frame)
        for stay in stays:
            run = finder.run_of(stay)
            if run is not None:
                runs.append((run, stay.offset))
                if stay.prefetches and stay.prefetches[0][0] < 0:
                    kept = stay.buffer
        decisions = Decisions(frame, Rules(), kept)
        commit(decisions, [run for run, _ in runs])
        note_late(decisions, emulator)
        offset = np.full(len(frame.chains.chain), NONE)
        for run, at in runs:
            offset[run.first] = at
        latency = emulator.latency_of(*decisions.arrays())
        return Placed(decisions, np.array(homes, np.int64), offset, latency)

    @property
    def offsets(self) -> Integers:
        """`[num_homes + num_runs]` bytes."""
        return np.concatenate([self.homes, self.offset[self.decisions.runs()]])


class _RunFinder:
    """Finds the items that stays serve."""

    def __init__(self, frame: Frame):
        self.frame, chains = frame, frame.chains
        self._position = np.full(len(frame.problem.accesses), NONE)
        self._position[chains.accesses] = np.arange(len(chains.accesses))
        self._by_first: dict[int, list[int]] = {}
        for item, first in enumerate(chains.first_access.tolist()):
            self._by_first.setdefault(first, []).append(item)

    def run_of(self, stay: Stay) -> ItemRun | None:
        """Returns the run that a stay is; None if there is no such run."""
        chains, slots = self.frame.chains, self.frame.slots
        if not stay.accesses:
            return None
        positions = self._position[list(stay.accesses)]
        first, last = int(positions.min()), int(positions.max()) + 1
        if first < 0 or last - first != len(stay.accesses):
            return None
        copied = [times for times in (*stay.prefetches, *stay.evictions) if times[0] >= 0]
        for low in self._by_first.get(first, ()):
            chain = int(chains.chain[low])
            region = chains.region[chain]
            highs = np.arange(low, chains.last[chain])
            highs = highs[chains.last_access[highs] == last]
            if not len(highs) or stay.start > chains.start[low] or stay.end < chains.end[highs[0]]:
                continue
            run = ItemRun(low, int(highs[0]), stay.start, stay.end)
            places = [[int(slots.of_time[time]) for time in times] for times in copied]
            if not all(slots.first[region] <= slot < slots.last[region] for place in places for slot in place):
                continue
            if stay.prefetches and stay.prefetches[0][0] >= 0:
                run.prefetch = _copy(slots.of_time, stay.prefetches[0])
            if stay.evictions:
                run.eviction = _copy(slots.of_time, stay.evictions[0])
            return run
        return None


def _copy(of_time: Integers, times: tuple[int, int]) -> RunCopy:
    return RunCopy(int(of_time[times[0]]), int(of_time[times[1]]), 0, 0, 0.0)
