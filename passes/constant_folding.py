"""The pass `constant_folding`: what depends on constants alone is computed once, here, if it is small."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from memplan.passes.base import Context, Finding, Pass, Rewritten
from memplan.passes.jaxprs import Existing, Replacement, edited, everywhere, inner_jaxprs, where

# Larger results are left to the program, since a constant takes memory all the time.
_MAX_ELEMENTS = 64

# Primitives whose results differ each time, or that may only run where the program runs.
_NOT_FOLDED = frozenset(
    {"random_bits", "random_seed", "random_wrap", "random_unwrap", "rng_bit_generator", "rng_uniform"}
)


def rewrite(closed: Any, context: Context) -> Rewritten:
    """Folds scalars everywhere, also within loops and branches; only scalars can stand in an equation."""
    del context
    findings: list[Finding] = []
    return Rewritten(everywhere(closed, lambda inner: _folded(inner, findings)), tuple(findings))


def _folded(closed: ClosedJaxpr, findings: list[Finding]) -> ClosedJaxpr:
    known: dict[Any, Any] = {}
    for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        if getattr(value, "size", _MAX_ELEMENTS + 1) <= _MAX_ELEMENTS and not jax.dtypes.issubdtype(
            variable.aval.dtype, jax.dtypes.extended
        ):
            known[variable] = value

    def rule(equation: Any) -> Existing | Replacement | None:
        if not _can_be_folded(equation):
            return None
        operands = []
        for atom in equation.invars:
            if isinstance(atom, Literal):
                operands.append(atom.val)
            elif atom in known:
                operands.append(known[atom])
            else:
                return None
        with jax.ensure_compile_time_eval():
            results = equation.primitive.bind(*operands, **equation.params)
        results = results if equation.primitive.multiple_results else [results]
        known.update(zip(equation.outvars, results, strict=True))
        if any(variable.aval.shape for variable in equation.outvars):
            return None  # Its readers may be folded; it is dead then.
        findings.append(Finding(equation.primitive.name, where(equation)))
        return Existing(
            [
                Literal(np.asarray(value, variable.aval.dtype)[()], variable.aval)
                for value, variable in zip(results, equation.outvars, strict=True)
            ]
        )

    return edited(closed, rule)


def _can_be_folded(equation: Any) -> bool:
    return (
        not equation.effects
        and equation.primitive.name not in _NOT_FOLDED
        and next(inner_jaxprs(equation), None) is None
        and all(
            variable.aval.size <= _MAX_ELEMENTS and not jax.dtypes.issubdtype(variable.aval.dtype, jax.dtypes.extended)
            for variable in equation.outvars
        )
    )


PASS = Pass("constant_folding", "What depends on constants alone, computed once.", rewrite)
