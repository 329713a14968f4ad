"""Layers that keep a symmetry, against quadrature and under the symmetry itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import seed_equivariant as equivariant
from memplan.workloads._weights import random_params


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def gaunt_coefficients(degree: int, out_degree: int) -> np.ndarray:
    """Integrals over the sphere of three harmonics, by a quadrature that is exact for them."""
    nodes, weights = np.polynomial.legendre.leggauss(2 * degree + out_degree + 1)
    count = 2 * (2 * degree + out_degree) + 1
    azimuth = 2 * np.pi * np.arange(count) / count
    polar, azimuth = np.meshgrid(np.arccos(nodes), azimuth, indexing="ij")
    low, high = (equivariant.spherical_harmonics(d, polar, azimuth) for d in (degree, out_degree))
    return np.einsum("p,pai,paj,pak->ijk", weights * 2 * np.pi / count, low, low, high)


def test_the_harmonics_are_orthonormal() -> None:
    products = gaunt_coefficients(2, 0)[..., 0] * np.sqrt(4 * np.pi)
    np.testing.assert_allclose(products, np.eye(9), atol=1e-6)


@pytest.mark.slow
def test_a_product_by_fft_is_the_sum_over_gaunt_coefficients() -> None:
    x, y = normal(2, 9), normal(2, 9, seed=1)
    for out_degree in (2, 4):
        expected = np.einsum("bi,bj,ijk->bk", x, y, gaunt_coefficients(2, out_degree))
        np.testing.assert_allclose(equivariant.gaunt_product(x, y, 2, out_degree), expected, atol=1e-4)


@pytest.mark.slow
def test_gaunt_coefficients_are_products_of_clebsch_gordan_ones() -> None:
    # Y10 Y10 = sqrt(1/4π) Y00 + sqrt(1/5π) Y20: <1010|00>² = 1/3, <1010|20>² = 2/3 in the formula of Gaunt.
    x = jnp.zeros(4).at[2].set(1.0)
    found = equivariant.gaunt_product(x, x, 1, 2)
    for degree, place, squared in ((0, 0, 1 / 3), (2, 6, 2 / 3)):
        np.testing.assert_allclose(found[place], np.sqrt(9 / (4 * np.pi * (2 * degree + 1))) * squared, atol=1e-5)
    assert np.abs(np.delete(np.asarray(found), [0, 6])).max() < 1e-5


@pytest.mark.slow
def test_polynomials_do_not_see_the_order_of_nodes() -> None:
    fun, (shapes, graphs) = equivariant.equivariant_polynomials.build(tiny=True)
    params, x = random_params(shapes), normal(*graphs.shape)
    order = np.array([2, 0, 1])
    run = jax.jit(fun)
    np.testing.assert_allclose(run(params, x[:, order][:, :, order]), run(params, x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_sheaf_laplacian_is_the_square_of_its_boundary() -> None:
    edges, maps, x = jnp.array([[0, 1, 2], [1, 2, 0]]), normal(2, 3, 2, 2), normal(3, 2, 4, seed=1)
    boundary = np.zeros((6, 6))
    for edge, (a, b) in enumerate(np.asarray(edges).T):
        boundary[2 * edge : 2 * edge + 2, 2 * a : 2 * a + 2] += maps[0, edge]
        boundary[2 * edge : 2 * edge + 2, 2 * b : 2 * b + 2] -= maps[1, edge]
    expected = (boundary.T @ boundary @ np.asarray(x).reshape(6, 4)).reshape(3, 2, 4)
    np.testing.assert_allclose(equivariant.sheaf_laplacian(maps, edges, x), expected, rtol=1e-4, atol=1e-5)
