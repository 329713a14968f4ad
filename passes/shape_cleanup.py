"""The pass `shape_cleanup`: leaves out equations that change nothing, and merges two changes of shape or layout.

pad by nothing, slice of everything, reshape, transpose or conversion to what it is already     left out
transpose of a transpose, reshape of a reshape                                                 one of them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from memplan.passes.base import Context, Finding, Pass, Rewritten
from memplan.passes.jaxprs import Existing, Replacement, edited, everywhere, producers, where


def rewrite(closed: Any, context: Context) -> Rewritten:
    """Cleans up everywhere, also within loops and branches."""
    del context
    findings: list[Finding] = []
    return Rewritten(everywhere(closed, lambda inner: _cleaned(inner, findings)), tuple(findings))


def _cleaned(closed: ClosedJaxpr, findings: list[Finding]) -> ClosedJaxpr:
    made_by = producers(closed.jaxpr)

    def rule(equation: Any) -> Existing | Replacement | None:
        clean = _RULES.get(equation.primitive.name)
        found = clean(equation, made_by) if clean is not None else None
        if found is not None:
            findings.append(Finding(equation.primitive.name, where(equation)))
        return found

    return edited(closed, rule)


def _source(equation: Any, made_by: Mapping[Any, Any]) -> Any:
    """Returns the equation that made the first operand; None if that is an argument or a literal."""
    atom = equation.invars[0]
    return None if isinstance(atom, Literal) else made_by.get(atom)


def _is_same(equation: Any) -> bool:
    """Whether the result has the type of the first operand."""
    before, after = equation.invars[0].aval, equation.outvars[0].aval
    return bool(before.shape == after.shape and before.dtype == after.dtype and before.weak_type == after.weak_type)


def _pad(equation: Any, made_by: Mapping[Any, Any]) -> Existing | Replacement | None:
    if all(low == high == interior == 0 for low, high, interior in equation.params["padding_config"]):
        return Existing(equation.invars[:1])
    return None


def _slice(equation: Any, made_by: Mapping[Any, Any]) -> Existing | Replacement | None:
    strides = equation.params["strides"]
    return Existing(equation.invars) if _is_same(equation) and not (strides and set(strides) != {1}) else None


def _same(equation: Any, made_by: Mapping[Any, Any]) -> Existing | Replacement | None:
    return Existing(equation.invars[:1]) if _is_same(equation) and not isinstance(equation.invars[0], Literal) else None


def _reshape(equation: Any, made_by: Mapping[Any, Any]) -> Existing | Replacement | None:
    if len(equation.invars) > 1 or equation.params.get("dimensions") is not None:
        return None
    if _is_same(equation):
        return Existing(equation.invars)
    source = _source(equation, made_by)
    if source is None or source.primitive.name != "reshape" or len(source.invars) > 1:
        return None
    if source.params.get("dimensions") is not None:
        return None
    shape = equation.outvars[0].aval.shape
    return Replacement(lambda x: lax.reshape(x, shape), source.invars)


def _transpose(equation: Any, made_by: Mapping[Any, Any]) -> Existing | Replacement | None:
    order = equation.params["permutation"]
    if tuple(order) == tuple(range(len(order))):
        return Existing(equation.invars)
    source = _source(equation, made_by)
    if source is None or source.primitive.name != "transpose":
        return None
    whole = tuple(source.params["permutation"][axis] for axis in order)
    if whole == tuple(range(len(order))):
        return Existing(source.invars)
    return Replacement(lambda x: lax.transpose(x, whole), source.invars)


_RULES: dict[str, Callable[[Any, Mapping[Any, Any]], Existing | Replacement | None]] = {
    "pad": _pad,
    "slice": _slice,
    "convert_element_type": _same,
    "broadcast_in_dim": _same,
    "reshape": _reshape,
    "transpose": _transpose,
}

PASS = Pass("shape_cleanup", "Changes of shape, layout or type that change nothing, or are one.", rewrite)
