"""Equations: each program against the closed form, or against the same solution by other means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import neural_ode
from memplan.workloads import seed_physics as physics
from memplan.workloads._weights import Weights


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_a_v_cycle_with_the_kernels_of_multigrid_solves_poissons_equation() -> None:
    side, levels = 8, 3
    laplacian = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)[..., None, None]
    smooth = np.zeros((3, 3, 1, 1), np.float32)
    smooth[1, 1] = 0.8 / 4  # damped Jacobi
    params = {
        f"level{level}": {
            "a": laplacian,
            "smooth1": smooth,
            "smooth2": smooth,
            "down": np.ones((2, 2, 1, 1), np.float32),  # the coarse operator is the same stencil at twice the distance
            "up": np.ones((1, 1, 1, 1), np.float32),
        }
        for level in range(levels)
    }
    f = normal(1, side, side, 1)
    cycle = jax.jit(lambda u: physics.v_cycle(Weights(params), f, u, levels))
    u, dense = jnp.zeros_like(f), np.zeros((side * side, side * side))
    for row in range(side):
        for column in range(side):
            here = row * side + column
            dense[here, here] = 4
            for r, c in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if 0 <= r < side and 0 <= c < side:
                    dense[here, r * side + c] = -1
    for _ in range(25):
        u = cycle(u)
    np.testing.assert_allclose(u.ravel(), np.linalg.solve(dense, np.asarray(f).ravel()), atol=1e-3)


@pytest.mark.slow
def test_an_embedded_step_of_a_linear_equation() -> None:
    y, times = jnp.ones((2, 3)), jnp.linspace(0.0, 1.0, 4)
    states, _ = jax.jit(lambda y: neural_ode.solve(lambda y, t: -2.0 * y, y, times, 1e-5))(y)
    np.testing.assert_allclose(states[:, 0, 0], np.exp(-2 * np.asarray(times[1:])), rtol=1e-3)
    # A rate of change that is constant is integrated without error.
    params = {
        "rate": {"0": {"w": jnp.zeros((4, 8)), "b": jnp.zeros(8)}, "1": {"w": jnp.zeros((8, 3)), "b": jnp.ones(3)}}
    }
    end, error = physics.local_error(Weights(params), y, jnp.float32(0), 0.25)
    np.testing.assert_allclose(end, 1.25, rtol=1e-6)
    np.testing.assert_allclose(error, 0, atol=1e-7)


def test_the_filter_gives_the_posterior_of_all_that_was_seen() -> None:
    transition, noise, read = 0.9 * jnp.eye(1), 0.5 * jnp.eye(1), jnp.ones(1)
    seen = normal(4)
    found = physics.kalman(transition, noise, read, jnp.float32(0.3), seen)[:, 0]
    covariance = np.zeros((4, 4))
    for i in range(4):
        for j in range(4):
            covariance[i, j] = sum(0.5 * 0.9 ** (i - k) * 0.9 ** (j - k) for k in range(min(i, j) + 1))
    for last in range(4):
        known = slice(0, last + 1)
        gram = covariance[known, known] + 0.3 * np.eye(last + 1)
        np.testing.assert_allclose(found[last], covariance[last, known] @ np.linalg.solve(gram, seen[known]), rtol=1e-4)


@pytest.mark.slow
def test_scattering_does_not_see_a_shift_and_convolves_by_fft() -> None:
    x = normal(1, 16)
    found = physics.scatter(x, 3, 2)
    assert found.shape == (1, 1 + 3 + 3)
    np.testing.assert_allclose(physics.scatter(jnp.roll(x, 5, 1), 3, 2), found, atol=1e-5)
    taps = np.fft.ifft(physics.wavelets(16, 3)[1])
    direct = [sum(taps[(t - s) % 16] * x[0, s] for s in range(16)) for t in range(16)]
    np.testing.assert_allclose(found[0, 2], np.abs(direct).mean(), rtol=1e-4)


def test_a_circuit_is_its_unitary_matrix() -> None:
    rng = np.random.default_rng(0)
    gates = np.linalg.qr(rng.standard_normal((2, 2, 4, 4)) + 1j * rng.standard_normal((2, 2, 4, 4)))[0].astype(
        np.complex64
    )
    state = (rng.standard_normal(8) + 1j * rng.standard_normal(8)).astype(np.complex64)
    expected = state
    for layer in gates:
        expected = np.kron(layer[0], np.eye(2)) @ expected
        expected = np.kron(np.eye(2), layer[1]) @ expected
    found = physics.circuit(jnp.asarray(gates), jnp.asarray(state))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(state), rtol=1e-5)


def test_a_global_kernel_by_fft_is_the_direct_sum() -> None:
    u, k = normal(1, 2, 6), normal(2, 6, seed=1)
    direct = np.zeros((1, 2, 6))
    for t in range(6):
        for s in range(6):
            direct[:, :, t] += u[:, :, s] * k[:, (t - s) % 6]
    np.testing.assert_allclose(physics.global_conv(u, k), direct, atol=1e-5)


def test_moments_of_a_product_with_random_signs() -> None:
    weights, x = 0.5 * normal(3, 2), normal(1, 3, seed=1)
    mean, variance = physics.moments_through(weights, x, jnp.zeros_like(x))
    share = (1 + np.tanh(np.asarray(weights))) / 2
    first, second = np.zeros((1, 2)), np.zeros((1, 2))
    for signs in np.ndindex(2, 2, 2):  # each output has its own three weights
        sign = np.array(signs)[:, None] * 2 - 1
        chance = np.where(sign > 0, share, 1 - share).prod(0)
        value = np.asarray(x) @ np.broadcast_to(sign, (3, 2))
        first, second = first + chance * value, second + chance * value**2
    np.testing.assert_allclose(mean, first, rtol=1e-4)
    np.testing.assert_allclose(variance, second - first**2, rtol=1e-4)
