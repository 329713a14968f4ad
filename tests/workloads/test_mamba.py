"""Mamba: the parallel scan against a loop, and causality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import mamba

TINY = mamba.TINY


def test_linear_scan_is_the_recurrence() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, (2, 11, 3)), rng.standard_normal((2, 11, 3))
    expected, h = np.zeros_like(b), np.zeros((2, 3))
    for t in range(11):
        h = a[:, t] * h + b[:, t]
        expected[:, t] = h
    np.testing.assert_allclose(jax.jit(mamba.linear_scan)(a, b), expected, atol=1e-5)


@pytest.mark.slow
def test_the_selective_scan_is_the_state_space_model() -> None:
    params = jax.jit(mamba.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)["blocks"][0]
    params = jax.tree.map(np.asarray, params)
    x = np.random.default_rng(0).standard_normal((1, 11, 8), dtype=np.float32)
    selected = x[0] @ params["select"]["w"]
    step, write, read = selected[:, :2], selected[:, 2:5], selected[:, 5:]
    step = np.log1p(np.exp(step @ params["step"]["w"]))
    h, expected = np.zeros((8, 3)), []
    for t in range(11):
        h = np.exp(-step[t][:, None] * np.arange(1, 4)) * h + (step[t] * x[0, t])[:, None] * write[t]
        expected.append(h @ read[t] + x[0, t])
    np.testing.assert_allclose(jax.jit(lambda x: mamba.selective_scan(params, x, TINY))(x)[0], expected, atol=1e-4)


@pytest.mark.slow
def test_apply_sees_only_the_past() -> None:
    params = jax.jit(mamba.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    x = jax.random.normal(jax.random.key(1), (2, 11, 4))
    run = jax.jit(lambda x: mamba.apply(params, x, TINY))
    before, after = run(x), run(x.at[:, 6].add(1.0))
    np.testing.assert_allclose(before[:, :6], after[:, :6], atol=1e-5)
    assert (jnp.abs(before[:, 6:] - after[:, 6:]).max(-1) > 1e-6).all()
