import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.compiler.ir.window import Window


def test_window_text() -> None:
    window = Window.parse("{size=3x5 stride=2x1 pad=-1_2x0_0 lhs_dilate=1x2 rhs_dilate=3x1}")
    assert window == Window((3, 5), (2, 1), (-1, 0), (2, 0), (1, 2), (3, 1))
    assert Window.parse("{size=4}") == Window((4,), (1,), (0,), (0,), (1,), (1,))
    assert Window.parse("") == Window()


@settings(max_examples=300)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 4), st.integers(-3, 6), st.integers(1, 4),
    st.integers(1, 3),
)  # fmt: skip
def test_hits_are_counted_right(
    inputs: int, outputs: int, size: int, stride: int, pad: int, dilation: int, window_dilation: int
) -> None:
    window = Window((size,), (stride,), (pad,), (0,), (dilation,), (window_dilation,))
    met = 0
    for o, k in itertools.product(range(outputs), range(size)):
        place = o * stride + k * window_dilation - pad
        met += place % dilation == 0 and 0 <= place // dilation < inputs
    assert window.hits(0, inputs, outputs) == met


def test_a_window_of_absurd_size_is_answered() -> None:
    window = Window.parse("{size=1000000000 stride=1}")
    assert window.hits(0, 2 * 10**9, 10**9) == pytest.approx(1e18, rel=0.01)
