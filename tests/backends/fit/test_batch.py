"""The largest batch that fits: what the model expects, and what compilers say, which may be anything."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_programs import mlp, threshold_planner

from memplan.backends.fit.batch import BatchResult, NoBatchFitsError, max_batch
from memplan.backends.fit.compilers import CompiledFit, StatedMemory
from memplan.compiler.errors import MemplanError

Stated = Callable[[int, bool], int | None]


def program(batch: int) -> Any:
    step, args = mlp(layers=3, batch=batch, width=8)
    return step, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)


def short(batch: int) -> Any:
    """A program of few equations, one value of which can be computed twice."""

    def step(w: Any, x: Any) -> Any:
        y = x @ w
        return ((y @ w) @ w + y).sum()

    return step, tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((32, 32), (batch, 32)))


class Stating:
    """A compiler that states what it was told to: a total for a batch, planned or not; None for no figure."""

    platform = "cpu"

    def __init__(self, stated: Stated):
        self.stated = stated

    def compile(self, traced: Any, planned: bool) -> CompiledFit:
        total = self.stated(traced.jaxpr.in_avals[-1].shape[0], planned)
        if total is None:
            return CompiledFit(None, refused="RESOURCE_EXHAUSTED")
        return CompiledFit(StatedMemory(total, 0, 0, 0))

    def close(self) -> None:
        """There is nothing to end."""


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Callable[..., BatchResult]:
    def found(stated: Stated, **options: Any) -> BatchResult:
        monkeypatch.setattr("memplan.backends.fit.batch.compiler_for", lambda target: Stating(stated))
        options = {"limit": 100_000, "at_most": 4096, **options}
        return max_batch(options.pop("program", short), planner=threshold_planner, **options)

    return found


@pytest.mark.slow
def test_the_largest_batch_of_a_real_compiler_computes_the_same() -> None:
    result = max_batch(partial(program), limit="96KiB", multiple_of=8, planner=threshold_planner)
    assert result.as_given is not None
    assert result.as_given < result.batch
    assert result.batch % 8 == 0
    assert result.fit.memory.total <= 96 * 1024
    assert result.as_given_needs is not None
    assert result.as_given_needs <= 96 * 1024
    assert result.predicted is not None
    assert abs(result.predicted - result.batch) <= 0.3 * result.batch
    assert not result.fit.is_default
    assert 0 < result.added_per_sample < result.seconds_per_sample
    assert len(result.attempts) <= 16
    step, args = mlp(layers=3, batch=result.batch, width=8)
    for ours, theirs in zip(jax.tree.leaves(result.fit(*args)), jax.tree.leaves(jax.jit(step)(*args)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    lines = result.summary().splitlines()
    assert lines[0].startswith(f"batch {result.batch:,} needs")
    assert lines[1].startswith(f"as given, batch {result.as_given:,} (")


@pytest.mark.parametrize(("given", "planned"), [(2000, 700), (5000, 900), (400, 250)])
def test_the_compiler_corrects_the_model(search: Callable[..., BatchResult], given: int, planned: int) -> None:
    """It states much more or less than the model predicts, and the answer is at the limit all the same."""
    result = search(lambda batch, is_planned: (planned if is_planned else given) * batch, compile_budget=30)
    assert result.fit.memory.total == planned * result.batch
    assert (result.batch + max(1, int(0.03 * result.batch))) * planned > 100_000
    assert result.as_given is not None
    assert result.as_given * given <= 100_000
    above = [attempt for attempt in result.attempts if attempt.batch > result.batch and attempt.is_planned]
    assert all(not attempt.fits for attempt in above)
    assert result.refused == tuple(sorted({attempt.batch for attempt in above}))


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 9])
def test_no_more_is_compiled_than_is_allowed_and_the_answer_was_stated(
    search: Callable[..., BatchResult], budget: int
) -> None:
    result = search(lambda batch, planned: (700 if planned else 1900) * batch + 15000, compile_budget=budget)
    assert len(result.attempts) <= budget
    stated = [a.compile.stated for a in result.attempts if a.batch == result.batch and a.fits]
    assert result.fit.memory.total in stated
    planned = {attempt.batch for attempt in result.attempts if attempt.is_planned}
    assert set(result.refused) <= planned


def test_needs_that_do_not_rise_give_a_batch_that_fits(search: Callable[..., BatchResult]) -> None:
    """Every third batch needs a multiple of the others, as if the compiler padded it."""
    result = search(lambda batch, planned: (5000 if batch % 3 == 0 else 900) * batch)
    assert result.batch % 3 != 0
    assert result.fit.memory.total == 900 * result.batch <= 100_000


def test_a_compiler_that_gives_no_figures_is_asked_in_halves(search: Callable[..., BatchResult]) -> None:
    result = search(lambda batch, _: None if batch > 70 else 10 * batch, compile_budget=60)
    assert 60 <= result.batch <= 70
    assert min(result.refused) > 70


def test_the_bounds_hold(search: Callable[..., BatchResult]) -> None:
    result = search(lambda batch, _: batch, at_least=5, at_most=47, multiple_of=6)
    assert (result.batch, result.at_most, result.is_bounded, result.refused) == (42, 42, True, ())
    assert result.fit.is_default
    assert result.as_given == 42
    assert "no larger batch was asked for" in result.summary()
    assert {attempt.batch % 6 for attempt in result.attempts} == {0}


def test_the_smallest_batch_does_not_fit(search: Callable[..., BatchResult]) -> None:
    with pytest.raises(NoBatchFitsError, match="batch 3 does not fit: nothing was found") as caught:
        search(lambda batch, _: 1_000_000 + batch, at_least=3)
    error = caught.value
    assert error.standing
    assert error.standing.name in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.batch, again.standing) == (str(error), 3, error.standing)
    with pytest.raises(NoBatchFitsError, match="arguments and results alone") as caught:
        search(lambda batch, _: batch, limit=1000)
    assert caught.value.is_interface


def test_a_program_that_does_not_depend_on_the_batch_is_refused(search: Callable[..., BatchResult]) -> None:
    with pytest.raises(MemplanError, match="the same for batch 1 and batch 2: nothing in it depends on batch"):
        search(lambda batch, _: batch, program=lambda batch: short(8))


def uneven(batch: int) -> Any:
    """A program that takes the batch in four parts."""
    return (lambda x: jnp.tanh(x.reshape(4, batch // 4, 8)).sum()), (jax.ShapeDtypeStruct((batch, 8), jnp.float32),)


def broken(batch: int) -> Any:
    raise ValueError(f"no {batch}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiple_of": 0}, "multiple_of must be a positive integer, not 0"),
        ({"at_least": True}, "at_least must be a positive integer, not True"),
        ({"at_most": 2.5}, "at_most must be a positive integer, not 2.5"),
        ({"at_least": 9, "at_most": 15, "multiple_of": 8}, "there is no multiple of 8 from 9 to 15"),
        ({"at_least": 17, "at_most": 15}, "from 17 to 15"),
        ({"limit": "much"}, "a memory limit must be"),
        ({"compile_budget": 0}, "compile_budget must be"),
        ({"program": lambda: short(8)}, "takes no batch"),
        ({"program": broken}, "the program cannot be built for batch 1: ValueError: no 1"),
        ({"program": uneven}, "the program cannot be built for batch 1: TypeError"),
        ({"program": lambda batch: 5}, "returns no"),
    ],
)
def test_mistakes(search: Callable[..., BatchResult], options: dict[str, Any], message: str) -> None:
    with pytest.raises(MemplanError, match=message):
        search(lambda batch, _: batch, **options)
