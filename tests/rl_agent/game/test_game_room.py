"""The scans that the searches are made of, against loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.rl_agent.game import room

sums, maxima_to, minima_from, set_throughout = map(
    jax.jit, (room.sums, room.maxima_to, room.minima_from, room.set_throughout)
)
SIZES = (1, 2, 5, 64)  # few, since each is compiled


@st.composite
def _numbers(draw: st.DrawFn, most: int) -> list[int]:
    size = draw(st.sampled_from(SIZES))
    return draw(st.lists(st.integers(0, most), min_size=size, max_size=size))


@settings(max_examples=40)
@given(_numbers(1000))
def test_scans_combine_all_on_one_side(numbers: list[int]) -> None:
    values = jnp.asarray(numbers, jnp.int32)
    assert sums(values).tolist() == np.cumsum(numbers).tolist()
    assert maxima_to(values).tolist() == np.maximum.accumulate(numbers).tolist()
    assert minima_from(values).tolist() == np.minimum.accumulate(numbers[::-1])[::-1].tolist()


@settings(max_examples=40)
@given(_numbers(255), st.integers(1, 70))
def test_bits_set_throughout(numbers: list[int], size: int) -> None:
    found = set_throughout(jnp.asarray(numbers, jnp.uint8), jnp.int32(size))
    expected = [
        int(np.bitwise_and.reduce(numbers[start : start + size])) if start + size <= len(numbers) else 0
        for start in range(len(numbers))
    ]
    assert found.tolist() == expected
