"""The planner `greedy`: XLA's memory space assignment with finer decisions, tried in several orders.

As in XLA (`xla/service/memory_space_assignment`), buffers compete for the fast memory in the order of what they gain.
For each use, a buffer is kept from its use before, or prefetched as late as its copy can still arrive in time, or read
where it is. What was written in fast memory and is wanted outside is evicted as early as possible. No copy may make
another late. One argument may stay in fast memory from run to run (cross-program prefetch). Offsets are packed at the
end. These are the differences, each with its switch in `GreedyOptions`:

- What competes is not a buffer but the time between two of its uses, so that a buffer does not hold memory over a long
  time without use because it is precious elsewhere. XLA's own order is one of those tried (`orders`).
- Gains are what is still to be gained: an operation that is already bound by compute gains nothing more (`passes`).
- Copies use the time that operations really leave of the link, not all of it; an operation may wait (`wait`).
- Several orders are tried, and the emulator says which plan is best (`orders`).
- Parts of the best plan are given up and decided again (`rounds`): ruin and recreate, Schrimpf et al., "Record breaking
  optimization results using the ruin and recreate principle", 2000, but nothing worse is ever accepted.
- Stays that gain nothing, or whose copies make operations wait for longer than they gain, are dropped (`drop_losses`).
- Where a stay finds no offset, the memory looks smaller, and the search goes on (`repacks`).
- Stays, offsets and times of copies change together in the end, as the emulator judges (`moves`), unless a rule forbids
  to wait or to serve several uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.offsets.preparation import prepare as prepare_packing
from memplan.planners.planner import Budget, Planner
from memplan.planners.stays.assembly import Stay, assemble
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.kept import kept_choices
from memplan.planners.stays.placing import offsets_of, placed
from memplan.planners.stays.rearrangement import MOST_OPERATIONS, Moves, Rearrangement
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.small_problem import small_problem
from memplan.planners.stays.tables import NONE

Integers = NDArray[np.int64]

# Rounds are tried while their number times the number of items stays below this.
_WORK = 1_500_000

# The same of orders. A first order takes a tenth of the time in which a large frame is made, so others are cheap.
_WORK_OF_ORDERS = 10_000_000

# A small program is decided again no more often than this for each run of accesses that competes.
_ROUNDS_PER_RUN = 2


@dataclass(frozen=True)
class GreedyOptions(Rules):
    """Techniques of the search beside its `Rules`. Each can be turned off, and the plan stays valid.

    Attributes:
      keep_between_uses: whether a stay may serve more than one use.
      cross_program: whether an argument may stay in fast memory from one run of the program to the next.
      orders: in which stays compete; all are tried, but on a very large program the first alone.
      rounds: how often a part of the plan is given up and decided again; less often in a large program.
      drop_losses: whether to drop stays that gain nothing, or less than operations wait for their copies.
      repacks: how often to go on with less memory around what found no offset.
      moves: that are tried at the end; fewer in a small program, none in a large one.
    """

    keep_between_uses: bool = True
    cross_program: bool = True
    orders: tuple[Order, ...] = (
        Order("density", channel_weight=1.0),
        Order("boundedness"),
        Order("density", channel_weight=0.0),
        Order("density", channel_weight=3.0),
        Order("density", channel_weight=0.3),
        Order("saving"),
    )
    rounds: int = 1000
    drop_losses: bool = True
    repacks: int = 6
    moves: int = 60_000


def solve_with(problem: MappingProblem, budget: Budget, options: GreedyOptions) -> Plan:
    """Returns a plan that is never slower than everything at home.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    emulator = TimingEmulator(problem)
    stays: list[Stay] = []
    home_offsets: dict[int, int] = {}
    for space in fast_spaces(problem):
        frame = Frame(problem, space, stays, "all" if options.keep_between_uses else "single")
        search = _OrderTrials(frame, emulator, options, np.random.default_rng(budget.seed), budget.guard)
        decisions, offsets = search.packed()
        home_offsets.update(zip(frame.homes, offsets.tolist(), strict=False))
        stays += decisions.stays(offsets)
    return assemble(problem, stays, "greedy", home_offsets=home_offsets).plan


