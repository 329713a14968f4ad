"""What programs need for any batch, by the model, and where that meets a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.backends.fit.batch_model import check_takes_batch, largest_within
from memplan.compiler.errors import MemplanError


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(-5, 600), st.integers(1, 9), st.integers(0, 39)
)
def test_the_largest_of_needs_that_rise(steps: list[int], limit: int, low: int, length: int) -> None:
    needs = [sum(steps[: k + 1]) for k in range(len(steps))]

    def need(k: int) -> int:
        return needs[min(k, len(needs)) - 1]

    high = low + length
    within = [k for k in range(low, high + 1) if need(k) <= limit]
    found = largest_within(need, limit, low, high)
    assert (found is None) == (not within)
    assert found is None or found == within[-1] or 0.998 * limit <= need(found) <= limit


@pytest.mark.parametrize(("base", "slope"), [(1000, 3), (7, 123_456), (0, 1)])
def test_a_line_is_asked_at_few_places(base: int, slope: int) -> None:
    asked = []

    def need(k: int) -> int:
        asked.append(k)
        return base + slope * k

    assert largest_within(need, base + 5000 * slope, 1, 2**20) == 5000
    assert len(asked) <= 8


@pytest.mark.parametrize("program", [lambda batch: None, lambda batch=4, width=2: None, lambda **sizes: None])
def test_a_program_takes_a_batch_by_its_name(program: Callable[..., Any]) -> None:
    check_takes_batch(program)


@pytest.mark.parametrize("program", [lambda: None, lambda size: None, lambda batch, width: None, lambda batch, /: None])
def test_a_program_without_a_batch_is_refused(program: Callable[..., Any]) -> None:
    with pytest.raises(MemplanError, match="steps:mine takes no batch"):
        check_takes_batch(program, "steps:mine")
