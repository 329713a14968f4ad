"""The planner `search`: simulated annealing over what `greedy` decides, for as many rounds as the effort affords.

It starts from greedy's plan and goes in cycles, each twice as long as the one before up to a limit. A cycle has two
halves, both of simulated annealing with adaptively chosen neighbourhoods (`annealing_kernel.py`,
`neighbourhoods_kernel.py`):

    free     room is the sum of sizes, and offsets are left for later; temperatures fall from hot to cold
    packed   offsets are found, and what has some is improved, every step with offsets (`places_kernel.py`)

In the free half the search passes through decisions that no packing allows. In the packed half it repairs what found no
offset, and where that was, the memory looks smaller in the next cycle. Every evaluation is the emulator's
(`evaluation_kernel.py`). The best packed solution is the plan; one that is better is reported at the end of its half.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import greedy
from memplan.planners.incumbent import Incumbent
from memplan.planners.planner import Budget, Effort, Planner, Role
from memplan.planners.search.annealing import Annealer, PlacedRuns
from memplan.planners.stays.assembly import Stay, home_offsets_of
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.kept import kept_choices
from memplan.planners.stays.small_problem import small_problem
from memplan.planners.xla import placed_stays

# In the order of their numbers in `neighbourhoods_kernel.py`.
NEIGHBOURHOODS = ("window", "scatter", "buffer", "insert", "split", "shift")

# Rounds of a half of the first cycle, and of the longest one.
_FIRST_HALF, _LONGEST_HALF = 500, 8000

# The work of all rounds by effort: a round of n operations and m runs that compete counts as n + m + `_ROUND`.
_WORK, _ROUND = (4_000_000, 220_000_000, 1_500_000_000), 100

# The work that is done before the guard is asked, and the most rounds.
_WORK_AT_ONCE, _MOST_AT_ONCE = 60_000, 100

# The temperature at the end of a half, as a part of that at its beginning.
_COLDEST = 1e-3

# The temperature at the beginning of the packed half, as a part of that of the free one.
_PACKED_HEAT = 0.3

# How often a cycle tries another argument that stays from run to run, or none.
_SHARE_OF_OTHER_KEPT = 0.25


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
      rounds: how many to make in each fast space; None for what the effort affords.
      temperature: of the beginning of a cycle, as a part of the latency.
      neighbourhoods: which are used, of `NEIGHBOURHOODS`.
      free: whether cycles have a half in which offsets are left for later.
      cross_program: whether to change which argument stays in fast memory from run to run.
      moves: whether to rearrange the plan at the end.
      prior: `[num_items]` for the first fast space's `Frame`: by how much the claim of a run that begins with an item
        is multiplied where runs compete, such as a learned preference; None for 1.
    """

    rounds: int | None = None
    temperature: float = 1e-3
    neighbourhoods: tuple[str, ...] = NEIGHBOURHOODS
    free: bool = True
    cross_program: bool = True
    moves: bool = True
    prior: NDArray[np.float64] | None = None


def solve_with(problem: MappingProblem, budget: Budget, options: SearchOptions) -> Plan:
    """Returns a plan that is never slower than greedy's.

    Raises:
      PlannerError: the buffers do not fit their homes, or no neighbourhood has the name of one that is to be used.
      KeyboardInterrupt: before greedy had a plan; later ones end the search.
    """
    unknown = set(options.neighbourhoods) - set(NEIGHBOURHOODS)
    if unknown or not options.neighbourhoods:
        what = f"no neighbourhood is called {min(unknown)!r}" if unknown else "search needs a neighbourhood"
        raise PlannerError(f"{what}; there are: {', '.join(NEIGHBOURHOODS)}")
    first = greedy.solve(problem, budget)
    best = Incumbent(problem, budget, "search", first)
    with contextlib.suppress(KeyboardInterrupt), best.keeping_for_plan():  # What was found until then is the answer.
        _Annealing(best, options).run()
        if options.moves:
            best.finish()
    return best.plan


