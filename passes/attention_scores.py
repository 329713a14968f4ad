"""The scores of attention, and how any part of them is computed by itself.

Between the product of queries and keys and the softmax, a program treats each score by itself: it scales it, adds
biases, or masks it by comparing positions. `Scores.part` computes a part of the scores from parts of their operands, by
the program's own equations. Broadcasts and positions (iota) are made in the size of the part, so a mask or a bias is
never held completely unless it is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

PRODUCT = "dot_general"

# The names of the cuts, by the axes of an array that are cut.
Cuts = Mapping[int, str]

# Primitives that treat each element by itself.
_ELEMENTWISE = frozenset(
    {
        "abs",
        "add",
        "add_any",
        "and",
        "ceil",
        "convert_element_type",
        "copy",
        "cos",
        "div",
        "eq",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "ge",
        "gt",
        "integer_pow",
        "is_finite",
        "le",
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "neg",
        "not",
        "one_minus_square",
        "or",
        "pow",
        "rsqrt",
        "select_n",
        "sign",
        "sin",
        "sqrt",
        "square",
        "stop_gradient",
        "sub",
        "tanh",
        "xor",
    }
)


@dataclass(frozen=True)
class Part:
    """A range of an axis.

    Attributes:
      start: its first index, which may be traced.
      size: how many indices it has.
    """

    start: Any
    size: int


@dataclass(frozen=True)
class Scores:
    """The array that a softmax is taken of.

    Attributes:
      atom: its variable.
      made_by: the equation that each variable is a result of.
    """

    atom: Any
    made_by: Mapping[Any, Any]

    def products(self, cuts: Cuts) -> Iterator[tuple[Any, Cuts]]:
        """Yields the matrix products that a part is computed from, with the axes of their results that are cut."""
        seen = set()
        for equation, found in self._needed(self.atom, cuts):
            if equation.primitive.name == PRODUCT and id(equation) not in seen:
                seen.add(id(equation))
                yield equation, found

    def equations(self, cuts: Cuts) -> list[Any]:
        """Returns the equations that compute a part."""
        return [equation for equation, _ in self._needed(self.atom, cuts)]

    def leaves(self, cuts: Cuts) -> dict[Any, frozenset[str]]:
        """Returns the variables of which parts are taken, including the operands of products, and their cuts."""
        found: dict[Any, frozenset[str]] = {}
        self._collect(self.atom, cuts, found)
        return found

    def part(self, parts: Mapping[str, Part], cuts: Cuts, values: Mapping[Any, Any]) -> jax.Array:
        """Returns a part of the scores.

        Args:
          parts: the range of each cut.
          cuts: the scores' axes.
          values: of the leaves.
        """
        return self._part(self.atom, cuts, parts, values, {})

    def _needed(self, atom: Any, cuts: Cuts) -> Iterator[tuple[Any, Cuts]]:
        equation = self._inside(atom, cuts)
        if equation is None:
            return
        yield equation, cuts
        if equation.primitive.name != PRODUCT:
            for operand, inner in zip(equation.invars, operand_cuts(equation, cuts), strict=True):
                yield from self._needed(operand, inner)

    def _collect(self, atom: Any, cuts: Cuts, found: dict[Any, frozenset[str]]) -> None:
        if isinstance(atom, Literal):
            return
        equation = self._inside(atom, cuts)
        if equation is None:
            found[atom] = found.get(atom, frozenset()) | frozenset(cuts.values())
            return
        for operand, inner in zip(equation.invars, operand_cuts(equation, cuts), strict=True):
            if equation.primitive.name == PRODUCT:
                found[operand] = found.get(operand, frozenset()) | frozenset(inner.values())
            else:
                self._collect(operand, inner, found)

    def _inside(self, atom: Any, cuts: Cuts) -> Any:
        """Returns the equation that makes a part of a variable; None where the part is taken of the whole variable."""
        if isinstance(atom, Literal) or not cuts:
            return None
        equation = self.made_by.get(atom)
        if equation is None or not _is_separable(equation, cuts):
            return None
        return equation

    def _part(
        self, atom: Any, cuts: Cuts, parts: Mapping[str, Part], values: Mapping[Any, Any], known: dict[Any, Any]
    ) -> Any:
        if isinstance(atom, Literal):
            return jnp.asarray(atom.val, atom.aval.dtype)
        key = (atom, tuple(sorted(cuts.items())))
        if key not in known:
            equation = self._inside(atom, cuts)
            if equation is None:
                known[key] = taken(values[atom], cuts, parts)
            else:
                operands = [
                    taken(values[operand], inner, parts)
                    if equation.primitive.name == PRODUCT
                    else self._part(operand, inner, parts, values, known)
                    for operand, inner in zip(equation.invars, operand_cuts(equation, cuts), strict=True)
                ]
                known[key] = _evaluated(equation, operands, cuts, parts)
        return known[key]


def taken(x: Any, cuts: Cuts, parts: Mapping[str, Part]) -> Any:
    """Returns the part of an array."""
    for axis, name in cuts.items():
        x = lax.dynamic_slice_in_dim(x, parts[name].start, parts[name].size, axis)
    return x


def operand_cuts(equation: Any, cuts: Cuts) -> list[dict[int, str]]:
    """Returns which axes of an equation's operands are cut where axes of its result are cut."""
    name, params = equation.primitive.name, equation.params
    if name == "broadcast_in_dim":
        before, shape = tuple(params["broadcast_dimensions"]), equation.invars[0].aval.shape
        return [
            {before.index(axis): cut for axis, cut in cuts.items() if axis in before and shape[before.index(axis)] > 1}
        ]
    if name == "transpose":
        return [{params["permutation"][axis]: cut for axis, cut in cuts.items()}]
    if name in ("reshape", "squeeze"):
        moved = _moved(equation.outvars[0].aval.shape, equation.invars[0].aval.shape)
        return [{moved[axis]: cut for axis, cut in cuts.items()}]
    if name == PRODUCT:
        return _product_cuts(equation, cuts)
    return [
        {axis: cut for axis, cut in cuts.items() if operand.aval.shape and operand.aval.shape[axis] > 1}
        for operand in equation.invars
    ]


