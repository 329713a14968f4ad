"""The planner `auto`: a portfolio of planners.

Which method is best differs from program to program (Huberman, Lukose and Hogg, "An economics approach to hard
computational problems", 1997; Gomes and Selman, "Algorithm portfolios", 2001), so several do their work, and the best
plan that any of them finds is the answer:

    here        greedy │ xla │ receives plans
    core 1             ├── member 1 ──┤├── member 3 ──────────┤
    core 2             ├── member 2 ──────────┤
    here                                           last planner

The members are the registered planners whose `Role` says so. Which of them run depends on the effort and on the size of
the program, and each does all of its own work, so more cores make `auto` faster and not better. The result is the same
for any number of cores:

- Members do not hear of each other's plans.
- Their plans are merged in the order of the members, not in the order in which they come; a later member counts only if
  its plan is faster.
- The portfolio ends early only when the best plan of the first members, all of which have ended, reaches the best bound
  that these proved. What later members found until then is ignored.

When all members have ended, one more planner improves the best plan of all.

Each plan, whichever member made it, is scored here, and the best one of each member is verified. A plan that breaks
rules counts as none.

A time limit covers what follows the search as well: the seconds that verifying took in this very run are kept back for
the last plan. Under a limit, the plan that needs no search is made first. If the limit leaves no time for another one,
it is the answer.
"""

from __future__ import annotations

import contextlib
import queue
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from memplan.compiler.effort import Effort
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import planner as planners
from memplan.planners.auto.member import Member, News
from memplan.planners.planner import Budget, Planner, Role, names_of, num_cores

# A plan that is relatively this close to the bound counts as optimal.
_TOLERANCE = 1e-4

# The share of a time limit that is kept back for members' last plans to arrive, and its most in seconds.
_RESERVE, _MAX_RESERVE = 0.03, 1.0

# What is kept back for verifying the last plan, in the seconds that it took before: later plans have more parts.
_VERIFYING = 1.5

# The least time in which `greedy` has a plan, in the seconds that verifying one takes.
_SEARCHING = 6.0

# With how many seeds planners run that are SEEDED, by effort.
_SEEDS = (1, 1, 3)

# Of more operations than this, only the effort `high` affords members: the time is better spent by the last planner.
_MANY = 2_000

# The planner that improves the best plan of all others.
_LAST = "neighbourhoods"

# Seconds between looks at the guard.
_PULSE = 0.25


@dataclass(frozen=True)
class AutoOptions:
    """Which planners take part; by default those that are registered with a `Role`.

    Attributes:
      first: the planner whose plan is the first to beat; it runs in the caller's process.
      members: planners that run after it, each once; None for those that the effort affords, by their roles. Their
        order decides between plans that are equally fast.
      last: the planner that improves the best plan of all others, in the caller's process; None for none.
      processes: how many members run at once, each in a process of its own; 0 for one after another in the caller's
        process. By default it is 0 at the effort `fast`, which is over sooner than a process starts, and the number of
        cores otherwise. It has no influence on the plan.
    """

    first: str = "greedy"
    members: tuple[str, ...] | None = None
    last: str | None = _LAST
    processes: int | None = None

    def entries(self, effort: Effort, seed: int, num_operations: int = 0) -> list[tuple[str, int]]:
        """Returns the planners and their seeds, in their order, for a problem of so many operations."""
        if self.members is not None:
            return [(name, seed) for name in self.members]
        if num_operations > _MANY and effort is not Effort.HIGH:
            return []
        chosen = [] if effort is Effort.FAST else [(name, seed) for name in names_of(Role.MEMBER)]
        for number in range(effort.of(*_SEEDS)):
            chosen += [(name, seed + number) for name in names_of(Role.SEEDED)]
        if effort is Effort.HIGH and self.last is not None:
            # What the last planner makes of the best plan is not always better than what it makes of greedy's.
            chosen.append((self.last, seed))
        return chosen


class _Findings:
    """What a planner found: its best plan, and the best bound that it proved.

    Attributes:
      plan: the best plan; None before the first.
      latency: its seconds; infinite before the first.
      bound: seconds.
      bound_checked: as much of it as was checked exactly, seconds.
      error: why it failed; empty if it did not.
      has_ended: whether all of its plans have come.
      is_verified: whether the best plan is verified.
    """

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.latency = float("inf")
        self.bound = self.bound_checked = 0.0
        self.error = ""
        self.has_ended = False
        self.is_verified = False


