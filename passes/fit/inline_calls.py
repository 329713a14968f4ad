"""A whole program in one jaxpr, as far as calls go: jitted functions, `jax.checkpoint`, functions with custom rules.

What is computed twice because of `jax.checkpoint` is one equation afterwards, as the plan decides what is computed
again. Custom rules of differentiation have done their part once a program is compiled.
"""

from __future__ import annotations

from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

from memplan.passes import common_subexpressions, dead_code, inline
from memplan.passes.base import Context
from memplan.passes.jaxprs import everywhere

# The parameter that holds what is called, by primitive.
_CALLED = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
}


def in_one_piece(closed: Any) -> Any:
    """Returns a program without calls that say nothing of their own, equal equations or dead ones, on all levels."""
    closed = everywhere(closed, lambda inner: inline.inlined(inner, called, []))
    context = Context()
    closed = common_subexpressions.rewrite(closed, context).jaxpr
    return dead_code.rewrite(closed, context).jaxpr


def called(equation: Any) -> Any:
    """Returns what an equation calls, as a closed jaxpr; None if it must stay an equation of its own."""
    if (found := inline.called(equation)) is not None:
        return found
    name = equation.primitive.name
    inner = equation.params.get(_CALLED.get(name, ""))
    if isinstance(inner, ClosedJaxpr):
        return inner
    return ClosedJaxpr(inner, ()) if isinstance(inner, Jaxpr) and not inner.constvars else None
