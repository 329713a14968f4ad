"""The planner `greedy`: XLA's memory space assignment, and what it leaves on the table.

As in XLA (`xla/service/memory_space_assignment`): buffers compete for the fast memory in the order of what they gain;
for each use a buffer is kept from its use before, or prefetched as late as its copy can still arrive in time, or read
where it is; what was written in fast memory and is wanted outside is evicted as early as possible; no copy may make
another late; one argument may stay in fast memory from run to run (cross-program prefetch); offsets are packed anew at
the end. Differences, each with its switch in `GreedyOptions`:

- What competes is not a buffer but the time between two of its uses, so that a buffer does not hold memory over a long
  time without use because it is precious elsewhere. XLA's own order is one of those tried (`orders`).
- Gains are what is still to be gained: an operation that is already bound by compute gains nothing more (`passes`).
- Copies use the time that operations really leave of the link, not all of it.
- Several orders are tried, and the emulator says which plan is best (`orders`); stays that make operations wait for
  longer than they gain are dropped (`drop_losses`).
- What finds no offset makes the memory look smaller around it when the search is repeated (`repacks`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners._assembly import Stay, assemble
from memplan.planners._decisions import Decisions, Frame, Order, Rules
from memplan.planners._tables import NONE
from memplan.planners.planner import Budget, Planner

Floats = NDArray[np.float64]

# Orders are tried while their number times the number of items stays below this.
_WORK = 250_000
# How often the emulator is asked which stays lose.
_DROP_ROUNDS = 4


@dataclass(frozen=True)
class GreedyOptions:
    """Techniques of the search. Each can be turned off, and the plan stays valid.

    Attributes:
      prefetch: whether values may be copied into fast memory. Without it, only what is produced there is there.
      evict: whether values that were written in fast memory may be copied home.
      keep_between_uses: whether a stay may serve more than one use.
      cross_program: whether an argument may stay in fast memory from one run of the program to the next.
      orders: in which orders stays compete; every one is tried on a small program, the first on a large one.
      passes: how often the search looks again at what is left, with the gains that are left.
      channel_price: seconds that a second of the link's time is worth, where a stay saves no time itself.
      tries: how many starts of a copy are looked at before it is given up.
      drop_losses: whether to drop stays whose copies make operations wait longer than they gain.
      repacks: how often to search again with less memory around what found no offset.
    """

    prefetch: bool = True
    evict: bool = True
    keep_between_uses: bool = True
    cross_program: bool = True
    orders: tuple[Order, ...] = (
        Order("density", channel_weight=0.3),
        Order("density", channel_weight=0.0),
        Order("density", channel_weight=2.0),
        Order("boundedness"),
        Order("saving"),
    )
    passes: int = 4
    channel_price: float = 0.2
    tries: int = 24
    drop_losses: bool = True
    repacks: int = 4


@dataclass(frozen=True)
class _Candidate:
    """A plan and what the emulator says of it."""

    latency: float
    plan: Plan
    stays: tuple[Stay, ...]


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the plan of the search with all its techniques; see `solve_with`."""
    return solve_with(problem, budget, GreedyOptions())


