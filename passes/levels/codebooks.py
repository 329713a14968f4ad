"""Weights as numbers into a codebook of their most usual values, by k-means: the levels of `codebooks`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from memplan.passes.levels.encodings import AS_GIVEN, EncodedWeight, array_of, module_of

_ENTRIES = (128, 64, 32, 16, 8, 4, 2)
_ROUNDS = 30


@partial(jax.tree_util.register_dataclass, data_fields=["codes", "codebook"], meta_fields=["shape"])
@dataclass(frozen=True)
class CodebookWeight(EncodedWeight):
    """A weight whose entries are those of a codebook.

    Attributes:
      codes: `[bytes]` uint8, a stream of numbers into the codebook of as few bits each as hold them, the lowest first.
      codebook: `[entries]`, a power of two.
      shape: of the weight.
    """

    codes: Any
    codebook: Any
    shape: tuple[int, ...]

    def dense(self) -> Any:
        """Returns the entry of the codebook for each number."""
        xp = module_of(self.codes)
        bits = len(self.codebook).bit_length() - 1
        size = int(np.prod(self.shape))
        stream = xp.unpackbits(self.codes, bitorder="little")[: size * bits].reshape(size, bits)
        numbers = (stream.astype(xp.int32) << xp.arange(bits)).sum(1)
        return self.codebook[numbers].reshape(self.shape)


def codebook_sizes(weight: Any) -> Iterator[tuple[str, Any]]:
    """Yields the weight with codebooks of 128 to 2 entries, where they take fewer bytes.

    Yvinec et al. (arXiv 2309.17361) share codebooks between layers; here each layer has its own, whose size is its
    level. The values are the means of clusters of the entries (k-means, from their quantiles).
    """
    yield AS_GIVEN, weight
    if weight.ndim < 2 or weight.size == 0 or not jnp.issubdtype(weight.dtype, jnp.floating):
        return
    entries = np.asarray(weight, np.float64).ravel()
    for count in _ENTRIES:
        bits = count.bit_length() - 1
        if -(-entries.size * bits // 8) + count * weight.dtype.itemsize < weight.nbytes:
            means = _means(entries, count)
            numbers = np.searchsorted((means[1:] + means[:-1]) / 2.0, entries)
            stream = (numbers[:, None] >> np.arange(bits)) & 1
            codes = np.packbits(stream.astype(np.uint8).ravel(), bitorder="little")
            yield (
                f"{count} entries",
                CodebookWeight(codes, array_of(means, weight.dtype), weight.shape),
            )


def _means(entries: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Returns the sorted means of clusters of numbers (Lloyd, 1982)."""
    ordered = np.sort(entries)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    means = np.quantile(ordered, (np.arange(count) + 0.5) / count)
    for _ in range(_ROUNDS):
        ends = np.searchsorted(ordered, (means[1:] + means[:-1]) / 2.0)
        ends = np.concatenate([[0], ends, [len(ordered)]])
        sizes = np.diff(ends)
        after = np.where(sizes > 0, np.diff(sums[ends]) / np.maximum(sizes, 1), means)
        if np.array_equal(after, means):
            break
        means = after
    return means
