"""Decoding with a cache, against the transformer that reads all tokens at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import decode, transformer

TINY = decode.TINY


@pytest.mark.slow
def test_a_step_gives_the_full_models_logits_at_each_position() -> None:
    params = jax.jit(transformer.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    tokens = jax.random.randint(jax.random.key(1), (TINY.batch, TINY.length), 0, TINY.vocab)
    full = jax.jit(lambda t: transformer.logits_of(params, transformer.features(params, t, TINY)))(tokens)
    step = jax.jit(lambda c, t, p: decode.decode_step(params, c, t, p, TINY), donate_argnums=0)
    caches = decode.empty_caches(TINY)
    for position in range(TINY.length):
        caches, logits = step(caches, tokens[:, position], jnp.int32(position))
        np.testing.assert_allclose(logits, full[:, position], atol=1e-5)
    np.testing.assert_allclose(logits, transformer.next_token_logits(params, tokens, TINY), atol=1e-5)
