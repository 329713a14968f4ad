"""Compressed weights, as pytrees of arrays that a program takes in their place: factors, and rounded numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Ranks are these shares of the smaller side; sixteenths.
_SHARES = 16
_BITS = (8, 4, 2)
# Scales are tried from this share of the largest entry of a channel on: clipping may cost less than coarse steps.
_SCALES = np.linspace(0.3, 1.0, 15)

AS_GIVEN = "as given"


def array_of(numbers: Any, dtype: Any) -> Any:
    """Returns an array for the host, where JAX compiles nothing for it, if numpy has operations of its dtype."""
    return np.asarray(numbers, dtype) if np.dtype(dtype).kind == "f" else jnp.asarray(numbers, dtype)


def module_of(array: Any) -> Any:
    """Returns the module with the operations of an array, numpy or `jax.numpy`."""
    return np if isinstance(array, np.ndarray) else jnp


class EncodedWeight(ABC):
    """A weight in another form."""

    @abstractmethod
    def dense(self) -> Any:
        """Returns the weight; the program makes it."""

    def product(self, x: jax.Array, side: int, precision: Any) -> jax.Array | None:
        """Returns rows `x [..., K]` times the weight, without making it; None if there is no such way.

        Args:
          x: what is multiplied.
          side: the axis of the weight that the product sums over.
          precision: as of `lax.dot_general`.
        """
        del x, side, precision
        return None


@partial(jax.tree_util.register_dataclass, data_fields=["u", "v"], meta_fields=[])
@dataclass(frozen=True)
class LowRankWeight(EncodedWeight):
    """A matrix `[I, O]` as the product of `u [I, R]` and `v [R, O]`."""

    u: Any
    v: Any

    def dense(self) -> Any:
        """Returns the product."""
        return self.u @ self.v

    def product(self, x: jax.Array, side: int, precision: Any) -> jax.Array:
        """Multiplies by one factor after the other."""
        first, second = (self.u, self.v) if side == 0 else (self.v.T, self.u.T)
        return jnp.matmul(jnp.matmul(x, first, precision=precision), second, precision=precision)


@partial(jax.tree_util.register_dataclass, data_fields=["codes", "scale"], meta_fields=["bits", "shape", "dtype"])
@dataclass(frozen=True)
class PackedWeight(EncodedWeight):
    """A weight `[…, C]` as codes of 8, 4 or 2 bits and one scale for each channel.

    Attributes:
      codes: `[bytes]` uint8, each of 8 ÷ bits codes, the first in the lowest bits; a code is the number plus the
        largest one.
      scale: `[C]` float32.
    """

    codes: Any
    scale: Any
    bits: int
    shape: tuple[int, ...]
    dtype: Any

    def dense(self) -> Any:
        """Returns number times scale for each entry."""
        xp = module_of(self.codes)
        shifts = xp.arange(0, 8, self.bits, dtype=xp.uint8)
        codes = (self.codes[:, None] >> shifts) & xp.uint8(2**self.bits - 1)
        size = int(np.prod(self.shape))
        numbers = codes.ravel()[:size].astype(xp.float32) - (2 ** (self.bits - 1) - 1)
        return (numbers.reshape(self.shape) * self.scale).astype(self.dtype)


Encode = Callable[[Any], Iterator[tuple[str, Any]]]


def low_ranks(weight: Any) -> Iterator[tuple[str, Any]]:
    """Yields the best matrices of ranks of 1/16 to 15/16 of the smaller side, where they take fewer bytes.

    The truncated singular value decomposition is the nearest matrix of its rank (Eckart and Young, 1936). Only
    matrices have levels, and a vector none.
    """
    yield AS_GIVEN, weight
    if weight.ndim != 2 or not jnp.issubdtype(weight.dtype, jnp.floating):
        return
    rows, columns = weight.shape
    u, s, v = np.linalg.svd(np.asarray(weight, np.float64), full_matrices=False)
    for share in range(_SHARES - 1, 0, -1):
        rank = -(-share * len(s) // _SHARES)
        if 0 < rank * (rows + columns) < rows * columns:
            root = np.sqrt(s[:rank])
            left, right = u[:, :rank] * root, root[:, None] * v[:rank]
            yield (
                f"rank {share}/{_SHARES}",
                LowRankWeight(array_of(left, weight.dtype), array_of(right, weight.dtype)),
            )


def bit_widths(weight: Any) -> Iterator[tuple[str, Any]]:
    """Yields the weight rounded to 8, 4 and 2 bits, each channel with the scale of the least squared error."""
    yield AS_GIVEN, weight
    if weight.ndim < 2 or weight.size == 0 or not jnp.issubdtype(weight.dtype, jnp.floating):
        return
    flat = np.asarray(weight, np.float32).reshape(-1, weight.shape[-1])
    largest = np.abs(flat).max(0)
    for bits in _BITS:
        most = 2 ** (bits - 1) - 1
        scales = np.maximum(_SCALES[:, None] * largest / most, 1e-30).astype(np.float32)
        errors = [np.square(np.clip(np.rint(flat / s), -most, most) * s - flat).sum(0) for s in scales]
        scale = scales[np.argmin(errors, 0), np.arange(flat.shape[1])]
        codes = (np.clip(np.rint(flat / scale), -most, most) + most).astype(np.uint8).ravel()
        count = 8 // bits
        codes = np.pad(codes, (0, -len(codes) % count)).reshape(-1, count)
        packed = np.bitwise_or.reduce(codes << np.arange(0, 8, bits, dtype=np.uint8), 1).astype(np.uint8)
        yield f"{bits} bits", PackedWeight(packed, scale, bits, weight.shape, weight.dtype)
