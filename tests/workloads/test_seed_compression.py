"""Compressed networks: each form against the dense one that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import _layers as nn
from memplan.workloads import seed_compression as compression


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.slow
def test_attention_in_a_full_basis_is_plain_attention() -> None:
    q, k, v = normal(2, 3, 4), normal(2, 3, 5, 4, seed=1), normal(2, 3, 5, 4, seed=2)
    basis = jnp.stack([jnp.linalg.qr(normal(4, 4, seed=s))[0] for s in range(3)])
    found = compression.projected_attention(q, k @ basis, v @ basis, basis, basis)
    expected = nn.attention(q[:, None], k.swapaxes(1, 2), v.swapaxes(1, 2))[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_a_chain_of_cores_is_the_matrix_that_it_contracts_to() -> None:
    cores = [normal(1, 2, 3, 2), normal(2, 3, 2, 4, seed=1), normal(4, 2, 2, 1, seed=2)]
    dense = jnp.einsum("aipb,bjqc,ckrd->ijkpqr", *cores).reshape(12, 12)
    x = normal(5, 12, seed=3)
    np.testing.assert_allclose(compression.matrix_product_operator(cores, x), x @ dense, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_weights_from_a_codebook() -> None:
    codes, codebook = jnp.array([[0, 2], [1, 1]], jnp.uint8), normal(3, 2)
    dense = compression.from_codebook(codes, codebook)
    np.testing.assert_array_equal(
        dense, np.concatenate([codebook[np.array([0, 1])], codebook[np.array([2, 1])]], axis=1)
    )


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_ordered_dropout_of_singular_vectors_is_the_truncated_decomposition(rank: int) -> None:
    matrix, x = np.asarray(normal(4, 3)), normal(5, 4, seed=1)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    truncated = (u[:, :rank] * s[:rank]) @ vt[:rank]
    found = compression.ordered_dropout(jnp.asarray(u * s), jnp.asarray(vt.T), x, jnp.int32(rank))
    np.testing.assert_allclose(found, x @ truncated, atol=1e-5)
    # Of all matrices of this rank, none is nearer (Eckart and Young 1936).
    other = np.asarray(normal(4, rank, seed=2) @ normal(rank, 3, seed=3))
    assert np.linalg.norm(matrix - truncated) <= np.linalg.norm(matrix - other)


@pytest.mark.slow
def test_compressed_gradients() -> None:
    gradient = normal(6, 4)
    kept = np.asarray(compression.top_k(gradient, 5))
    assert (kept != 0).sum() == 5
    assert np.abs(kept[kept != 0]).min() >= np.abs(np.asarray(gradient)[kept == 0]).max()
    keys = jax.random.split(jax.random.key(0), 400)
    rounded = jax.vmap(lambda key: compression.quantized(gradient, 4, key))(keys)
    norm = float(jnp.linalg.norm(gradient))
    np.testing.assert_allclose(rounded / norm * 4, jnp.round(rounded / norm * 4), atol=1e-4)
    np.testing.assert_allclose(rounded.mean(0), gradient, atol=norm / 4 * 4 / 20)  # four standard errors
    low = normal(6, 2, seed=1) @ normal(2, 4, seed=2)
    np.testing.assert_allclose(compression.power_sgd(low, normal(4, 2, seed=3)), low, atol=1e-4)


@pytest.mark.slow
def test_rounded_weights_and_their_slope() -> None:
    w = normal(5, 3)
    few = compression.fake_quantized(w, 3)
    assert all(len(np.unique(np.round(column, 5))) <= 7 for column in np.asarray(few).T)
    many = compression.fake_quantized(w, 16)
    np.testing.assert_allclose(many, w, atol=1e-3)
    # The derivative goes through the rounding: a Hessian-vector product of a square is twice the vector.
    curve = jax.jvp(jax.grad(lambda w: jnp.square(compression.rounded(w)).sum()), (w,), (jnp.ones_like(w),))[1]
    np.testing.assert_allclose(curve, 2.0)


def test_separable_kernels_are_an_outer_product() -> None:
    x, along, across = normal(1, 6, 5, 2), normal(3, 2, seed=1), normal(3, 2, seed=2)
    kernel = jnp.einsum("ac,bc->abc", along, across)
    expected = jnp.concatenate([nn.conv2d(kernel[..., c : c + 1, None], x[..., c : c + 1]) for c in range(2)], axis=-1)
    np.testing.assert_allclose(compression.separable(x, along, across), expected, atol=1e-5)


def test_the_product_of_a_deep_linear_network() -> None:
    matrices, x = [normal(3, 3, seed=s) for s in range(3)], normal(2, 3, seed=4)
    one_by_one = x
    for matrix in matrices:
        one_by_one = one_by_one @ matrix.T
    np.testing.assert_allclose(x @ compression.product_of(matrices).T, one_by_one, rtol=1e-4, atol=1e-5)
    scaled = [2.0 * jnp.eye(3), 3.0 * jnp.eye(3)]
    np.testing.assert_allclose(jnp.linalg.svd(compression.product_of(scaled), compute_uv=False), 6.0)


@pytest.mark.slow
def test_an_entangled_weight_with_one_choice_is_a_block_of_the_whole() -> None:
    weight, widths = normal(4, 4), ((4, 4), (2, 4), (2, 2))
    for number, (rows, columns) in enumerate(widths):
        found = compression.entangled_weight(weight, jnp.eye(3)[number], widths)
        np.testing.assert_array_equal(found[:rows, :columns], weight[:rows, :columns])
        assert not found[rows:].any()
        assert not found[:, columns:].any()
