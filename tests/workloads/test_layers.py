"""The layers that workloads share, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import _layers as nn


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_abstract_gives_shapes_in_the_dtype_asked_for() -> None:
    params = nn.abstract(nn.mlp_init, 3, 5, dtype=jnp.bfloat16)
    assert params["up"]["w"] == jax.ShapeDtypeStruct((3, 5), jnp.bfloat16)
    assert params["down"]["b"] == jax.ShapeDtypeStruct((3,), jnp.bfloat16)


def test_cast_leaves_integers() -> None:
    tree = nn.cast({"a": jnp.ones(2), "n": jnp.ones(2, jnp.int32)}, jnp.bfloat16)
    assert (tree["a"].dtype, tree["n"].dtype) == (jnp.bfloat16, jnp.int32)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal: bool) -> None:
    q, k, v = normal(0, 2, 5, 3, 4), normal(1, 2, 5, 3, 4), normal(2, 2, 5, 3, 4)
    expected = np.zeros_like(q)
    for b, t, h in np.ndindex(2, 5, 3):
        seen = t + 1 if causal else 5
        weights = np.exp(k[b, :seen, h] @ q[b, t, h] / 2.0)
        expected[b, t, h] = weights @ v[b, :seen, h] / weights.sum()
    mask = nn.causal_mask(5) if causal else None
    np.testing.assert_allclose(nn.attention(q, k, v, mask), expected, atol=1e-5)


def test_split_and_merge_heads_are_inverse() -> None:
    x = normal(0, 2, 3, 8)
    np.testing.assert_array_equal(nn.split_heads(x, 4)[1, 2, 3], x[1, 2, 6:8])
    np.testing.assert_array_equal(nn.merge_heads(nn.split_heads(x, 4)), x)


def test_causal_depthwise_conv_is_a_filter_over_the_past() -> None:
    x, w = normal(0, 2, 7, 3), normal(1, 4, 3)
    expected = np.stack([[np.convolve(x[b, :, c], w[::-1, c])[:7] for c in range(3)] for b in range(2)])
    np.testing.assert_allclose(nn.causal_depthwise_conv(w, x).swapaxes(1, 2), expected, atol=1e-5)


@pytest.mark.slow
def test_norms() -> None:
    x = 3 + 2 * normal(0, 2, 4, 4, 8)
    groups = x.reshape(2, 16, 4, 2)
    centred = groups - groups.mean((1, 3), keepdims=True)
    expected = (centred / np.sqrt(np.square(centred).mean((1, 3), keepdims=True) + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(nn.group_norm(nn.norm_init(8), x, 4), expected, atol=1e-5)
    layer = nn.layer_norm({"scale": np.full(8, 2.0), "bias": np.full(8, 1.0)}, x)
    np.testing.assert_allclose(layer.mean(-1), 1, atol=1e-5)
    np.testing.assert_allclose(layer.std(-1), 2, atol=1e-3)
    np.testing.assert_allclose(np.square(nn.rms_norm(np.ones(8), x)).mean(-1), 1, atol=1e-4)


def test_max_pool() -> None:
    x = np.arange(49.0, dtype=np.float32).reshape(1, 7, 7, 1)
    np.testing.assert_array_equal(nn.max_pool(x)[0, :, :, 0], [[16, 18, 20], [30, 32, 34], [44, 46, 48]])
    assert nn.max_pool(x, padding=1).shape == (1, 4, 4, 1)


@pytest.mark.slow
def test_cross_entropy() -> None:
    assert nn.cross_entropy(jnp.zeros((3, 8)), jnp.array([0, 1, 7])) == pytest.approx(np.log(8))
    sure = 100 * jax.nn.one_hot(jnp.array([2, 1]), 4)
    assert nn.cross_entropy(sure, jnp.array([2, 1])) == pytest.approx(0)
    assert nn.cross_entropy(sure, jnp.array([2, 0])) == pytest.approx(50)
