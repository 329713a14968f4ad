"""A function under `memplan.jit(…, memory_limit=…)`: for each signature, a jitted function whose program fits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun

from memplan.backends.jit.messages import log
from memplan.backends.jit.planning import Settings
from memplan.compiler.errors import MemplanError
from memplan.compiler.report.units import print_bytes


def fitted(
    plain: Any,
    traced: Any,
    settings: Settings,
    jit_kwargs: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Returns the function, made by `jax.jit`, that serves a signature within the limit of the settings.

    Args:
      plain: the user's function under `jax.jit`; it is returned if its program fits as it is.
      traced: what `plain.trace` returned for the arguments.
      settings: with a memory limit.
      jit_kwargs: that `plain` was made with.
      args, kwargs: of the call.

    Raises:
      CannotFitError: nothing that fits was found.
      MemplanError: the program is one of several devices, or runs on something else than a CPU.
    """
    from memplan.backends.fit.compilers import PLANNED_ON_CPU, CpuFitCompiler
    from memplan.backends.fit.fit import FitSession

    assert settings.memory_limit is not None
    options = {**(jit_kwargs.get("compiler_options") or {}), **PLANNED_ON_CPU}
    tried: list[tuple[Any, Any]] = []  # rewritten programs, and the functions that compute them

    def trace(closed: Any) -> Any:
        function = jax.jit(_of_arrays(plain, closed, traced.out_tree), **{**jit_kwargs, "compiler_options": options})
        tried.append((closed, function))
        return function.trace(*args, **kwargs)

    # What the session compiles is what calls run.
    compiler = CpuFitCompiler(options=None)
    with FitSession(traced, (args, kwargs), None, settings.effort, compiler=compiler, tracer=trace) as session:
        result = session.fit(settings.memory_limit, settings.compile_budget)
    needs = f"{print_bytes(result.memory.total)} of {print_bytes(result.limit)}"
    log.info("memplan.jit: %s needs %s%s", traced.fun_name, needs, "" if result.is_default else ", by a plan")
    if result.is_default:
        return plain
    return next(function for closed, function in tried if closed is result.closed)


def _of_arrays(plain: Any, closed: Any, tree: Any) -> Callable[..., Any]:
    """Returns a function with the arguments and results of another one that computes a flat program."""
    flat = jaxpr_as_fun(closed)

    @functools.wraps(plain)
    def program(*args: Any, **kwargs: Any) -> Any:
        # Static arguments are part of the program; all others are tracers here.
        arrays = [leaf for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, jax.core.Tracer)]
        return jax.tree.unflatten(tree, flat(*arrays))

    return program


def check_limited(platform: str, name: str) -> None:
    """Raises MemplanError if a function with a memory limit is called where no limit is carried out."""
    if platform != "cpu":
        raise MemplanError(
            f"memplan.jit: {name} has a memory limit, which is carried out on a CPU only, and runs on {platform}"
        )
