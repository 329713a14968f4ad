"""The rearrangement of decisions that have offsets: moves in simulated annealing, each judged by the emulator's clock.

All planners that search end with it, and `neighbourhoods` is made of it. It changes what the steps before it leave out:
copies start and are done at other times than booked, offsets and copies are decided together, and what an operation
waits counts in every decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.planners.stays.arrangement import arrange, make_arrangement
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.evaluation import make_evaluation
from memplan.planners.stays.rearrangement_kernel import anneal_runs, settle
from memplan.planners.stays.tables import NONE

Integers = NDArray[np.int64]

# The temperature of the last round, as a part of that of the first.
_COLDEST = 1e-3

# Moves between looks at the guard.
_AT_ONCE = 5_000

# The temperature of the first move of a whole program, as a part of what operations take on average.
_HEAT = 3.5e-3

# A program of at most so many operations is rearranged as a whole.
MOST_OPERATIONS = 2_000


@dataclass(frozen=True)
class Moves:
    """How many moves to make in a whole program.

    Attributes:
      most: at most so many,
      per_item: and so many for each item that may get a stay.
      work: the number of moves times that of operations and items stays below it.
    """

    most: int
    per_item: int = 200
    work: int = 40_000_000


class Rearrangement:
    """Decisions on one fast space, with offsets, as moves change them.

    Args:
      decisions: to begin with.
      offsets: `[num_homes + num_runs]` bytes, of the homes in the space and of the runs.
      emulator: of their problem.
      seed: of the random numbers.

    Attributes:
      decisions: their room and their copies are not booked, so that nothing further can be decided on them.
      latency: seconds.
    """

    def __init__(self, decisions: Decisions, offsets: Integers, emulator: TimingEmulator, seed: int):
        self.decisions, num_homes = decisions.copy(), len(decisions.frame.homes)
        self._homes = offsets[:num_homes]
        self._offset = np.full(len(decisions.frame.chains.chain), NONE)
        self._offset[decisions.runs()] = offsets[num_homes:]
        self._evaluation = make_evaluation(decisions.frame, emulator)
        self._arrangement = make_arrangement(decisions, seed)
        self.latency = float(settle(self.decisions.tables, self._evaluation))
        is_open = np.flatnonzero(self._arrangement.is_open)
        self._pool = is_open[np.argsort(decisions.frame.chains.start[is_open], kind="stable")]

    def pool(self, start: int, end: int) -> Integers:
        """Returns the items that may get a stay and begin in half-open times."""
        starts = self.decisions.frame.chains.start[self._pool]
        first, last = np.searchsorted(starts, [start, end])
        return self._pool[first:last]

    def anneal(self, pool: Integers, first: int, last: int, rounds: int, heat: float, guard: Guard) -> None:
        """Makes moves, and goes to the best arrangement that they led to.

        Args:
          pool: items around which runs are put in, sorted by their starts.
          first, last: half-open times, in which what changes begins and ends.
          rounds: how many moves are tried.
          heat: seconds, the temperature of the first round.
          guard: ends it early.
        """
        if not len(pool) or not rounds:
            return
        tables, made = self.decisions.tables, self._arrangement
        arrange(made, self.decisions, self._homes, self._offset, first, last)
        cooling = _COLDEST ** (1.0 / rounds)
        done, is_last = 0, False
        while not is_last:
            chunk = min(_AT_ONCE if guard.is_limited else rounds, rounds - done)
            done += chunk
            is_last = done >= rounds or guard.reached()
            self.latency = float(
                anneal_runs(tables, self._evaluation, made, pool, chunk, heat, cooling, done == chunk, is_last)
            )
            heat *= cooling**chunk
        placed = made.placed[: int(made.counts["placed"][0])]
        placed = placed[placed["run"] != NONE]
        self._offset[placed["run"]] = placed["offset"] * self.decisions.frame.unit

    def anneal_whole(self, moves: Moves, guard: Guard) -> None:
        """Makes moves in the whole program, and goes to the best arrangement that they led to."""
        n = self.decisions.frame.problem.end
        pool = self.pool(0, n + 1)
        rounds = min(moves.most, moves.per_item * len(pool), moves.work // max(n + len(pool), 1))
        self.anneal(pool, 0, n + 1, rounds, _HEAT * self.latency / max(n, 1), guard)

    @property
    def offsets(self) -> Integers:
        """`[num_homes + num_runs]` bytes."""
        return np.concatenate([self._homes, self._offset[self.decisions.runs()]])
