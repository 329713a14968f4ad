"""The neighbourhood of `search` that decides windows of time anew by CP-SAT, and how often that is worth its time.

Large neighbourhood search (Shaw, "Using constraint programming and local search methods to solve vehicle routing
problems", 1998). The runs in a window are given up, `probe` finds what could be there, and `window_model.py`
chooses. The result is evaluated and accepted like that of any other move.

A window takes as long as hundreds of moves. So it is chosen by what it earns for its time, and that is estimated from
the work that was done, not measured: the same seed makes the same choices.
"""

from __future__ import annotations

import numpy as np

from memplan.planners.search.annealing import Annealer
from memplan.planners.search.annealing_kernel import judge
from memplan.planners.search.neighbourhoods_kernel import take_again
from memplan.planners.search.places_kernel import place_new
from memplan.planners.search.window_kernel import open_window, probe
from memplan.planners.search.window_model import Window, choose
from memplan.planners.stays.tables import NONE

# Candidates in a window, at most, and deterministic seconds of the solver.
_MOST_CANDIDATES, _EFFORT = 150, 0.02

# Estimated seconds: of a round, at least and for each candidate of the frame; of a window, and of the solver's unit.
_ROUND, _ROUND_FOR_EACH, _WINDOW, _WORK = 10e-6, 0.05e-6, 15e-3, 3.0

# What a second of the link's time is worth, as in `greedy`.
_PRICE = 0.2

# The share of the time that windows get, at least and at most, and how fast the estimates follow.
_LEAST, _MOST, _REACTION = 0.02, 0.5, 0.1


