"""XLA on the CPU: the module that it compiles a program to, and the memory that it assigns to it.

The memory is known from the report of XLA's buffer assignment, which XLA can dump beside the module.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

from memplan.backends.dumped import DumpedModule, dump_options, read_dumped
from memplan.backends.order_hook import Rule, ordering
from memplan.compiler.errors import MemplanError, one_line


def compile_for_cpu(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    donate_argnums: tuple[int, ...] = (),
    rule: Rule | None = None,
    with_proto: bool = False,
) -> DumpedModule:
    """Compiles a function by XLA for the CPU.

    Args:
      fun: a function that `jax.jit` takes.
      args: its arguments, pytrees of arrays or of `jax.ShapeDtypeStruct`.
      donate_argnums: as for `jax.jit`.
      rule: sets the order of execution, see `order_hook`; None for XLA's own.
      with_proto: whether the HloProto of the module is wanted, which XLA takes some time to write.

    Raises:
      MemplanError: JAX or XLA cannot compile it (the message has their first line), or the rule was refused.
    """
    import jax

    with tempfile.TemporaryDirectory() as folder:
        # Each compile has a new function, since JAX would not compile again what it holds already.
        twin = jax.jit(wraps(fun)(lambda *given: fun(*given)), donate_argnums=donate_argnums)
        with _uncached(), nullcontext() if rule is None else ordering(rule, platform="cpu") as outcome:
            try:
                twin.lower(*args).compile(compiler_options=dump_options(folder, with_proto))
            except Exception as error:
                raise MemplanError(f"it does not compile: {one_line(error)}") from error
        if outcome is not None and (refused := [found.refused for found in outcome.modules if found.refused]):
            raise MemplanError(f"XLA takes no other order: {refused[0]}")
        return read_dumped(Path(folder))


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