class _Portfolio:
    """What all planners found, in their order.

    Args:
      problem, budget: as given; the budget is told of each plan that is better than all before, in the order in which
        they come.
    """

    def __init__(self, problem: MappingProblem, budget: Budget):
        self.problem, self.budget = problem, budget
        self.emulator = TimingEmulator(problem)
        self.least = self.emulator.lower_bound()
        self.found: dict[tuple[str, int], _Findings] = {}
        self._told = float("inf")

    def hear(self, entry: tuple[str, int], plan: Plan) -> None:
        """Takes a plan of a planner if it is better than its others, and the bound that it states."""
        found = self.found.setdefault(entry, _Findings())
        bound = plan.info.get("bound")
        if isinstance(bound, float):
            found.bound = max(found.bound, bound)
            found.bound_checked = max(found.bound_checked, plan.info.get("bound_checked", 0.0))
        if "stopped" in plan.info:
            self.budget.guard.met = True
        latency = self.emulator.latency(plan)
        if latency < found.latency:
            found.plan, found.latency, found.is_verified = plan, latency, False
            if latency < self._told:
                self._told = latency
                self.budget.on_plan(self._named(plan))

    def end(self, entry: tuple[str, int], error: str = "") -> None:
        """Notes that a planner has ended."""
        found = self.found.setdefault(entry, _Findings())
        found.error, found.has_ended = error, True
        self._verify(found)

    def _verify(self, found: _Findings) -> None:
        """Drops the best plan of a planner if it breaks rules."""
        if found.plan is None or found.is_verified:
            return
        found.is_verified = True
        if violations := self.budget.verifier.violations(self.problem, found.plan):
            broken = f"its plan is not valid; {violations[0].rule}: {violations[0].message}"
            found.plan, found.latency, found.error = None, float("inf"), found.error or broken

    def improve(self, name: str) -> None:
        """Lets a planner begin with the best plan of the others."""
        best = self.result(everything=False)
        if best is not None:
            self.run_here(name, self.budget.seed, best)

    def run_here(self, name: str, seed: int, start: Plan | None = None) -> None:
        """Lets a planner make its plan in this process.

        Args:
          name, seed: of the planner.
          start: what it begins with; by default greedy's plan.
        """
        entry = (name, seed)

        def tell(plan: Plan) -> None:
            self.hear(entry, plan)

        budget = replace(self.budget, seed=seed, on_plan=tell, known=start or self.known(seed))
        offered = next((plan for plan in self.budget.offered if plan.planner == name), None)
        try:
            self.hear(entry, offered or planners.get(name).solve(self.problem, budget))
        except PlannerError as error:
            self.end(entry, str(error))
        else:
            self.end(entry)

    def known(self, seed: int) -> Plan | None:
        """Returns a plan that was made with a seed and that planners begin with: greedy's, if there is one."""
        found = self.found.get(("greedy", seed))
        return found.plan if found is not None and found.has_ended else None

    def counted(self) -> list[_Findings]:
        """Returns the planners that count, in their order: before the first one that has not ended, and as few of them
        as have a plan that they proved to be the best. Which others have ended by now depends on the machine.
        """
        chosen: list[_Findings] = []
        for found in self.found.values():
            if not found.has_ended or self._are_done(chosen):
                break
            chosen.append(found)
        return chosen

    @property
    def is_optimal(self) -> bool:
        """Whether the first planners, all of which have ended, found a plan that they proved to be the best."""
        return self._are_done(self.counted())

    def _are_done(self, chosen: list[_Findings]) -> bool:
        best = min((found.latency for found in chosen), default=float("inf"))
        return best <= self._bound_of(chosen) * (1.0 + _TOLERANCE)

    def _bound_of(self, chosen: list[_Findings]) -> float:
        return max([self.least, *(found.bound for found in chosen)])

    def result(self, everything: bool) -> Plan | None:
        """Returns the best plan; None if there is none.

        Args:
          everything: whether what was found by planners that have not ended counts as well.
        """
        chosen = list(self.found.values()) if everything else self.counted()
        for found in sorted(chosen, key=lambda found: found.latency):
            self._verify(found)
            if found.plan is not None:
                break
        best = min(chosen, key=lambda found: found.latency, default=None)  # the first of several
        if best is None or best.plan is None:
            return None
        info: dict[str, Any] = {**best.plan.info, "bound": self._bound_of(chosen)}
        info["bound_checked"] = max([self.least, *(found.bound_checked for found in chosen)])
        for (name, _), found in self.found.items():
            if found in chosen and found.bound == info["bound"] > self.least:
                info.setdefault("bound_by", name)
        if failed := self.failed(chosen):
            info["failed"] = failed
        return replace(self._named(best.plan), info={**info, "member": best.plan.planner})

    def failed(self, chosen: list[_Findings]) -> dict[str, str]:
        """Returns the errors of the planners that failed, by name."""
        return {name: found.error for (name, _), found in self.found.items() if found.error and found in chosen}

    @staticmethod
    def _named(plan: Plan) -> Plan:
        return replace(plan, planner="auto", info={**plan.info, "member": plan.planner})


