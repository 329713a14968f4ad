"""What the programs made with libraries share (`zoo_*.py`): their optimizer is one of optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from memplan.workloads.registry import Built

# Of abstract random numbers.
KEY = jax.ShapeDtypeStruct((2,), "uint32")


def optax_step(loss: Callable[..., jax.Array], params: Any, optimizer: Any, *data: Any) -> Built:
    """Returns a training step `(params, state, *data) -> (params, state, loss)` and its abstract arguments.

    Args:
      loss: of `(params, *data)`.
      params, data: pytrees of shapes.
      optimizer: an `optax.GradientTransformation`.
    """
    import optax

    def fun(params: Any, state: Any, *data: Any) -> tuple[Any, Any, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(params, *data)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    return fun, (params, jax.eval_shape(optimizer.init, params), *data)
