"""An einsum in JAX as pairs, in the order that memplan chose (planners/contraction/)."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memplan.compiler.effort import Effort
from memplan.compiler.errors import PlannerError
from memplan.planners.contraction.plan import ContractionPlan
from memplan.planners.contraction.problem import ContractionProblem, Quantity, contraction_problem
from memplan.planners.contraction.solve import solve_contraction
from memplan.planners.contraction.steps import ContractionStep, steps_of

# jnp.einsum takes characters beyond these as well.
_LETTERS, _MORE = len(string.ascii_letters), 140


def contraction_program(problem: ContractionProblem, plan: ContractionPlan, **options: Any) -> Callable[..., jax.Array]:
    """Returns a function of the tensors of a problem that contracts them pair by pair, in the plan's order.

    Args:
      problem: the tensors.
      plan: a valid plan of it.
      options: of `jnp.einsum`, such as `precision`, for each pair.
    """
    steps = list(steps_of(problem, plan.path))

    def program(*operands: jax.Array) -> jax.Array:
        there = dict(enumerate(operands))
        new = len(operands)
        number = 0
        for step in steps:
            value = jnp.einsum(_expression(step), *(there.pop(side) for side in step.numbers), **options)
            number = step.numbers[0] if len(step.numbers) == 1 else new
            new += len(step.numbers) > 1
            there[number] = value
        return jnp.asarray(there[number])

    return program


def einsum(
    expression: str,
    *operands: jax.Array,
    minimize: Quantity = "flops",
    limit: float | None = None,
    effort: Effort = Effort.FAST,
    **options: Any,
) -> jax.Array:
    """Returns what `jnp.einsum` returns, by pairs in the order of least flops or least peak.

    The order is found from the shapes, when the function is called or traced.

    >>> einsum("ij,jk,k->i", jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.ones(4)).tolist()
    [12.0, 12.0]

    Args:
      expression: as of `jnp.einsum`, without an ellipsis.
      operands: the tensors.
      minimize: "flops", or "peak": bytes of intermediates that stand at one time, at most.
      limit: on the other.
      effort: of the search.
      options: of `jnp.einsum`, such as `precision`, for each pair.

    Raises:
      PlannerError: expression and shapes do not agree, or no order is found within the limit.
    """
    if "optimize" in options:
        raise PlannerError("optimize is what this einsum decides itself: leave it out, or use jnp.einsum")
    arrays = [jnp.asarray(operand) for operand in operands]
    shapes = [tuple(array.shape) for array in arrays]
    itemsize = max((array.dtype.itemsize for array in arrays), default=4)
    problem = contraction_problem(expression, shapes, itemsize, minimize, limit)
    return contraction_program(problem, solve_contraction(problem, effort), **options)(*arrays)


def _expression(step: ContractionStep) -> str:
    """Returns the step in single characters: the indices of a problem may have any names."""
    names = dict.fromkeys(index for side in step.sides for index in side)
    symbols = {
        index: string.ascii_letters[number] if number < _LETTERS else chr(_MORE + number)
        for number, index in enumerate(names)
    }
    sides = ",".join("".join(symbols[index] for index in side) for side in step.sides)
    return f"{sides}->{''.join(symbols[index] for index in step.result)}"
