"""Scenes and avatars: grids at their corners, Gaussians one by one, layers that hide one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import seed_rendering as rendering
from memplan.workloads.rendering import blend


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.slow
def test_a_hash_grid_holds_its_table_at_corners_and_means_between() -> None:
    table = normal(1, 16, 2)
    corners = np.array([[0, 0, 0], [1, 0, 2]], np.uint32)
    hashed = corners * rendering.PRIMES
    expected = table[0, (hashed[:, 0] ^ hashed[:, 1] ^ hashed[:, 2]) & np.uint32(15)]
    found = rendering.hash_grid(table, jnp.asarray(corners / 4, jnp.float32), (4,))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    ends = rendering.hash_grid(table, jnp.array([[0.0, 0.0, 0.0], [0.25, 0.0, 0.0]]), (4,))
    middle = rendering.hash_grid(table, jnp.array([[0.125, 0.0, 0.0]]), (4,))
    np.testing.assert_allclose(middle[0], ends.mean(0), atol=1e-6)


@pytest.mark.slow
def test_factors_multiply_along_their_axes() -> None:
    vectors, planes = normal(3, 3, 1), normal(3, 3, 3, 1, seed=1)
    found = rendering.vector_matrix(vectors, planes, jnp.array([[0.0, 0.5, 1.0]]))[0]
    a, b, c = (planes[0, 1, 2, 0], planes[1, 0, 2, 0], planes[2, 0, 1, 0])
    expected = [vectors[0, 0, 0] * a, vectors[1, 1, 0] * b, vectors[2, 2, 0] * c]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_what_is_dense_hides_what_is_behind_it() -> None:
    colour = normal(1, 3, 3)
    np.testing.assert_allclose(blend(jnp.array([[0.0, 1e3, 1.0]]), colour, jnp.float32(1.0)), colour[:, 1], atol=1e-6)


@pytest.mark.slow
def test_gaussians_are_drawn_nearest_first_in_any_order() -> None:
    means, depths = jnp.full((2, 2), 0.5), jnp.array([2.0, 1.0])
    sizes, colours = jnp.full(2, 10.0), jnp.array([[1.0, 0, 0, 0.5], [0, 1.0, 0, 0.8]])
    picture = rendering.splat(means, depths, sizes, colours, 2, 2)
    fade = np.exp(-2 * 0.25**2 / 200)
    np.testing.assert_allclose(picture[..., 1], 0.8 * fade, rtol=1e-4)
    np.testing.assert_allclose(picture[..., 0], (1 - 0.8 * fade) * 0.5 * fade, rtol=1e-4)
    again = rendering.splat(means[::-1], depths[::-1], sizes[::-1], colours[::-1], 2, 4)
    np.testing.assert_allclose(picture, again, rtol=1e-6)


def test_layers_in_a_loop_are_blended_as_one_by_one() -> None:
    layers = jax.nn.sigmoid(normal(3, 2, 4))
    colour, passed = 0.0, 1.0
    for layer in np.asarray(layers):
        colour, passed = colour + passed * layer[:, 3:] * layer[:, :3], passed * (1 - layer[:, 3:])
    np.testing.assert_allclose(rendering.composite(layers), colour, rtol=1e-5)


@pytest.mark.slow
def test_layers_and_gaussians_of_whole_programs() -> None:
    """Each step moves only what it trains: the picture's Gaussians under score distillation, not the U-Net's Jacobian."""
    fun, args = rendering.gala_train.build(tiny=True)
    params = jax.tree.map(lambda s: jnp.full(s.shape, 0.05, s.dtype), args[0])
    points, seed = normal(*args[1].shape), jnp.int32(3)
    moved, loss = jax.jit(fun)(params, points, seed)
    assert np.isfinite(loss)
    assert np.abs(moved["gaussians"] - params["gaussians"]).max() > 0
    for before, after in zip(jax.tree.leaves(params["unet"]), jax.tree.leaves(moved["unet"]), strict=True):
        np.testing.assert_array_equal(before, after)
