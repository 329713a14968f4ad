"""The transformer: what a token may see, and that training learns."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import _optimizers as optimizers
from memplan.workloads import transformer

TINY = transformer.TINY


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.jit(transformer.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)


@pytest.fixture(scope="module")
def tokens() -> jax.Array:
    return jax.random.randint(jax.random.key(1), (2, 9), 0, TINY.vocab)


@pytest.mark.slow
def test_a_token_sees_only_those_before_it(params: Any, tokens: jax.Array) -> None:
    features = jax.jit(lambda t: transformer.features(params, t, TINY))
    changed = tokens[:, :8].at[:, 5].add(1) % TINY.vocab
    before, after = features(tokens[:, :8]), features(changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (jnp.abs(before[:, 5:] - after[:, 5:]).max(-1) > 1e-4).all()


@pytest.mark.slow
def test_the_loop_over_stacked_blocks_is_the_same_model(params: Any, tokens: jax.Array) -> None:
    value = jax.jit(jax.value_and_grad(lambda p: transformer.loss(p, tokens, TINY)))
    loss, grads = value(params)
    loop_loss, loop_grads = value(transformer.stack_blocks(params))
    np.testing.assert_allclose(loss, loop_loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), transformer.stack_blocks(grads), loop_grads)


@pytest.mark.slow
def test_training_learns_the_tokens(params: Any, tokens: jax.Array) -> None:
    step = jax.jit(lambda p, s: transformer.train_step(p, s, tokens, replace(TINY, dtype=jnp.bfloat16)))
    state = optimizers.adam_init(params)
    losses = []
    for _ in range(20):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[0] == pytest.approx(np.log(TINY.vocab), abs=0.3)
    assert losses[-1] < 0.95 * losses[0]
    assert params["embed"].dtype == jnp.float32
