"""The LSTM, against a loop in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import lstm

TINY = lstm.TINY


def reference(params: Any, tokens: np.ndarray) -> np.ndarray:
    """The last cell's outputs [T, B, C], one sequence, step and layer at a time."""

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    outputs = np.zeros((tokens.shape[1], tokens.shape[0], TINY.width))
    for b, sequence in enumerate(tokens):
        h, c = np.zeros((2, TINY.layers, TINY.width))
        for t, token in enumerate(sequence):
            x = params["embed"][token]
            for layer, cell in enumerate(params["cells"]):
                i, f, g, o = np.split(np.concatenate([x, h[layer]]) @ cell["w"] + cell["b"], 4)
                c[layer] = sigmoid(f + 1) * c[layer] + sigmoid(i) * np.tanh(g)
                h[layer] = x = sigmoid(o) * np.tanh(c[layer])
            outputs[t, b] = x
    return outputs


def test_features() -> None:
    params = jax.jit(lstm.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    tokens = np.random.default_rng(0).integers(0, TINY.vocab, (TINY.batch, TINY.length))
    expected = reference(jax.tree.map(np.asarray, params), tokens)
    np.testing.assert_allclose(lstm.features(params, jnp.asarray(tokens), TINY), expected, atol=1e-5)


@pytest.mark.slow
def test_training_lowers_the_loss() -> None:
    params = jax.jit(lstm.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    tokens = jax.random.randint(jax.random.key(1), (TINY.batch, TINY.length + 1), 0, TINY.vocab)
    step = jax.jit(lambda p: lstm.train_step(p, tokens, TINY, rate=0.5))
    stepped, first = step(params)
    assert lstm.loss(stepped, tokens, TINY) < first
