"""The planner `auto`: a portfolio under one time limit.

What each method is good at differs from program to program (Huberman, Lukose and Hogg, "An economics approach to hard
computational problems", 1997; Gomes and Selman, "Algorithm portfolios", 2001), so several run beside each other, one to
a core, and the best plan that any of them finds is the answer:

    time     0 ────────────────────────────────────────────────────► limit
    here     greedy │ xla │ waits, keeps the best plan that it hears of
    core 1     ilp  ├───── proves, or runs out of time ─────────────┤
    core 2          └──── search ───────────────────────────────────┤
    more cores, and those of members that end: hybrid, then search with other seeds

It ends early when a plan reaches the bound, or has been proven best. Every plan is scored by the emulator here, whoever
made it, and checked by the verifier before it is returned.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import planner as planners
from memplan.planners.auto.member import Member, News
from memplan.planners.planner import Budget, Planner, num_cores

# A plan this close to the bound, relatively, is as good as it gets.
_TOLERANCE = 1e-4

# Of the budget, what is kept back for the members' last plans to arrive and be checked; no more than so many seconds.
_RESERVE, _MAX_RESERVE = 0.03, 1.0

# It takes a process this long to do anything useful, and one that must compile networks first.
_LEAST_SECONDS, _LEAST_SECONDS_LATER = 3.0, 30.0


@dataclass(frozen=True)
class AutoOptions:
    """Who takes part.

    Attributes:
      first: the planner whose plan is the first to beat; it runs in the caller's process.
      members: planners that run beside each other, in processes of their own.
      later: planners that get the cores that are left, and those of members that are done early, if there is time
        enough; those that are not known here, or need what is not installed, are left out. After them the first member
        gets cores, with other seeds.
      processes: how many run at once, each member once at least; None for as many as there are cores.
    """

    first: str = "greedy"
    members: tuple[str, ...] = ("search", "ilp")
    later: tuple[str, ...] = ("hybrid",)
    processes: int | None = None

    @property
    def num_processes(self) -> int:
        """How many members run at once."""
        return max(len(self.members), self.processes if self.processes is not None else num_cores())


class _Best:
    """The best plan so far, and who made it."""

    def __init__(self, problem: MappingProblem, budget: Budget):
        self.problem, self.budget = problem, budget
        self.emulator = TimingEmulator(problem)
        self.bound = self.emulator.lower_bound()
        self.plan: Plan | None = None
        self.latency = float("inf")
        self.found: list[str] = []

    def hear(self, plan: Plan) -> None:
        """Takes a plan if it is better, and valid."""
        bound = plan.info.get("bound")
        if isinstance(bound, float):
            self.bound = max(self.bound, bound)
        latency = self.emulator.latency(plan)
        if latency < self.latency and not verify(self.problem, plan):
            self.latency = latency
            self.plan = replace(plan, planner="auto", info={**plan.info, "member": plan.planner})
            self.budget.on_plan(self.plan)

    @property
    def is_optimal(self) -> bool:
        """Whether no plan is better."""
        return self.latency <= self.bound * (1.0 + _TOLERANCE)


def solve_with(problem: MappingProblem, budget: Budget, options: AutoOptions) -> Plan:
    """Returns the best plan of all members.

    Its `info` has what the member that made it says, that member's name (`member`), the best bound on the latency that
    any of them proved (`bound`), and how members ended that failed (`failed`).

    Raises:
      PlannerError: no member found a plan; it says what the first of them said.
    """
    end = time.monotonic() + budget.seconds
    best = _Best(problem, budget)
    failed: dict[str, str] = {}
    with contextlib.suppress(KeyboardInterrupt):
        try:
            first = planners.get(options.first)
            best.hear(first.solve(problem, Budget(budget.seconds, budget.seed, best.hear)))
        except PlannerError as error:
            failed[options.first] = str(error)
        if not best.is_optimal:
            _run(problem, budget, options, best, failed, end)
    if best.plan is None:
        if not failed:
            raise KeyboardInterrupt
        raise PlannerError(next(iter(failed.values())))
    info: dict[str, Any] = {**best.plan.info, "bound": best.bound}
    if failed:
        info["failed"] = failed
    return replace(best.plan, info=info)


def _run(
    problem: MappingProblem,
    budget: Budget,
    options: AutoOptions,
    best: _Best,
    failed: dict[str, str],
    end: float,
) -> None:
    """Runs members until the time is over, a plan is known to be the best, or all have ended by themselves."""
    deadline = end - min(_MAX_RESERVE, _RESERVE * budget.seconds)
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    waiting = _entries(options, budget.seed, deadline)
    running: list[Member] = []

    def start() -> None:
        planner, seed = next(waiting)
        running.append(Member(planner, problem, Budget(deadline - time.monotonic(), seed), news))

    try:
        for _ in range(options.num_processes):
            start()
        if problem.given is not None:  # What the program's compiler decided is worth knowing, if only to beat it.
            with contextlib.suppress(PlannerError):
                best.hear(planners.get("xla").solve(problem, Budget(budget.seconds, budget.seed)))
        while running and not best.is_optimal and (left := end - time.monotonic()) > 0:
            try:
                told = news.get(timeout=left)
            except queue.Empty:
                break
            if told.plan is not None:
                best.hear(told.plan)
                continue
            running.remove(told.member)
            told.member.stop()
            if told.error:
                failed[told.member.planner] = told.error
            elif time.monotonic() < deadline - _LEAST_SECONDS:
                start()
    except OSError as error:  # Processes cannot be started here.
        failed[options.members[0]] = f"no process for it: {error.strerror}"
    finally:
        for member in running:
            member.stop()


def _entries(options: AutoOptions, seed: int, deadline: float) -> Iterator[tuple[str, int]]:
    """Yields planners and seeds in the order in which they get a core."""
    yield from ((planner, seed) for planner in options.members)
    for planner in options.later:
        known = planner in planners.names() and not planners.get(planner).missing()
        if known and deadline - time.monotonic() >= _LEAST_SECONDS_LATER:
            yield planner, seed
    yield from ((options.members[0], number) for number in itertools.count(seed + 1))


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the plan of `solve_with` under the default options."""
    return solve_with(problem, budget, AutoOptions())


PLANNER = Planner("auto", "A portfolio of all these methods, beside each other on all cores.", solve)
