"""The AlphaTensor-like network: which vectors attend to which."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import alphatensor

TINY = alphatensor.TINY


def without_effect(params: Any) -> Any:
    """`params` of an attention whose two branches give zeros."""
    silent = {"out": jax.tree.map(jnp.zeros_like, params["out"])}
    return params | silent | {"mlp": params["mlp"] | {"down": jax.tree.map(jnp.zeros_like, params["mlp"]["down"])}}


@pytest.mark.slow
def test_vectors_that_share_an_index_attend_to_one_another() -> None:
    pairs = jax.jit(alphatensor.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)["torso"][0]
    keys = jax.random.split(jax.random.key(1), 3)
    grids = tuple(jax.random.normal(k, (1, 4, 4, 8)) for k in keys)
    # Of the three pairs only (i, j) with (j, k) attends; a change at (i, j) = (1, 2) may reach only j = 2.
    layer = [pairs[0], without_effect(pairs[1]), without_effect(pairs[2])]
    run = jax.jit(lambda *grids: alphatensor.attentive_modes(layer, grids, TINY.heads))
    before = run(*grids)
    after = run(grids[0].at[0, 1, 2].set(0.0), *grids[1:])
    changed = [np.abs(a - b).max(-1)[0] > 1e-6 for a, b in zip(before, after, strict=True)]
    expected = np.zeros((3, 4, 4), bool)
    expected[0, :, 2] = True
    expected[1, 2, :] = True
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.slow
def test_a_token_of_a_move_is_judged_by_those_before_it() -> None:
    params = jax.jit(alphatensor.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    tensors = jax.random.randint(jax.random.key(1), (2, 2, 4, 4, 4), -1, 2, jnp.int8)
    judge = jax.jit(lambda t, m: alphatensor.apply(params, t, jnp.array([0.0, 0.5]), m, TINY))
    moves = jnp.array([[0, 1, 2], [3, 4, 5]])
    logits, value = judge(tensors, moves)
    assert (logits.shape, value.shape) == ((2, 3, 7), (2, TINY.quantiles))
    other, same_value = judge(tensors, moves.at[:, 1].set(6))
    np.testing.assert_allclose(logits[:, :2], other[:, :2], atol=1e-6)
    np.testing.assert_allclose(value, same_value, atol=1e-6)
    assert (jnp.abs(logits[:, 2] - other[:, 2]).max(-1) > 1e-4).all()
    assert (jnp.abs(judge(1 - tensors, moves)[1] - value).max(-1) > 1e-5).all()
