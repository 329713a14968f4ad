"""The planner `auto`: a portfolio under one time limit.

Which method is best differs from program to program (Huberman, Lukose and Hogg, "An economics approach to hard
computational problems", 1997; Gomes and Selman, "Algorithm portfolios", 2001), so several run beside each other, one to
a core, and the best plan that any of them finds is the answer:

    time        0 ───────────────────────────────────────────────► limit
    here        greedy │ xla │ receives plans and keeps the best one
    core 1             ├── a member ───────────────────────────────┤
    core 2             └── another one: proves, or runs out of time┤
    more cores, and those of members that end: later members, then members with other seeds

The members are the registered planners whose `Role` says so. The portfolio ends early when a plan reaches the bound or
is proven to be the best. Each plan, whichever member made it, is scored and checked here.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import planner as planners
from memplan.planners.auto.member import Member, News
from memplan.planners.planner import Budget, Planner, Role, names_of, num_cores

# A plan that is relatively this close to the bound counts as optimal.
_TOLERANCE = 1e-4

# The share of the budget that is kept back for members' last plans to arrive and be checked, and its most in seconds.
_RESERVE, _MAX_RESERVE = 0.03, 1.0

# The time that a new process needs to do anything useful, and one that compiles networks first.
_LEAST_SECONDS, _LEAST_SECONDS_LATER = 3.0, 30.0


@dataclass(frozen=True)
class AutoOptions:
    """Which planners take part; by default those that are registered with a `Role`.

    Attributes:
      first: the planner whose plan is the first to beat; it runs in the caller's process.
      members: planners that run beside each other from the start, each in a process of its own.
      later: planners that get the cores that are left, and those of members that end early, if there is time enough.
        Names that are not registered, and planners whose libraries are not installed, are left out. After them, the
        first member gets cores, with other seeds.
      processes: how many members run at once, at least each of `members`; None for as many as there are cores.
    """

    first: str = "greedy"
    members: tuple[str, ...] = field(default_factory=lambda: names_of(Role.SEEDED) + names_of(Role.MEMBER))
    later: tuple[str, ...] = field(default_factory=lambda: names_of(Role.LATER))
    processes: int | None = None

    @property
    def num_processes(self) -> int:
        """The number of members that run at once."""
        return max(len(self.members), self.processes if self.processes is not None else num_cores())


class _BestPlan:
    """The best plan so far, and the bound.

    Attributes:
      problem, budget: as given; the budget is told of each better plan.
      emulator: of the problem.
      bound: the highest lower bound on the latency that is known, in seconds.
      plan: the best plan; None before the first.
      latency: its seconds; infinite before the first.
    """

    def __init__(self, problem: MappingProblem, budget: Budget):
        self.problem, self.budget = problem, budget
        self.emulator = TimingEmulator(problem)
        self.bound = self.emulator.lower_bound()
        self.plan: Plan | None = None
        self.latency = float("inf")

    def hear(self, plan: Plan) -> None:
        """Takes a plan if it is better and valid, and the bound that it states if that is higher."""
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
        """Whether no plan can be better."""
        return self.latency <= self.bound * (1.0 + _TOLERANCE)


def solve_with(problem: MappingProblem, budget: Budget, options: AutoOptions) -> Plan:
    """Returns the best plan of all members.

    Its `info` is that of the member that made it, with that member's name (`member`), the best bound on the latency
    that any member proved (`bound`), and the errors of the members that failed, by name (`failed`).

    Raises:
      PlannerError: no member found a plan; the message is that of the first one that failed.
    """
    end = time.monotonic() + budget.seconds
    best = _BestPlan(problem, budget)
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
    best: _BestPlan,
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
        if problem.given is not None:  # The mapping that the program's compiler chose is one to beat.
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
    """Yields planners and their seeds in the order in which they get a core."""
    yield from ((planner, seed) for planner in options.members)
    for planner in options.later:
        known = planner in planners.names() and not planners.get(planner).missing()
        if known and deadline - time.monotonic() >= _LEAST_SECONDS_LATER:
            yield planner, seed
    yield from ((options.members[0], number) for number in itertools.count(seed + 1))


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the plan of `solve_with` under the default options."""
    return solve_with(problem, budget, AutoOptions())


@cache
def prepare() -> None:
    """Compiles the kernels, or loads them."""
    options = AutoOptions()
    for name in (options.first, *options.members):
        planners.get(name).prepare()


PLANNER = Planner("auto", "A portfolio of all these methods, beside each other on all cores.", solve, prepare=prepare)
