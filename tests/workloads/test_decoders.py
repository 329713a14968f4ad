"""Llama and Gemma: a decoding step against the whole model, with each kind of cache."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import decoders, get
from memplan.workloads._weights import Weights, abstract_params, ints, random_params
from memplan.workloads.registry import num_parameters

C = decoders.TINY

LENGTH = 5
STEP = jax.jit(lambda params, *rest: decoders.decode(C, Weights(params), *rest))


def test_the_parameters_of_the_public_models() -> None:
    assert num_parameters(get("llama_prefill").build()) == 1_235_814_400
    assert num_parameters(get("gemma_prefill").build()) == 2_506_172_416


@pytest.fixture(scope="module")
def params() -> Any:
    shapes = abstract_params(lambda p, t: decoders.logits(C, p, t), ints(C.batch, C.length))
    return random_params(shapes)


@pytest.fixture(scope="module")
def tokens() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, C.vocab, (C.batch, LENGTH + 1)))


@pytest.fixture(scope="module")
def wanted(params: Any, tokens: jax.Array) -> Any:
    run = jax.jit(lambda params, tokens: decoders.logits(C, Weights(params), tokens))
    return run(params, tokens)[:, -1]


@pytest.fixture(scope="module")
def caches(params: Any, tokens: jax.Array) -> Any:
    run = jax.jit(lambda params, tokens: decoders.prefill(C, Weights(params), tokens))
    filled, _ = run(params, tokens[:, :LENGTH])
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, C.length - LENGTH), (0, 0), (0, 0))), filled)


@pytest.mark.slow
def test_a_step_gives_the_logits_of_the_whole(params: Any, tokens: jax.Array, wanted: Any, caches: Any) -> None:
    _, found = STEP(params, caches, tokens[:, LENGTH], jnp.full((C.batch,), LENGTH))
    np.testing.assert_allclose(found, wanted, atol=0.05)  # bfloat16


@pytest.mark.slow
def test_pages_hold_what_a_cache_holds(params: Any, tokens: jax.Array, caches: Any) -> None:
    lengths = jnp.full((C.batch,), LENGTH)
    _, expected = STEP(params, caches, tokens[:, LENGTH], lengths)
    table = jnp.array([[3, 0], [1, 2]])
    pages = jax.tree.map(lambda x: x.reshape(C.batch, -1, C.page, *x.shape[2:]), caches)
    pools = jax.tree.map(lambda x: jnp.zeros((4, *x.shape[2:]), x.dtype).at[table].set(x), pages)
    run = jax.jit(lambda params, *rest: decoders.paged_decode(C, Weights(params), *rest))
    _, found = run(params, pools, table, tokens[:, LENGTH], lengths)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_layers_in_a_loop_are_the_layers_one_by_one(params: Any, tokens: jax.Array) -> None:
    blocks = [params[f"block{layer}"] for layer in range(C.layers)]
    stacked = {
        "embed": params["embed"],
        "norm": params["norm"],
        "block": jax.tree.map(lambda *x: jnp.stack(x), *blocks),
    }
    run = jax.jit(lambda c, params: decoders.features(c, Weights(params), tokens), static_argnums=0)
    plain, looped = run(C, params), run(replace(C, scanned=True), stacked)
    np.testing.assert_allclose(np.asarray(looped, np.float32), np.asarray(plain, np.float32), atol=0.05)


@pytest.mark.slow
def test_a_product_of_int8_is_near_that_of_its_scaled_weights() -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (16, 4)).astype(np.int8)
    scale = rng.uniform(0.5, 2, 4).astype(np.float32) / 127
    x = rng.standard_normal((3, 16)).astype(np.float32)
    found = decoders.dense_int8(Weights({"out": {"w": jnp.asarray(w), "scale": scale}}), "out", jnp.asarray(x), 4)
    np.testing.assert_allclose(found, x @ (w * scale), atol=0.15)
