"""Constants are permuted where every int8 sum that reads them wants the same order, and nowhere else."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memplan import embedded
from memplan.compiler.embedded import EmbeddedProgram, StorageKind

_WEIGHTS = np.arange(12, dtype=np.int8).reshape(3, 4)
_X = jax.ShapeDtypeStruct((2, 3), jnp.int8)


def _constants(fun: Any, *args: Any) -> tuple[EmbeddedProgram, list[np.ndarray]]:
    program = embedded(fun, *args).program
    return program, [each.value for each in program.buffers if each.kind is StorageKind.CONSTANT]


def _product(x: Any, w: Any) -> Any:
    return x.astype(jnp.int32) @ w.astype(jnp.int32)


def test_weights_lie_as_they_are_summed() -> None:
    _, (stored,) = _constants(lambda x: _product(x, jnp.asarray(_WEIGHTS)), _X)
    assert (stored == _WEIGHTS.T).all()
    assert stored.dtype == np.int8  # They are not made wider in flash.
    assert stored.flags.c_contiguous


def test_two_sums_that_want_different_orders_leave_weights_as_they_are() -> None:
    def both(x: Any, y: Any) -> tuple[Any, Any]:
        w = jnp.asarray(_WEIGHTS)
        return _product(x, w), _product(y, w.T)

    _, (stored,) = _constants(both, _X, jax.ShapeDtypeStruct((2, 4), jnp.int8))
    assert (stored == _WEIGHTS).all()


def test_a_reader_that_mixes_dimensions_leaves_weights_as_they_are() -> None:
    def both(x: Any, y: Any) -> tuple[Any, Any]:
        w = jnp.asarray(_WEIGHTS)
        return _product(x, w), y + w.reshape(-1)

    _, (stored,) = _constants(both, _X, jax.ShapeDtypeStruct((12,), jnp.int8))
    assert (stored == _WEIGHTS).all()


def test_sums_of_floats_leave_weights_as_they_are() -> None:
    w = np.ones((3, 4), np.float32)
    _, (stored,) = _constants(lambda x: x @ jnp.asarray(w), jax.ShapeDtypeStruct((2, 3), jnp.float32))
    assert stored.shape == (3, 4)


def test_filters_have_output_channels_first() -> None:
    filters = np.arange(3 * 3 * 2 * 5, dtype=np.int8).reshape(3, 3, 2, 5)

    def convolution(x: Any) -> Any:
        names = ("NHWC", "HWIO", "NHWC")
        wide = jnp.asarray(filters).astype(jnp.int32)
        return jax.lax.conv_general_dilated(x.astype(jnp.int32), wide, (1, 1), "SAME", dimension_numbers=names)

    _, (stored,) = _constants(convolution, jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.int8))
    assert (stored == filters.transpose(3, 0, 1, 2)).all()
