"""ResNet: its size, its normalisation, and that training learns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import _layers as nn
from memplan.workloads import _optimizers as optimizers
from memplan.workloads import resnet

TINY = resnet.TINY


def test_the_parameters_of_resnet_50() -> None:
    params, stats = nn.abstract(resnet.init, resnet.ResNetConfig())
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 25_557_032
    assert len(jax.tree.leaves(stats)) == 2 * 53
    assert sum(name.startswith("conv") for block in params["blocks"] for name in block) == 3 * 16 + 4


@pytest.mark.slow
def test_batch_norm_uses_and_moves_the_right_statistics() -> None:
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 5, 5, 3))
    params = {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
    stats = {"mean": jnp.zeros(3), "variance": jnp.ones(3)}
    y, moved = resnet.batch_norm(params, stats, x, train=True)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(moved["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(moved["variance"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-4)
    y, kept = resnet.batch_norm(params, {"mean": jnp.full(3, 3.0), "variance": jnp.full(3, 4.0)}, x, train=False)
    np.testing.assert_allclose(y, (x - 3) / 2, atol=1e-4)
    np.testing.assert_array_equal(kept["mean"], 3)


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any]:
    return jax.jit(resnet.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)


@pytest.mark.slow
def test_inference_shape(model: tuple[Any, Any]) -> None:
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
    logits, _ = jax.eval_shape(lambda i: resnet.apply(*model, i, TINY, train=False), images)
    assert logits == jax.ShapeDtypeStruct((4, 5), jnp.float32)


@pytest.mark.slow
def test_training_lowers_the_loss(model: tuple[Any, Any]) -> None:
    params, stats = model
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    labels = jnp.array([0, 1, 2, 3])
    step = jax.jit(lambda p, s, v: resnet.train_step(p, s, v, images, labels, TINY, rate=0.02))
    velocity = optimizers.momentum_init(params)
    losses = []
    for _ in range(4):
        params, stats, velocity, loss = step(params, stats, velocity)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert float(jnp.abs(stats["norm"]["mean"]).max()) > 0
