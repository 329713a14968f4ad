"""The best plan so far of a planner that searches, and how the search ends: with moves, which the emulator judges.

Planners decide in ways of their own, and most book copies by rules that are simpler than the emulator's. So each one
ends by rearranging its plan as a whole: copies start and are done at other times, and stays change together with their
offsets (`stays/rearrangement.py`). `greedy` does the same with its decisions before it makes a plan of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.planner import Budget
from memplan.planners.stays.assembly import Stay, assemble, home_offsets_of
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.placed import Placed
from memplan.planners.stays.rearrangement import MOST_OPERATIONS, Moves, Rearrangement
from memplan.planners.stays.tables import NONE
from memplan.planners.xla import placed_stays

# How many moves a planner ends with in each space, by effort.
_FINISH = (Moves(20_000), Moves(60_000), Moves(300_000))

# A plan is not loaded to be rearranged under a limit unless there is time for it, in the seconds that making a plan
# takes: loading took 3.8 and 6.7 times as long on contended problems.
_LOADING = 7.0


class Incumbent:
    """The best plan so far.

    Args:
      problem, budget: as given; the budget is told of each plan that is better than all before.
      planner: the name that plans get.
      plan: the first one.
      method: what made it.

    Attributes:
      problem, budget: as given.
      emulator: of the problem.
      plan: the best one.
      latency: its seconds.
      method: what made it; empty if nobody said.
    """

    def __init__(self, problem: MappingProblem, budget: Budget, planner: str, plan: Plan, method: str = ""):
        self.problem, self.budget, self.emulator = problem, budget, TimingEmulator(problem)
        self._planner = planner
        self._making = 0.0  # seconds that making a plan takes, if there is a limit
        self._take(plan, self.emulator.latency(plan), method)

    def _take(self, plan: Plan, latency: float, method: str) -> None:
        self.plan, self.latency, self.method = replace(plan, planner=self._planner, info={}), latency, method
        self.budget.on_plan(self.plan)

    def offer(self, plan: Plan, method: str = "") -> None:
        """Takes a plan if it is better."""
        latency = self.emulator.latency(plan)
        if latency < self.latency:
            self._take(plan, latency, method)

    def offer_stays(self, stays: Sequence[Stay], homes: Mapping[int, int] | None = None, method: str = "") -> None:
        """Makes a plan of stays in all spaces, and takes it if it is better.

        Args:
          stays: with offsets.
          homes: by buffer, the offset of its home in a fast space; by default those of the plan.
          method: what made them.
        """
        offsets = home_offsets_of(self.problem, self.plan) if homes is None else homes
        self.offer(assemble(self.problem, stays, self._planner, home_offsets=offsets).plan, method)

    def rearrangement(self, space: int, seed: int) -> tuple[Rearrangement, list[Stay]] | None:
        """Returns what the plan decides on a space, to be rearranged, and its stays in the other spaces.

        None if the plan does not consist of homes and of stays that are runs of accesses, or the time does not suffice.
        """
        with self.budget.guard.keeping(_LOADING * self._making):
            if self.budget.guard.reached():
                return None
        stays = placed_stays(self.problem, self.plan)
        frame = Frame(self.problem, space, [stay for stay in stays if stay.space != space and stay.accesses])
        offsets = home_offsets_of(self.problem, self.plan)
        homes = [offsets.get(buffer, NONE) for buffer in frame.homes]
        if min([*homes, *(stay.offset for stay in stays)], default=0) < 0:
            return None
        placed = Placed.of(frame, self.emulator, [stay for stay in stays if stay.space == space], homes)
        if placed.latency > self.latency * (1.0 + 1e-9):
            return None
        made = Rearrangement(placed.decisions, placed.offsets, self.emulator, seed)
        return made, [stay for stay in stays if stay.space != space]

    @contextmanager
    def keeping_for_plan(self) -> Iterator[None]:
        """Keeps seconds of a time limit back within the block, for making a plan of what was found when it was met."""

        def remake() -> None:
            stays, homes = placed_stays(self.problem, self.plan), home_offsets_of(self.problem, self.plan)
            self.emulator.latency(assemble(self.problem, stays, self._planner, home_offsets=homes).plan)

        with self.budget.guard.keeping_for(remake) as self._making:
            yield

    def rearrange(self, moves: Moves, seed: int) -> None:
        """Rearranges what lies in one fast space after another, each as a whole.

        Args:
          moves: how many are made in each.
          seed: of the random numbers.
        """
        generator = np.random.default_rng(seed)
        for space in fast_spaces(self.problem):
            found = self.rearrangement(space, int(generator.integers(2**62)))
            if found is None:
                continue
            made, others = found
            made.anneal_whole(moves, self.budget.guard)
            if made.latency < self.latency:
                self.offer_stays([*others, *made.decisions.stays(made.offsets)], method="rearrangement")

    def finish(self, goal: float = 0.0) -> None:
        """Rearranges the plan of a program that is not large, unless it is good enough.

        Args:
          goal: seconds at which it is, besides the latency without capacity.
        """
        goal = max(goal, self.emulator.lower_bound() * (1.0 + 1e-9))
        if 0 < self.problem.end <= MOST_OPERATIONS and self.latency > goal:
            self.rearrange(self.budget.effort.of(*_FINISH), self.budget.seed)
