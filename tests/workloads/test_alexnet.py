"""AlexNet: its size, its normalisation, its dropout, and that training learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import _layers as nn
from memplan.workloads import _optimizers as optimizers
from memplan.workloads import alexnet

TINY = alexnet.TINY


def test_the_parameters_of_alexnet() -> None:
    params = nn.abstract(alexnet.init, alexnet.AlexNetConfig())
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 60_965_224


def test_local_response_norm_sees_two_channels_on_either_side() -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 1, 9), dtype=np.float32) * 100
    squares = np.pad(np.square(x[0, 0, 0]), 2)
    energy = np.array([squares[c : c + 5].sum() for c in range(9)])
    np.testing.assert_allclose(
        alexnet.local_response_norm(x)[0, 0, 0], x[0, 0, 0] / (2 + 1e-4 * energy) ** 0.75, rtol=1e-5
    )


@pytest.mark.slow
def test_training_lowers_the_loss_and_the_seed_decides_what_is_dropped() -> None:
    params = jax.jit(alexnet.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    velocity = optimizers.momentum_init(params)
    images = jax.random.normal(jax.random.key(1), (4, 67, 67, 3))
    labels = jnp.array([0, 1, 2, 0])
    step = jax.jit(lambda p, v, seed: alexnet.train_step(p, v, images, labels, seed, TINY))
    stepped, _, loss = step(params, velocity, jnp.int32(0))
    assert step(params, velocity, jnp.int32(0))[2] == loss
    assert step(params, velocity, jnp.int32(1))[2] != loss
    assert step(stepped, velocity, jnp.int32(0))[2] < loss
