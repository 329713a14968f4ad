"""Random programs with states: all fusion, all order, all layout at once, against JAX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from exported import needs, run
from jax import lax

from memplan.backends.c.export import export_c

pytestmark = needs("gcc")

_SHAPE = (4, 6)
_ONE = [
    lambda x: -x, jnp.tanh, lambda x: x * 0.5 + 1, lambda x: x[::-1], lambda x: x.T.reshape(4, 6), lambda x: jnp.where(x > 0, x, 0.1 * x),
    lambda x: x - x.mean(1, keepdims=True), lambda x: jnp.clip(jnp.round(8 * x), -128, 127).astype(jnp.int8).astype(jnp.float32) / 8,
    lambda x: jnp.pad(x[1:, :-1], ((0, 1), (1, 0))), lambda x: jnp.concatenate([x[:, 3:], x[:, :3]], 1), lambda x: x.sum(0) + x,
    lambda x: lax.conv_general_dilated(x.reshape(1, 2, 2, 6), jnp.full((3, 3, 1, 6), 0.2), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=6).reshape(4, 6),
    lambda x: jnp.tanh(x @ (jnp.arange(36.0).reshape(6, 6) / 36 - 0.4)), lambda x: x * (x > 0.2),
]  # fmt: skip
_TWO: list[Callable[[Any, Any], Any]] = [
    lambda x, y: x + y, lambda x, y: x * y, lambda x, y: jnp.where(x > y, x, y), lambda x, y: jnp.tanh((x @ y.T) @ y / 4),
    lambda x, y: jnp.maximum(x, y) - y, lambda x, y: jnp.concatenate([x[:2], y[2:]]),
]  # fmt: skip


def random_function(seed: int) -> Callable[..., Any]:
    """Returns a function of two states and two inputs whose equations are drawn."""
    random = np.random.default_rng(seed)
    plan = [
        (int(random.integers(len(_ONE))), int(random.integers(len(_TWO))), random.random(), random.integers(0, 4 + k, 2).tolist())
        for k in range(14)
    ]  # fmt: skip

    def function(first: Any, second: Any, x: Any, y: Any) -> Any:
        values = [first, second, x, y]
        for one, two, share, (a, b) in plan:
            made = _ONE[one](values[a]) if share < 0.6 else _TWO[two](values[a], values[b])
            values.append(jnp.clip(made, -4, 4))
        new = values[plan[-1][3][0] + 1]
        return first + 0.1 * values[-1], second - 0.1 * new, values[-2], values[-3].sum()

    return function


@pytest.mark.parametrize("seed", range(2))
def test_a_random_program_agrees_with_jax(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    operands = [random.normal(size=_SHAPE).astype(np.float32) for _ in range(4)]
    made = export_c(random_function(seed), *operands, state_argnums=(0, 1), effort="fast")
    assert len(run(made, tmp_path)) == 4