def solve_with(problem: MappingProblem, budget: Budget, options: GreedyOptions) -> Plan:
    """Returns a plan that is never slower than everything at home.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    deadline = time.monotonic() + budget.seconds
    emulator = TimingEmulator(problem)
    home = assemble(problem, (), "greedy").plan
    best = _Candidate(emulator.latency(home), home, ())
    for space in range(1, len(problem.spaces)):
        if (0, space) in problem.link_between or (space, 0) in problem.link_between:
            best = _Search(problem, space, best, emulator, options, budget.seed, deadline).best()
    return best.plan


class _Search:
    """The search for stays in one fast space, beside those that are in others already."""

    def __init__(
        self,
        problem: MappingProblem,
        space: int,
        elsewhere: _Candidate,
        emulator: TimingEmulator,
        options: GreedyOptions,
        seed: int,
        deadline: float,
    ):
        self.problem, self.space, self.start = problem, space, elsewhere
        self.emulator, self.options, self.deadline = emulator, options, deadline
        self.generator = np.random.default_rng(seed)
        self.frame = Frame(problem, space, elsewhere.stays, options.keep_between_uses)
        self.rules = Rules(
            options.prefetch, options.evict, True, options.passes, options.channel_price, options.tries
        )  # fmt: skip

    def best(self) -> _Candidate:
        """Returns the best candidate of all orders, and of all arguments that may stay from run to run."""
        found = self.start
        if not len(self.frame.chains.chain):
            return found
        affordable = max(1, _WORK // max(len(self.frame.chains.chain), 1))
        orders = self.options.orders[:affordable]
        kept = NONE
        for number, order in enumerate(orders):
            if number > 0 and time.monotonic() > self.deadline:
                break
            candidate = self.candidate(order, kept)
            if candidate.latency < found.latency:
                found = candidate
            if number == 0 and self.options.cross_program and self.problem.cross_program_prefetches:
                for argument in self._lasting_arguments()[: max(affordable // len(orders), 1)]:
                    candidate = self.candidate(order, argument)
                    if candidate.latency < found.latency:
                        found, kept = candidate, argument
        return found

    def candidate(self, order: Order, kept: int) -> _Candidate:
        """Searches in one order, repeatedly, with less memory around what found no offset; returns the best plan."""
        shrink = np.zeros(self.problem.end + 1, np.int64)
        best: _Candidate | None = None
        for repack in range(self.options.repacks + 1):
            decisions = Decisions(self.frame, self.rules, shrink, kept)
            decisions.run(order, self.generator)
            candidate, left_out = self._assembled(decisions)
            if self.options.drop_losses:
                candidate = self._without_losses(decisions, candidate)
            if best is None or candidate.latency < best.latency:
                best = candidate
            if not left_out or repack == self.options.repacks or time.monotonic() > self.deadline:
                break
            for stay in left_out:
                shrink[stay.start : stay.end] += -(-self.problem.buffers[stay.buffer].size // self.frame.unit) // 2 + 1
            shrink = np.minimum(shrink, np.maximum(self.frame.capacity, 0))
        assert best is not None
        return best

    def _assembled(self, decisions: Decisions) -> tuple[_Candidate, list[Stay]]:
        stays = (*self.start.stays, *decisions.stays())
        assembly = assemble(self.problem, stays, "greedy")
        left_out = set(assembly.left_out)
        kept = tuple(stay for number, stay in enumerate(stays) if number not in left_out)
        candidate = _Candidate(self.emulator.latency(assembly.plan), assembly.plan, kept)
        return candidate, [stays[number] for number in assembly.left_out]

    def _without_losses(self, decisions: Decisions, candidate: _Candidate) -> _Candidate:
        """Drops runs whose copies make operations wait for longer than the run gains, while that helps."""
        problem = self.problem
        for _ in range(_DROP_ROUNDS):
            timeline = self.emulator.emulate(candidate.plan)
            repetitions = np.array(problem.repetitions)[self.frame.slots.region_of_time]
            waits = np.nan_to_num(timeline.stall) * repetitions
            losers = self._losers(decisions, waits)
            if not losers:
                break
            for run in losers:
                decisions.drop(run)
            following, _left_out = self._assembled(decisions)
            if following.latency < candidate.latency:
                candidate = following
        return candidate

    def _losers(self, decisions: Decisions, waits: Floats) -> list[int]:
        """Returns, for each time at which the program waits, the run awaited there that gains least, if it loses."""
        times, items = self.frame.slots.time, decisions.tables.items
        worst: dict[int, tuple[float, int]] = {}
        for run in decisions.runs().tolist():
            for field in ("fill_done", "spill_done"):
                if items[run][field] != NONE:
                    done = int(times[items[run][field]])
                    if waits[done] > 0.0:
                        worst[done] = min(worst.get(done, (np.inf, NONE)), (decisions.gain(run), run))
        return sorted({run for done, (gained, run) in worst.items() if gained < waits[done]})

    def _lasting_arguments(self) -> list[int]:
        """Returns the arguments that could stay from run to run, the one whose reads save most first."""
        problem = self.problem
        worth: dict[int, float] = {}
        for (t, access), served in zip(problem.accesses, self.frame.served.tolist(), strict=True):
            saved = (access.cost[served] - access.cost[self.space]) * problem.repetitions[problem.operations[t].region]
            worth[access.buffer] = worth.get(access.buffer, 0.0) + saved
        movable = set(self.frame.chains.buffer.tolist())
        written = {access.buffer for _, access in problem.accesses if access.kind is not AccessKind.READ}
        lasting = [
            number
            for number in movable
            if problem.buffers[number].initial_space == 0
            and problem.buffers[number].end == problem.end + 1
            and number not in written
            and worth.get(number, 0.0) > 0.0
        ]
        return sorted(lasting, key=lambda number: (-worth[number], number))


PLANNER = Planner("greedy", "XLA's memory space assignment, and what it leaves on the table.", solve)
