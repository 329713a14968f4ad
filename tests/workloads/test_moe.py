"""The mixture of experts: who is served, by whom, and with which weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import moe

TINY = moe.TINY


def probabilities(seed: int = 0) -> jax.Array:
    return jax.nn.softmax(2 * jax.random.normal(jax.random.key(seed), (2, 16, 4)))


@pytest.mark.slow
def test_an_expert_has_one_token_at_a_place_and_no_more_places_than_its_capacity() -> None:
    combine, _ = moe.route(probabilities(), capacity=5)
    used = np.asarray(combine > 0)
    assert combine.shape == (2, 16, 4, 5)
    assert (used.sum(1) <= 1).all()
    # Places fill from the first on.
    filled = np.asarray(used.any(1))
    assert (filled[..., :-1] >= filled[..., 1:]).all()


def test_with_room_every_token_has_its_two_best_experts_and_weights_of_sum_one() -> None:
    gate = probabilities()
    combine, _ = moe.route(gate, capacity=32)
    weights = np.asarray(combine.sum(-1))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(weights > 0, np.argsort(np.argsort(-gate)) < 2)
    kept = np.where(weights > 0, gate, 0)
    np.testing.assert_allclose(weights, kept / kept.sum(-1, keepdims=True), rtol=1e-6)


@pytest.mark.slow
def test_first_choices_come_before_second_ones() -> None:
    gate = jnp.array([[[0.1, 0.9], [0.9, 0.1], [0.8, 0.2]]])
    combine, _ = moe.route(gate, capacity=2)
    served = np.asarray(combine[0].sum(-1)) > 0
    # Expert 0: tokens 1 and 2 (first choices). Expert 1: token 0, then the first of the second choices.
    np.testing.assert_array_equal(served, [[False, True], [True, True], [True, False]])


@pytest.mark.slow
def test_the_balance_loss_is_one_if_experts_are_used_evenly() -> None:
    even = 0.25 + 0.01 * jax.nn.one_hot(jnp.arange(16) % 4, 4)[None]
    assert moe.route(even / even.sum(-1, keepdims=True), 16)[1] == 1.0
    one = jax.nn.softmax(jnp.array([10.0, 0, 0, 0]))
    assert moe.route(jnp.broadcast_to(one, (1, 16, 4)), 16)[1] > 3.9


@pytest.mark.slow
def test_a_mixture_with_room_is_the_weighted_sum_of_the_two_experts() -> None:
    params = jax.jit(moe.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)["blocks"][0]
    x = jax.random.normal(jax.random.key(1), (2, 8, 6))
    mixed, _ = jax.jit(lambda x: moe.mixture(params, x, capacity=16))(x)
    gate = jax.nn.softmax(x @ params["gate"])
    outputs = jnp.stack(
        [jax.nn.gelu(x @ up) @ down for up, down in zip(params["up"], params["down"], strict=True)], axis=2
    )
    best, chosen = jax.lax.top_k(gate, 2)
    weights = best / best.sum(-1, keepdims=True)
    expected = (weights[..., None] * jnp.take_along_axis(outputs, chosen[..., None], axis=2)).sum(2)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)


@pytest.mark.slow
def test_apply_is_causal_up_to_the_capacity() -> None:
    params = jax.jit(moe.init, static_argnums=1)(jax.random.key(0, impl="unsafe_rbg"), TINY)
    x = jax.random.normal(jax.random.key(1), (2, 8, 6))
    run = jax.jit(lambda x: moe.apply(params, x, moe.MoeConfig(**{**vars(TINY), "capacity_factor": 4.0}))[0])
    np.testing.assert_allclose(run(x)[:, :5], run(x.at[:, 5:].set(0.0))[:, :5], atol=1e-5)
