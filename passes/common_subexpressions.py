"""The pass `common_subexpressions`: what is computed twice from the same values is computed once."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from memplan.passes.base import Context, Finding, Pass, Rewritten
from memplan.passes.jaxprs import Existing, Replacement, edited, everywhere, inner_jaxprs, where


def rewrite(closed: Any, context: Context) -> Rewritten:
    """Merges equal equations everywhere; an equation inside a loop and one outside it count as different."""
    del context
    findings: list[Finding] = []
    return Rewritten(everywhere(closed, lambda inner: _shared(inner, findings)), tuple(findings))


def _shared(closed: ClosedJaxpr, findings: list[Finding]) -> ClosedJaxpr:
    seen: dict[Any, Any] = {}
    names: dict[Any, Any] = {}

    def rule(equation: Any) -> Existing | Replacement | None:
        key = _key(equation, names)
        if key is None:
            return None
        first = seen.setdefault(key, equation)
        if first is equation:
            return None
        names.update(zip(equation.outvars, first.outvars, strict=True))
        findings.append(Finding(equation.primitive.name, where(equation)))
        return Existing(first.outvars)

    return edited(closed, rule)


def _key(equation: Any, names: dict[Any, Any]) -> Any:
    """Returns a key that equal equations share; None for an equation that never equals another."""
    # Comparing the programs inside equations costs more than it gains.
    if equation.effects or next(inner_jaxprs(equation), None) is not None:
        return None
    if any(type(variable).__name__ == "DropVar" for variable in equation.outvars):
        return None
    operands = []
    for atom in equation.invars:
        if isinstance(atom, Literal):
            value = np.asarray(atom.val)
            operands.append((value.tobytes(), value.dtype.str, value.shape, str(atom.aval)))
        else:
            operands.append(names.get(atom, atom))
    key = (equation.primitive, tuple(operands), tuple(sorted(equation.params.items(), key=lambda item: item[0])))
    try:
        hash(key)
    except TypeError:
        return None
    return key


PASS = Pass("common_subexpressions", "What is computed twice from the same values.", rewrite)
