"""The pass `dead_code`: equations whose results nobody reads, and that do nothing else, are left out."""

from __future__ import annotations

from typing import Any

from jax.extend.core import ClosedJaxpr, Literal

from memplan.passes.base import Context, Finding, Pass, Rewritten
from memplan.passes.jaxprs import everywhere, where


def rewrite(closed: Any, context: Context) -> Rewritten:
    """Leaves out dead equations everywhere, also within loops and branches."""
    del context
    findings: list[Finding] = []
    return Rewritten(everywhere(closed, lambda inner: without_dead(inner, findings)), tuple(findings))


def without_dead(closed: ClosedJaxpr, findings: list[Finding]) -> ClosedJaxpr:
    """Returns a jaxpr without the dead equations of its outermost level, and without constants that nobody reads."""
    jaxpr = closed.jaxpr
    read = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if not equation.effects and read.isdisjoint(equation.outvars):
            findings.append(Finding(equation.primitive.name, where(equation)))
            continue
        kept.append(equation)
        read.update(atom for atom in equation.invars if not isinstance(atom, Literal))
    constants = [(v, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if v in read]
    if len(kept) == len(jaxpr.eqns) and len(constants) == len(closed.consts):
        return closed
    equations = kept[::-1]
    return ClosedJaxpr(jaxpr.replace(constvars=[v for v, _ in constants], eqns=equations), [c for _, c in constants])


PASS = Pass("dead_code", "Equations whose results nobody reads.", rewrite)
