"""Training steps whose memory is to be cut: what one is, and where it is registered. `memplan bench fit` measures them.

>>> from memplan.workloads import train_step
>>> fun, args = train_step.get("lstm").build("tiny")

Each file `train_*.py` holds the steps of one family of models. No step recomputes anything by itself. Its blocks are
marked, so that `train_blocks.recomputing` can trace it with `jax.checkpoint` around every block, around segments of
blocks, or around the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from memplan.compiler.errors import MemplanError
from memplan.compiler.registry import Registry
from memplan.workloads import _optimizers as optimizers
from memplan.workloads.registry import Built
from memplan.workloads.train_blocks import value_and_grad

# Sizes of a step: for tests, for measuring on a CPU in less than a second, and for one chip of a TPU v5e.
SIZES = ("tiny", "small", "real")

Loss = Callable[..., jax.Array]


@dataclass(frozen=True)
class TrainStep:
    """A training step that is to run in less memory.

    Attributes:
      name: as in `train_step.get(name)`.
      description: one line: architecture and optimizer.
      build_size: takes one of `SIZES` and returns `(fun, args)`, as `Workload.build` does.
      donate_argnums: arguments whose memory the results may reuse, as for `jax.jit`.
    """

    name: str
    description: str
    build_size: Callable[[str], Built]
    donate_argnums: tuple[int, ...] = (0, 1)

    def build(self, size: str) -> Built:
        """Returns `(fun, args)` of a size: a function named after the step, and the shapes of its arguments.

        The function is a new one at each call, so that JAX traces it again.

        Raises:
          MemplanError: there is no such size.
        """
        if size not in SIZES:
            raise MemplanError(f"a training step has no size {size!r}; sizes are {', '.join(SIZES)}")
        fun, args = self.build_size(size)
        fun.__name__ = self.name
        return fun, args


_registry: Registry[TrainStep] = Registry(
    "training step", "memplan.workloads", TrainStep, MemplanError, group="memplan.training_steps"
)
get = _registry.get
names = _registry.names


def adam_step(loss: Loss, params: Any, *batch: Any, clipped: bool = False) -> Built:
    """Returns one step of Adam as `(fun, args)`: `fun(params, state, *batch)` gives `(params, state, loss)`.

    Args:
      loss: a function of `(params, *batch)` with a scalar result.
      params: shapes of the parameters, a pytree.
      batch: shapes of the other arguments.
      clipped: whether the norm of all gradients together is clipped to 1 before they are used.
    """

    def step(params: Any, state: Any, *batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads = value_and_grad(loss)(params, *batch)
        if clipped:
            norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
            grads = jax.tree.map(lambda g: g / jnp.maximum(norm, 1.0), grads)
        params, state = optimizers.adam(params, state, grads, rate=3e-4)
        return params, state, value

    return step, (params, jax.eval_shape(optimizers.adam_init, params), *batch)


def sgd_step(loss: Loss, params: Any, *batch: Any) -> Built:
    """Returns one step of gradient descent as `(fun, args)`: `fun(params, *batch)` gives `(params, loss)`."""

    def step(params: Any, *batch: Any) -> tuple[Any, jax.Array]:
        value, grads = value_and_grad(loss)(params, *batch)
        return optimizers.sgd(params, grads, rate=1e-2), value

    return step, (params, *batch)
