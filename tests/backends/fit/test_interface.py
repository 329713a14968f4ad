"""Limits below the bytes of arguments and results: refused before anything is compiled, and only then."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from memplan.backends.fit.fit import fit
from memplan.backends.fit.interface import check_interface
from memplan.backends.fit.result import CannotFitError


def shape(size: int, dtype: Any = jnp.float32, sharding: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size,), dtype, sharding=sharding)


def step(x: Any, y: Any, unused: Any) -> Any:
    del unused
    return x, x * 2, y.astype(jnp.int4)


ARGUMENTS = (shape(1000), shape(1000, jnp.int4), shape(5000))


def least(function: Any, args: Any, **options: Any) -> int:
    """Returns what the check says that arguments and results need."""
    with pytest.raises(CannotFitError, match="the arguments and results alone need") as caught:
        check_interface(jax.jit(function, **options).trace(*args), args, 1)
    return caught.value.proven


@pytest.mark.parametrize("options", [{}, {"donate_argnums": 0}])
def test_no_more_is_claimed_than_the_compiler_states(options: Any) -> None:
    claimed = least(step, ARGUMENTS, **options)
    stats = jax.jit(step, **options).lower(*ARGUMENTS).compile().memory_analysis()
    stated = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    assert claimed <= stated
    # Neither the argument that nothing uses nor a result that is an argument counts; integers of four bits are packed.
    assert claimed == 4000 + 500 + 4000 - (4000 if options else 0)


def test_a_limit_of_just_that_much_is_tried() -> None:
    args = (shape(1000), shape(1000))
    function = lambda x, y: x + y  # noqa: E731
    assert least(function, args) == 12_000
    check_interface(jax.jit(function).trace(*args), args, 12_000)
    assert fit(function, *args, limit=12_000).is_default


def test_what_lies_on_the_host_is_not_counted() -> None:
    host = SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host")
    args = (shape(1000, sharding=host),)
    check_interface(jax.jit(lambda x: x + 1).trace(*args), args, 10)
    plain = (shape(1000),)
    check_interface(jax.jit(lambda x: x + 1, out_shardings=host).trace(*plain), plain, 10)


def test_the_error_names_arguments_and_results() -> None:
    with pytest.raises(CannotFitError) as caught:
        fit(step, *ARGUMENTS, limit=100)
    error = caught.value
    assert error.attempts == ()
    assert error.least is None
    assert error.standing is not None
    assert error.standing.bytes == error.proven
    assert [group.label for group in error.standing.groups] == ["argument x", "result 1", "argument y"]
    assert "by the model" not in str(error)
    assert "argument, not donated; last read by" in str(error)