def solve_with(problem: MappingProblem, budget: Budget, options: AutoOptions) -> Plan:
    """Returns the best plan of all members.

    Its `info` is that of the member that made it, with that member's name (`member`), the best bound on the latency
    that is known (`bound`), as much of it as was checked exactly (`bound_checked`), the member that proved it
    (`bound_by`, if any did), and the errors of the members that failed, by name (`failed`).

    Raises:
      PlannerError: no member found a plan; the message is that of the first one that failed.
    """
    portfolio = _Portfolio(problem, budget)
    guard, is_cut = budget.guard, True
    with contextlib.suppress(KeyboardInterrupt):
        if guard.is_limited:
            portfolio.found[options.first, budget.seed] = _Findings()  # It stays the first.
            portfolio.run_here("slow", budget.seed)
        with guard.keeping(_VERIFYING * budget.verifier.seconds):
            with guard.keeping(_SEARCHING * budget.verifier.seconds):
                is_short = guard.reached()
            if not is_short:
                portfolio.run_here(options.first, budget.seed)
            if problem.given is not None:  # The mapping that the program's compiler chose is one to beat.
                portfolio.run_here("xla", budget.seed)
        with guard.keeping(_VERIFYING * budget.verifier.seconds):
            if not portfolio.is_optimal and not guard.reached():
                _run(portfolio, options)
            if options.last is not None and not portfolio.is_optimal and not guard.reached():
                portfolio.improve(options.last)
        is_cut = guard.met
    plan = portfolio.result(everything=is_cut)
    if plan is None:
        failed = portfolio.failed(list(portfolio.found.values()))
        if not failed:
            raise KeyboardInterrupt
        raise PlannerError(next(iter(failed.values())))
    return plan


def _run(portfolio: _Portfolio, options: AutoOptions) -> None:
    """Runs members until all have ended, a plan is proven to be the best, or the guard is reached."""
    budget = portfolio.budget
    entries = options.entries(budget.effort, budget.seed, portfolio.problem.end)
    entries = [entry for entry in entries if entry not in portfolio.found]
    processes = options.processes
    if processes is None:
        processes = 0 if budget.effort is Effort.FAST else num_cores()
    if processes > 0:
        _run_beside(portfolio, entries, processes)
        return
    for name, seed in entries:
        if portfolio.is_optimal or budget.guard.reached():
            return
        portfolio.run_here(name, seed)


def _run_beside(portfolio: _Portfolio, entries: list[tuple[str, int]], processes: int) -> None:
    """Runs members in processes of their own, and starts them in their order."""
    problem, budget = portfolio.problem, portfolio.budget
    portfolio.found |= {entry: _Findings() for entry in entries}  # in their order
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    waiting, running = list(reversed(entries)), list[Member]()
    problem = problem.with_given(None)
    try:
        while (waiting or running) and not portfolio.is_optimal and not budget.guard.reached():
            if waiting and len(running) < processes:
                name, seed = waiting.pop()
                running.append(Member(name, problem, _budget_of(portfolio, seed), news))
                continue
            try:
                told = news.get(timeout=min(_PULSE, max(budget.guard.left(), 0.0)))
            except queue.Empty:
                continue
            if told.plan is not None:
                portfolio.hear(told.member.entry, told.plan)
                continue
            running.remove(told.member)
            told.member.stop()
            portfolio.end(told.member.entry, told.error)
    except OSError as error:  # Processes cannot be started here.
        portfolio.end(entries[0], f"no process for it: {error.strerror}")
    finally:
        for member in running:
            member.stop()


def _budget_of(portfolio: _Portfolio, seed: int) -> Budget:
    """Returns a member's budget."""
    left = portfolio.budget.guard.left()
    limit = None if left == float("inf") else max(left - min(_MAX_RESERVE, _RESERVE * left), 0.01)
    return Budget(portfolio.budget.effort, seed, limit, known=portfolio.known(seed))


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the plan of `solve_with` under the default options."""
    return solve_with(problem, budget, AutoOptions())


@cache
def prepare() -> None:
    """Compiles the kernels, or loads them."""
    for name in (AutoOptions.first, *names_of(Role.SEEDED), *names_of(Role.MEMBER), _LAST):
        planners.get(name).prepare()


PLANNER = Planner("auto", "A portfolio of all these methods, beside each other on all cores.", solve, prepare=prepare)
