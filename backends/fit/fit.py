"""Fits a program into a memory limit: plan, rewrite, compile, read what the compiler states, correct, and again.

    compile as given ── fits ──► done
          │ needs too much
    alternatives of its scans, each a FitProblem
          │
    ┌─► plan under the model's limit ──► rewrite ──► compile in the order of the plan ──► just within the limit: done
    │                                                          │ above it, or far below
    └──────── the model's limit falls by what was above, ◄─────┘
              or lies between those that failed and fit

The model and the compiler count differently. Their difference at the last compile corrects the next limit of the model
and the next prediction. `loop.py` has the details.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any

import jax

from memplan.backends.fit.compilers import CompiledFit, FitCompiler, compiler_for
from memplan.backends.fit.interface import check_interface
from memplan.backends.fit.limit import limit_of
from memplan.backends.fit.loop import (
    FitLoop,
    FitPlanner,
    FitVariant,
    Tracer,
    calibrate,
    cheapest_that_fits,
    least_added,
)
from memplan.backends.fit.prediction import interface_bytes
from memplan.backends.fit.result import FitAttempt, FitResult, decisions_of
from memplan.backends.fit.several_devices import (
    argument_shardings,
    check_partitioned_by_xla,
    on_one_device,
    result_shardings,
    value_shardings,
)
from memplan.compiler.effort import Effort, effort_of
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.jaxpr_devices import SeveralDevicesError, demand_one_device
from memplan.compiler.hardware.guess import ANY_TARGET
from memplan.compiler.hardware.target import Target, load_target
from memplan.passes.fit.costs import Costs
from memplan.passes.fit.inline_calls import in_one_piece
from memplan.passes.fit.program import FitProgram, has_host, program_of
from memplan.passes.fit.scan_stacks import alternatives
from memplan.planners.fit.plan import FitError, FitPlan
from memplan.planners.fit.problem import FitProblem
from memplan.planners.planner import Budget


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
      target: a TPU or a GPU to compile for, ahead of time; the CPU of this machine by default.
      compile_budget: how often the compiler may be asked.
      donate_argnums: as for `jax.jit`.
      static_argnums: as for `jax.jit`.
      effort: how much work each plan takes: `fast`, `normal` or `high`.
      planner: makes the plans; `memplan.planners.fit.solve_fit` with that effort by default.

    Raises:
      CannotFitError: nothing that fits was found within the budget; it names what stands at the peak. If the
        arguments and results alone are above the limit, nothing is compiled, and it names them.
      MemplanError: the limit is no size, the budget is below 1, no compiler states the memory of the target, or the
        program is one of several devices that says itself what each does, or is compiled for a GPU.
    """
    size = limit_of(limit)
    check_budget(compile_budget)
    with session_of(function, args, target, donate_argnums, static_argnums, effort, planner) as session:
        return session.fit(size, compile_budget, proves=True)


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
    return FitSession(traced, args, described, effort_of(effort), planner, compiler, several_devices=True)


