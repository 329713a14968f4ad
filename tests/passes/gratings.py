"""Images of a small task that needs no data set: noisy waves in one of four directions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray


def gratings(count: int, turn: float, seed: int, side: int) -> tuple[NDArray[Any], jax.Array]:
    """Images, float32 [count, side, side, 3], and labels; all directions are turned by a share of the angle between two."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 4, count)
    angle = (np.pi * (labels + turn) / 4)[:, None, None]
    y, x = np.mgrid[:side, :side]
    phase, frequency = draw.uniform(0, 2 * np.pi, (count, 1, 1)), draw.uniform(0.9, 1.3, (count, 1, 1))
    wave = np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    images = wave[..., None] + draw.normal(0, 0.5, (count, side, side, 3))
    return images.astype(np.float32), jnp.asarray(labels, jnp.int32)
