"""Ways to learn, against loops over samples, classes and steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import seed_learning as learning
from memplan.workloads.seed_vision import cosines


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_a_sparse_layer_is_a_dense_one_with_zeros() -> None:
    weights, sources, x = normal(3, 2), jnp.array([[0, 1], [3, 2], [1, 1]]), normal(2, 4, seed=1)
    dense = np.zeros((4, 3))
    np.add.at(dense, (np.asarray(sources), np.arange(3)[:, None]), np.asarray(weights))
    np.testing.assert_allclose(learning.sparse_layer(weights, sources, x), x @ dense, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_gradients_of_samples_are_clipped_one_by_one() -> None:
    grads = {"a": jnp.array([[3.0, 4.0], [0.3, 0.4]]), "b": jnp.zeros((2, 1))}
    np.testing.assert_allclose(learning.clipped_mean(grads, 1.0)["a"], [(0.6 + 0.3) / 2, (0.8 + 0.4) / 2], rtol=1e-5)


@pytest.mark.slow
def test_information_of_copies_and_of_strangers() -> None:
    x = jnp.arange(8) % 4
    np.testing.assert_allclose(learning.mutual_information(x, x, 4), 2.0, rtol=1e-5)
    np.testing.assert_allclose(learning.mutual_information(x, jnp.arange(8) // 4, 4), 0.0, atol=1e-6)


@pytest.mark.slow
def test_relative_representations_do_not_see_a_rotation() -> None:
    x, anchors, rotation = normal(3, 4), normal(2, 4, seed=1), jnp.linalg.qr(normal(4, 4, seed=2))[0]
    np.testing.assert_allclose(cosines(2 * x @ rotation, 2 * anchors @ rotation), cosines(x, anchors), atol=1e-5)


@pytest.mark.slow
def test_replayed_masks_give_the_network_and_its_slope() -> None:
    layers, x = [normal(3, 4), normal(4, 4, seed=1), normal(4, 2, seed=2)], normal(2, 3, seed=3)
    forward, masks = learning.forward_with_masks(layers, x)
    np.testing.assert_allclose(learning.replayed(layers, masks, x), forward, rtol=1e-5)
    slope = jax.jacobian(lambda x: learning.forward_with_masks(layers, x)[0][0, 1])(x)
    (found,) = jax.linear_transpose(lambda x: learning.replayed(layers, masks, x), x)(jnp.array([[0.0, 1], [0, 0]]))
    np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_inner_steps_of_a_quadratic() -> None:
    def loss(w: jax.Array, goal: jax.Array) -> jax.Array:
        return jnp.square(w - goal).sum() / 2

    w, goal = jnp.array([1.0]), jnp.array([3.0])
    np.testing.assert_allclose(learning.adapted(loss, w, (goal,), 0.5, 3), 3 - 2 * 0.5**3)
    slope = jax.grad(lambda w: loss(learning.adapted(loss, w, (goal,), 0.5, 3), goal))(w)
    np.testing.assert_allclose(slope, -2 * 0.5**6, rtol=1e-5)  # through all inner steps


@pytest.mark.slow
def test_word_vectors_move_only_for_words_that_occur() -> None:
    fun, (shapes, *rest) = learning.infinite_width_word2vec_train.build(tiny=True)
    params = jax.tree.map(lambda s: normal(*s.shape), shapes)
    words = [jnp.zeros(r.shape, r.dtype) for r in rest]
    moved, _ = jax.jit(fun)(params, *words)
    assert np.abs(moved["in"][0] - params["in"][0]).max() > 0
    np.testing.assert_array_equal(moved["in"][1:], params["in"][1:])


def test_task_vectors_with_no_share_leave_the_base() -> None:
    base, vectors = {"a": normal(2), "b": normal(3)}, [{"a": normal(2, seed=1), "b": normal(3, seed=2)}]
    np.testing.assert_array_equal(learning.composed(base, vectors, jnp.zeros((1, 2)))["b"], base["b"])
    found = learning.composed(base, vectors, jnp.array([[2.0, 0.0]]))
    np.testing.assert_allclose(found["a"], base["a"] + 2 * vectors[0]["a"])
    np.testing.assert_array_equal(found["b"], base["b"])


def test_the_ends_of_a_line_are_both_solutions() -> None:
    start, end = normal(3), normal(3, seed=1)
    losses = learning.along_line(lambda w: jnp.square(w).sum(), start, end, jnp.array([0.0, 0.5, 1.0]))
    expected = [np.square(w).sum() for w in (start, (start + end) / 2, end)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.slow
def test_centroid_triplets_class_by_class() -> None:
    x, labels = normal(4, 2), jnp.array([0, 0, 2, 2])
    centres = {label: np.asarray(x)[np.asarray(labels) == label].mean(0) for label in (0, 2)}
    expected = []
    for row, label in zip(np.asarray(x), np.asarray(labels), strict=True):
        own, other = (np.square(row - centres[k]).sum() for k in (label, 2 - label))
        expected.append(max(own - other + 0.3, 0))
    np.testing.assert_allclose(learning.centroid_triplet(x, labels, 4, 0.3), np.mean(expected), rtol=1e-4)
