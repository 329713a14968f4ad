"""Runs passes over jaxprs, one after another, and checks the result of each.

If a pass raises, or returns a program that is not well formed or has other arguments or results, the error names it and
the program is unchanged.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from memplan.passes import base
from memplan.passes.base import Context, Pass, PassError, PassReport

# Passes that do not make a program faster on their own. They bring the patterns of other passes into one piece and
# remove what these leave behind; XLA does all of this, too.
CLEAN_UPS = frozenset({"inline", "constant_folding", "shape_cleanup", "common_subexpressions", "dead_code"})

# Platforms on which a pass of "auto" is known to pay.
PAYING = frozenset({"tpu"})

# The passes of `passes="auto"`.
DEFAULT = (
    "inline",
    "constant_folding",
    "shape_cleanup",
    "common_subexpressions",
    "fft_convolution",
    "attention",
    "dead_code",
    "fft_to_matmul",
    "dead_code",
)


@dataclass(frozen=True)
class PassOutcome:
    """A program after all passes.

    Attributes:
      jaxpr: the rewritten `ClosedJaxpr`.
      reports: one for each pass, in order.
    """

    jaxpr: Any
    reports: tuple[PassReport, ...]


def chosen(names: str | Iterable[str | Pass]) -> tuple[Pass, ...]:
    """Returns the passes of names: "auto", "none", names with commas between, or a sequence of names and passes.

    Raises:
      PassError: one is not known.
    """
    return base.chosen_from(names, DEFAULT, base.get)


def run(
    closed: Any,
    passes: Sequence[Pass],
    context: Context | None = None,
    after: Callable[[Pass, Any], None] | None = None,
) -> PassOutcome:
    """Returns the program that passes make of a program.

    Args:
      closed: a `jax.extend.core.ClosedJaxpr`.
      passes: in the order in which they run.
      context: what they may know.
      after: called after each pass with it and the program, to print it for instance.

    Raises:
      PassError: a pass broke the program.
    """
    from jax.extend import core

    reports = []
    for each in passes:
        started = time.perf_counter()
        before = count(closed.jaxpr)
        with base.blamed(each.name):
            rewritten = each.rewrite(closed, context or Context())
            new = rewritten.jaxpr
            if new is not closed:
                core.check_jaxpr(new.jaxpr)
        for what, old_atoms, new_atoms in (
            ("arguments", closed.jaxpr.invars, new.jaxpr.invars),
            ("results", closed.jaxpr.outvars, new.jaxpr.outvars),
        ):
            types = [[atom.aval.str_short() for atom in atoms] for atoms in (old_atoms, new_atoms)]
            if types[0] != types[1]:
                raise PassError(f"pass {each.name} broke the program: its {what} were {types[0]} and are {types[1]}")
        closed = new
        seconds = time.perf_counter() - started
        reports.append(PassReport(each.name, seconds, before, count(closed.jaxpr), rewritten.findings))
        if after is not None:
            after(each, closed)
    return PassOutcome(closed, tuple(reports))


def count(jaxpr: Any) -> int:
    """Returns how many equations a jaxpr has, including those of the jaxprs inside it."""
    from memplan.passes.jaxprs import inner_jaxprs

    total = len(jaxpr.eqns)
    for equation in jaxpr.eqns:
        for _, _, inner in inner_jaxprs(equation):
            total += count(getattr(inner, "jaxpr", inner))
    return total


def rewritten(
    fun: Callable[..., Any],
    passes: str | Iterable[str | Pass] = "auto",
    context: Context | Callable[[], Context] | None = None,
    told: Callable[[PassOutcome], None] | None = None,
) -> Callable[..., Any]:
    """Returns a function with the same arguments and results, which JAX traces to the program after the passes.

    With "auto", a program in which only clean-ups find something is left unchanged, and so is every program for a
    platform on which no pass is known to pay.

    Args:
      fun: takes and returns pytrees of arrays; it is traced each time that the new one is.
      passes: see `chosen`.
      context: what they may know, or a function that returns it when the program is traced; as in `run`.
      told: called with the outcome each time.
    """
    return _RewrittenFunction(fun, passes, context, told)


class _RewrittenFunction:
    """A function whose program is rewritten when it is traced. To JAX it looks like the original."""

    def __init__(
        self,
        fun: Callable[..., Any],
        passes: str | Iterable[str | Pass],
        context: Context | Callable[[], Context] | None,
        told: Callable[[PassOutcome], None] | None,
    ):
        functools.update_wrapper(self, fun)
        named = fun
        while isinstance(named, functools.partial):
            named = named.func
        self.__name__ = getattr(named, "__name__", type(named).__name__)
        self._fun, self._passes, self._context, self._told = fun, passes, context, told
        self._chosen = chosen(passes)

    def __repr__(self) -> str:
        return repr(self._fun)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        import jax
        import numpy as np
        from jax.extend.core import jaxpr_as_fun

        context = self._context() if callable(self._context) else self._context or Context()
        if self._passes == "auto" and context.platform not in PAYING and self._told is None:
            return self._fun(*args, **kwargs)
        leaves, tree = jax.tree.flatten((args, kwargs))
        # Leaves that are no arrays are static: they are part of the program.
        places = [number for number, leaf in enumerate(leaves) if isinstance(leaf, (jax.Array, np.ndarray, np.generic))]

        def of_arrays(*arrays: Any) -> Any:
            filled = list(leaves)
            for place, array in zip(places, arrays, strict=True):
                filled[place] = array
            positional, named = jax.tree.unflatten(tree, filled)
            return self._fun(*positional, **named)

        arrays = [leaves[place] for place in places]
        closed, shape = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
        outcome = run(closed, self._chosen, context)
        if self._told is not None:
            self._told(outcome)
        found = any(report.changed for report in outcome.reports if report.name not in CLEAN_UPS)
        results = jaxpr_as_fun(outcome.jaxpr if found or self._passes != "auto" else closed)(*arrays)
        return jax.tree.unflatten(jax.tree.structure(shape), results)
