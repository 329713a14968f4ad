"""From a lowered program and a target to the candidates of the real compiler, or to a plan by our own model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from memplan.backends.compile_hook import bytecode_of
from memplan.backends.jit import machine
from memplan.backends.jit.lowering import devices_of
from memplan.backends.jit.messages import say_once
from memplan.backends.tpu.compile import no_compiler
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET, TpuSlice, partitions_of, slice_of, slice_of_devices
from memplan.backends.tpu.outcome import Candidate, Outcome
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.jaxpr import graph_of_traced
from memplan.compiler.frontends.jaxpr_devices import SeveralDevicesError
from memplan.compiler.hardware.target import Target
from memplan.compiler.mapping.build import build
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.description import ProgramDescription, describe
from memplan.compiler.report.report import Report, make_report
from memplan.passes.base import Pass
from memplan.planners import planner as planners
from memplan.planners.planner import Budget

# How many candidates are run to find the fastest, besides the compiler's default.
MOST_TIMED = 2


@dataclass(frozen=True)
class Settings:
    """The arguments of `memplan.jit`, except those for `jax.jit`.

    Attributes:
      target: that was given; None for the TPU of this machine.
      planner: name of the planner.
      effort: how much work it does for each plan.
      compile_budget: how often the real compiler may be asked for each signature.
      options: the caller's own compiler options.
      passes: the passes before the compile, as for `memplan.passes.manager.chosen`.
      fft_precision: of Fourier transforms that become matrix products.
      memory_limit: bytes that each program may need; None for no limit.
    """

    target: Target | None
    planner: str
    compile_budget: int
    options: Mapping[str, Any]
    passes: str | tuple[str | Pass, ...] = "auto"
    fft_precision: Literal["highest", "default"] = "highest"
    effort: Effort = Effort.NORMAL
    memory_limit: int | None = None


@dataclass(frozen=True)
class PlanResult:
    """What `memplan.jit(fun).plan(*args)` returns.

    Attributes:
      plan: where every buffer lives.
      problem: that the plan is for.
      report: on the plan.
      outcome: every candidate and decision of the real compiler; None for a target without one.
    """

    plan: Plan
    problem: MappingProblem
    report: Report
    outcome: Outcome | None = None


def has_compiler(target: Target) -> bool:
    """Whether there is a compiler that carries out plans for a target."""
    return target.name in TOPOLOGY_OF_TARGET


def module_of(lowered: Any, name: str = "the program") -> bytes:
    """Returns the StableHLO bytecode of what `jax.jit(…).lower(…)` returned.

    Raises:
      SeveralDevicesError: it is a program of several devices; the message calls it `name`.
    """
    if (devices := number_of_devices(lowered)) > 1:
        raise SeveralDevicesError(name, devices)
    return bytecode_of(lowered.compiler_ir("stablehlo"))


def number_of_devices(lowered: Any) -> int:
    """Returns the number of devices that a program was lowered for."""
    return partitions_of(lowered.compiler_ir("stablehlo"))


@dataclass(frozen=True)
class TpuProgram:
    """A program for TPUs.

    Attributes:
      module: StableHLO bytecode, of all devices together.
      slice: the devices that run it; None for one device of the target.
    """

    module: bytes
    slice: TpuSlice | None = None

    @staticmethod
    def of(lowered: Any, target: Target) -> TpuProgram:
        """Returns what `jax.jit(…).lower(…)` returned, as a program for one device of a target, or for several.

        Where the program's shardings are of no devices of the target, the smallest slice is taken that has enough.

        Raises:
          MemplanError: the target has no compiler, or no slice has enough devices.
        """
        module = lowered.compiler_ir("stablehlo")
        partitions = partitions_of(module)
        if not has_compiler(target):
            raise MemplanError(f"{no_compiler(target.name)}; .plan(…) plans for it all the same")
        if partitions == 1:
            return TpuProgram(bytecode_of(module))
        devices = devices_of(lowered)
        if len(devices) == partitions and machine.target_of(devices[0]) == target.name:
            return TpuProgram(bytecode_of(module), slice_of_devices(target.name, devices))
        return TpuProgram(bytecode_of(module), slice_of(target.name, partitions))


def check_one_process() -> None:
    """Raises MemplanError if this is one of several processes that run the same programs.

    Each of them would choose for itself, and all must run the same module.
    """
    import jax

    if (processes := jax.process_count()) > 1:
        raise MemplanError(f"this is one of {processes} processes, and each would choose a plan for itself")


def plan_module(
    program: TpuProgram, target: Target, settings: Settings, more_options: Mapping[str, Any] | None = None
) -> Outcome:
    """Returns the candidates of the real compiler for a program: its default, and those with plans of ours.

    Args:
      program: of one device or several.
      target: of the program.
      settings: of `memplan.jit`.
      more_options: compiler options besides those of the settings.

    Raises:
      MemplanError: not even the default compiles.
    """
    from memplan.backends.tpu.optimize import optimize

    # XLA always reads "True" and "False" for a bool, and "true" only in some options.
    options = {name: str(value) for name, value in {**settings.options, **(more_options or {})}.items()}
    outcome = optimize(
        program.module,
        target,
        on=program.slice,
        planner=settings.planner,
        compile_budget=settings.compile_budget,
        effort=settings.effort,
        options=options,
    )
    for note in outcome.problem.notes:
        say_once(logging.WARNING, f"memplan.jit: {note}")
    return outcome


def plan_jaxpr(traced: Any, arguments: Iterable[Any], target: Target, settings: Settings) -> PlanResult:
    """Returns a plan by our own model alone, for what `jax.jit(…).trace(…)` returned for some arguments' leaves."""
    graph = graph_of_traced(traced, arguments)
    built = build(graph, target)
    problem = built.problem
    for warning in (*graph.warnings, *problem.notes):
        say_once(logging.WARNING, f"memplan.jit: {traced.fun_name}: {warning}")
    plan = planners.get(settings.planner).plan(problem, Budget(settings.effort))
    return PlanResult(plan, problem, report_of(problem, plan, describe(built)))


def report_of(problem: MappingProblem, plan: Plan, description: ProgramDescription | None = None) -> Report:
    """Returns the report on a plan, compared with everything in slow memory; `description` as for `make_report`."""
    slow = planners.get("slow").solve(problem, Budget())
    others = [(f"all in {problem.spaces[0].name}", slow)] if plan.planner != "slow" else []
    return make_report(problem, plan, others, description)


def contenders(outcome: Outcome) -> list[Candidate]:
    """Returns the candidates that may be the fastest on the real machine: the best few by score, and the default."""
    scored = [candidate for candidate in outcome.candidates if candidate.score is not None]
    best = sorted(scored, key=lambda candidate: candidate.score.latency if candidate.score else 0.0)
    # What was last compiled may have the options of an earlier one; the default is there in any case.
    chosen: list[Candidate] = []
    for candidate in [outcome.best, *best]:
        if all(_differs(candidate, other) for other in [outcome.default, *chosen]):
            chosen.append(candidate)
    chosen = chosen[:MOST_TIMED]
    return [*chosen, outcome.default] if outcome.best != outcome.default else [outcome.default, *chosen]


def _differs(candidate: Candidate, other: Candidate) -> bool:
    return (candidate.options, candidate.order) != (other.options, other.order)


@contextmanager
def beside_this_process() -> Iterator[None]:
    """Within the block, new processes may load libtpu although this process holds the TPU.

    They only compile, for a chip that a topology describes. Outside the block, the lock of this process stops them.
    """
    name = "ALLOW_MULTIPLE_LIBTPU_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
