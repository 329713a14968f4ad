"""What a change of some arrays does to the results of a program: by a second-order model, and as measured.

For a program that returns one number, a loss, the model's error of the change d is `|dᵀ H d| ÷ 2` with the Hessian of
the loss. For any other, it is the squared change of the results to first order, `|J d|² ÷ |f|²`, which is the same with
the Hessian of that distortion. Both take one Jacobian- or Hessian-vector product for each level of each array (Dong et
al., "HAWQ-V2", arXiv 1911.03852, whose sum over layers this is, with the product itself in the place of the trace).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from memplan.compiler.errors import MemplanError


class Distortion:
    """Errors of changes.

    Attributes:
      before: the results without a change, as one vector.
      is_loss: whether they are one number.
    """

    def __init__(self, results: Callable[[list[jax.Array]], Any], arrays: Sequence[jax.Array]):
        """Runs the program.

        Args:
          results: what the program returns for the arrays.
          arrays: those that are changed, as they are given.

        Raises:
          MemplanError: the results are not finite, or hold no floating-point numbers.
        """
        self.arrays = list(arrays)

        def flat(arrays: list[jax.Array]) -> jax.Array:
            return _flat(results(arrays))

        self.before = jax.jit(flat)(self.arrays)
        if not bool(jnp.isfinite(self.before).all()):
            raise MemplanError("the results of the program are not finite")
        self.is_loss = self.before.size == 1
        self._scale = max(float(jnp.square(self.before).sum()), 1e-30)

        def model(direction: list[jax.Array]) -> jax.Array:
            if self.is_loss:
                gradient = jax.grad(lambda arrays: flat(arrays)[0], allow_int=True)
                product = jax.jvp(gradient, (self.arrays,), (direction,))[1]
                pairs = zip(direction, product, strict=True)
                return jnp.abs(sum(jnp.vdot(d, h) for d, h in pairs if d.dtype != jax.dtypes.float0)) / 2.0
            return jnp.square(jax.jvp(flat, (self.arrays,), (direction,))[1]).sum() / self._scale

        self._model = jax.jit(model)

    def model(self, place: int, change: jax.Array) -> float:
        """Returns the error of changing one array by the second-order model."""
        direction = [jnp.zeros_like(array) for array in self.arrays]
        direction[place] = change
        return float(self._model(direction))

    def measured(self, results: Any) -> float:
        """Returns the change of the loss, or the squared change of the results as a share of them."""
        change = _flat(results) - self.before
        return float(jnp.abs(change[0])) if self.is_loss else float(jnp.square(change).sum()) / self._scale


def _flat(results: Any) -> jax.Array:
    """Returns all floating-point results as one vector of float32."""
    leaves = [leaf for leaf in map(jnp.asarray, jax.tree.leaves(results)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if not leaves:
        raise MemplanError("the program returns no floating-point numbers: there is no error to measure")
    return jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in leaves])
