"""Annealing in one fast space, as Python sees it: how it starts, goes on, and ends in a solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.planners.search.annealing_kernel import LATENCY_ROW, Walk, anneal
from memplan.planners.search.neighbourhoods_kernel import NUM_KINDS, SPAN_ROW, Neighbourhoods, take_again
from memplan.planners.search.places_kernel import PLACE_ROW, Places
from memplan.planners.stays.assembly import Stay
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.evaluation import in_one_piece, make_evaluation
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.packing import UNPLACED
from memplan.planners.stays.placing import offsets_of
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.tables import CHANGE_ROW, ITEM_ROW, NONE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Placements that an exact search for offsets may try where heuristics leave stays over.
_EXACT_NODES = 50_000

# A journal has room for one change for so many items, and for some more. If there are more changes, all is copied.
_ITEMS_PER_CHANGE, _LEAST_CHANGES = 4, 64


@dataclass(frozen=True)
class PlacedRuns:
    """A solution: the runs that have stays, with their offsets and the latency that results.

    Attributes:
      kept: buffer that stays from one run of the program to the next; -1 for none.
      rows: ITEM_ROW of the first item of each run.
      offsets: `[num_homes + num_runs]` bytes, of the homes in the space, then of the runs.
      latency: seconds.
    """

    kept: int
    rows: np.ndarray
    offsets: Integers
    latency: float


class Annealer:
    """Annealing in one fast space.

    Args:
      frame: of the space.
      emulator: of the frame's problem.
      seed: of the random numbers.
      prior: `[num_items]` by how much the claim of a run that begins with each item is multiplied.
      kinds: `[num_kinds]` weights of the neighbourhoods at first; those of weight 0 are not used.

    Attributes:
      decisions: with the tables that the search works on.
      pressure: `[n + 1]` units by which the memory looks smaller than it is, because a run found no place before.
    """

    def __init__(self, frame: Frame, emulator: TimingEmulator, seed: int, prior: Floats, kinds: Floats):
        self.frame, self.emulator = frame, emulator
        num_items, num_chains, n = len(frame.chains.chain), len(frame.chains.buffer), frame.problem.end
        most, most_blocks = len(frame.lows) + num_chains + 2, 2 * num_items + len(frame.homes)
        self.neighbourhoods = Neighbourhoods(
            lows=frame.lows,
            highs=frame.highs,
            starts=frame.chains.start[frame.lows],
            ends=frame.chains.end[frame.highs],
            prior=np.ascontiguousarray(prior, np.float64),
            capacity=np.array([max(float(np.max(frame.capacity)), 1.0)]),
            low=np.zeros(most, np.int64),
            high=np.zeros(most, np.int64),
            key=np.zeros(most),
            order=np.zeros(most, np.int64),
            spare=np.zeros(most, np.int64),
            stay=np.zeros(1, ITEM_ROW),
            elapsed=np.zeros(n + 2),
            span=np.zeros(1, SPAN_ROW),
            random=np.array([seed & (2**64 - 1)], np.uint64),
        )
        self.weights, self.earned, self.used = kinds.astype(np.float64), np.zeros(NUM_KINDS), np.zeros(NUM_KINDS)
        self.rounds = np.zeros(1, np.int64)
        reserved = np.array([*(operation.reserved[frame.space] for operation in frame.problem.operations), 0, 0])
        self.places = Places(
            start=np.zeros(0, np.int64),
            end=np.zeros(0, np.int64),
            offset=np.zeros(0, np.int64),
            fixed=np.zeros(len(frame.homes), PLACE_ROW),
            reserved=-(-reserved.astype(np.int64) // frame.unit),
            capacity=np.array([frame.problem.spaces[frame.space].capacity // frame.unit], np.int64),
            unsorted=np.zeros(most_blocks, PLACE_ROW),
            blocks=np.zeros(most_blocks, PLACE_ROW),
            waiting=np.zeros(num_items, np.int64),
            claim=np.zeros(num_items),
            shuffle=np.ones(num_items),
            key=np.zeros(most_blocks),
            order=np.zeros(most_blocks, np.int64),
            spare=np.zeros(most_blocks, np.int64),
        )
        self.pressure = np.zeros(n + 1, np.int64)
        self.evaluation = make_evaluation(frame, emulator)
        self._start(NONE)
        self._settle()

    def _start(self, kept: int) -> None:
        """Starts without any runs, and with an argument that may stay from run to run of the program."""
        self.decisions = Decisions(self.frame, Rules(), kept)
        tables, (start, end, offset), whole = in_one_piece(self.decisions.tables)
        journal = np.zeros(len(tables.items) // _ITEMS_PER_CHANGE + _LEAST_CHANGES, CHANGE_ROW)
        self.decisions.tables = tables._replace(journal=journal, changes=np.zeros(1, np.int64))
        self.places = self.places._replace(start=start, end=end, offset=offset)
        self.walk = Walk(
            now=whole,
            accepted=whole.copy(),
            best=whole.copy(),
            unsaved=journal.copy(),
            num_unsaved=np.zeros(1, np.int64),
            latency=np.zeros(1, LATENCY_ROW),
            weights=self.weights,
            earned=self.earned,
            used=self.used,
            rounds=self.rounds,
        )

    def resume(self, solution: PlacedRuns, kept: int) -> None:
        """Goes to a solution, without the runs that are not possible if another buffer is kept."""
        self._start(kept)
        take_again(self.decisions.tables, solution.rows)
        num_homes = len(self.frame.homes)
        offset_of = dict(zip(solution.rows["run"].tolist(), solution.offsets[num_homes:].tolist(), strict=True))
        runs = self.decisions.runs().tolist()
        self._adopt(np.array([*solution.offsets[:num_homes], *(offset_of[run] for run in runs)], np.int64))
        self._settle()

    def load(self, stays: Sequence[Stay], home_offsets: Sequence[int]) -> PlacedRuns:
        """Returns stays of a plan as a solution; those that are no runs of the frame are left out."""
        rows, offsets, kept = [], [], NONE
        for stay in stays:
            row = self._row_of(stay)
            if row is not None:
                rows.append(row)
                offsets.append(stay.offset)
                if stay.prefetches and stay.prefetches[0][0] < 0:
                    kept = stay.buffer
        table = np.array(rows, self.decisions.tables.items.dtype)
        solution = PlacedRuns(kept, table, np.array([*home_offsets, *offsets], np.int64), np.inf)
        self.resume(solution, kept)
        return self.solution()

    def _row_of(self, stay: Stay) -> np.void | None:
        """Returns the row of the first item of the run that a stay is; None if there is no such run."""
        chains, slots = self.frame.chains, self.frame.slots
        if not stay.accesses:
            return None
        position = np.flatnonzero(np.isin(chains.accesses, stay.accesses))
        first, last = int(position[0]), int(position[-1]) + 1
        for low in np.flatnonzero(chains.first_access == first).tolist():
            chain = chains.chain[low]
            region = chains.region[chain]
            highs = np.flatnonzero((chains.last_access == last) & (chains.chain == chain))
            copied = [
                slots.of_time[time] for times in (*stay.prefetches, *stay.evictions) for time in times if times[0] >= 0
            ]
            is_here = all(slots.first[region] <= slot < slots.last[region] for slot in copied)
            covers = len(highs) > 0 and stay.start <= chains.start[low] and stay.end >= chains.end[highs[0]]
            if is_here and covers and last - first == len(stay.accesses):
                row = self.frame.tables.items[low].copy()
                row["run"], row["run_last"], row["run_start"], row["run_end"] = low, highs[0], stay.start, stay.end
                if stay.prefetches and stay.prefetches[0][0] >= 0:
                    row["prefetch_start"], row["prefetch_done"] = (slots.of_time[time] for time in stay.prefetches[0])
                if stay.evictions:
                    row["eviction_start"], row["eviction_done"] = (slots.of_time[time] for time in stay.evictions[0])
                return row
        return None

    def run(self, rounds: int, temperature: float, cooling: float, is_placed: bool) -> None:
        """Makes some rounds, see `annealing_kernel.anneal`."""
        self._anneal(rounds, temperature, cooling, is_placed)

    def _anneal(
        self, rounds: int, temperature: float, cooling: float, is_placed: bool = False, is_new: bool = False
    ) -> None:
        anneal(
            self.decisions.tables,
            self.evaluation,
            self.neighbourhoods,
            self.places,
            self.walk,
            rounds,
            temperature,
            cooling,
            is_placed,
            is_new,
        )

    @property
    def best_latency(self) -> float:
        """Seconds of the best since the last start."""
        return float(self.walk.latency["best"][0])

    @property
    def num_rounds(self) -> int:
        """How many rounds were made."""
        return int(self.rounds[0])

    def squeeze(self) -> None:
        """Lets the memory look smaller where runs found no place before."""
        self.decisions.tables.free[:] -= self.pressure
        self._settle()

    def place(self, is_exact: bool = True) -> None:
        """Goes to the best since the last start, packs it, drops what finds no place, and undoes `squeeze`.

        Args:
          is_exact: whether to search exactly for offsets of what heuristics leave over, which may take seconds.
        """
        self.walk.now[:] = self.walk.best
        decisions, num_homes = self.decisions, len(self.frame.homes)
        tables = decisions.tables
        tables.free[:] += self.pressure
        self.pressure //= 2
        runs = decisions.runs()
        offsets = offsets_of(decisions, exact_nodes=_EXACT_NODES if is_exact else 0)
        for run in runs[offsets[num_homes:] == UNPLACED].tolist():
            item = tables.items[run]
            half = int(tables.buffers["size"][tables.chains["buffer"][item["chain"]]]) // 2
            self.pressure[item["run_start"] : item["run_end"]] += half
            decisions.drop(run)
        self._adopt(offsets[offsets != UNPLACED])
        self._settle()

    def _adopt(self, offsets: Integers) -> None:
        """Lets the homes and the runs lie at offsets in bytes."""
        frame, places, items = self.frame, self.places, self.decisions.tables.items
        num_homes, runs = len(frame.homes), self.decisions.runs()
        units = offsets // frame.unit
        places.start[:] = NONE
        places.start[runs], places.end[runs] = items["run_start"][runs], items["run_end"][runs]
        places.offset[runs] = units[num_homes:]
        for number, buffer in enumerate(frame.homes):
            described = frame.problem.buffers[buffer]
            top = units[number] - (-described.size // frame.unit)
            places.fixed[number] = described.start, described.end, units[number], top

    def _settle(self) -> None:
        """Makes what the tables say the accepted and the best solution."""
        self._anneal(0, 1.0, 1.0, is_new=True)

    def best_solution(self) -> tuple[PlacedRuns, list[Stay]]:
        """Returns the best since the last start, which must be placed, and its stays."""
        now = self.walk.now.copy()
        self.walk.now[:] = self.walk.best
        solution = replace(self.solution(), latency=self.best_latency)
        stays = self.decisions.stays(solution.offsets)
        self.walk.now[:] = now
        return solution, stays

    def solution(self) -> PlacedRuns:
        """Returns what is decided now. It must be placed."""
        runs = self.decisions.runs()
        offsets = np.concatenate([self.places.fixed["offset"], self.places.offset[runs]]) * self.frame.unit
        rows = self.decisions.tables.items[runs].copy()
        return PlacedRuns(self.decisions.kept, rows, offsets, float(self.walk.latency["accepted"][0]))
