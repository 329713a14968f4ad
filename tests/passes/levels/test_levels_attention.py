"""Ranks of keys and values of a small network with attention that is trained here."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.passes.levels import NetworkLevels, choose_levels, levels_of
from memplan.planners.levels import verify_levels

HEADS, WIDTH, LENGTH, EXAMPLES = 2, 16, 6, 12


def attend(layer: Any, x: jax.Array) -> jax.Array:
    q, k, v = ((x @ layer[name]).reshape(*x.shape[:2], HEADS, -1) for name in "qkv")
    scores = jnp.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v).reshape(x.shape)


def forward(params: Any, x: jax.Array) -> jax.Array:
    x = jax.lax.scan(lambda x, layer: (x + attend(layer, x), None), x, params["layers"])[0]
    return x @ params["out"]


@pytest.fixture(scope="module")
def trained() -> tuple[Any, jax.Array]:
    """Parameters after some hundred steps towards attention of one head in a few directions, and the data."""
    keys = iter(jax.random.split(jax.random.key(0), 16))
    params = {
        "layers": {name: 0.2 * jax.random.normal(next(keys), (2, WIDTH, WIDTH)) for name in "qkv"},
        "out": 0.2 * jax.random.normal(next(keys), (WIDTH, 3)),
    }
    x = jax.random.normal(next(keys), (EXAMPLES, LENGTH, WIDTH))
    wanted = jnp.take_along_axis(x[:, :, :3], jnp.argmax(x[:, :, 3:4], 1, keepdims=True), 1)

    @jax.jit
    def train(params: Any) -> Any:
        def step(params: Any, _: Any) -> Any:
            gradient = jax.grad(lambda params: jnp.square(forward(params, x) - wanted).mean())(params)
            return jax.tree.map(lambda p, g: 0.998 * p - 0.2 * g, params, gradient), None

        return jax.lax.scan(step, params, None, 400)[0]

    return train(params), x


@pytest.fixture(scope="module")
def levels(trained: tuple[Any, jax.Array]) -> NetworkLevels:
    return levels_of(forward, *trained, method="matryoshka-kv")


@pytest.mark.slow
def test_each_head_of_each_layer_has_its_own_levels(levels: NetworkLevels) -> None:
    names = [layer.name for layer in levels.layers]
    assert names[:3] == ["attention 0 keys, head 0", "attention 0 keys, head 1", "attention 0 values, head 0"]
    assert len(names) == 2 * 2 * HEADS
    assert levels.before == 2 * 2 * EXAMPLES * LENGTH * WIDTH * 4
    for layer in levels.layers:
        errors = [level.error for level in layer.levels]
        assert errors == sorted(errors)
        for level in layer.levels[1:]:
            rank = int(level.name.removeprefix("rank ").removesuffix("/16")) // 2
            assert level.cost == rank * (EXAMPLES * LENGTH + WIDTH // HEADS) * 4


def test_the_mix_of_ranks_beats_the_uniform_one(levels: NetworkLevels) -> None:
    uniform = sum(
        next(int(level.cost) for level in layer.levels if level.name == "rank 6/16") for layer in levels.layers
    )
    found = choose_levels(levels, uniform)
    assert verify_levels(found.problem, found.plan) == []
    assert found.plan.is_optimal
    assert found.uniform is not None
    assert found.uniform.method == "uniform rank 6/16"
    assert found.measured < found.uniform_measured
    assert 0.2 * found.measured < found.plan.error < 5 * found.measured
    assert found.after <= uniform < found.before


@pytest.mark.slow
def test_the_program_reads_projected_keys_and_values(levels: NetworkLevels, trained: tuple[Any, jax.Array]) -> None:
    """Attention with keys k U Uᵀ and values v U Uᵀ, written down here, is what the rewritten program computes."""
    params, x = trained
    choice = tuple(min(2 + number, len(layer.levels) - 1) for number, layer in enumerate(levels.layers))
    program, (given, bases) = levels.rewrite(choice)
    y = x
    for number in range(2):
        layer = jax.tree.map(lambda p, number=number: p[number], params["layers"])
        q, k, v = ((y @ layer[name]).reshape(*y.shape[:2], HEADS, -1) for name in "qkv")
        k, v = (
            jnp.stack([z[:, :, head] @ basis @ basis.T for head, basis in enumerate(bases[2 * number + which])], 2)
            for which, z in enumerate((k, v))
        )
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5)
        y = y + jnp.einsum("bhts,bshd->bthd", weights, v).reshape(y.shape)
    np.testing.assert_allclose(jax.jit(program)((given, bases), x), y @ params["out"], atol=2e-5)


@pytest.mark.parametrize("equation", ["btd,bsd->bts", "btd,bsd->bst"])
def test_an_axis_of_examples_is_none_of_heads(equation: str) -> None:
    x = jax.random.normal(jax.random.key(1), (5, 7, 16))

    def fun(w: jax.Array, x: jax.Array) -> jax.Array:
        axis = equation[-2:].index("s") + 1
        scores = jax.nn.softmax(jnp.einsum(equation, x @ w, x), axis)
        return jnp.einsum(f"{equation[-3:]},bsd->btd", scores, x)

    found = levels_of(fun, jnp.eye(16), x, method="matryoshka-kv")
    assert [layer.name for layer in found.layers] == ["attention 0 keys, head 0", "attention 0 values, head 0"]
    assert found.measured((0, 0)) < 1e-10 < found.measured((0, 3))
