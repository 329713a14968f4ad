"""Histograms of all pairs of columns, by a loop that is unrolled: the program of a public report on XLA for CPUs.

It is https://github.com/openxla/xla/issues/35719: ten columns of 10⁸ entries, a hundred `bincount`s. Each needs a large
index for a short time, and XLA's order keeps all of them at once. Nothing is differentiated, so `jax.checkpoint`
changes nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from memplan.workloads.registry import workload
from memplan.workloads.train_step import Built, TrainStep

# Number of columns, and entries of each.
_CONFIGS = {"tiny": (3, 1_000), "small": (10, 20_000), "real": (10, 100_000_000)}

# Values of the columns are below these.
_RADICES = (10, 13, 17, 19, 23, 29, 31, 37, 41, 47)


def pair_histograms(columns: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Returns the histogram of each pair of columns.

    Args:
      columns: uint8 [N] each; the values of column i are below `_RADICES[i]`, or are clipped to that.

    Returns:
      int32 [radix of one, radix of the other] for each pair, a column with itself included.
    """
    results = []
    for radix_x, x in zip(_RADICES, columns, strict=False):
        for radix_y, y in zip(_RADICES, columns, strict=False):
            index = jnp.minimum(x, radix_x - 1).astype(jnp.int32) * radix_y + jnp.minimum(y, radix_y - 1)
            results.append(jnp.bincount(index, length=radix_x * radix_y).reshape(radix_x, radix_y))
    return tuple(results)


def _build(size: str) -> Built:
    count, entries = _CONFIGS[size]
    columns = tuple(jax.ShapeDtypeStruct((entries,), jnp.uint8) for _ in range(count))

    def step(columns: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return pair_histograms(columns)

    return step, (columns,)


pair_counts = TrainStep("pair_counts", "an unrolled loop of bincounts over pairs of columns", _build, donate_argnums=())


def reported() -> Built:
    """Returns the program at the size of the report, as `(fun, args)`."""
    return pair_counts.build("real")


@workload(
    "histograms of all pairs of 10 columns of 10⁸ entries, an unrolled loop, uint8",
    family="histogram",
    source="https://github.com/openxla/xla/issues/35719",
)
def pair_histograms_unrolled(tiny: bool = False) -> Built:
    return pair_counts.build("tiny" if tiny else "real")
