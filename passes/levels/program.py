"""Programs evaluated equation by equation, some in another way: with compressed weights in the place of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from memplan.passes.levels.encodings import EncodedWeight


def is_encoded(node: Any) -> bool:
    """Whether a node of a tree of parameters is a compressed weight."""
    return isinstance(node, EncodedWeight)


def dense(params: Any) -> Any:
    """Returns the parameters with every compressed weight as an array."""
    return jax.tree.map(lambda node: node.dense() if is_encoded(node) else node, params, is_leaf=is_encoded)


def bytes_of(params: Any) -> int:
    """Returns the bytes of all arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


Rule = Callable[[Any, list[Any]], Any]


def evaluate(jaxpr: Any, consts: Any, arguments: list[Any], rule: Rule) -> list[Any]:
    """Returns the results of a program whose equations a rule may compute in a way of its own.

    Args:
      jaxpr: the program.
      consts: its constants.
      arguments: values; of any kind that the rule takes, if it handles all that read them.
      rule: called with each equation and its operands; returns what the equation would, or None for
        the equation itself on the operands, which the rule may have changed in place.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = rule(equation, operands)
        if results is None:
            results = bound(equation, operands)
        if not equation.primitive.multiple_results:
            results = [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bound(equation: Any, operands: list[Any]) -> Any:
    """Returns what an equation computes from other operands."""
    return equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))


def with_encoded(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `fun` for a first argument with compressed weights.

    A matrix product with a weight of low rank becomes two, `(x u) v`, and one with a chain of cores as many as there
    are cores, with no product of the factors. Any other use of a compressed weight, also within loops and calls, reads
    it as an array that the program makes.
    """

    def program(params: Any, *inputs: Any) -> Any:
        shapes = jax.eval_shape(dense, params)
        closed, out = jax.make_jaxpr(fun, return_shape=True)(shapes, *inputs)
        encoded = jax.tree.leaves(params, is_leaf=is_encoded)
        results = evaluate(closed.jaxpr, closed.consts, [*encoded, *jax.tree.leaves(inputs)], _with_encoded_operands)
        arrays = [value.dense() if is_encoded(value) else jnp.asarray(value) for value in results]
        return jax.tree.unflatten(jax.tree.structure(out), arrays)

    return program


def _with_encoded_operands(equation: Any, operands: list[Any]) -> Any:
    if not any(map(is_encoded, operands)):
        return None
    if equation.primitive is lax.dot_general_p and is_encoded(operands[1]) and _is_plain(equation):
        x = operands[0].dense() if is_encoded(operands[0]) else operands[0]
        product = _product(x, operands[1], equation)
        if product is not None:
            return product
    return bound(equation, [operand.dense() if is_encoded(operand) else operand for operand in operands])


def _is_plain(equation: Any) -> bool:
    """Whether a product contracts one side of the weight and has no batch."""
    (_, weight), (_, batch) = equation.params["dimension_numbers"]
    return len(weight) == 1 and not batch


def _product(x: Any, weight: EncodedWeight, equation: Any) -> jax.Array | None:
    """Multiplies with the weight as it is encoded; the weight may be contracted over either side."""
    ((over,), (side,)), _ = equation.params["dimension_numbers"]
    found = weight.product(jnp.moveaxis(x, over, -1), side, equation.params["precision"])
    return None if found is None else found.astype(equation.outvars[0].aval.dtype)
