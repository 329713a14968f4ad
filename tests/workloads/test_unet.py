"""The U-Net: its skips, and the formula of a sampling step."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import unet

TINY = unet.TINY


STEP = jax.jit(partial(unet.sample_step, config=TINY))


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.jit(unet.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return 0.1 * jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


@pytest.mark.slow
def test_every_output_on_the_way_down_reaches_the_way_up(params: Any) -> None:
    left = [8, 8, 8, 16]  # first convolution, block, shrink; block
    units = [block for level in params["up"] for block in level["units"]]
    widths = [16, 16, 16, 8]  # of what comes from below
    assert [block["conv1"].shape[2] for block in units] == [w + s for w, s in zip(widths, reversed(left), strict=True)]
    assert ["attention" in block for block in units] == [True, True, False, False]


@pytest.mark.slow
def test_the_noise_depends_on_image_and_time(params: Any, images: jax.Array) -> None:
    predict = jax.jit(lambda i, t: unet.apply(params, i, t, TINY))
    noise = predict(images, jnp.array([100, 900]))
    assert noise.shape == images.shape
    other = predict(images.at[0].add(0.1), jnp.array([100, 100]))
    assert (jnp.abs(noise - other).max((1, 2, 3)) > 1e-4).all()


@pytest.mark.slow
def test_a_step_to_the_same_time_changes_nothing(params: Any, images: jax.Array) -> None:
    time = jnp.array([100, 200])
    np.testing.assert_allclose(STEP(params, images, time, time), images, atol=1e-5)


@pytest.mark.slow
def test_a_step_without_noise_scales_the_image(params: Any, images: jax.Array) -> None:
    silent = params | {"last": jnp.zeros_like(params["last"])}
    time, next_time = jnp.array([500, 500]), jnp.array([0, 100])
    moved = STEP(silent, images, time, next_time)
    scale = jnp.sqrt(unet.signal_share(next_time) / unet.signal_share(time))[:, None, None, None]
    np.testing.assert_allclose(moved, scale * images, atol=1e-6)
