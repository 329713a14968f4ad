"""The chain of layers of a JAX program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from memplan import MemplanError, load_target
from memplan.passes.pipeline import pipeline_layers

WIDTH, BATCH = 16, 4
MATRIX = jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.bfloat16)
X = jax.ShapeDtypeStruct((BATCH, WIDTH), jnp.bfloat16)
TARGET = load_target("tpu-v5e")


def residual(params: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
    scale = jnp.where(mask, 1.0, 0.5).astype(x.dtype)
    for w in params["w"]:
        x = x + jnp.tanh(x @ w) * scale
    return jnp.square(x).mean()


def test_a_residual_network_is_cut_between_its_blocks() -> None:
    mask = jax.ShapeDtypeStruct((WIDTH,), jnp.bool_)
    layers = pipeline_layers(residual, {"w": [MATRIX] * 3}, X, mask, target=TARGET)
    blocks = [layer for layer in layers if layer.state]
    assert len(blocks) == 3
    count = WIDTH * WIDTH
    # Parameters and gradients in bfloat16, and for each parameter a float32 copy and Adam's two.
    assert {layer.state for layer in blocks} == {count * (2 + 2 + 4 + 8)}
    # Each keeps the product's input, and what the tanh and the product with the scale need; the first one's input is
    # data, which stand anyway.
    own = 2 * BATCH * WIDTH
    assert blocks[0].kept < own
    assert all(2 * own <= layer.kept <= 4 * own for layer in blocks[1:])
    assert all(layer.passed == own for layer in blocks)
    assert all(layer.forward > 0 and layer.backward > 0 for layer in blocks)
    # The second and the third block are the same program.
    assert blocks[1].forward == blocks[2].forward
    assert layers[-1].passed == 2


def test_neighbours_become_one_where_there_are_too_many() -> None:
    def chain(params: Any, x: jax.Array) -> jax.Array:
        for w in params:
            x = jnp.sin(jnp.tanh(x @ w))
        return x

    many = pipeline_layers(chain, [MATRIX] * 4, X, target=TARGET)
    few = pipeline_layers(chain, [MATRIX] * 4, X, target=TARGET, most_layers=3)
    assert len(few) == 3 < len(many)
    assert sum(layer.state for layer in few) == sum(layer.state for layer in many)


def test_a_parameter_of_two_layers_counts_in_both() -> None:
    def tied(table: jax.Array, tokens: jax.Array) -> jax.Array:
        return jnp.sin(jnp.tanh(table[tokens]).sum(0)) @ table.T

    table = jax.ShapeDtypeStruct((32, 8), jnp.float32)
    layers = pipeline_layers(tied, table, jax.ShapeDtypeStruct((5,), jnp.int32), target=TARGET)
    assert sum(layer.state for layer in layers) == 2 * 32 * 8 * (4 + 4 + 8)


def test_what_cannot_be_cut_is_said() -> None:
    def looped(params: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params)[0]

    stacked = jax.ShapeDtypeStruct((3, WIDTH, WIDTH), jnp.float32)
    with pytest.raises(MemplanError, match="no place where one value alone leads on"):
        pipeline_layers(looped, stacked, jax.ShapeDtypeStruct((BATCH, WIDTH), jnp.float32), target=TARGET)
    with pytest.raises(MemplanError, match="does not trace"):
        pipeline_layers(looped, stacked, X, target=TARGET)
