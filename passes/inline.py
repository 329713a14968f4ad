"""The pass `inline`: functions that were jitted on their own become part of the program around them.

`jax.numpy` jits many of its functions, and a pattern across several of them is visible only when they are one program.
Calls that state something of their own are left: donated arguments, shardings, compiler options, or a mark that
forbids inlining.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.extend.core import ClosedJaxpr

from memplan.passes.base import Context, Finding, Pass, Rewritten
from memplan.passes.jaxprs import everywhere, spliced, substituted, where


def rewrite(closed: Any, context: Context) -> Rewritten:
    """Inlines calls everywhere, also within loops and branches."""
    del context
    findings: list[Finding] = []
    return Rewritten(everywhere(closed, lambda inner: inlined(inner, called, findings)), tuple(findings))


def inlined(closed: ClosedJaxpr, called: Callable[[Any], ClosedJaxpr | None], findings: list[Finding]) -> ClosedJaxpr:
    """Inlines the calls of one level; the functions that they call are inlined already.

    Args:
      closed: the program.
      called: returns what an equation calls; None for an equation that stays.
      findings: to append each call to.
    """
    jaxpr = closed.jaxpr
    if all(called(equation) is None for equation in jaxpr.eqns):
        return closed
    names: dict[Any, Any] = {}
    equations: list[Any] = []
    constvars, consts = list(jaxpr.constvars), list(closed.consts)
    known = {id(constant): variable for variable, constant in zip(constvars, consts, strict=True)}
    for equation in jaxpr.eqns:
        read = [substituted(atom, names) for atom in equation.invars]
        inner = called(equation)
        if inner is None:
            equations.append(equation.replace(invars=read))
            continue
        findings.append(Finding(f"call of {equation.params.get('name', 'a function')}", where(equation)))
        # The constants of a function that is called twice are kept once.
        inside = dict(zip(inner.jaxpr.invars, read, strict=True))
        for variable, constant in zip(inner.jaxpr.constvars, inner.consts, strict=True):
            if id(constant) not in known:
                known[id(constant)] = variable
                constvars.append(variable)
                consts.append(constant)
            inside[variable] = known[id(constant)]
        results = spliced(inner.jaxpr, inside, equation, equations)
        names.update(zip(equation.outvars, results, strict=True))
    results = [substituted(atom, names) for atom in jaxpr.outvars]
    return ClosedJaxpr(jaxpr.replace(constvars=constvars, eqns=equations, outvars=results), consts)


def called(equation: Any) -> ClosedJaxpr | None:
    """Returns the jitted function that an equation calls; None if it calls none, or states something of its own."""
    params = equation.params
    if equation.primitive.name not in ("jit", "pjit") or "jaxpr" not in params:
        return None
    shardings = (*params.get("in_shardings", ()), *params.get("out_shardings", ()))
    is_plain = (
        not any(params.get("donated_invars", ()))
        and all(type(sharding).__name__ == "UnspecifiedValue" for sharding in shardings)
        and not params.get("compiler_options_kvs")
    )
    return params["jaxpr"] if is_plain else None


PASS = Pass("inline", "Jitted functions become part of the program that calls them.", rewrite)
