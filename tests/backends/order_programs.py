"""A program whose order of execution matters: what is compiled from it, and in which order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memplan.backends.order_hook import Orders, Rule
from memplan.compiler.frontends import hlo_text
from memplan.compiler.ir.graph import Graph


def wide(x: jax.Array) -> jax.Array:
    """Six branches, each wide in the middle: breadth first keeps all of them at once."""
    branches = [jnp.sin(x * i).reshape(-1)[:, None] * jnp.ones((1, 8)) for i in range(6)]
    return sum((jnp.cumsum(branch, 0).sum(0) for branch in branches), jnp.zeros(8))


X = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)


def fresh() -> Any:
    """Returns a new jitted function, so that JAX compiles the program again; its module is called `jit_step`."""

    def step(x: jax.Array) -> jax.Array:
        return wide(x)

    return jax.jit(step)


def compiled() -> Any:
    return fresh().lower(X).compile()


def temporaries(executable: Any) -> int:
    return executable.memory_analysis().temp_size_in_bytes


def entry_order(executable: Any) -> list[str]:
    return list(hlo_text.parse(executable.as_text()).entry_computation.index)


def recorded(seen: list[str]) -> Rule:
    """A rule that notes the modules that it is given and leaves them."""

    def rule(graph: Graph) -> Orders | None:
        seen.append(graph.name)
        return None

    return rule
