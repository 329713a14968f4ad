"""Hyena: the FFT convolution against the direct one, and causality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import hyena

TINY = hyena.TINY


def test_fft_conv_is_the_direct_convolution() -> None:
    rng = np.random.default_rng(0)
    u, k = rng.standard_normal((2, 3, 16), np.float32), rng.standard_normal((3, 16), np.float32)
    expected = np.array([[np.convolve(u[b, c], k[c])[:16] for c in range(3)] for b in range(2)])
    np.testing.assert_allclose(hyena.fft_conv(u, k), expected, atol=1e-5)


@pytest.mark.slow
def test_filters_decay() -> None:
    params = jax.jit(hyena.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)["blocks"][0]["filter"]
    filters = hyena.long_filters(params, TINY)
    assert filters.shape == (TINY.width, TINY.length)
    assert float(jnp.abs(filters[-1, -1])) < 1e-6 < float(jnp.abs(filters[-1, 0]))


@pytest.mark.slow
def test_the_operator_sees_only_the_past() -> None:
    params = jax.jit(hyena.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)["blocks"][0]
    x = jax.random.normal(jax.random.key(1), (2, 16, 6))
    operate = jax.jit(lambda x: hyena.operator(params, x, TINY))
    before, after = operate(x), operate(x.at[:, 9].add(1.0))
    np.testing.assert_allclose(before[:, :9], after[:, :9], atol=1e-5)
    assert (jnp.abs(before[:, 9:] - after[:, 9:]).max(-1) > 1e-5).all()


@pytest.mark.slow
def test_logits() -> None:
    params = jax.jit(hyena.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    logits = jax.jit(lambda t: hyena.apply(params, t, TINY))(jnp.arange(32).reshape(2, 16) % 11)
    assert logits.shape == (2, 11)
    assert jnp.isfinite(logits).all()