def axes_before(equation: Any) -> list[int] | None:
    """Returns for each axis of an equation's result the axis of its operand.

    Returns None if the equation does more than permute axes and drop axes of length one.
    """
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    name = equation.primitive.name
    if name == "transpose":
        return list(equation.params["permutation"])
    if before == after:
        return list(range(len(after)))
    if name == "squeeze":
        return [axis for axis in range(len(before)) if axis not in equation.params["dimensions"]]
    long = [axis for axis, size in enumerate(before) if size > 1]
    return long if tuple(before[axis] for axis in long) == after else None


def _product_cuts(equation: Any, cuts: Cuts) -> list[dict[int, str]]:
    contracted, batched = equation.params["dimension_numbers"]
    found: list[dict[int, str]] = [{}, {}]
    ranks = [len(operand.aval.shape) for operand in equation.invars]
    frees = [
        [axis for axis in range(ranks[side]) if axis not in contracted[side] and axis not in batched[side]]
        for side in (0, 1)
    ]
    count = len(batched[0])
    for axis, cut in cuts.items():
        if axis < count:
            for side in (0, 1):
                found[side][batched[side][axis]] = cut
        elif axis < count + len(frees[0]):
            found[0][frees[0][axis - count]] = cut
        else:
            found[1][frees[1][axis - count - len(frees[0])]] = cut
    return found


def _moved(shape: Sequence[int], before: Sequence[int]) -> dict[int, int]:
    """Returns where those axes of a shape, longer than one, that a reshape leaves whole were before."""

    def places(sizes: Sequence[int]) -> dict[tuple[int, int], int]:
        return {(math.prod(sizes[:axis]), size): axis for axis, size in enumerate(sizes) if size > 1}

    known = places(before)
    return {axis: known[place] for place, axis in places(shape).items() if place in known}


def _is_separable(equation: Any, cuts: Cuts) -> bool:
    """Whether a part of the result can be computed from parts of the operands."""
    name = equation.primitive.name
    if name in ("reshape", "squeeze"):
        moved = _moved(equation.outvars[0].aval.shape, equation.invars[0].aval.shape)
        return all(axis in moved for axis in cuts)
    if name == "broadcast_in_dim":
        return len(equation.invars) == 1
    if name in _ELEMENTWISE:
        shape = equation.outvars[0].aval.shape
        return all(
            not operand.aval.shape
            or (
                len(operand.aval.shape) == len(shape)
                and all(a in (1, b) for a, b in zip(operand.aval.shape, shape, strict=True))
            )
            for operand in equation.invars
        )
    return name in ("transpose", "iota", PRODUCT)


def _evaluated(equation: Any, operands: Sequence[Any], cuts: Cuts, parts: Mapping[str, Part]) -> Any:
    """Returns a part of an equation's result."""
    name, params = equation.primitive.name, equation.params
    shape = list(equation.outvars[0].aval.shape)
    for axis, cut in cuts.items():
        shape[axis] = parts[cut].size
    if name == "broadcast_in_dim":
        return lax.broadcast_in_dim(operands[0], shape, params["broadcast_dimensions"])
    if name in ("reshape", "squeeze"):
        return lax.reshape(operands[0], shape)
    if name == "iota":
        positions = lax.broadcasted_iota(params["dtype"], shape, params["dimension"])
        counted = cuts.get(params["dimension"])
        return positions if counted is None else positions + jnp.asarray(parts[counted].start, params["dtype"])
    return equation.primitive.bind(*operands, **params)