class Windows:
    """When windows are decided anew, and how.

    Args:
      annealer: whose present solution is changed. It must be placed.
      generator: of random numbers.
    """

    def __init__(self, annealer: Annealer, generator: np.random.Generator):
        self.annealer, self.generator = annealer, generator
        self.round_seconds = _ROUND + _ROUND_FOR_EACH * len(annealer.frame.lows)
        self.rates = [0.0, 0.0]  # credit for a second: of moves, of windows
        self.owed = 0.0  # seconds that windows may take

    def follow(self, rounds: int, credit: float, temperature: float) -> bool:
        """Makes as many windows as rounds that were made, and what they earned, suggest; returns whether any."""
        seconds = rounds * self.round_seconds
        self._learn(0, credit / seconds)
        total = sum(self.rates)
        share = min(max(self.rates[1] / total, _LEAST), _MOST) if total > 0.0 else _LEAST
        self.owed += seconds * share / (1.0 - share)
        made = False
        while self.owed > 0.0:
            earned, spent = self.resolve(temperature)
            self.owed -= spent
            self._learn(1, earned / spent)
            made = True
        return made

    def _learn(self, which: int, rate: float) -> None:
        self.rates[which] += _REACTION * (rate - self.rates[which])

    def resolve(self, temperature: float) -> tuple[float, float]:
        """Decides one window anew; returns what that earned, and the seconds that it is estimated to have taken."""
        annealer, walk = self.annealer, self.annealer.walk
        tables = annealer.decisions.tables
        first, last = self._window()
        before = annealer.decisions.runs()
        present = tables.items[before].copy()
        if open_window(tables, first, last) == 0:
            walk.now[:] = walk.accepted
            return 0.0, _WINDOW
        given_up = present[tables.items["run"][before] == NONE]
        rows = self._candidates(first, last, given_up)
        if not len(rows):
            walk.now[:] = walk.accepted
            return 0.0, _WINDOW
        window = self._described(rows, given_up, first, last)
        chosen, offsets, work = choose(window, _EFFORT, int(self.generator.integers(2**31)))
        take_again(tables, rows[chosen])
        places, items = annealer.places, tables.items
        for row, offset in zip(rows[chosen], offsets[chosen].tolist(), strict=True):
            run = int(row["run"])
            if offset >= 0 and items["run"][run] == run:
                places.start[run], places.end[run] = row["run_start"], row["run_end"]
                places.offset[run] = offset
        place_new(tables, places, True, True, np.ones(len(items)))
        credit = judge(tables, annealer.evaluation, annealer.moves.random, walk, temperature)
        return float(credit), _WINDOW + _WORK * work

    def _window(self) -> tuple[int, int]:
        """Returns random half-open times, as many as have no more than a number of candidates."""
        moves, n = self.annealer.moves, self.annealer.frame.problem.end
        middle = int(self.generator.integers(n))
        width = last_width = 2
        while width < 2 * n:
            first, last = middle - width // 2, middle - width // 2 + width
            if int(((moves.starts >= first) & (moves.ends <= last)).sum()) > _MOST_CANDIDATES:
                break
            last_width, width = width, width + max(1, width // 3)
        first = max(middle - last_width // 2, 0)
        return first, min(first + last_width, n + 1)

    def _candidates(self, first: int, last: int, given_up: np.ndarray) -> np.ndarray:
        """Returns ITEM of the first items of the runs that were in a window, and of others that could be."""
        annealer = self.annealer
        moves, tables = annealer.moves, annealer.decisions.tables
        inside = (moves.starts >= first) & (moves.ends <= last)
        lows, highs = moves.lows[inside], moves.highs[inside]
        if len(lows) > _MOST_CANDIDATES:
            drawn = np.sort(self.generator.choice(len(lows), _MOST_CANDIDATES, replace=False))
            lows, highs = lows[drawn], highs[drawn]
        rows = np.zeros(len(lows), tables.items.dtype)
        is_possible = probe(tables, lows, highs, first, last, _PRICE, rows)
        return np.concatenate([given_up, rows[is_possible]])

    def _described(self, rows: np.ndarray, given_up: np.ndarray, first: int, last: int) -> Window:
        """Returns the choice among runs, given what is decided outside of a window."""
        annealer, frame = self.annealer, self.annealer.frame
        tables, places = annealer.decisions.tables, annealer.places
        chain, buffers = tables.chains[rows["chain"]], tables.buffers
        operations, slots = tables.operations, tables.slots
        repetitions = slots["repetitions"][rows["slot"]]
        has_prefetch, has_eviction = rows["prefetch_start"] != NONE, rows["eviction_start"] != NONE
        prefetch_seconds = np.where(has_prefetch, buffers["prefetch_seconds"][chain["buffer"]], 0.0)
        copied = prefetch_seconds + np.where(has_eviction, buffers["eviction_seconds"][chain["buffer"]], 0.0)
        late = np.where(has_prefetch, rows["late"], 0.0)
        covers, savings = [], []
        freed = np.zeros(len(rows))
        for number, row in enumerate(rows):
            covered = tables.order[row["first_access"] : tables.items["last_access"][row["run_last"]]]
            access = tables.accesses[covered]
            saving: dict[int, float] = {}
            for time, seconds in zip(access["time"].tolist(), access["saving"].tolist(), strict=True):
                saving[time] = saving.get(time, 0.0) + seconds
            freed[number] = float((access["traffic"] * operations["repetitions"][access["time"]]).sum())
            covers.append(covered.tolist())
            savings.append(saving)
        times = np.arange(first, min(last, frame.problem.end) + 1)
        idle = np.maximum(0.0, np.maximum(operations["floor"], operations["demand"]) - operations["taken"])
        is_operation = slots["is_operation"] & (slots["time"] < len(operations))
        slot_idle = slots["idle"].copy()
        slot_idle[is_operation] = idle[slots["time"][is_operation]]
        was_chosen = np.arange(len(rows)) < len(given_up)
        offset = np.full(len(rows), NONE)
        offset[was_chosen] = places.offset[given_up["run"]]
        return Window(
            start=rows["run_start"],
            end=rows["run_end"],
            size=buffers["size"][chain["buffer"]],
            floor=np.array(
                [
                    np.max(places.reserved[a:b], initial=0)
                    for a, b in zip(rows["run_start"], rows["run_end"], strict=True)
                ],
                np.int64,
            ),
            saving=savings,
            cost=late * repetitions + _PRICE * (copied * repetitions - freed),
            covers=covers,
            conflicts=_conflicts(rows),
            prefetch=np.stack([rows["prefetch_start"], rows["prefetch_done"]], axis=1),
            prefetch_seconds=np.where(late > 0.0, 0.0, prefetch_seconds),
            least=operations["floor"],
            demand=operations["demand"],
            repetitions=operations["repetitions"],
            free=np.stack([times, tables.free[times]], axis=1),
            blocks=self._blocks(first, last),
            idle=np.maximum(slot_idle - slots["arrivals"], 0.0),
            capacity=int(places.capacity[0]),
            chosen=was_chosen,
            offset=offset,
        )

    def _blocks(self, first: int, last: int) -> np.ndarray:
        """Returns what lies in a window and stays there: `[num_blocks, 4]` start, end, offset and top."""
        annealer = self.annealer
        places, tables, n = annealer.places, annealer.decisions.tables, annealer.frame.problem.end
        runs = annealer.decisions.runs()
        items = tables.items[runs]
        end, again = items["run_end"].copy(), []
        for i in np.flatnonzero(runs == places.kept[0]).tolist():
            if places.kept[1] != NONE and end[i] >= places.kept[1]:
                end[i] = n + 1
            elif places.kept[1] != NONE:
                again.append(i)
        top = places.offset[runs] + tables.buffers["size"][tables.chains["buffer"][items["chain"]]]
        blocks = np.stack([items["run_start"], end, places.offset[runs], top], axis=1)
        kept = np.array([[places.kept[1], n + 1, blocks[i, 2], top[i]] for i in again], np.int64).reshape(-1, 4)
        blocks = np.concatenate([places.fixed, blocks, kept])
        blocks[:, 0], blocks[:, 1] = np.maximum(blocks[:, 0], first), np.minimum(blocks[:, 1], last)
        return blocks[blocks[:, 0] < blocks[:, 1]]


def _conflicts(rows: np.ndarray) -> list[tuple[int, int]]:
    """Returns the pairs of runs of which one is filled before the value that the other writes is at home."""
    found = []
    for number in np.flatnonzero(rows["prefetch_start"] != NONE).tolist():
        row = rows[number]
        if row["writer"] == NONE:
            continue
        writes = (rows["run"] <= row["writer"]) & (rows["run_last"] >= row["writer"])
        late = (rows["eviction_start"] == NONE) | (rows["eviction_done"] > row["prefetch_start"])
        found += [(other, number) for other in np.flatnonzero(writes & late).tolist()]
    return found