class _Annealing:
    """Cycles of annealing in each fast space."""

    def __init__(self, best: Incumbent, options: SearchOptions):
        self.best, self.options = best, options
        self.problem, self.budget, self.emulator = best.problem, best.budget, best.emulator
        self.bound = self.emulator.lower_bound() * (1.0 + 1e-9)
        self.generator = np.random.default_rng(best.budget.seed)

    def run(self) -> None:
        """Searches in one fast space after another; stays in the others remain as they are."""
        for number, space in enumerate(fast_spaces(self.problem)):
            self._search(space, self.options.prior if number == 0 else None)

    def _search(self, space: int, prior: NDArray[np.float64] | None) -> None:
        stays = placed_stays(self.problem, self.best.plan)
        elsewhere = [stay for stay in stays if stay.space != space]
        frame = Frame(self.problem, space, [stay for stay in elsewhere if stay.accesses])
        if not len(frame.lows):
            return
        kinds = np.array([float(name in self.options.neighbourhoods) for name in NEIGHBOURHOODS])
        weights = np.ones(len(frame.chains.chain)) if prior is None else prior
        annealer = Annealer(frame, self.emulator, int(self.generator.integers(2**62)), weights, kinds)
        homes = home_offsets_of(self.problem, self.best.plan)
        incumbent = annealer.load(
            [stay for stay in stays if stay.space == space], [homes[buffer] for buffer in frame.homes]
        )
        half, rounds = _FIRST_HALF, self._rounds(frame)
        while self._goes_on(annealer, rounds, self.best.latency):
            annealer.resume(incumbent, self._kept(annealer, incumbent))
            heat = self.options.temperature * 10.0 ** self.generator.uniform(-0.5, 0.5)
            if self.options.free:
                annealer.squeeze()
                self._anneal(annealer, half, heat, rounds)
                annealer.place(is_exact=self.budget.effort is not Effort.FAST and not self.budget.guard.reached())
                incumbent = self._better(annealer, incumbent, elsewhere)
            try:
                self._anneal(annealer, half, _PACKED_HEAT * heat, rounds, is_placed=True)
            finally:  # What was found before an interrupt counts, too.
                incumbent = self._better(annealer, incumbent, elsewhere)
            half = min(2 * half, _LONGEST_HALF)

    def _rounds(self, frame: Frame) -> int:
        """Returns how many rounds to make in a space."""
        if self.options.rounds is not None:
            return self.options.rounds
        return max(1, self.budget.effort.of(*_WORK) // (len(frame.lows) + self.problem.end + _ROUND))

    def _anneal(self, annealer: Annealer, half: int, heat: float, rounds: int, is_placed: bool = False) -> None:
        """Makes the rounds of a half from hot to cold."""
        done, at_once = 0, max(5, min(_MOST_AT_ONCE, _WORK_AT_ONCE // len(annealer.frame.lows)))
        cooling, best = _COLDEST ** (1.0 / half), self.best.latency
        while done < half and self._goes_on(annealer, rounds, best):
            chunk = min(at_once, half - done, rounds - annealer.num_rounds)
            annealer.run(chunk, heat * best * cooling**done, cooling, is_placed)
            done += chunk
            if is_placed:
                best = min(best, annealer.best_latency)

    def _goes_on(self, annealer: Annealer, rounds: int, best: float) -> bool:
        """Whether rounds are left, and there is anything to gain on the seconds of the best plan."""
        is_done = annealer.num_rounds >= rounds or best <= self.bound
        return not is_done and not self.budget.guard.reached()

    def _kept(self, annealer: Annealer, incumbent: PlacedRuns) -> int:
        """Returns the argument that stays from run to run in the next cycle; -1 for none."""
        if not self.options.cross_program:
            return incumbent.kept
        others = kept_choices(annealer.frame)
        if len(others) == 1 or self.generator.random() >= _SHARE_OF_OTHER_KEPT:
            return incumbent.kept
        return others[int(self.generator.integers(len(others)))]

    def _better(self, annealer: Annealer, incumbent: PlacedRuns, elsewhere: list[Stay]) -> PlacedRuns:
        """Returns the better one of the incumbent and the best of the search, and reports a better plan."""
        if annealer.best_latency >= incumbent.latency * (1.0 - 1e-12):
            return incumbent
        solution, stays = annealer.best_solution()
        homes = home_offsets_of(self.problem, self.best.plan)
        homes |= zip(annealer.frame.homes, solution.offsets.tolist(), strict=False)
        self.best.offer_stays([*elsewhere, *stays], homes)
        return solution


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the best plan of `solve_with` under the default options."""
    return solve_with(problem, budget, SearchOptions())


@cache
def prepare() -> None:
    """Compiles the kernels, or loads them."""
    greedy.prepare()
    solve_with(small_problem(), Budget(), SearchOptions(rounds=100))


PLANNER = Planner(
    "search",
    "Simulated annealing of greedy's decisions.",
    solve,
    role=Role.SEEDED,
    prepare=prepare,
)
