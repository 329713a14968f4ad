"""A program that takes compressed weights in the place of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from memplan.passes.levels.encodings import ENCODINGS, LowRankWeight


def is_encoded(node: Any) -> bool:
    """Whether a node of a tree of parameters is a compressed weight."""
    return isinstance(node, ENCODINGS)


def dense(params: Any) -> Any:
    """Returns the parameters with every compressed weight as an array."""
    return jax.tree.map(lambda node: node.dense() if is_encoded(node) else node, params, is_leaf=is_encoded)


def bytes_of(params: Any) -> int:
    """Returns the bytes of all arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def with_encoded(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `fun` for a first argument with compressed weights.

    A matrix product with a weight of low rank becomes two, `(x u) v`, with no product of the factors. Any other use of
    a compressed weight, also within loops and calls, reads it as an array that the program makes.
    """

    def program(params: Any, *inputs: Any) -> Any:
        shapes = jax.eval_shape(dense, params)
        closed, out = jax.make_jaxpr(fun, return_shape=True)(shapes, *inputs)
        encoded = jax.tree.leaves(params, is_leaf=is_encoded)
        results = _run(closed.jaxpr, closed.consts, [*encoded, *jax.tree.leaves(inputs)])
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return program


def _run(jaxpr: Any, consts: Any, arguments: list[Any]) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        """Returns the value, an encoded one as it is."""
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        if equation.primitive is lax.dot_general_p and isinstance(operands[1], LowRankWeight) and _is_plain(equation):
            x = operands[0].dense() if is_encoded(operands[0]) else operands[0]
            results: Any = _product(x, operands[1], equation)
        else:
            operands = [operand.dense() if is_encoded(operand) else operand for operand in operands]
            results = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
        if not equation.primitive.multiple_results:
            results = [results]
        values.update(zip(equation.outvars, results, strict=True))
    found = [read(atom) for atom in jaxpr.outvars]
    return [value.dense() if is_encoded(value) else jnp.asarray(value) for value in found]


def _is_plain(equation: Any) -> bool:
    """Whether a product contracts one side of the weight and has no batch."""
    (_, weight), (_, batch) = equation.params["dimension_numbers"]
    return len(weight) == 1 and not batch


def _product(x: Any, weight: LowRankWeight, equation: Any) -> jax.Array:
    """Multiplies with one factor after the other; the weight may be contracted over either side."""
    (over, (side,)), _ = equation.params["dimension_numbers"]
    first, second = (weight.u, weight.v) if side == 0 else (weight.v.T, weight.u.T)
    precision = equation.params["precision"]
    middle = lax.dot_general(x, first, ((over, (0,)), ((), ())), precision=precision)
    last = (((middle.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(
        middle, second, last, precision=precision, preferred_element_type=equation.params["preferred_element_type"]
    )
