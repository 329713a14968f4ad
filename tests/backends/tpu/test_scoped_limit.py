"""The next scoped limit to try."""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from memplan.backends.tpu.scoped_limit import next_limit


def tried(latency: Callable[[int], float], most: int, count: int, first: int = 16384) -> dict[int, float]:
    found = {first: latency(first)}
    while len(found) < count and (limit := next_limit(found, most)) is not None:
        assert limit not in found
        found[limit] = latency(limit)
    return found


def test_both_ways_then_the_better_one() -> None:
    assert list(tried(lambda limit: limit, 100_000, 5)) == [16384, 32768, 8192, 4096, 2048]
    assert list(tried(lambda limit: -limit, 140_000, 5)) == [16384, 32768, 65536, 131072, 98304]


def test_a_limit_that_fails_is_not_left_out_but_worst() -> None:
    found = tried(lambda limit: math.inf if limit > 16384 else abs(limit - 16384), 100_000, 4)
    assert list(found) == [16384, 32768, 8192, 12288]


def test_a_large_limit_is_not_tried() -> None:
    assert list(tried(lambda limit: -limit, 32768, 3)) == [16384, 8192, 12288]


@given(st.integers(2048, 65536), st.integers(20_000, 131_072))
def test_the_best_of_a_valley_is_found(lowest: int, most: int) -> None:
    """Of a function with one valley, the bisection ends within two steps of its lowest place."""
    found = tried(lambda limit: abs(limit - lowest), most, 100)
    best = min(found, key=lambda limit: found[limit])
    assert abs(best - lowest) <= 4096 or (lowest > best and 2 * best >= most)
    assert len(found) <= 12
