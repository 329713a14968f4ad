"""The results of `.trace()`, `.lower()` and `.compile()`: JAX's own stages, except where a plan is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from memplan.backends.compile_hook import untouched
from memplan.backends.jit.planning import TpuProgram, report_of
from memplan.backends.tpu.compile import TpuCompiler
from memplan.backends.tpu.devices import slice_of
from memplan.backends.tpu.outcome import Outcome
from memplan.compiler.errors import MemplanError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.report.report import Report

# Compiles `(lowered, compiler options, other arguments of Lowered.compile)`.
Compile = Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Any]


class Traced:
    """A `jax.stages.Traced` whose `lower` leads to a plan; everything else is JAX's.

    Args:
      traced: JAX's.
      lower: what to do to lower it for its target.
    """

    def __init__(self, traced: Any, lower: Callable[[Any], Any]):
        self._traced, self._lower = traced, lower

    def lower(self, *, lowering_platforms: tuple[str, ...] | None = None, **others: Any) -> Any:
        """Lowers to compiler input; if platforms are given, it does so as JAX does, and nothing is planned."""
        if lowering_platforms is not None or others:
            return self._traced.lower(lowering_platforms=lowering_platforms, **others)
        return self._lower(self._traced)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._traced(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._traced, name)

    def __repr__(self) -> str:
        return repr(self._traced)


class Lowered:
    """A `jax.stages.Lowered` whose `compile` plans; everything else is JAX's.

    Args:
      lowered: JAX's.
      compile: what to do to compile it.
    """

    def __init__(self, lowered: Any, compile: Compile):
        self._lowered, self._compile = lowered, compile

    def compile(self, compiler_options: Mapping[str, Any] | None = None, **others: Any) -> Any:
        """Plans and compiles."""
        with untouched():
            return self._compile(self._lowered, compiler_options or {}, others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lowered, name)

    def __repr__(self) -> str:
        return repr(self._lowered)


class CompiledElsewhere:
    """A program that was compiled with our plan for a target that is not on this machine, so it cannot be run here.

    Attributes:
      outcome: every candidate that was compiled, and the state of each decision of the plan.
      plan: where the compiled program has its buffers.
      in_tree, out_tree: pytrees of the arguments and of the result.
    """

    def __init__(self, outcome: Outcome, lowered: Any, program: TpuProgram):
        self.outcome, self._lowered, self._program = outcome, lowered, program
        self.in_tree, self.out_tree = lowered.in_tree, lowered.out_tree

    @property
    def plan(self) -> Plan:
        return self.outcome.plan

    @property
    def args_info(self) -> Any:
        """Shapes and types of the arguments, and which are donated."""
        return self._lowered.args_info

    @property
    def out_info(self) -> Any:
        """Shapes and types of the result."""
        return self._lowered.out_info

    def as_text(self) -> str:
        """Returns the scheduled, optimized module, with the memory space of every buffer."""
        return self.outcome.best.text

    def report(self) -> Report:
        """Returns the report on the plan, compared with everything in slow memory."""
        return report_of(self.outcome.problem, self.outcome.plan, self.outcome.description)

    def memory_analysis(self) -> Any:
        """Returns the sizes that the compiler states, as attributes in bytes; None if it states none.

        They are those of `jax.stages.Compiled.memory_analysis()`, such as `temp_size_in_bytes`.
        """
        with TpuCompiler() as compiler:  # it has the module on disk
            best, on = self.outcome.best, self._program.slice or slice_of(self.outcome.target, 1)
            module = self._program.module
            memory = compiler.compile(module, on.topology, best.options, best.order, on.devices).memory
        return None if memory is None else SimpleNamespace(**memory)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise MemplanError(
            f"this program was compiled for {self.outcome.target}, which is not on this machine: it cannot run here"
        )
