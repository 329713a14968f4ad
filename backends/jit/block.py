"""`memplan.planned`: what is jitted by others, such as `equinox.filter_jit` or `flax.nnx.jit`, compiled with a plan.

`memplan.jit` must be outermost, and libraries with a `jit` of their own hide that place. Within the block, whatever
JAX compiles on this thread is planned where it is compiled, whoever asked for it. The compiler options of a plan are a
part of JAX's own keys, so its persistent cache never serves one program for another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax

from memplan.backends.compile_hook import CompileRequest, intercepting, untouched
from memplan.backends.jit import machine
from memplan.backends.jit.messages import log, one_line_of
from memplan.backends.jit.orders import can_order, compile_in_order, in_order_of, say_what_applies
from memplan.backends.jit.planning import Settings, TpuProgram, beside_this_process, check_one_process, plan_module
from memplan.backends.tpu.devices import slice_of_devices
from memplan.compiler.effort import Effort, effort_of
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import load_target
from memplan.planners import planner as planners
from memplan.planners.planner import DEFAULT_PLANNER

# A type of an argument or a result in MLIR, such as tensor<8x128xf32>, tensor<complex<f64>> or tensor<4xi1>.
_TENSOR = re.compile(r"tensor<((?:\d+x)*)(complex<)?[a-zA-Z]+(\d+)")


@dataclass(frozen=True)
class PlannedProgram:
    """A program that was compiled in a block of `memplan.planned`.

    Attributes:
      name: of its module, such as `jit_step`.
      platform: that it was compiled for.
      ratio: its latency over that of the compiler's default, by the compiler's estimates; None where no plan was made.
      how: the candidate that was taken, or that the order is ours, or why it is compiled as by `jax.jit`.
    """

    name: str
    platform: str
    ratio: float | None
    how: str

    def __str__(self) -> str:
        estimate = "" if self.ratio is None else f", {self.ratio:.3f} of the default's time by the compiler's estimates"
        return f"{self.name} on {self.platform}: {self.how}{estimate}"


@dataclass
class PlannedPrograms:
    """The programs that were compiled in a block of `memplan.planned`, in the order of their compiles.

    Attributes:
      programs: those that are large enough to be planned.
      small: how many others there were, compiled as by `jax.jit`.
    """

    programs: list[PlannedProgram] = field(default_factory=list)
    small: int = 0

    def __str__(self) -> str:
        return "\n".join(map(str, self.programs)) or "nothing was compiled: is it compiled already?"


@contextmanager
def planned(
    *,
    planner: str = DEFAULT_PLANNER,
    effort: str | Effort = Effort.NORMAL,
    compile_budget: int = 8,
    least_bytes: int = 1 << 20,
) -> Iterator[PlannedPrograms]:
    """Within the block, what this thread compiles, through `jax.jit` or a library of its own, is compiled with a plan.

    On a TPU, each program is planned as by `memplan.jit`, and the candidate with the least latency by the
    compiler's estimates is taken; on a CPU it runs in the order that needs the least memory. Passes are not applied:
    the program is that of the library. What cannot be planned is compiled as by `jax.jit`, with a warning. A program
    that was compiled before the block stays as it is, and one that is compiled in it stays planned after it.

    Args:
      planner: name of the planner; see `memplan planners`.
      effort: how much work it does for each plan.
      compile_budget: how often the real compiler may be asked for each program.
      least_bytes: the arguments and results of a program that is worth it, together. Smaller ones, such as those of
        which JAX makes for `x + 1`, are compiled as by `jax.jit`.

    Yields:
      What was compiled, as the block goes on.

    Raises:
      MemplanError: the planner or the effort is not known, or a number makes no sense.
    """
    planners.get(planner)
    for name, number, least in (("compile_budget", compile_budget, 1), ("least_bytes", least_bytes, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise MemplanError(f"{name} must be an integer of at least {least}, not {number!r:.60}")
    programs = PlannedPrograms()
    settings = Settings(None, planner, compile_budget, {}, passes=(), effort=effort_of(effort))
    with intercepting(_PlannedBlock(settings, least_bytes, programs)):
        yield programs


@dataclass(frozen=True)
class _PlannedBlock:
    settings: Settings
    least_bytes: int
    programs: PlannedPrograms

    def compile(self, request: CompileRequest) -> Any:
        """Compiles a program with a plan if it is large enough and its platform knows one."""
        if _bytes_of(request) < self.least_bytes:
            self.programs.small += 1
            return request.proceed()
        ratio, how = None, "as by jax.jit"
        with untouched():
            if target := machine.target_of(_device_of(request)):
                compiled, ratio, how = self._compile_by_plan(request, target)
            else:
                say_what_applies(request.platform)
                if can_order(request.platform):
                    compiled, how = compile_in_order(request.again, request.name), "in the order of least memory"
                else:
                    compiled = request.proceed()
        self.programs.programs.append(PlannedProgram(request.name, request.platform, ratio, how))
        return compiled

    def _compile_by_plan(self, request: CompileRequest, target: str) -> tuple[Any, float | None, str]:
        """Returns the executable, its ratio, and the candidate's name or why there is none."""
        options = request.given["compile_options"]
        theirs = list(options.env_option_overrides)
        try:
            check_one_process()
            devices = request.given["executable_devices"]
            slice = slice_of_devices(target, list(devices)) if len(devices) > 1 else None
            program = TpuProgram(request.bytecode(), slice)
            with beside_this_process():
                outcome = plan_module(program, load_target(target), self.settings, dict(theirs))
            options.env_option_overrides = list((outcome.best.options | dict(theirs)).items())
            with in_order_of(outcome.best):
                return request.again(), outcome.ratio, outcome.best.name
        except Exception as error:  # a job that runs with jax.jit must not end because it cannot be planned
            expected = isinstance(error, MemplanError | jax.errors.JaxRuntimeError)
            message = "memplan.planned: %s is compiled as by jax.jit: %s"
            log.warning(message, request.name, one_line_of(error), exc_info=None if expected else error)
            options.env_option_overrides = theirs
            return request.proceed(), None, f"as by jax.jit: {one_line_of(error)}"


def _device_of(request: CompileRequest) -> Any:
    return next(iter(request.given["executable_devices"]))


def _bytes_of(request: CompileRequest) -> int:
    """Returns the bytes of the arguments and results of a program."""
    from jaxlib.mlir import ir

    total = 0
    for operation in request.given["computation"].body.operations:
        attributes = operation.attributes
        if "sym_name" not in attributes or ir.StringAttr(attributes["sym_name"]).value != "main":
            continue
        for sizes, is_complex, bits in _TENSOR.findall(str(attributes["function_type"])):
            elements = 1
            for size in sizes.split("x")[:-1]:
                elements *= int(size)
            total += elements * max(int(bits), 8) * (2 if is_complex else 1) // 8
    return total
