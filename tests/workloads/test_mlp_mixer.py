"""MLP-Mixer: its size, and what mixes with what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import _layers as nn
from memplan.workloads import mlp_mixer

TINY = mlp_mixer.TINY


def test_the_parameters_of_mixer_b_16() -> None:
    params = nn.abstract(mlp_mixer.init, mlp_mixer.MixerConfig())
    stem_bias = 768  # the convolution here has none
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 59_880_472 - stem_bias


@pytest.mark.slow
def test_images_do_not_mix() -> None:
    params = jax.jit(mlp_mixer.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    run = jax.jit(lambda i: mlp_mixer.apply(params, i, TINY))
    before, after = run(images), run(images.at[1].add(jnp.arange(8.0)[:, None, None]))
    np.testing.assert_allclose(before[0], after[0], atol=1e-6)
    assert float(jnp.abs(before[1] - after[1]).max()) > 1e-4


@pytest.mark.slow
def test_patches_mix() -> None:
    params = jax.jit(mlp_mixer.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    swapped = jnp.concatenate([images[:, 4:], images[:, :4]], axis=1)
    run = jax.jit(lambda i: mlp_mixer.apply(params, i, TINY))
    # Without the mixing over patches their order would not matter, since the head averages.
    still = jax.tree.map(jnp.zeros_like, params["blocks"][0]["patches"])
    deaf = params | {"blocks": [params["blocks"][0] | {"patches": still}]}
    np.testing.assert_allclose(mlp_mixer.apply(deaf, images, TINY), mlp_mixer.apply(deaf, swapped, TINY), atol=1e-5)
    assert float(jnp.abs(run(images) - run(swapped)).max()) > 1e-4
