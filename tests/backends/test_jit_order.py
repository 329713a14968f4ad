"""`memplan.jit` on a CPU: programs run in the order that needs the least memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compile_counter import compiles
from jit_choices import choosing
from order_programs import X, temporaries, wide

import memplan
from memplan.backends import order_hook
from memplan.workloads import train_step

pytestmark = pytest.mark.usefixtures("nothing_said")

SMALL = jnp.arange(12.0).reshape(3, 4)

needs_hook = pytest.mark.skipif(not order_hook.is_supported("cpu"), reason="this jax sets no order")


@needs_hook
def test_programs_run_in_the_order_that_needs_the_least_memory(dispatcher: str) -> None:
    theirs = jax.jit(wide)
    expected = theirs(X)
    before = temporaries(theirs.lower(X).compile())
    jitted, made, _ = choosing(wide)
    np.testing.assert_allclose(jitted(X), expected, rtol=1e-5)
    # What the call left behind is what is compiled.
    assert temporaries(made.plain.lower(X).compile()) < before
    assert temporaries(jitted.lower(X).compile()) < before
    assert temporaries(memplan.jit(wide).lower(X).compile()) < before
    # And jax.jit has nothing of it.
    assert temporaries(jax.jit(wide).lower(X).compile()) == before


@needs_hook
def test_an_unrolled_loop_needs_the_memory_of_a_few_iterations() -> None:
    """It is the loop of https://github.com/openxla/xla/issues/35719: nine pairs of columns, each with an index of its own."""
    fun, (columns,) = train_step.get("pair_counts").build("tiny")
    random = np.random.default_rng(0)
    arrays = tuple(random.integers(0, 50, column.shape, np.uint8) for column in columns)
    index_bytes = 4 * arrays[0].size
    ours, theirs = memplan.jit(fun), jax.jit(fun)
    assert temporaries(theirs.lower(arrays).compile()) > 9 * index_bytes
    assert temporaries(ours.lower(arrays).compile()) < 3 * index_bytes
    jax.tree.map(np.testing.assert_array_equal, ours(arrays), theirs(arrays))


@needs_hook
@pytest.mark.slow
def test_after_the_caches_are_cleared_too() -> None:
    before = temporaries(jax.jit(wide).lower(X).compile())
    jitted, made, asked = choosing(wide)
    jitted(X)
    jax.clear_caches()
    jitted(X)
    assert len(asked) == 2
    assert temporaries(made.plain.lower(X).compile()) < before


@needs_hook
def test_one_compile_for_each_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    jitted = memplan.jit(lambda x: jnp.tanh(x) @ x.T)
    with compiles() as seen:
        jitted(SMALL)
        jitted(SMALL)
        jitted.lower(SMALL).compile()
    assert len(seen) == 1


@needs_hook
def test_what_the_hook_cannot_compile_is_compiled_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def broken(*_: Any, **__: Any) -> Iterator[None]:
        raise jax.errors.JaxRuntimeError("INTERNAL: no order today")
        yield

    monkeypatch.setattr(order_hook, "ordering", broken)
    with caplog.at_level(logging.WARNING, "memplan"):
        assert memplan.jit(lambda x: x + 1)(SMALL).shape == SMALL.shape
    (record,) = caplog.records
    assert "no order today" in record.message


def test_a_jax_without_the_hook_runs_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(order_hook, "is_supported", lambda platform: False)
    with caplog.at_level(logging.INFO, "memplan"):
        jitted = memplan.jit(lambda x: x + 1)
        assert jitted(SMALL).shape == SMALL.shape
        assert type(jitted.lower(SMALL)) is jax.stages.Lowered
    (record,) = caplog.records
    assert "nothing applies" in record.message


def test_what_applies_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "memplan"):
        for _ in range(2):
            memplan.jit(lambda x: x + 1)(SMALL)
    (record,) = caplog.records
    assert record.message.startswith("memplan.jit on cpu: ")
