"""Programs for any batch, and what they need by the model; nothing is compiled for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from memplan.backends.fit.compilers import FitCompiler
from memplan.backends.fit.fit import FitPlanner, FitSession, session_of
from memplan.backends.fit.prediction import predicted_total
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError, one_line
from memplan.compiler.hardware.target import Target
from memplan.passes.fit.program import FitProgram
from memplan.planners.fit.plan import FitError, FitPlan
from memplan.planners.fit.problem import FitProblem

# Builds `(fun, args)` for a batch, which it takes by the name `batch`.
BatchProgram = Callable[..., tuple[Callable[..., Any], tuple[Any, ...]]]

# By how much the model may go beyond the batches that it was asked about.
_GROWTH = 16

# What is this part of the limit below it counts as at the limit.
_NEAR = 0.002


def check_takes_batch(program: Any, name: str = "") -> None:
    """Raises MemplanError if a function takes no argument by the name `batch`, or needs others as well."""
    name = name or getattr(program, "__qualname__", type(program).__name__)
    try:
        inspect.signature(program).bind(batch=1)
    except (TypeError, ValueError):
        raise MemplanError(
            f"{name} takes no batch: it must be a function like program(batch=512), which returns (fun, args)"
        ) from None


@dataclass
class BatchSource:
    """Programs for batches that are multiples of a number, and the sessions that fit them."""

    program: BatchProgram
    unit: int
    target: Target | None
    donate_argnums: int | Sequence[int]
    planner: FitPlanner
    compiler: FitCompiler
    sessions: dict[int, FitSession] = field(default_factory=dict)

    def session(self, k: int) -> FitSession:
        """Returns the session of the batch that is k times the unit; it keeps no compiler of its own."""
        if k not in self.sessions:
            self.sessions[k] = self._made(k * self.unit)
        return self.sessions[k]

    def _made(self, batch: int) -> FitSession:
        try:
            built = self.program(batch=batch)
            if not isinstance(built, tuple) or len(built) != 2:
                raise MemplanError("the program returns no (fun, args), a function and a tuple of its arguments")
            fun, args = built
            planner, compiler = self.planner, self.compiler
            return session_of(fun, tuple(args), self.target, self.donate_argnums, (), Effort.NORMAL, planner, compiler)
        except MemplanError:
            raise
        except Exception as error:
            raise MemplanError(f"the program cannot be built for batch {batch:,}: {one_line(error)}") from error


class BatchNeed:
    """What programs need by the model: those as given, or those that need least with a plan."""

    def __init__(self, source: BatchSource, is_planned: bool):
        self.source, self.is_planned = source, is_planned
        self.excess: dict[int, int] = {}  # what the compiler stated beyond the model
        self.known: dict[int, int] = {}  # what was asked for
        self.plans: list[FitPlan] | None = None  # one for each variant of the program
        self.made_for: list[FitProgram] = []
        self.planned: set[int] = set()  # where plans were looked for

    def __call__(self, k: int) -> int:
        """Returns the bytes that a compiler is expected to state for k times the unit."""
        return self.by_model(k) + self._correction(k)

    def by_model(self, k: int) -> int:
        """Returns the same before any correction."""
        if k not in self.known:
            programs = self.source.session(k).programs
            if self.is_planned:
                if self.plans is None or not self._serve(programs):
                    self.replan(k)
                assert self.plans is not None
                self.known[k] = min(map(predicted_total, programs, self.plans))
            else:
                self.known[k] = predicted_total(programs[0], programs[0].as_written)
        return self.known[k]

    def _correction(self, k: int) -> int:
        """Returns what the compiler is expected to state beyond the model, by a line through what is known nearby."""
        nearest = sorted(self.excess, key=lambda known: abs(known - k))[:2]
        if len(nearest) < 2:
            return self.excess[nearest[0]] if nearest else 0
        first, second = nearest
        rise = self.excess[second] - self.excess[first]
        return self.excess[first] + rise * (k - first) // (second - first)

    def replan(self, k: int) -> None:
        """Looks for the plans that need least at k times the unit; they serve for other batches as well."""
        if k in self.planned:
            return
        programs = self.source.session(k).programs
        plans = [_smallest(self.source.planner, program.problem) for program in programs]
        if self.plans is not None and self._serve(programs):
            pairs = zip(programs, plans, self.plans, strict=True)
            plans = [min(two, key=partial(predicted_total, program)) for program, *two in pairs]
        self.planned.add(k)
        self.made_for, self.plans = programs, plans
        self.known.clear()

    def _serve(self, programs: list[FitProgram]) -> bool:
        """Whether plans for some programs are plans for others: these differ in sizes and times alone."""
        return len(programs) == len(self.made_for) and all(
            _structure(ours.problem) == _structure(theirs.problem)
            for ours, theirs in zip(programs, self.made_for, strict=True)
        )


def _smallest(planner: FitPlanner, problem: FitProblem) -> FitPlan:
    try:
        return planner(problem, 1)
    except FitError as error:
        return error.plan


def _structure(problem: FitProblem) -> tuple[Any, ...]:
    nodes = tuple((node.inputs, node.outputs, node.can_repeat) for node in problem.nodes)
    return nodes, tuple((value.producer, value.is_result, value.is_donated) for value in problem.values)


def largest_within(need: Callable[[int], int], limit: int, low: int, high: int) -> int | None:
    """Returns the largest number of a range whose need is within a limit, as far as needs rise; None if low is above.

    Needs are close to a line, so each guess is where a line meets the limit. A number whose need is a small part of the
    limit below it is large enough.
    """
    lower = need(low)
    if lower > limit:
        return None
    upper: int | None = None
    known = {low: lower}
    tries = 0
    while low < (high if upper is None else high - 1) and limit - lower > _NEAR * limit:
        tries += 1
        if upper is None:
            before = max((k for k in known if k < low), default=None)
            guess = min(2 * low, low + 1) if before is None else _line(before, known[before], low, lower, limit)
            guess = min(max(guess, low + 1), _GROWTH * low, high)
        else:
            guess = (low + high) // 2 if tries % 3 == 0 else _line(low, lower, high, upper, limit)
            guess = min(max(guess, low + 1), high - 1)
        known[guess] = need(guess)
        if known[guess] <= limit:
            low, lower = guess, known[guess]
        else:
            high, upper = guess, known[guess]
    return low


def _line(x0: int, y0: int, x1: int, y1: int, limit: int) -> int:
    """Returns the last number at which the line through two points is not above a limit; huge if it does not rise."""
    return x0 + (limit - y0) * (x1 - x0) // (y1 - y0) if y1 > y0 else 2**62
