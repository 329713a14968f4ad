"""The loop of `fit`: plan, rewrite, compile, read what the compiler states, correct the model, and again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from memplan.backends.fit.compilers import CompiledFit, FitCompiler, traced_of
from memplan.backends.fit.prediction import predicted_total
from memplan.backends.fit.result import CannotFitError, FitAttempt
from memplan.backends.fit.standing import peak_of_plan
from memplan.passes.fit.program import FitProgram
from memplan.passes.fit.scan_pairs import Residual
from memplan.passes.rematerialize import rematerialized
from memplan.planners.fit.plan import FitError, FitPlan, FitStep, Run
from memplan.planners.fit.problem import FitProblem
from memplan.planners.planner import Budget

# Makes plans: takes a problem and a limit in bytes, and raises FitError if it finds none.
FitPlanner = Callable[[FitProblem, int], FitPlan]

# Traces a rewritten program, a `ClosedJaxpr`, as it is to be compiled.
Tracer = Callable[[Any], Any]

# A correction lowers the model's limit by this part at least, so that it does not stand still.
_LEAST_STEP = 0.01

# Room of less than this part of the limit is not worth another compile, nor are limits of the model that differ by less
# than this part, nor a gain of less than this part of the step.
_LEAST_ROOM, _LEAST_WIDTH, _LEAST_GAIN = 0.02, 0.003, 0.01

# Operations for each node in the search for the order of the program as given, see `planners/fit/order.py`.
_ORDER_WORK = 20

# How often a higher limit of the model may bring no cheaper plan.
_IDLE = 3


@dataclass
class FitVariant:
    """One alternative of the program.

    Attributes:
      program: with its problem.
      residuals: what its scans stack.
      added: seconds that it takes beyond the program as given, by the model.
    """

    program: FitProgram
    residuals: tuple[Residual, ...]
    added: float


@dataclass
class FitCandidate:
    """A plan for a variant, with what it is expected to take and to need.

    Attributes:
      variant, plan: the two.
      limit: of the model, that the plan was made for.
      predicted: bytes that the compiler is expected to state.
    """

    variant: FitVariant
    plan: FitPlan
    limit: int
    predicted: int = 0

    @property
    def added(self) -> float:
        return self.variant.added + self.plan.cost

    @property
    def key(self) -> tuple[int, tuple[FitStep, ...]]:
        """Tells it from others."""
        return id(self.variant), self.plan.steps


@dataclass
class FitLoop:
    """The state of the loop."""

    limit: int
    compiler: FitCompiler
    planner: FitPlanner
    budget: int
    donated: tuple[bool, ...]
    name: str
    shardings: tuple[Any, Any] | None = None  # of arguments and of results, in a program of several devices
    tracer: Tracer | None = None  # by default, a rewritten program is a function of flat lists
    variants: list[FitVariant] = field(default_factory=list)
    attempts: list[FitAttempt] = field(default_factory=list)
    offset: int = 0  # what the compiler states beyond the model's peak
    excess: int = 0  # what the compiler states beyond the prediction of its temporaries
    proven: int = 0
    smallest: tuple[int, FitCandidate] | None = None
    compiled: set[tuple[int, tuple[FitStep, ...]]] = field(default_factory=set)  # variants, and plans for them

    @property
    def left(self) -> int:
        return self.budget - len(self.attempts)


def calibrate(search: FitLoop, default: CompiledFit) -> None:
    """Corrects the model by what the compiler states for the program as given.

    The compiler runs that in an order of its own. What it states is no fault of the model if it lies between what the
    model says of the order as written, and of one that needs little memory.
    """
    if default.total is None:
        return
    program = search.variants[0].program
    orders = program.as_written, _reordered(program.problem, default.total)
    search.offset = _outside(default.total, [plan.peak for plan in orders])
    search.excess = _outside(default.total, [predicted_total(program, plan) for plan in orders])


def _reordered(problem: FitProblem, limit: int) -> FitPlan:
    """Returns a plan that keeps everything, in an order that needs little above a limit."""
    from memplan.planners.fit.order import Orderer

    orderer = Orderer(problem, limit)
    order = orderer.best(_ORDER_WORK * len(problem.nodes), 0)
    return FitPlan(tuple(Run(node) for node in order.tolist()), orderer.measured(order)[1])


def _outside(stated: int, expected: list[int]) -> int:
    """Returns how far above the largest of some figures another one lies, or how far below the smallest."""
    return stated - min(max(stated, min(expected)), max(expected))


def _learn(search: FitLoop, program: FitProgram, plan: FitPlan, stated: int) -> None:
    search.offset = stated - plan.peak
    search.excess = stated - predicted_total(program, plan)


def cheapest_that_fits(search: FitLoop) -> tuple[FitCandidate, Any, CompiledFit]:
    """Returns the cheapest program that fits; CannotFitError if there is none.

    As long as none fits, the model's limit falls. Once one fits, it rises by the room that is left, until a program
    does not fit. The limits between the two are tried next, as long as that may make the program notably cheaper.
    """
    best: tuple[FitCandidate, Any, CompiledFit] | None = None
    bracket = _Bracket(search.limit)
    least = min(each.added for each in search.variants)
    least_gain = _LEAST_GAIN * search.variants[0].program.seconds
    model_limit, idle = search.limit - search.offset, 0
    while search.left > 0:
        candidate = _cheapest(search, model_limit)
        if best is not None and (candidate is None or candidate.added >= best[0].added):
            # No plan within this limit is cheaper, but one within a higher limit may be.
            bracket.low, idle = model_limit, idle + 1
            if bracket.high is None or idle == _IDLE:
                break
        elif candidate is None:
            break
        else:
            closed, compiled = _compiled(search, candidate, model_limit)
            fits = compiled.memory is not None and compiled.memory.total <= search.limit
            bracket.note(candidate, compiled.total, fits)
            if fits:
                best = candidate, closed, compiled
            elif best is None:
                model_limit = _lowered(search, candidate, compiled, model_limit)
                continue
        assert best is not None
        assert best[2].memory is not None
        room = search.limit - best[2].memory.total
        if room <= _LEAST_ROOM * search.limit or best[0].added <= least:
            break
        if best[0].added - bracket.cost_above <= least_gain:
            break
        following = bracket.between(room)
        if following is None:
            break
        model_limit = following
    if best is None:
        raise _cannot(search)
    return best


def _lowered(search: FitLoop, candidate: FitCandidate, compiled: CompiledFit, model_limit: int) -> int:
    """Returns the next limit of the model after a program that does not fit, before any fits."""
    lowered = min(int(model_limit * (1 - _LEAST_STEP)), candidate.plan.peak) - 1
    return lowered if compiled.total is None else min(lowered, search.limit - search.offset)


@dataclass
class _Bracket:
    """The limits of the model between which the best plan is looked for.

    Attributes:
      limit: of what the compiler states, bytes.
      low, low_stated: the highest limit of the model within which a plan is known that fits, and what it needs.
      high, high_stated: the lowest peak of a plan that does not fit, and what it needs; None if there is none.
      cost_above: added seconds of that plan.
    """

    limit: int
    low: int = 0
    low_stated: int = 0
    high: int | None = None
    high_stated: int | None = None
    cost_above: float = -math.inf

    def note(self, candidate: FitCandidate, stated: int | None, fits: bool) -> None:
        """Takes note of what the compiler says of a plan."""
        peak = candidate.plan.peak
        if fits:
            assert stated is not None
            self.low, self.low_stated = peak, stated
        elif self.high is None or peak < self.high:
            self.high, self.high_stated, self.cost_above = peak, stated, candidate.added

    def between(self, room: int) -> int | None:
        """Returns the next limit after a plan that fits with room to spare; None if there is none to try.

        With a plan on either side, it is where a line through both meets the limit, away from the ends.
        """
        if self.high is None:
            return self.low + room
        width = self.high - self.low
        if width <= _LEAST_WIDTH * self.high:
            return None
        share = 0.5
        if self.high_stated is not None and self.high_stated > self.low_stated:
            share = (self.limit - self.low_stated) / (self.high_stated - self.low_stated)
        return self.low + int(min(max(share, 0.2), 0.8) * width)


def _compiled(search: FitLoop, candidate: FitCandidate, model_limit: int) -> tuple[Any, CompiledFit]:
    """Rewrites a program by a plan and compiles it; what the compiler states corrects the model."""
    program = candidate.variant.program
    search.compiled.add(candidate.key)
    candidate.predicted = predicted_total(program, candidate.plan) + search.excess
    platform = search.compiler.platform
    closed = rematerialized(program, candidate.plan, platform, in_order=platform == "cpu")
    if search.tracer is None:
        traced = traced_of(closed, search.donated, search.name, search.shardings)
    else:
        traced = search.tracer(closed)
    compiled = search.compiler.compile(traced, planned=True)
    name = f"plan within {model_limit:,} bytes of the model"
    stated = compiled.total
    search.attempts.append(FitAttempt(name, candidate.predicted, stated, candidate.added, compiled.refused))
    if stated is not None:
        if search.smallest is None or stated < search.smallest[0]:
            search.smallest = (stated, candidate)
        _learn(search, program, candidate.plan, stated)
    return closed, compiled


def _cheapest(search: FitLoop, model_limit: int) -> FitCandidate | None:
    """Returns the plan of the variant that costs least; the smallest one that was found if none is within the limit.

    A plan that was compiled before is not returned; None stands for no other one. A plan adds to what its variant adds,
    so variants that add more than the best plan so far are not planned.
    """
    found: list[FitCandidate] = []
    smallest: list[FitCandidate] = []
    proven: list[int] = []
    for variant in sorted(search.variants, key=lambda variant: variant.added):
        if found and variant.added >= min(candidate.added for candidate in found):
            break
        try:
            plan = search.planner(variant.program.problem, max(model_limit, 1))
            found.append(FitCandidate(variant, plan, model_limit))
        except FitError as error:
            proven.append(error.proven)
            smallest.append(FitCandidate(variant, error.plan, model_limit))
    fresh = [candidate for candidate in found or smallest if candidate.key not in search.compiled]
    if found:
        return min(fresh, key=lambda candidate: candidate.added, default=None)
    search.proven = min(proven)
    return min(fresh, key=lambda candidate: candidate.plan.peak, default=None)


def _cannot(search: FitLoop) -> CannotFitError:
    least, candidate = search.smallest or (None, None)
    standing = peak_of_plan(candidate.variant.program, candidate.plan) if candidate else None
    proven = max(search.proven + search.offset, 0) if search.proven else 0
    return CannotFitError(search.limit, proven, least, standing, tuple(search.attempts))


def least_added(search: FitLoop, candidate: FitCandidate, stated: int, budget: Budget) -> float:
    """Returns the seconds that every plan within the limit adds at least, by the model.

    The compiler is taken to state as much more than the model, or less, as it does for a plan that fits.

    Args:
      search: that found the plan.
      candidate: the plan.
      stated: what the compiler states for it.
      budget: of work for each variant.
    """
    from memplan.planners.fit.solve import cost_floor

    limit = max(candidate.plan.peak + search.limit - stated, 0)
    least = candidate.added
    for variant in sorted(search.variants, key=lambda variant: variant.added):
        if variant.added >= least:
            break
        floor = cost_floor(variant.program.problem, limit, budget)
        if variant is candidate.variant and limit <= candidate.limit:
            floor = max(floor, candidate.plan.bound)
        least = min(least, variant.added + floor)
    return least
