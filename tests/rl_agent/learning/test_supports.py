"""Numbers as distributions."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.rl_agent.learning.supports import ATOMS, from_logits, spread, squeezed, to_categories


@given(st.floats(-1.0, 1.0, width=32))
def test_back_and_forth(x: float) -> None:
    shares = to_categories(jnp.float32(x))
    assert shares.shape == (ATOMS,)
    assert float(shares.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(spread(squeezed(jnp.float32(x)))) == pytest.approx(x, rel=1e-3, abs=1e-7)
    # Mean of the squeezed atoms: what a network is trained to say, up to float32.
    assert float(from_logits(jnp.log(shares + 1e-12))) == pytest.approx(x, rel=2e-3, abs=1e-6)


def test_beyond_the_ends() -> None:
    np.testing.assert_allclose(to_categories(jnp.array([5.0, -5.0])), to_categories(jnp.array([1.0, -1.0])))


def test_small_differences_count() -> None:
    """A thousandth of the latency moves the mean by more than a tenth of the scale."""
    assert float(squeezed(jnp.float32(1e-3))) > 0.1
