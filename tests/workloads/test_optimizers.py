"""The optimizers, against their formulas worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import _optimizers as optimizers


def test_sgd() -> None:
    assert optimizers.sgd({"w": jnp.array(3.0)}, {"w": jnp.array(2.0)}, 0.5) == {"w": 2.0}


def test_momentum_remembers() -> None:
    params = jnp.array(1.0)
    velocity = optimizers.momentum_init(params)
    params, velocity = optimizers.momentum(params, velocity, jnp.array(1.0), rate=0.1, decay=0.5)
    params, velocity = optimizers.momentum(params, velocity, jnp.array(1.0), rate=0.1, decay=0.5)
    np.testing.assert_allclose([params, velocity], [1 - 0.1 - 0.15, 1.5], rtol=1e-6)


@pytest.mark.slow
def test_adam_steps_by_the_rate_whatever_the_gradients_scale() -> None:
    params = jnp.array([1.0, 1.0])
    state = optimizers.adam_init(params)
    for count in (1, 2):
        params, state = optimizers.adam(params, state, jnp.array([1e-3, -1e3]), rate=0.1)
        np.testing.assert_allclose(params, [1 - 0.1 * count, 1 + 0.1 * count], rtol=1e-4)
    assert state["step"] == 2
