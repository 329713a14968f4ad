"""Attention and memory, against sums that are written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import seed_attention as attention
from memplan.workloads._weights import Weights, random_params


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_a_stored_pattern_is_retrieved_from_its_neighbourhood() -> None:
    patterns = 4 * jnp.eye(5)
    found = attention.retrieve(patterns, patterns[1:3] + 0.3 * normal(2, 5), 2.0, 3)
    np.testing.assert_allclose(found, patterns[1:3], atol=1e-3)


@pytest.mark.slow
def test_the_tensor_brain_names_what_it_was_shown() -> None:
    params = {"table": 10.0 * jnp.eye(4), "mix": jnp.zeros((4, 4)), "bias": jnp.full(4, -50.0)}
    state, sure = attention.remember(Weights(params), jnp.eye(4)[2:3], indices=4, steps=3)
    np.testing.assert_allclose(state, 10.0 * jnp.eye(4)[2:3], atol=0.1)
    assert sure.shape == (3, 1)
    assert float(sure[-1, 0]) > 0.99


@pytest.mark.slow
def test_random_heads_one_by_one() -> None:
    weights, x = normal(3, 4, 4), normal(5, 4, seed=1)
    for head, found in zip(weights, attention.random_attention(weights, x), strict=True):
        logits = np.array([row @ head @ x[-1] for row in x]) / 2.0
        shares = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(found, shares @ x, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_attention_to_pairs_is_attention_to_n_squared_tokens() -> None:
    q, k1, k2, v1, v2 = (normal(4, 3, seed=s) for s in range(5))
    found = attention.kronecker_attention(q, (k1, k2), (v1, v2), 2)
    keys, values = ((a[:, None] * b[None]).reshape(16, 3) for a, b in ((k1, k2), (v1, v2)))
    np.testing.assert_allclose(found, jax.nn.softmax(q @ keys.T / 3) @ values, atol=1e-5)


@pytest.mark.slow
def test_the_strongest_period_of_a_wave() -> None:
    time = jnp.arange(24.0)
    x = jnp.sin(2 * jnp.pi * 3 * time / 24)[None, :, None] * jnp.ones((1, 1, 2))
    frequencies, strengths = attention.first_harmonics(x, 6)
    assert frequencies[int(strengths[0].argmax())] == 3
    # With kernels of zero nothing is added: folding and unfolding lose no step.
    shapes: dict[str, jax.ShapeDtypeStruct] = {}
    jax.eval_shape(lambda x: attention.times_block(Weights(shapes, recording=True), x, 1, 2), x)
    params = jax.tree.map(lambda s: jnp.zeros(s.shape), shapes)
    np.testing.assert_array_equal(attention.times_block(Weights(params), x, 1, 2), x)


@pytest.mark.slow
def test_a_plane_between_its_pixels() -> None:
    plane = normal(3, 3, 2)
    corners = jnp.array([[0.0, 0.0], [0.5, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(
        attention.at_points(plane, corners), plane[np.array([0, 1, 2]), np.array([0, 2, 2])], atol=1e-6
    )
    middle = attention.at_points(plane, jnp.array([[0.25, 0.25]]))[0]
    np.testing.assert_allclose(middle, plane[:2, :2].mean((0, 1)), atol=1e-6)


@pytest.mark.slow
def test_layers_of_a_picture_see_one_another() -> None:
    fun, (params, latents, time) = attention.layer_decomp.build(tiny=True)
    made = random_params(params)
    x = normal(*latents.shape).astype(latents.dtype)
    told = jnp.ones(time.shape, time.dtype)
    run = jax.jit(lambda x: fun(made, x, told))
    changed = np.asarray(run(x.at[:, 1].add(1.0)) - run(x), np.float32)
    assert np.abs(changed[:, 0]).max() > 0


@pytest.mark.slow
def test_the_gradient_of_microbatches_is_that_of_the_batch() -> None:
    params, rows = normal(3), normal(6, 3, seed=1)

    def loss(params: jax.Array, rows: jax.Array) -> jax.Array:
        return jnp.square(rows @ params).mean()

    value, grads = attention.microbatched(loss, params, rows, 3)
    expected, slope = jax.value_and_grad(loss)(params, rows)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grads, slope, rtol=1e-5)
