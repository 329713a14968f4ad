"""Convolutional networks: layers against numpy, penalties where they vanish, attacks within their reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import _layers as nn
from memplan.workloads import seed_vision as vision
from memplan.workloads._weights import max_pool2


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.slow
def test_evo_norm_by_groups() -> None:
    x = normal(2, 3, 3, 4)
    found = vision.evo_norm(x, jnp.ones(4), jnp.zeros(4), jnp.full(4, 1.5), 2)
    wide = np.asarray(x)
    for group in (slice(0, 2), slice(2, 4)):
        part = wide[..., group]
        deviation = np.sqrt(part.var((1, 2, 3), keepdims=True) + 1e-5)
        np.testing.assert_allclose(
            found[..., group], part / (1 + np.exp(-1.5 * part)) / deviation, rtol=1e-4, atol=1e-5
        )


def test_cosines_do_not_see_lengths() -> None:
    x, y = normal(3, 4), normal(2, 4, seed=1)
    expected = (x @ y.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(vision.cosines(7 * x, y), expected, rtol=1e-4)


@pytest.mark.slow
def test_contrast_weighted_by_one_partner_is_cross_entropy() -> None:
    similarity = normal(3, 3)
    partners = np.array([1, 2, 0])
    logits = np.where(np.eye(3, dtype=bool), -np.inf, similarity)
    found = vision.weighted_contrast(similarity, jnp.eye(3)[partners])
    expected = np.mean([np.log(np.exp(row).sum()) - row[p] for row, p in zip(logits, partners, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_sum_of_kronecker_products_is_the_dense_kernel() -> None:
    left, right = normal(2, 2, 2), normal(2, 1, 1, 3, 2, seed=1)
    dense = sum(np.kron(np.asarray(a), np.asarray(f)[0, 0]) for a, f in zip(left, right, strict=True))
    kernel = vision.kronecker_sum(left, right)
    np.testing.assert_allclose(kernel[0, 0], dense, rtol=1e-5)
    x = normal(1, 2, 2, 6, seed=2)
    np.testing.assert_allclose(nn.conv2d(kernel, x), x @ dense, rtol=1e-4, atol=1e-5)


def test_a_preconditioned_gradient_solves_the_damped_moment() -> None:
    x, gradient = normal(5, 3), normal(3, 2, seed=1)
    found = vision.preconditioned(x, gradient, 0.1)
    np.testing.assert_allclose((x.T @ x / 5 + 0.1 * np.eye(3)) @ found, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_info_nce_of_every_pair() -> None:
    a, b = normal(3, 4), normal(3, 4, seed=1)
    both = np.concatenate([a, b]) / np.linalg.norm(np.concatenate([a, b]), axis=1)[:, None]
    logits = both @ both.T / 0.5
    np.fill_diagonal(logits, -np.inf)
    expected = np.mean([np.log(np.exp(logits[i]).sum()) - logits[i, (i + 3) % 6] for i in range(6)])
    np.testing.assert_allclose(vision.info_nce(a, b), expected, rtol=1e-5)


@pytest.mark.slow
def test_orthogonal_kernels_have_no_penalty() -> None:
    rotation, _ = jnp.linalg.qr(normal(4, 4))
    orthogonal = jnp.zeros((3, 3, 4, 4)).at[1, 1].set(rotation)
    np.testing.assert_allclose(vision.self_overlap(orthogonal), 0, atol=1e-9)
    # A kernel of ones overlaps with itself at shifts by (i, j) in (3 - |i|) (3 - |j|) taps.
    ones = jnp.ones((3, 3, 1, 1)) / 3
    taps = np.array([1, 2, 3, 2, 1]) / 3
    overlaps = np.outer(taps, taps)
    overlaps[2, 2] -= 1
    np.testing.assert_allclose(vision.self_overlap(ones), np.square(overlaps).sum(), rtol=1e-5)


@pytest.mark.slow
def test_mixup_of_a_whole_share_is_the_plain_loss() -> None:
    logits, labels, partners = normal(3, 4), jnp.array([0, 1, 2]), jnp.array([2, 0, 1])
    plain = nn.cross_entropy(logits, labels)
    np.testing.assert_allclose(vision.mixed_loss(logits, labels, partners, jnp.float32(1)), plain)
    both = vision.mixed_loss(logits, labels, partners, jnp.float32(0.5))
    np.testing.assert_allclose(both, (plain + nn.cross_entropy(logits, labels[partners])) / 2, rtol=1e-6)


@pytest.mark.slow
def test_holes_are_filled_from_the_nearest_window_that_is_known() -> None:
    x, known = normal(1, 4, 4, 2), jnp.ones((1, 4, 4, 1)).at[0, 0, 0].set(0).at[0, :2, 2:].set(0)
    found = vision.filled(x, known, 2)
    np.testing.assert_allclose(found * known, x * known)
    near = np.asarray(x)[0, [0, 1, 1], [1, 0, 1]].mean(0)
    np.testing.assert_allclose(found[0, 0, 0], near, rtol=1e-5)
    seen = np.asarray(x)[0][np.asarray(known)[0, ..., 0] > 0].mean(0)
    np.testing.assert_allclose(found[0, 0, 3], seen, rtol=1e-5)
    assert max_pool2(x).shape == (1, 2, 2, 2)


def test_an_attack_stays_within_reach_and_raises_the_loss() -> None:
    x, goal = normal(2, 3), normal(2, 3, seed=1)

    def loss(x: jax.Array) -> jax.Array:
        return jnp.square(x - goal).sum()

    found = vision.attacked(loss, x, 0.1, 0.03, 10)
    np.testing.assert_allclose(np.abs(found - x), 0.1, atol=1e-6)  # a square grows up to the border
    assert loss(found) > loss(x)


@pytest.mark.slow
def test_k_means_finds_two_heaps() -> None:
    heaps = jnp.concatenate([0.1 * normal(4, 2), 5 + 0.1 * normal(4, 2, seed=1)])
    centres = vision.k_means(heaps, heaps[np.array([0, 5])], 3)
    np.testing.assert_allclose(centres, [heaps[:4].mean(0), heaps[4:].mean(0)], atol=1e-5)
    np.testing.assert_array_equal(vision.nearest(heaps, centres), [0] * 4 + [1] * 4)


@pytest.mark.slow
def test_distances_to_prototypes_vanish_at_a_prototype() -> None:
    codes, prototypes = normal(4, 3), normal(2, 3, seed=1)
    expected = [[np.square(code - prototype).sum() for prototype in prototypes] for code in codes]
    np.testing.assert_allclose(vision.square_distances(codes, prototypes), expected, rtol=1e-4)
    np.testing.assert_allclose(np.diag(vision.square_distances(codes, codes)), 0, atol=1e-5)
