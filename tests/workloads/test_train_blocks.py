"""Recomputation of blocks, of segments and of the loss: what is wrapped, and that values and gradients stay."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.compiler.errors import MemplanError
from memplan.workloads import train_blocks as blocks


def chained(weights: jax.Array, x: jax.Array) -> jax.Array:
    return blocks.chain([lambda x, w=w: jnp.sin(x * w) for w in weights], x).sum()


def looped(weights: jax.Array, x: jax.Array) -> jax.Array:
    x, sums = blocks.scan(lambda x, w: (jnp.sin(x * w), x.sum()), x, weights)
    return x.sum() + sums.sum()


WEIGHTS, X = jnp.linspace(0.5, 1.5, 10), jnp.linspace(-1.0, 1.0, 7)


def traced(loss: Callable[..., Any]) -> str:
    return str(jax.make_jaxpr(lambda w, x: blocks.value_and_grad(loss)(w, x))(WEIGHTS, X))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "part", "count"),
    [
        (chained, "block", 10),
        (chained, "segment", 3),  # of four, four and two blocks
        (chained, "loss", 1),
        (looped, "block", 1),
        (looped, "segment", 1),
        (looped, "loss", 1),
    ],
)
def test_parts_are_recomputed_and_values_stay(loss: Callable[..., Any], part: str, count: int) -> None:
    value, grads = blocks.value_and_grad(loss)(WEIGHTS, X)
    plain = traced(loss)
    assert not re.search("remat|checkpoint", plain)
    with blocks.recomputing(part):
        assert len(re.findall(r"= (?:remat2|checkpoint)\[", traced(loss))) == count
        same, same_grads = blocks.value_and_grad(loss)(WEIGHTS, X)
    np.testing.assert_allclose(same, value, rtol=1e-6)
    np.testing.assert_allclose(same_grads, grads, rtol=1e-5)
    assert traced(loss) == plain, "outside of the context nothing is wrapped"


def test_a_segment_of_a_loop_is_a_loop_of_its_own() -> None:
    with blocks.recomputing("segment"):
        text = traced(looped)
    assert "length=5" in text
    assert "length=2" in text


def test_a_policy_keeps_what_it_names() -> None:
    def product(weights: jax.Array, x: jax.Array) -> jax.Array:
        return blocks.chain([lambda x: jnp.sin(weights @ x), lambda x: jnp.cos(weights @ x)], x).sum()

    weights = jnp.ones((7, 7))

    def products(policy: Any) -> int:
        with blocks.recomputing("block", policy):
            text = str(jax.make_jaxpr(lambda w: blocks.value_and_grad(product)(w, X))(weights))
        return text.count("dot_general")

    assert products(jax.checkpoint_policies.dots_saveable) < products(None)


def test_an_unknown_part() -> None:
    with pytest.raises(MemplanError, match=r"no part 'layer'.*block, segment, loss"), blocks.recomputing("layer"):
        pass
