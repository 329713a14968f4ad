"""Fits a program into a memory limit: plan, rewrite, compile, read what the compiler states, correct, and again.

    compile as given ── fits ──► done
          │ needs too much
    alternatives of its scans, each a FitProblem
          │
    ┌─► plan under the model's limit ──► rewrite ──► compile in the order of the plan ──► within the limit: done
    │                                                          │ above it
    └────────────── the model's limit falls by what was above ◄┘

The model and the compiler count differently. Their difference at the last compile corrects the next limit of the model
and the next prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any

import jax

from memplan.backends.fit.compilers import CompiledFit, FitCompiler, compiler_for, traced_of
from memplan.backends.fit.interface import check_interface
from memplan.backends.fit.limit import limit_of
from memplan.backends.fit.prediction import interface_bytes, predicted_total
from memplan.backends.fit.result import CannotFitError, FitAttempt, FitResult, decisions_of, standing_of
from memplan.backends.fit.several_devices import (
    argument_shardings,
    check_partitioned_by_xla,
    on_one_device,
    value_shardings,
)
from memplan.compiler.effort import Effort, effort_of
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.jaxpr_devices import SeveralDevicesError, demand_one_device
from memplan.compiler.hardware.target import Target, load_target
from memplan.passes.fit.costs import Costs
from memplan.passes.fit.inline_calls import in_one_piece
from memplan.passes.fit.program import FitProgram, has_host, program_of
from memplan.passes.fit.scan_pairs import Residual
from memplan.passes.fit.scan_stacks import alternatives
from memplan.passes.rematerialize import rematerialized
from memplan.planners.fit.plan import FitError, FitPlan, FitStep
from memplan.planners.fit.problem import FitProblem
from memplan.planners.planner import Budget

# Makes plans: takes a problem and a limit in bytes, and raises FitError if it finds none.
FitPlanner = Callable[[FitProblem, int], FitPlan]

# The model of time where no target is given.
_ANY_TARGET = "generic"

# A correction lowers the model's limit by this part at least, so that it does not stand still.
_LEAST_STEP = 0.01

# Room of less than this part of the limit is not worth another compile.
_LEAST_ROOM = 0.02


@dataclass
class _FitVariant:
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
class _FitCandidate:
    """A plan for a variant, with what it is expected to take and to need."""

    variant: _FitVariant
    plan: FitPlan
    predicted: int = 0

    @property
    def added(self) -> float:
        return self.variant.added + self.plan.cost

    @property
    def key(self) -> tuple[int, tuple[FitStep, ...]]:
        """Tells it from others."""
        return id(self.variant), self.plan.steps


@dataclass
class _FitSearch:
    """The state of the loop."""

    limit: int
    compiler: FitCompiler
    planner: FitPlanner
    budget: int
    donated: tuple[bool, ...]
    name: str
    shardings: tuple[Any, Any] | None = None  # of arguments and of results, in a program of several devices
    variants: list[_FitVariant] = field(default_factory=list)
    attempts: list[FitAttempt] = field(default_factory=list)
    offset: int = 0  # what the compiler states beyond the model's peak
    excess: int = 0  # what the compiler states beyond the prediction of its temporaries
    proven: int = 0
    smallest: tuple[int, _FitCandidate] | None = None
    compiled: set[tuple[int, tuple[FitStep, ...]]] = field(default_factory=set)  # variants, and plans for them

    @property
    def left(self) -> int:
        return self.budget - len(self.attempts)


def fit(
    function: Callable[..., Any],
    *args: Any,
    limit: int | str,
    target: str | Target | None = None,
    compile_budget: int = 8,
    donate_argnums: int | Sequence[int] = (),
    static_argnums: int | Sequence[int] = (),
    effort: str | Effort = Effort.NORMAL,
    planner: FitPlanner | None = None,
) -> FitResult:
    """Returns a program with the results of a function that fits into a memory limit, by the word of the compiler.

    Args:
      function: of pytrees of arrays, such as a whole training step. One that `jax.jit` made keeps what it was given
        there.
      *args: arrays, `jax.ShapeDtypeStruct`s or Python numbers, in any pytrees; values of static arguments.
      limit: bytes for arguments, results and temporaries together, as an integer or like "12GiB"; of each device if
        the shardings of the arguments make it a program of several.
      target: a TPU to compile for, ahead of time; the CPU of this machine by default.
      compile_budget: how often the compiler may be asked.
      donate_argnums: as for `jax.jit`.
      static_argnums: as for `jax.jit`.
      effort: how much work each plan takes: `fast`, `normal` or `high`.
      planner: makes the plans; `memplan.planners.fit.solve_fit` with that effort by default.

    Raises:
      CannotFitError: nothing that fits was found within the budget; it names what stands at the peak. If the
        arguments and results alone are above the limit, nothing is compiled, and it names them.
      MemplanError: the limit is no size, the budget is below 1, no compiler states the memory of the target, or the
        program is one of several devices that says itself what each does, or is compiled for a target.
    """
    size = limit_of(limit)
    check_budget(compile_budget)
    with session_of(function, args, target, donate_argnums, static_argnums, effort, planner) as session:
        return session.fit(size, compile_budget)


def check_budget(compile_budget: Any) -> None:
    """Raises MemplanError if a number of compiles is no positive integer."""
    if isinstance(compile_budget, bool) or not isinstance(compile_budget, int) or compile_budget < 1:
        raise MemplanError(f"compile_budget must be a positive integer, not {compile_budget!r}")


def session_of(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    target: str | Target | None,
    donate_argnums: int | Sequence[int],
    static_argnums: int | Sequence[int],
    effort: str | Effort,
    planner: FitPlanner | None,
    compiler: FitCompiler | None = None,
) -> FitSession:
    """Returns the session of a function and its arguments, see `fit`; one that `jax.jit` made keeps its options."""
    described = load_target(target) if isinstance(target, str) else target
    if not (hasattr(function, "trace") and hasattr(function, "lower")) or donate_argnums or static_argnums:
        function = jax.jit(function, donate_argnums=donate_argnums, static_argnums=static_argnums)
    traced = function.trace(*args)  # type: ignore[attr-defined]
    planner = planner or planner_of(effort_of(effort))
    return FitSession(traced, args, described, planner, compiler, several_devices=True)


class FitSession:
    """A program that is fitted into one limit after another: it is compiled as given once, and analysed once.

    Args:
      traced: what `jax.jit(…).trace(…)` returned.
      arguments: what it was traced for.
      target, planner: see `fit`.
      compiler: of the target; it is not closed. By default, the session has one of its own.
      several_devices: whether the program may be one of several devices. Then limits and sizes are those of each.

    Raises:
      MemplanError: no compiler states the memory of the target, or the program is one of several devices that is not
        fitted: `several_devices` is not set, there is a target, or it says itself what each device does.
    """

    def __init__(
        self,
        traced: Any,
        arguments: Any,
        target: Target | None,
        planner: FitPlanner,
        compiler: FitCompiler | None = None,
        several_devices: bool = False,
    ):
        self._leaves = jax.tree.leaves(arguments)
        self._shardings: list[Any] | None = None  # of arguments, in a program of several devices
        try:
            demand_one_device(traced, self._leaves)
        except SeveralDevicesError:
            if not several_devices or target is not None:
                raise
            check_partitioned_by_xla(traced.jaxpr, traced.fun_name)
            self._shardings = argument_shardings(traced, self._leaves)
        self._traced, self._planner = traced, planner
        self._donated = tuple(info.donated for info in jax.tree.leaves(traced.args_info))
        self._model = target or load_target(_ANY_TARGET)
        self._costs = Costs(self._model)
        self._compiler = compiler or compiler_for(target)
        self._owns_compiler = compiler is None
        self.target = target.name if target else "cpu"

    def __enter__(self) -> FitSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_compiler:
            self._compiler.close()

    @cached_property
    def default(self) -> CompiledFit:
        """What the compiler says of the program as it is given."""
        return self._compiler.compile(self._traced, planned=False)

    @cached_property
    def seconds(self) -> float:
        """What the model says the program as given takes."""
        if self._shardings is not None:
            return self._variants[0].program.seconds
        return self._costs.total(self._inlined.jaxpr)

    @property
    def programs(self) -> list[FitProgram]:
        """The program with everything that its scans could stack, the program as given first."""
        return [variant.program for variant in self._variants]

    @property
    def as_written(self) -> tuple[int, int]:
        """By the model, the bytes of arguments and results, and what the program as given needs."""
        program = self._variants[0].program
        return interface_bytes(program), program.as_written.peak

    def fit(self, limit: int, compile_budget: int) -> FitResult:
        """Returns a program within a limit; see `fit`."""
        if self._shardings is None:
            check_interface(self._traced, self._leaves, limit)
        search = _FitSearch(limit, self._compiler, self._planner, compile_budget, self._donated, self._traced.fun_name)
        default = self.default
        search.attempts.append(FitAttempt("as given", None, default.total, 0.0, default.refused))
        common = (limit, self.target)
        trees = (self._traced.in_tree, self._traced.out_tree)
        if default.memory is not None and default.memory.total <= limit:
            return FitResult(
                *common, default.memory, default.memory, None, self.seconds, 0.0, (), tuple(search.attempts),
                self._traced.jaxpr, None, _flat(default.executable), trees,
            )  # fmt: skip
        search.variants = self._variants
        if self._shardings is not None and default.executable is not None:
            search.shardings = self._shardings, jax.tree.leaves(default.executable.output_shardings)
        _calibrate(search, default)
        candidate, closed, compiled = _run(search)
        assert compiled.memory is not None
        decisions = decisions_of(candidate.variant.program, candidate.plan, candidate.variant.residuals)
        return FitResult(
            *common, compiled.memory, default.memory, candidate.predicted, self.seconds, candidate.added, decisions,
            tuple(search.attempts), closed, candidate.plan, compiled.executable, trees,
        )  # fmt: skip

    @cached_property
    def _inlined(self) -> Any:
        return in_one_piece(self._traced.jaxpr)

    @cached_property
    def _variants(self) -> list[_FitVariant]:
        """The program with everything that its scans could stack, the program as given first."""
        # On the CPU, transfers within a program have no effect.
        platform, name = self._compiler.platform, self._traced.fun_name
        offload = platform != "cpu" and has_host(self._model)
        found: list[_FitVariant] = []
        for each in alternatives(self._inlined, self._costs):
            program = program_of(each.closed, self._model, self._donated, name, offload, platform)
            if self._shardings is not None:
                program = on_one_device(program, value_shardings(program.closed, self._shardings))
            base = found[0].program.seconds if found else program.seconds
            found.append(_FitVariant(program, each.residuals, program.seconds - base))
        return found


def planner_of(effort: Effort) -> FitPlanner:
    """Returns the planner of memplan at an effort."""

    def planner(problem: FitProblem, limit: int) -> FitPlan:
        from memplan.planners.fit.solve import solve_fit

        return solve_fit(problem, limit, Budget(effort))

    return planner


def _flat(executable: Any) -> Any:
    """Returns a compiled function that takes and returns flat lists, from one of pytrees."""
    if executable is None:
        return None

    def call(*leaves: Any) -> list[Any]:
        args, kwargs = jax.tree.unflatten(executable.in_tree, leaves)
        return jax.tree.leaves(executable(*args, **kwargs))

    return call


def _calibrate(search: _FitSearch, default: CompiledFit) -> None:
    """Corrects the model by what the compiler states for the program as given."""
    if default.total is None:
        return
    program = search.variants[0].program
    _learn(search, program, program.as_written, default.total)


def _learn(search: _FitSearch, program: FitProgram, plan: FitPlan, stated: int) -> None:
    search.offset = stated - plan.peak
    search.excess = stated - predicted_total(program, plan)


def _run(search: _FitSearch) -> tuple[_FitCandidate, Any, CompiledFit]:
    """Returns the cheapest program that fits; CannotFitError if there is none.

    As long as none fits, the model's limit falls. Once one fits, it rises by the room that is left, until a program
    costs no less or does not fit.
    """
    best: tuple[_FitCandidate, Any, CompiledFit] | None = None
    model_limit = search.limit - search.offset
    while search.left > 0:
        candidate = _cheapest(search, model_limit)
        if candidate is None or (best is not None and candidate.added >= best[0].added):
            break
        closed, compiled = _compiled(search, candidate, model_limit)
        stated, peak = compiled.total, candidate.plan.peak
        if compiled.memory is not None and compiled.memory.total <= search.limit:
            best = candidate, closed, compiled
            room = search.limit - compiled.memory.total
            if room <= _LEAST_ROOM * search.limit or candidate.added <= min(each.added for each in search.variants):
                break
            model_limit = peak + room
        elif best is not None:
            break
        else:
            lowered = min(int(model_limit * (1 - _LEAST_STEP)), peak) - 1
            model_limit = lowered if stated is None else min(lowered, search.limit - search.offset)
    if best is None:
        raise _cannot(search)
    return best


def _compiled(search: _FitSearch, candidate: _FitCandidate, model_limit: int) -> tuple[Any, CompiledFit]:
    """Rewrites a program by a plan and compiles it; what the compiler states corrects the model."""
    program = candidate.variant.program
    search.compiled.add(candidate.key)
    candidate.predicted = predicted_total(program, candidate.plan) + search.excess
    platform = search.compiler.platform
    closed = rematerialized(program, candidate.plan, platform, in_order=platform == "cpu")
    traced = traced_of(closed, search.donated, search.name, search.shardings)
    compiled = search.compiler.compile(traced, planned=True)
    name = f"plan within {model_limit:,} bytes of the model"
    stated = compiled.total
    search.attempts.append(FitAttempt(name, candidate.predicted, stated, candidate.added, compiled.refused))
    if stated is not None:
        if search.smallest is None or stated < search.smallest[0]:
            search.smallest = (stated, candidate)
        _learn(search, program, candidate.plan, stated)
    return closed, compiled


def _cheapest(search: _FitSearch, model_limit: int) -> _FitCandidate | None:
    """Returns the plan of the variant that costs least; the smallest one that was found if none is within the limit.

    A plan that was compiled before is not returned; None stands for no other one. A plan adds to what its variant adds,
    so variants that add more than the best plan so far are not planned.
    """
    found: list[_FitCandidate] = []
    smallest: list[_FitCandidate] = []
    proven: list[int] = []
    for variant in sorted(search.variants, key=lambda variant: variant.added):
        if found and variant.added >= min(candidate.added for candidate in found):
            break
        try:
            found.append(_FitCandidate(variant, search.planner(variant.program.problem, max(model_limit, 1))))
        except FitError as error:
            proven.append(error.proven)
            smallest.append(_FitCandidate(variant, error.plan))
    fresh = [candidate for candidate in found or smallest if candidate.key not in search.compiled]
    if found:
        return min(fresh, key=lambda candidate: candidate.added, default=None)
    search.proven = min(proven)
    return min(fresh, key=lambda candidate: candidate.plan.peak, default=None)


def _cannot(search: _FitSearch) -> CannotFitError:
    least, candidate = search.smallest or (None, None)
    standing = standing_of(candidate.variant.program, candidate.plan) if candidate else ()
    proven = max(search.proven + search.offset, 0) if search.proven else 0
    return CannotFitError(search.limit, proven, least, standing, tuple(search.attempts))
