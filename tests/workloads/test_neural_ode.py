"""The adaptive solver, against solutions in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import neural_ode

TIMES = jnp.array([0.0, 0.3, 1.0, 2.5])


def test_a_linear_equation() -> None:
    y = jnp.array([[1.0, -2.0]])
    states, tries = jax.jit(lambda y: neural_ode.solve(lambda y, t: -2 * y, y, TIMES, 1e-6))(y)
    np.testing.assert_allclose(states[:, 0], np.exp(-2 * TIMES[1:, None]) * y[0], rtol=1e-3, atol=1e-5)
    assert tries.shape == (3,)


def test_a_rate_that_depends_on_time() -> None:
    y = jnp.zeros((2, 1))
    states, _ = jax.jit(lambda y: neural_ode.solve(lambda y, t: jnp.cos(t) + 0 * y, y, TIMES, 1e-5))(y)
    np.testing.assert_allclose(states[:, 1, 0], np.sin(TIMES[1:]), atol=1e-4)


@pytest.mark.slow
def test_the_error_decides_the_number_of_steps() -> None:
    def count(tolerance: float, speed: float) -> int:
        y = jnp.ones((1, 1))
        solve = jax.jit(lambda y: neural_ode.solve(lambda y, t: speed * jnp.cos(speed * t) * y, y, TIMES, tolerance))
        return int(solve(y)[1].sum())

    assert count(1e-3, 1.0) < count(1e-6, 1.0)
    assert count(1e-3, 1.0) < count(1e-3, 10.0)


@pytest.mark.slow
def test_derivative() -> None:
    config = neural_ode.NeuralOdeConfig(width=3, hidden=4, batch=2)
    params = neural_ode.init(jax.random.key(0), config)
    y = jax.random.normal(jax.random.key(1), (2, 3))
    x = jnp.concatenate([y, jnp.full((2, 1), 0.5)], axis=1)
    w = [layer["w"] for layer in params["layers"]]
    expected = jnp.tanh(jnp.tanh(x @ w[0]) @ w[1]) @ w[2]
    np.testing.assert_allclose(neural_ode.derivative(params, y, jnp.float32(0.5)), expected, atol=1e-6)
