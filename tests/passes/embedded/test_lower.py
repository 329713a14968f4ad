"""Programs become few steps: what is fused, what is written in place, and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan import embedded
from memplan.compiler.embedded import StorageKind
from memplan.compiler.errors import MemplanError

_FLOATS = jax.ShapeDtypeStruct((8, 8), jnp.float32)


def _int8_layer(x: Any, w: Any) -> Any:
    names = ("NHWC", "HWIO", "NHWC")
    centred = x.astype(jnp.int32) + 3
    total = jax.lax.conv_general_dilated(
        centred, w.astype(jnp.int32), (1, 1), "SAME", dimension_numbers=names, feature_group_count=4
    )
    return jnp.clip(jnp.round(total.astype(jnp.float32) * 0.1), -128, 127).astype(jnp.int8)


def test_an_int8_depthwise_convolution_is_one_step_that_may_write_over_its_input() -> None:
    weights = np.ones((3, 3, 1, 4), np.int8)
    plan = embedded(
        lambda x: _int8_layer(_int8_layer(x, weights), weights), jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.int8)
    )
    assert plan.steps == ("conv_general_dilated",) * 2
    # Input and output share 256 bytes, and one channel of the output stands beside them.
    assert (plan.peak, plan.arena) == (256 + 64, 256 + 64)
    assert (
        embedded(lambda x: _int8_layer(x, weights), jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.int8), in_place=False).peak
        == 512
    )


def test_a_gradient_is_part_of_the_update_of_its_weights() -> None:
    def step(w: Any, x: Any) -> tuple[Any, Any]:
        loss, g = jax.value_and_grad(lambda w: (jnp.tanh(x @ w) ** 2).sum())(w)
        return w - 0.1 * g, loss

    plan = embedded(step, jnp.ones((8, 8)), _FLOATS, state_argnums=0)
    (state,) = plan.program.states
    writers = [each for each in plan.program.steps if state in each.writes]
    assert [each.name for each in writers] == ["dot_general"]
    assert all(state not in each.reads or each is writers[0] for each in plan.program.steps[-1:])
    assert embedded(step, jnp.ones((8, 8)), _FLOATS, state_argnums=0, fuse=False).peak > plan.peak


def test_states_that_swap_are_both_read_before_they_are_written() -> None:
    plan = embedded(lambda a, b: (b, a), jnp.ones(4), jnp.zeros(4), state_argnums=(0, 1))
    assert len(plan.steps) == 4


def test_a_state_that_never_changes_is_a_constant() -> None:
    plan = embedded(
        lambda s, x: ({"w": s["w"], "n": s["n"] + 1}, s["w"] * x),
        {"w": jnp.ones(9), "n": jnp.zeros(2)},
        jnp.ones(9),
        state_argnums=0,
    )
    assert [plan.program.buffers[b].name for b in plan.program.states] == ["argument_0['n']"]
    assert "argument_0['w']" in [b.name for b in plan.program.buffers if b.kind is StorageKind.CONSTANT]


@pytest.mark.parametrize(
    ("fun", "said"),
    [
        (lambda x: jnp.sort(x), r"no C code for sort \(.*test_lower.py:\d+\)"),
        (lambda x: x.astype(jnp.float16), r"float16|f16\[8,8\]"),
        (lambda x: jax.lax.fori_loop(0, 3, lambda i, y: y * x, x), r"no C code for (while|scan)"),
        (lambda x: x[:0], "no elements"),
        (lambda x: jax.debug.print("{}", x[0, 0]) or x, "has an effect"),
        (lambda x: 1 / 0, "does not trace: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_has_no_code_is_named_with_its_line(fun: Any, said: str) -> None:
    with pytest.raises(MemplanError, match=said):
        embedded(fun, _FLOATS)


def test_new_states_come_first() -> None:
    with pytest.raises(MemplanError, match="new states are the first results"):
        embedded(lambda w, x: (x.sum(), w + 1), jnp.ones(4), jnp.ones(5), state_argnums=0)
    with pytest.raises(MemplanError, match="state argument 7 is none of the 1 arguments"):
        embedded(lambda x: x, jnp.ones(3), state_argnums=7)
