"""Matrices as chains of cores, matrix product operators: the levels of `bonds`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from memplan.passes.levels.encodings import AS_GIVEN, EncodedWeight, array_of, module_of

# `u`, `s` and `v` of a singular value decomposition.
Decomposition = tuple[NDArray[np.float64], ...]

# Bonds are these shares of the largest one; sixteenths.
_SHARES = 16
# Matrices of smaller sides have two cores: three would have bonds as large as they are.
_LEAST_OF_THREE = 64


@partial(jax.tree_util.register_dataclass, data_fields=["cores"], meta_fields=[])
@dataclass(frozen=True)
class ChainWeight(EncodedWeight):
    """A matrix as a chain of cores.

    Attributes:
      cores: `[bond, in, out, bond]` each, the outermost bonds 1. The sides of the matrix are the products of `in` and
        of `out`.
    """

    cores: tuple[Any, ...]

    def dense(self) -> Any:
        """Returns the matrix that the chain contracts to."""
        state = self.cores[0][0]
        for core in self.cores[1:]:
            state = module_of(core).einsum("xyb,bioc->xiyoc", state, core)
            state = state.reshape(state.shape[0] * state.shape[1], state.shape[2] * state.shape[3], state.shape[4])
        return state[..., 0]

    def product(self, x: jax.Array, side: int, precision: Any) -> jax.Array:
        """Multiplies by one core after another."""
        rows = x.shape[:-1]
        batch = math.prod(rows)
        state = x.reshape(batch, 1, -1, 1)  # rows, bond, sums to come, results so far
        for core in self.cores:
            if side == 1:
                core = core.transpose(0, 2, 1, 3)
            left, over, results, right = core.shape
            state = state.reshape(batch, left, over, -1, state.shape[-1])
            state = jnp.einsum("bliro,limn->bnrom", state, core, precision=precision)
            state = state.reshape(batch, right, -1, state.shape[3] * results)
        return state.reshape(*rows, -1)


def bond_sizes(weight: Any) -> Iterator[tuple[str, Any]]:
    """Yields chains of cores with bonds of 15/16 to 1/16 of the largest, where they take fewer bytes.

    The chain is that of the truncated singular value decompositions from left to right (Oseledets, "Tensor-train
    decomposition", 2011), of two cores, or of three where both sides are 64 or more. CompactifAI (arXiv 2401.14109)
    writes the linear layers of a language model so.
    """
    yield AS_GIVEN, weight
    if weight.ndim != 2 or min(weight.shape) < 2 or not jnp.issubdtype(weight.dtype, jnp.floating):
        return
    sites = 3 if min(weight.shape) >= _LEAST_OF_THREE else 2
    sides = [_factors(side, sites) for side in weight.shape]
    pairs = [rows * columns for rows, columns in zip(*sides, strict=True)]
    largest = max(min(math.prod(pairs[:site]), math.prod(pairs[site:])) for site in range(1, sites))
    # The first decomposition is that of every level; what is cut off of it differs.
    first = _decomposed(_unfolded(np.asarray(weight, np.float64), *sides), pairs[0])
    for share in range(_SHARES - 1, 0, -1):
        bond = -(-share * largest // _SHARES)
        chain = _chain(first, sides[0], sides[1], bond, weight.dtype)
        if sum(core.nbytes for core in chain.cores) < weight.nbytes:
            yield f"bond {share}/{_SHARES}", chain


def _factors(side: int, count: int) -> list[int]:
    """Returns a side as a product of so many factors, as equal as its divisors allow, the largest first."""
    factors = []
    for left in range(count, 0, -1):
        wanted = side ** (1.0 / left)
        factor = min((d for d in range(1, side + 1) if side % d == 0), key=lambda d: (abs(math.log(d / wanted)), -d))
        factors.append(factor)
        side //= factor
    return sorted(factors, reverse=True)


def _unfolded(matrix: NDArray[np.float64], rows: list[int], columns: list[int]) -> NDArray[np.float64]:
    """Returns the entries of a matrix in the order of the sites, the rows and the columns of each."""
    order = [axis for site in range(len(rows)) for axis in (site, len(rows) + site)]
    return matrix.reshape(*rows, *columns).transpose(order)


def _decomposed(entries: NDArray[np.float64], rows: int) -> Decomposition:
    return tuple(np.linalg.svd(entries.reshape(rows, -1), full_matrices=False))


def _chain(first: Decomposition, rows: list[int], columns: list[int], bond: int, dtype: Any) -> ChainWeight:
    """Returns the chain of a matrix with bonds of at most `bond`, from its decomposition at the first bond."""
    sites = len(rows)
    (u, s, v), cores, left = first, [], 1
    for site in range(sites - 1):
        right = min(bond, len(s))
        cores.append(u[:, :right].reshape(left, rows[site], columns[site], right))
        rest, left = s[:right, None] * v[:right], right
        if site < sites - 2:
            u, s, v = _decomposed(rest, left * rows[site + 1] * columns[site + 1])
    cores.append(rest.reshape(left, rows[-1], columns[-1], 1))
    return ChainWeight(tuple(array_of(core, dtype) for core in cores))
