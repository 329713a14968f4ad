"""The pass `attention`: softmax attention whose scores do not fit the fast memory is done in blocks.

    softmax(f(Q·Kᵀ))·V          f: scales, masks, biases, caps: anything that treats each score by itself

is recognized with its axes in any order. It is replaced by the form of `attention_blocks.py`, which never holds all
scores at once, where that is estimated to move fewer bytes to and from slow memory. Values are the same up to rounding.
The passes `inline` and `shape_cleanup` run before, so that the pattern is in one piece. Scores that fit are left
unchanged, and so are probabilities that something else reads, such as a backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from memplan.passes.attention_blocks import Attention, attend, reason_against
from memplan.passes.attention_scores import PRODUCT, Cuts, Scores, axes_before, operand_cuts
from memplan.passes.base import Context, Finding, Pass, Rewritten
from memplan.passes.jaxprs import Replacement, consumers, edited, everywhere, producers, where


class _Declined(Exception):
    """A softmax that is followed by a product but cannot be done in blocks; the message says why."""


def rewrite(closed: Any, context: Context) -> Rewritten:
    """Replaces attention everywhere, also within loops and branches."""
    findings: list[Finding] = []
    return Rewritten(everywhere(closed, lambda inner: _replaced(inner, context, findings)), tuple(findings))


def _replaced(closed: ClosedJaxpr, context: Context, findings: list[Finding]) -> ClosedJaxpr:
    made_by, read_by = producers(closed.jaxpr), consumers(closed.jaxpr)

    def rule(equation: Any) -> Replacement | None:
        if equation.primitive.name != PRODUCT:
            return None
        for side in (0, 1):
            try:
                found = _attention(equation, side, made_by, read_by)
            except _Declined as reason:
                findings.append(Finding("attention", where(equation), str(reason)))
                return None
            if found is not None:
                declined = reason_against(found, context)
                findings.append(Finding(_named(found), where(equation), declined))
                return None if declined else Replacement(functools.partial(_done, found), found.operands)
        return None

    return edited(closed, rule)


def attentions(closed: ClosedJaxpr) -> list[Attention]:
    """Returns the attentions on the outermost level of a program, in order; those read by a backward pass are none."""
    made_by, read_by = producers(closed.jaxpr), consumers(closed.jaxpr)
    found = []
    for equation in closed.jaxpr.eqns:
        if equation.primitive.name == PRODUCT:
            try:
                sides = [_attention(equation, side, made_by, read_by) for side in (0, 1)]
            except _Declined:
                continue
            found += [each for each in sides if each is not None]
    return found


def _done(found: Attention, *values: Any) -> Any:
    return attend(found, values)


def _named(found: Attention) -> str:
    shape = found.scores.atom.aval.shape
    queries = "" if found.query_axis is None else f"{shape[found.query_axis]:,} queries by "
    return f"attention of {queries}{shape[found.key_axis]:,} keys"


def _attention(
    product: Any, side: int, made_by: Mapping[Any, Any], read_by: Mapping[Any, Sequence[Any]]
) -> Attention | None:
    """Returns the attention whose product with the values is an equation; None if there is no softmax.

    Args:
      product: of probabilities and values.
      side: which operand the probabilities are.
      made_by, read_by: as from `producers` and `consumers`.

    Raises:
      _Declined: it is attention, but cannot be done in blocks.
    """
    (contracted, _) = product.params["dimension_numbers"]
    if len(contracted[side]) != 1:
        return None
    softmax = _softmax(product.invars[side], contracted[side][0], made_by)
    if softmax is None:
        return None
    scores = Scores(softmax.scores, made_by)
    dots = [
        (equation, key_side)
        for equation, cuts in scores.products({softmax.axis: "key"})
        if (key_side := _free_side(equation, cuts)) is not None
    ]
    if len(dots) != 1:
        raise _Declined(f"its scores come from {len(dots) or 'no'} products of queries and keys")
    dot, key_side = dots[0]
    members = [*softmax.equations, *scores.equations({softmax.axis: "key"}), product]
    if not _is_closed(dot, members, product, read_by):
        raise _Declined("its scores or probabilities are read elsewhere too, by a backward pass for instance")
    query_axis, row_axis = _axes(scores, dot, key_side, softmax, product, side)
    dtype = product.invars[side].aval.dtype
    return Attention(scores, dot, softmax.axis, query_axis, row_axis, product, side, softmax.order, dtype)


def _is_closed(dot: Any, members: Sequence[Any], product: Any, read_by: Mapping[Any, Sequence[Any]]) -> bool:
    """Whether the product of queries and keys is read only within the attention, up to the product with the values."""
    known, seen, waiting = {id(each) for each in members}, set(), [dot]
    while waiting:
        equation = waiting.pop()
        for reader in read_by.get(equation.outvars[0], ()):
            if reader is None or id(reader) not in known:
                return False
            if reader is not product and id(reader) not in seen:
                seen.add(id(reader))
                waiting.append(reader)
    return True


@dataclass(frozen=True)
class _Softmax:
    """A softmax that is an operand of a product.

    Attributes:
      scores: the variable that it is taken of.
      axis: the axis of the scores along which it is taken.
      order: `order[i]` is the axis of the scores that is axis i of the operand; some of length one may be missing.
      equations: the equations that compute it from the scores.
    """

    scores: Any
    axis: int
    order: tuple[int, ...]
    equations: tuple[Any, ...]


def _softmax(atom: Any, axis: int, made_by: Mapping[Any, Any]) -> _Softmax | None:
    """Returns the softmax along an axis that is an operand of a product; None if the operand is none."""
    order = tuple(range(len(atom.aval.shape)))
    equations = []
    equation = _maker(atom, made_by)
    while equation is not None and equation.primitive.name in _AFTER:
        equations.append(equation)
        came_from = axes_before(equation)
        if came_from is None:
            return None
        order = tuple(came_from[i] for i in order)
        equation = _maker(equation.invars[0], made_by)
    if equation is None or equation.primitive.name != "div":
        return None
    axis = order[axis]
    powers, total = equation.invars
    summed = _reduced(total, axis, "reduce_sum", made_by)
    power, between = _plain(powers, made_by)
    if summed is None or power is None or power.primitive.name != "exp" or _plain(summed[0], made_by)[0] is not power:
        return None
    shifted = _maker(power.invars[0], made_by)
    if shifted is None or shifted.primitive.name != "sub":
        return None
    scores, peak = shifted.invars
    peaked = _reduced(peak, axis, "reduce_max", made_by)
    if peaked is None:
        return None
    same = peaked[0] is scores or (
        _plain(scores, made_by)[0] is not None and _plain(peaked[0], made_by)[0] is _plain(scores, made_by)[0]
    )
    if not same:
        return None
    equations += [equation, *between, *summed[1], *_plain(summed[0], made_by)[1], power, shifted, *peaked[1]]
    equations += _plain(peaked[0], made_by)[1]
    return _Softmax(scores, axis, order, tuple(equations))


# Primitives that may stand between a softmax and the product that follows.
_AFTER = frozenset({"convert_element_type", "transpose", "reshape", "squeeze"})

# Primitives that may stand between a reduction and its result broadcast to every element.
_BETWEEN = frozenset({"broadcast_in_dim", "stop_gradient", "convert_element_type", "reshape", "max"})


def _reduced(atom: Any, axis: int, reduction: str, made_by: Mapping[Any, Any]) -> tuple[Any, list[Any]] | None:
    """Returns the operand of a reduction along one axis, and its equations; None if the atom is no such reduction."""
    equations = []
    equation = _maker(atom, made_by)
    while equation is not None and equation.primitive.name in _BETWEEN:
        operands = [each for each in equation.invars if not _is_least(each)]
        is_kept = equation.primitive.name != "broadcast_in_dim" or _keeps(equation, axis)
        if len(operands) != 1 or not is_kept:
            return None
        equations.append(equation)
        equation = _maker(operands[0], made_by)
    if equation is None or equation.primitive.name != reduction or tuple(equation.params["axes"]) != (axis,):
        return None
    whole = equation.invars[0].aval.shape
    fits = len(atom.aval.shape) == len(whole) and all(a in (1, b) for a, b in zip(atom.aval.shape, whole, strict=True))
    return (equation.invars[0], [*equations, equation]) if fits else None


def _is_least(atom: Any) -> bool:
    """Whether an atom is minus infinity, which does not change a maximum."""
    return isinstance(atom, Literal) and np.ndim(atom.val) == 0 and float(atom.val) == -np.inf


def _keeps(equation: Any, axis: int) -> bool:
    """Whether a broadcast puts the axes that a reduction left back in their places."""
    rank, before = len(equation.params["shape"]), tuple(equation.params["broadcast_dimensions"])
    return before in (tuple(range(rank)), (*range(axis), *range(axis + 1, rank)))


def _plain(atom: Any, made_by: Mapping[Any, Any]) -> tuple[Any, list[Any]]:
    """Returns the equation that made a variable before conversions of its type, and the conversions."""
    conversions = []
    equation = _maker(atom, made_by)
    while equation is not None and equation.primitive.name == "convert_element_type":
        conversions.append(equation)
        equation = _maker(equation.invars[0], made_by)
    return equation, conversions


def _maker(atom: Any, made_by: Mapping[Any, Any]) -> Any:
    return None if isinstance(atom, Literal) else made_by.get(atom)


def _free_side(dot: Any, cuts: Cuts) -> int | None:
    """Returns the only operand of a product that has the cut axis of its result; None if there is no such operand."""
    sides = [side for side, found in enumerate(operand_cuts(dot, cuts)) if found]
    return sides[0] if len(sides) == 1 else None


def _axes(
    scores: Scores, dot: Any, key_side: int, softmax: _Softmax, product: Any, side: int
) -> tuple[int | None, int | None]:
    """Returns the longest axis of the scores that only queries have, and the first that keys and values have too."""
    batched = product.params["dimension_numbers"][1][side]
    queries, rows = [(0, -1)], []
    for axis, size in enumerate(scores.atom.aval.shape):
        if axis == softmax.axis or size == 1:
            continue
        for equation, cuts in scores.products({axis: "axis"}):
            if equation is not dot:
                continue
            is_batched = softmax.order.index(axis) in batched
            if all(operand_cuts(dot, cuts)) and is_batched:
                rows.append(axis)
            elif _free_side(dot, cuts) == 1 - key_side and not is_batched:
                queries.append((size, axis))
    size, axis = max(queries)
    return (axis if size else None), (rows[0] if rows else None)


PASS = Pass("attention", "Attention in blocks, where its scores do not fit the fast memory.", rewrite)