class _OrderTrials:
    """The search for stays in one fast space."""

    def __init__(
        self,
        frame: Frame,
        emulator: TimingEmulator,
        options: GreedyOptions,
        generator: np.random.Generator,
        guard: Guard,
    ):
        self.frame, self.emulator, self.options = frame, emulator, options
        self.generator, self.guard = generator, guard
        self.bound = emulator.lower_bound() * (1.0 + 1e-9)
        self.affordable = max(1, _WORK // max(1, len(frame.lows)))
        self.affordable_orders = max(1, _WORK_OF_ORDERS // max(1, len(frame.lows)))

    def packed(self) -> tuple[Decisions, Integers]:
        """Returns the best decisions that all have offsets, and those: of the homes in the space, then of the stays.

        Raises:
          PlannerError: the homes in the space do not fit.
        """
        first = self._decided(self.options.orders[0])
        with self.guard.keeping_for(lambda: self._finish(first)):
            return self._search(first)

    def _finish(self, decisions: Decisions) -> None:
        """Packs decisions and makes a plan of them, which is what is left to do after the search."""
        placed, offsets, _ = self._placed(decisions)
        assemble(self.frame.problem, placed.stays(offsets), "greedy")

    def _search(self, first: Decisions) -> tuple[Decisions, Integers]:
        options = self.options
        rounds = min(options.rounds, self.affordable, _ROUNDS_PER_RUN * len(self.frame.lows))
        found = self._improved(self._best_of_orders(first), rounds)
        best, best_offsets = self._placed(Decisions(self.frame, options))[:2]
        best_latency = self.latency(best)
        repacks = min(options.repacks, self.affordable)
        for attempt in range(repacks + 1):
            if options.drop_losses:
                found = self._without_losses(found)
            placed, offsets, left_out = self._placed(found)
            if (latency := self.latency(placed)) < best_latency:
                best, best_offsets, best_latency = placed, offsets, latency
            if not len(left_out) or attempt == repacks or self.guard.reached():
                break
            found = self._improved(found.squeezed(left_out), rounds // 4)
        return self._rearranged(best, best_offsets, best_latency)

    def _rearranged(self, decisions: Decisions, offsets: Integers, latency: float) -> tuple[Decisions, Integers]:
        """Returns what moves lead to from decisions that have offsets."""
        n, options = self.frame.problem.end, self.options
        is_free = options.wait and options.keep_between_uses  # Moves know no such rules.
        if not 0 < n <= MOST_OPERATIONS or not is_free or latency <= self.bound or self.guard.reached():
            return decisions, offsets
        made = Rearrangement(decisions, offsets, self.emulator, int(self.generator.integers(2**62)))
        made.anneal_whole(Moves(options.moves), self.guard)
        return made.decisions, made.offsets

    def _placed(self, decisions: Decisions) -> tuple[Decisions, Integers, Integers]:
        """Returns the decisions without the runs that find no offset, the offsets of the rest, and those runs."""
        return placed(decisions, offsets_of(decisions))

    def _best_of_orders(self, first: Decisions) -> Decisions:
        """Returns the best result of one search for each order, and for some arguments that stay between runs.

        Args:
          first: the result of the first order.
        """
        options = self.options
        best, chosen = first, options.orders[0]
        best_latency = self.latency(best)
        for order in options.orders[1 : self.affordable_orders]:
            if self.guard.reached():
                break
            found = self._decided(order)
            if (latency := self.latency(found)) < best_latency:
                best, best_latency, chosen = found, latency, order
        if options.cross_program:
            for buffer in kept_choices(self.frame)[1 : 1 + self.affordable]:
                if self.guard.reached():
                    break
                found = self._decided(chosen, buffer)
                if (latency := self.latency(found)) < best_latency:
                    best, best_latency = found, latency
        if best_latency >= self.latency(nothing := Decisions(self.frame, options)):
            best = nothing
        return best

    def _decided(self, order: Order, kept: int = NONE) -> Decisions:
        decisions = Decisions(self.frame, self.options, kept)
        decisions.run(order, self.generator)
        return decisions

    def _improved(self, best: Decisions, rounds: int) -> Decisions:
        """Returns the best of the plans that result when parts are given up and decided again."""
        best_latency = self.latency(best)
        for _ in range(rounds):
            if best_latency <= self.bound or self.guard.reached():
                break
            trial = best.partly_redecided(self.generator)
            if (latency := self.latency(trial)) <= best_latency:
                best, best_latency = trial, latency
        return best

    def _without_losses(self, decisions: Decisions) -> Decisions:
        """Returns the decisions without the stays that cost more than they gain, or gain nothing, as the emulator says.

        A stay that gains nothing by itself may still be worth it: an access in fast memory leaves the link to others.
        """
        latency = self.latency(decisions)
        for _ in range(8):
            if self.guard.reached():
                return decisions
            stall = self.emulator.emulate(decisions.sketch()).stall
            trial = decisions.copy()
            if not trial.drop_losers(np.nan_to_num(stall)) or (shorter := self.latency(trial)) >= latency:
                break
            decisions, latency = trial, shorter
        for only_copied in (False, True):
            trial = decisions.copy()
            if trial.drop_useless(only_copied) and self.latency(trial) <= latency:
                return trial
        return decisions

    def latency(self, decisions: Decisions) -> float:
        """Returns the seconds of the program under the decisions."""
        return self.emulator.latency_of(*decisions.arrays())


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the best plan of `solve_with` under the default options, or the one that the budget knows."""
    if budget.known is not None:
        return budget.known
    return solve_with(problem, budget, GreedyOptions())


@cache
def prepare() -> None:
    """Compiles the kernels, or loads them."""
    prepare_packing()
    solve(small_problem(), Budget())


PLANNER = Planner(
    "greedy", "XLA's memory space assignment with finer decisions, tried in several orders.", solve, prepare=prepare
)
