"""What a planner is, and where planners are registered.

A planner is one module of this package with a `Planner` at its top, the module `solve` of a package within it, an entry
point of the group `memplan.planners`, or what `register` is called with:

>>> import memplan.planners.planner as planners
>>> planners.get("slow").description
'Everything in the slow memory: what all other plans are compared with.'
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from memplan.compiler.effort import Effort as Effort
from memplan.compiler.effort import Guard
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import Violation, verify
from memplan.compiler.registry import Registry, missing_libraries

# The planner that makes the plans unless another one is named.
DEFAULT_PLANNER = "auto"

# The variable of the environment that says how many cores a process may use.
CORES = "MEMPLAN_CORES"

# What the `info` of a plan says under `stopped` if a time limit ended the work.
STOPPED = "stopped by its time limit: a slower machine may give another plan"


def _nothing() -> None:
    """Does nothing."""


def _ignore(plan: Plan) -> None:
    """Does nothing."""


@dataclass(frozen=True)
class Budget:
    """What a planner may spend, and what it calls with the plans that it finds.

    A planner spends work, which is counted, and not time: the same problem, effort and seed give the same plan on an
    idle and on a busy machine, with few cores and with many. For this to hold, a planner

    - counts its work (rounds, nodes, a solver's iterations or its deterministic time). The amount follows from the
      effort and the size of the problem;
    - draws random numbers from the seed alone;
    - never lets the result depend on which of two threads or processes is done first.

    A time limit is a guard against work that takes unexpectedly long. Each loop asks the guard. A plan that was cut
    short by it may differ from machine to machine, and `Planner.plan` notes it in `info["stopped"]`.

    A planner that searches returns the best plan so far when the user interrupts it (KeyboardInterrupt), if it has one.

    Attributes:
      effort: how much work to do.
      seed: of all random numbers.
      time_limit: seconds of wall-clock time after which the best plan so far is returned; None for no limit.
      on_plan: called with each valid plan that is better than those before, as soon as it is found.
      known: greedy's plan of the same problem, effort and seed, if it is known already: those that start from it need
        not make it again.
      offered: plans of the same problem by planners that search nothing, such as `slow` and `xla`, that are known
        already.
      verifier: of the plans. A planner that calls another one hands its own verifier on.
      guard: of the time limit. It starts with the budget. A planner that calls another one hands its own guard on.
    """

    effort: Effort = Effort.NORMAL
    seed: int = 0
    time_limit: float | None = None
    on_plan: Callable[[Plan], None] = _ignore
    known: Plan | None = None
    offered: tuple[Plan, ...] = ()
    verifier: Verifier = field(default_factory=lambda: Verifier())
    guard: Guard = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.guard is None:
            object.__setattr__(self, "guard", Guard(self.time_limit))


class Verifier:
    """Verifies plans of a problem, each once: a valid plan may come back under the name of another planner.

    Attributes:
      seconds: that the verification which took longest took.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._valid: list[tuple[object, ...]] = []

    def violations(self, problem: MappingProblem, plan: Plan) -> list[Violation]:
        """Returns every violation of a plan."""
        parts = (problem.operations, problem.buffers, plan.residencies, plan.copies, plan.served)
        if any(all(a is b for a, b in zip(parts, valid, strict=True)) for valid in self._valid):
            return []
        started = time.monotonic()
        found = verify(problem, plan)
        self.seconds = max(self.seconds, time.monotonic() - started)
        if not found:
            self._valid.append(parts)
        return found


class Role(Enum):
    """How a planner takes part in the portfolio of `auto`. Its members are in the order of the roles, then by name.

    Attributes:
      MEMBER: it runs at the efforts `normal` and `high`.
      SEEDED: it runs at every effort, at `high` with several seeds.
    """

    MEMBER = "member"
    SEEDED = "seeded"


class InvalidPlanError(PlannerError):
    """A planner made a plan that breaks rules: a bug of the planner.

    Attributes:
      violations: all of them.
    """

    def __init__(self, message: str, violations: list[Violation]):
        more = f" (and {len(violations) - 1:,} more)" if len(violations) > 1 else ""
        super().__init__(f"{message}; {violations[0].rule}: {violations[0].message}{more}")
        self.message, self.violations = message, violations

    def __reduce__(self) -> tuple[type[InvalidPlanError], tuple[str, list[Violation]]]:
        return InvalidPlanError, (self.message, self.violations)


@dataclass(frozen=True)
class Planner:
    """A method to answer a MappingProblem.

    Attributes:
      name: as in `memplan plan --planner NAME`.
      description: one line.
      solve: returns a valid plan; raises PlannerError if it cannot, with what the user can do.
      needs: libraries that memplan itself does without, by the names that they are imported by.
      role: how it takes part in the portfolio of `auto`; None if it does not.
      prepare: compiles what `solve` needs, or loads it from the cache; a budget does not pay for it.
    """

    name: str
    description: str
    solve: Callable[[MappingProblem, Budget], Plan]
    needs: tuple[str, ...] = ()
    role: Role | None = None
    prepare: Callable[[], None] = _nothing

    def plan(self, problem: MappingProblem, budget: Budget) -> Plan:
        """Returns the plan of `solve`, whose time begins when it is prepared, and which is verified.

        The plan's `info` says whether the time limit ended the work (`stopped`).

        Raises:
          PlanError: the problem has faults, so that no plan answers it.
          PlannerError: the planner found no plan.
          InvalidPlanError: it made one that breaks a rule.
        """
        plan = self.unverified(problem, budget)
        if violations := budget.verifier.violations(problem, plan):
            raise InvalidPlanError(f"the plan of {self.name!r} for {problem.name} is not valid", violations)
        return plan

    def unverified(self, problem: MappingProblem, budget: Budget) -> Plan:
        """Returns the plan of `plan` to a caller that verifies it; raises PlanError and PlannerError as `plan` does."""
        guard = Guard(budget.time_limit)
        problem.check()
        started = time.monotonic()
        self.prepare()
        guard.extend(time.monotonic() - started)
        budget = replace(budget, guard=guard)
        plan = self.solve(problem, budget)
        if budget.guard.met:
            plan = replace(plan, info={**plan.info, "stopped": STOPPED})
        return plan

    def missing(self) -> list[str]:
        """Returns the libraries that it needs and that are not installed."""
        return missing_libraries(self.needs)


def num_cores() -> int:
    """Returns how many cores this process may use: `$MEMPLAN_CORES`, or those that the system lets it have.

    Raises:
      PlannerError: the variable holds no such number.
    """
    if named := os.environ.get(CORES):
        if not (named.isascii() and named.isdecimal() and 0 < int(named) <= 2**16):
            raise PlannerError(f"{CORES}={named}: is no number of cores")
        return int(named)
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_registry: Registry[Planner] = Registry("planner", "memplan.planners", Planner, PlannerError, entry="solve")
get = _registry.get
names = _registry.names
register = _registry.register


def names_of(role: Role) -> tuple[str, ...]:
    """Returns the names of the planners that have a role, sorted.

    >>> names_of(Role.SEEDED)
    ('search',)
    """
    return tuple(planner.name for planner in _registry if planner.role is role)
