"""What a compiler says of a program's memory: XLA for the CPU of this machine, or XLA for TPUs and GPUs ahead of time.

A program that the compiler refuses for lack of memory is an answer as well: it needs more than there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
from jax.extend.core import jaxpr_as_fun

from memplan.backends.fit.several_devices import sharded_structs
from memplan.backends.gpu.chips import TARGET_CONFIGS
from memplan.backends.gpu.compile import GpuCompiler
from memplan.backends.jit.lowering import lower_for
from memplan.backends.jit.planning import TpuProgram, module_of
from memplan.backends.tpu.compile import CompiledModule, CompileError, TpuCompiler
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET, slice_of
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target
from memplan.passes.jaxprs import struct

_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "Ran out of memory")
_USED = re.compile(r"[Uu]sed (\d{1,15}(?:\.\d{1,9})?)([KMGT]?) of")
# For planned programs on the CPU: barriers stay until the code is written, so that the scheduler sees them, and it puts
# little memory before running things side by side.
PLANNED_ON_CPU: dict[str, Any] = {
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class StatedMemory:
    """The bytes that a compiler states for a program.

    Attributes:
      arguments, results: of the program.
      aliased: results that lie in the memory of donated arguments.
      temporaries: everything else, at its peak.
    """

    arguments: int
    results: int
    aliased: int
    temporaries: int

    @property
    def interface(self) -> int:
        """Arguments and results, those that share memory counted once."""
        return self.arguments + self.results - self.aliased

    @property
    def total(self) -> int:
        """What the program needs on the device."""
        return self.interface + self.temporaries


@dataclass(frozen=True)
class CompiledFit:
    """The answer of a compiler.

    Attributes:
      memory: that it states; None if it refused the program for lack of memory.
      executable: a `jax.stages.Compiled`; None if it cannot run on this machine.
      refused: the first line of its refusal; "" if it compiled the program.
      needed: bytes that a refused program would need, as far as the compiler says it; 0 if it does not.
    """

    memory: StatedMemory | None
    executable: Any = None
    refused: str = ""
    needed: int = 0

    @property
    def total(self) -> int | None:
        """The bytes that the program needs, if the compiler said it."""
        return self.memory.total if self.memory is not None else self.needed or None


class FitCompiler(Protocol):
    """A compiler that states what programs need."""

    platform: str

    def compile(self, traced: Any, planned: bool) -> CompiledFit:
        """Compiles a `jax.stages.Traced`; `planned` says that its barriers carry the order of a plan."""

    def close(self) -> None:
        """Ends what the compiler keeps running."""


class CpuFitCompiler:
    """XLA for the CPU of this machine, which runs a planned program in the order that its barriers ask for.

    Args:
      options: for planned programs; None if `jax.jit` was given them. Then a call of the function that was traced runs
        what was compiled here.
    """

    platform = "cpu"

    def __init__(self, options: dict[str, Any] | None = PLANNED_ON_CPU):
        self._options = options

    def compile(self, traced: Any, planned: bool) -> CompiledFit:
        try:
            executable = traced.lower().compile(self._options if planned else None)
        except jax.errors.JaxRuntimeError as error:
            return _refused(error)
        stats = executable.memory_analysis()
        return CompiledFit(memory_of(lambda name: getattr(stats, name)), executable)

    def close(self) -> None:
        """There is nothing to end."""


class _AheadFitCompiler:
    """XLA for a device that is not here. Its scheduler decides, within the barriers.

    Args:
      platform: "tpu" or "gpu".
      compile: returns the module of a traced program.
      close: ends the compiler.
    """

    def __init__(self, platform: str, compile: Callable[[Any], CompiledModule], close: Callable[[], None]):
        self.platform, self._compile, self.close = platform, compile, close

    def compile(self, traced: Any, planned: bool) -> CompiledFit:
        del planned
        try:
            memory = self._compile(traced).memory
        except CompileError as error:
            return _refused(error)
        if memory is None:
            raise MemplanError("the compiler that is installed states no sizes: a newer jaxlib does")
        return CompiledFit(memory_of(memory.__getitem__))


def _for_tpu(target: Target) -> FitCompiler:
    compiler = TpuCompiler()

    def compile(traced: Any) -> CompiledModule:
        program = TpuProgram.of(lower_for("tpu", traced), target)
        on = program.slice or slice_of(target.name, 1)
        return compiler.compile(program.module, on.topology, devices=on.devices)

    return _AheadFitCompiler("tpu", compile, compiler.close)


def _for_gpu(target: Target) -> FitCompiler:
    compiler = GpuCompiler()

    def compile(traced: Any) -> CompiledModule:
        return compiler.compile(module_of(lower_for("cuda", traced)), target.name)

    return _AheadFitCompiler("gpu", compile, compiler.close)


def compiler_for(target: Target | None) -> FitCompiler:
    """Returns the compiler of a target; that of this machine's CPU if there is none.

    Raises:
      MemplanError: no compiler states the memory of programs for that target.
    """
    if target is None:
        return CpuFitCompiler()
    if target.name in TOPOLOGY_OF_TARGET:
        return _for_tpu(target)
    if target.name in TARGET_CONFIGS:
        return _for_gpu(target)
    raise MemplanError(
        f"no compiler here states what a program needs on {target.name}: leave the target out for the CPU, or name one "
        f"of {', '.join(sorted([*TOPOLOGY_OF_TARGET, *TARGET_CONFIGS]))}"
    )


def memory_of(read: Callable[[str], int]) -> StatedMemory:
    """Returns what XLA's CompiledMemoryStats say, given how to read a field of them."""
    names = ("argument", "output", "alias", "temp")
    return StatedMemory(*(int(read(f"{name}_size_in_bytes")) for name in names))


def traced_of(
    closed: Any, donated: Sequence[bool], name: str, shardings: tuple[Sequence[Any], Sequence[Any]] | None = None
) -> Any:
    """Returns the `jax.stages.Traced` of a jaxpr with donated arguments.

    Args:
      closed: the jaxpr.
      donated: per argument.
      name: of the function.
      shardings: of arguments (None where they have none) and of results, in a program of several devices.
    """
    inner = jaxpr_as_fun(closed)

    def program(*args: Any) -> Any:
        return inner(*args)

    program.__name__ = program.__qualname__ = name
    numbers = tuple(number for number, is_donated in enumerate(donated) if is_donated)
    options = {} if shardings is None else {"out_shardings": list(shardings[1])}
    # Arguments that are not used count as in the original, which holds them as well.
    jitted = jax.jit(program, donate_argnums=numbers, keep_unused=True, **options)
    if shardings is not None:
        return jitted.trace(*sharded_structs(closed.jaxpr, shardings[0]))
    return jitted.trace(*(struct(variable.aval) for variable in closed.jaxpr.invars))


def _refused(error: Exception) -> CompiledFit:
    """Returns the answer of a compiler that lacks memory; raises any other error again."""
    text = str(error)
    if not any(sign in text for sign in _OUT_OF_MEMORY):
        raise error
    found = _USED.search(text)
    needed = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    return CompiledFit(None, refused=(text.strip().splitlines() or [""])[0], needed=needed)
