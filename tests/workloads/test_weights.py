"""Parameters that follow from a forward pass: their shapes, their sharing, and layers in a loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads._weights import Weights, abstract_params, floats, infer, random_params, train


def network(scanned: bool, p: Weights, x: jax.Array) -> jax.Array:
    x = p.layers("block", lambda p, x: x + p.mlp("mlp", p.layer_norm("norm", x), 6, 4), x, 3, scanned)
    return p.dense("tied", p.dense("tied", x, 4), 4)


def test_parameters_have_the_shapes_that_layers_ask_for() -> None:
    unrolled = abstract_params(lambda p, x: network(False, p, x), floats(2, 4))
    assert sorted(unrolled) == ["block0", "block1", "block2", "tied"]
    assert unrolled["block1"]["mlp"]["0"]["w"].shape == (4, 6)
    stacked = abstract_params(lambda p, x: network(True, p, x), floats(2, 4))
    assert stacked["block"]["mlp"]["0"]["w"].shape == (3, 4, 6)


@pytest.mark.slow
def test_layers_in_a_loop_are_the_layers_one_by_one() -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4)), jnp.float32)
    params = random_params(abstract_params(lambda p, x: network(False, p, x), x))
    blocks = [params[f"block{layer}"] for layer in range(3)]
    stacked: Any = {"block": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks), "tied": params["tied"]}
    np.testing.assert_allclose(network(True, Weights(stacked), x), network(False, Weights(params), x), rtol=1e-5)


@pytest.mark.slow
def test_batch_normalisation_has_running_statistics_in_inference_alone() -> None:
    def apply(p: Weights, x: jax.Array) -> jax.Array:
        return p.batch_norm("norm", x)

    assert sorted(abstract_params(apply, floats(2, 3))["norm"]) == ["bias", "mean", "scale", "variance"]
    assert sorted(abstract_params(apply, floats(2, 3), train=True)["norm"]) == ["bias", "scale"]
    x = 3 + 2 * jnp.asarray(np.random.default_rng(0).standard_normal((50, 3)), jnp.float32)
    y = apply(Weights({"norm": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}}, train=True), x)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-3)


def test_programs_of_a_network() -> None:
    fun, (params, x) = infer(lambda p, x: p.dense("out", x, 2), floats(3, 4))
    assert params["out"]["w"].dtype == jnp.bfloat16
    assert jax.eval_shape(fun, params, x).shape == (3, 2)
    for optimizer, more in (("sgd", 0), ("adam", 1)):
        step, args = train(lambda p, x: p.dense("out", x, 1).sum(), floats(3, 4), optimizer=optimizer)
        results = jax.eval_shape(step, *args)
        assert len(results) == 2 + more
        assert results[0] == args[0]
        assert results[0]["out"]["w"].dtype == jnp.float32
