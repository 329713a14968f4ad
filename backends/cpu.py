"""XLA on the CPU: the module that it compiles a program to, and the memory that it assigns to it.

The memory is known from the report of XLA's buffer assignment, which XLA can dump beside the module.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memplan.backends.order_hook import Rule, ordering
from memplan.compiler.analysis.buffer_assignment import BufferAssignment, read_buffer_assignment
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.ir import Graph

# How the names of two files end that XLA dumps for a module: its final text, and the report on that text.
_TEXT, _REPORT = ".cpu_after_optimizations.txt", ".cpu_after_optimizations-buffer-assignment.txt"


@dataclass(frozen=True)
class CpuModule:
    """A compiled program.

    Attributes:
      graph: its module, scheduled.
      assignment: the memory that XLA gives to it.
    """

    graph: Graph
    assignment: BufferAssignment


def compile_for_cpu(
    fun: Callable[..., Any], args: tuple[Any, ...], donate_argnums: tuple[int, ...] = (), rule: Rule | None = None
) -> CpuModule:
    """Compiles a function by XLA for the CPU.

    Args:
      fun: a function that `jax.jit` takes.
      args: its arguments, pytrees of arrays or of `jax.ShapeDtypeStruct`.
      donate_argnums: as for `jax.jit`.
      rule: sets the order of execution, see `order_hook`; None for XLA's own.

    Raises:
      MemplanError: JAX or XLA cannot compile it (the message has their first line), or the rule was refused.
    """
    import jax

    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        # Each compile has a new function, since JAX would not compile again what it holds already.
        twin = jax.jit(lambda *given: fun(*given), donate_argnums=donate_argnums)
        with _uncached(), nullcontext() if rule is None else ordering(rule, platform="cpu") as outcome:
            try:
                twin.lower(*args).compile(compiler_options=options)
            except Exception as error:
                lines = str(error).strip().splitlines() or [""]
                raise MemplanError(f"it does not compile: {type(error).__name__}: {lines[0]}") from error
        if outcome is not None and (refused := [found.refused for found in outcome.modules if found.refused]):
            raise MemplanError(f"XLA takes no other order: {refused[0]}")
        # One program is one module; others that JAX may compile on the way, for constants, are smaller.
        reports = sorted(Path(folder).glob(f"*{_REPORT}"), key=lambda file: file.stat().st_size)
        if not reports:
            raise MemplanError("XLA left no report on its memory")
        text = reports[-1].with_name(reports[-1].name.removesuffix(_REPORT) + _TEXT)
        return CpuModule(read(text), read_buffer_assignment(reports[-1]))


@contextmanager
def _uncached() -> Iterator[None]:
    """Turns JAX's persistent cache off, since what comes from the cache is not compiled and leaves no report."""
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # JAX asks once whether it is on.
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        reset_cache()