class FitSession:
    """A program that is fitted into one limit after another: it is compiled as given once, and analysed once.

    Args:
      traced: what `jax.jit(…).trace(…)` returned.
      arguments: what it was traced for.
      target, effort, planner: see `fit`.
      compiler: of the target; it is not closed. By default, the session has one of its own.
      several_devices: whether the program may be one of several devices. Then limits and sizes are those of each.
      tracer: traces rewritten programs, for one device; by default, they become functions of flat lists.

    Raises:
      MemplanError: no compiler states the memory of the target, or the program is one of several devices that is not
        fitted: `several_devices` is not set, the target is a GPU, or it says itself what each device does.
    """

    def __init__(
        self,
        traced: Any,
        arguments: Any,
        target: Target | None,
        effort: Effort = Effort.NORMAL,
        planner: FitPlanner | None = None,
        compiler: FitCompiler | None = None,
        several_devices: bool = False,
        tracer: Tracer | None = None,
    ):
        self._leaves = jax.tree.leaves(arguments)
        self._compiler = compiler or compiler_for(target)
        self._owns_compiler = compiler is None
        self._shardings: list[Any] | None = None  # of arguments, in a program of several devices
        self._partition: dict[Any, Any] = {}  # the shardings of its values
        try:
            demand_one_device(traced, self._leaves)
        except SeveralDevicesError:
            if not several_devices or self._compiler.platform == "gpu":
                raise
            check_partitioned_by_xla(traced.jaxpr, traced.fun_name)
            self._shardings = argument_shardings(traced, self._leaves)
        self._traced, self._effort, self._planner, self._tracer = traced, effort, planner, tracer
        self._donated = tuple(info.donated for info in jax.tree.leaves(traced.args_info))
        self._model = target or load_target(ANY_TARGET)
        self._costs = Costs(self._model)
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

    def fit(self, limit: int, compile_budget: int, proves: bool = False) -> FitResult:
        """Returns a program within a limit; see `fit`.

        Args:
          limit: bytes.
          compile_budget: see `fit`.
          proves: whether to look for a bound of the added time.
        """
        if self._shardings is None:
            check_interface(self._traced, self._leaves, limit)
        # A planner of its own for each limit: what it remembers of one changes nothing at another.
        planner = self._planner or planner_of(self._effort)
        search = FitLoop(limit, self._compiler, planner, compile_budget, self._donated, self._traced.fun_name)
        default = self.default
        search.attempts.append(FitAttempt("as given", None, default.total, 0.0, default.refused))
        common = (limit, self.target)
        trees = (self._traced.in_tree, self._traced.out_tree)
        if default.memory is not None and default.memory.total <= limit:
            return FitResult(
                *common, default.memory, default.memory, None, self.seconds, 0.0, 0.0, (),
                tuple(search.attempts),
                self._traced.jaxpr, None, _flat(default.executable), trees,
            )  # fmt: skip
        search.variants, search.tracer = self._variants, self._tracer
        if self._shardings is not None:
            search.shardings = self._shardings, self._result_shardings(default.executable)
        calibrate(search, default)
        candidate, closed, compiled = cheapest_that_fits(search)
        assert compiled.memory is not None
        decisions = decisions_of(candidate.variant.program, candidate.plan, candidate.variant.residuals)
        bound = None
        if proves:
            bound = least_added(search, candidate, compiled.memory.total, Budget(self._effort))
        return FitResult(
            *common, compiled.memory, default.memory, candidate.predicted, self.seconds, candidate.added, bound,
            decisions, tuple(search.attempts), closed, candidate.plan, compiled.executable, trees,
        )  # fmt: skip

    def _result_shardings(self, executable: Any) -> list[Any]:
        """Returns the shardings that the results of the program as given have; of each, None if nobody says."""
        if executable is not None:
            return jax.tree.leaves(executable.output_shardings)
        return result_shardings(self._traced, self._variants[0].program.closed, self._partition)

    @cached_property
    def _inlined(self) -> Any:
        return in_one_piece(self._traced.jaxpr)

    @cached_property
    def _variants(self) -> list[FitVariant]:
        """The program with everything that its scans could stack, the program as given first."""
        # On the CPU, transfers within a program have no effect.
        platform, name = self._compiler.platform, self._traced.fun_name
        # Transfers of values that several devices share were not tried.
        offload = platform != "cpu" and has_host(self._model) and self._shardings is None
        found: list[FitVariant] = []
        for each in alternatives(self._inlined, self._costs):
            program = program_of(each.closed, self._model, self._donated, name, offload, platform)
            if self._shardings is not None:
                partition = value_shardings(program.closed, self._shardings)
                self._partition = self._partition or partition
                program = on_one_device(program, partition)
            base = found[0].program.seconds if found else program.seconds
            found.append(FitVariant(program, each.residuals, program.seconds - base))
        return found


def planner_of(effort: Effort) -> FitPlanner:
    """Returns the planner of memplan at an effort, which looks for no bound.

    It solves relaxations of a problem as long as they prove the optimum.
    """
    unproven: list[FitProblem] = []

    def planner(problem: FitProblem, limit: int) -> FitPlan:
        from memplan.planners.fit.solve import solve_fit

        relaxes = all(problem is not each for each in unproven)
        try:
            plan = solve_fit(problem, limit, Budget(effort), proves=False, relaxes=relaxes)
        except FitError as error:
            if not error.is_impossible:
                unproven.append(problem)
            raise
        if not plan.info["is_optimal"]:
            unproven.append(problem)
        return plan

    return planner


def _flat(executable: Any) -> Any:
    """Returns a compiled function that takes and returns flat lists, from one of pytrees."""
    if executable is None:
        return None

    def call(*leaves: Any) -> list[Any]:
        args, kwargs = jax.tree.unflatten(executable.in_tree, leaves)
        return jax.tree.leaves(executable(*args, **kwargs))

    return call
