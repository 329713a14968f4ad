"""Which program is the fastest: turns, warm-up, medians; the clock is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

from memplan.backends.jit.timing import median_seconds, wall_clock


def test_programs_take_turns_and_the_first_turn_does_not_count() -> None:
    ran: list[str] = []
    clock = iter([100.0, 100.0, 3.0, 7.0, 1.0, 8.0, 50.0, 9.0])

    def timer(run: Callable[[], Any]) -> float:
        run()
        return next(clock)

    programs = [lambda x: ran.append(f"a{x}"), lambda x: ran.append(f"b{x}")]
    assert median_seconds(programs, lambda: ((5,), {}), timer, repetitions=3) == [3.0, 8.0]
    assert ran == ["a5", "b5"] * 4


def test_every_run_has_arguments_of_its_own() -> None:
    made: list[int] = []

    def arguments() -> tuple[tuple[Any, ...], dict[str, Any]]:
        made.append(1)
        return (), {"x": jnp.ones(3)}

    seen: list[int] = []
    median_seconds([lambda x: seen.append(id(x))], arguments, lambda run: float(run() is None), repetitions=2)
    assert len(made) == len(seen) == 3


def test_the_clock_on_the_wall_waits_for_the_result() -> None:
    class Result:
        waited = 0

        def block_until_ready(self) -> Result:
            Result.waited += 1
            return self

    assert wall_clock(Result) > 0
    assert Result.waited == 1


def test_an_error_is_passed_on() -> None:
    def broken() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        median_seconds([broken], lambda: ((), {}))
