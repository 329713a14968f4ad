"""The axes of a group: dimensions that its instructions join, and how far each can be cut. Compiled by numba."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memplan.compiler.kernels import internal
from memplan.passes.fusion.line import Array, LineArrays

# The axes of a group that are tried, those of most bytes first.
AXES = 4


class Scratch(NamedTuple):
    """Memory to work in.

    Attributes:
      stamp: `[d]` when a dimension was last entered.
      parent: `[d]` joined dimensions as disjoint sets.
      size: `[d]` for the representative of a set: the most tiles into which all of its dimensions can be cut.
      slot: `[max(n, d) + 1]`, zero between calls.
      mark: `[m]`, zero between calls.
    """

    stamp: Array
    parent: Array
    size: Array
    slot: Array
    mark: Array


def scratch_for(line: LineArrays) -> Scratch:
    """Returns memory to work in."""
    n, d, m = len(line.order), len(line.dim_size), len(line.position)
    return Scratch(
        np.full(d, -1, np.int64),
        np.zeros(d, np.int64),
        np.zeros(d, np.int64),
        np.zeros(max(d, n) + 1, np.int64),
        np.zeros(m, np.int64),
    )


@internal
def axis_of(parent: Array, dim: int) -> int:
    while parent[dim] != dim:
        parent[dim] = parent[parent[dim]]
        dim = parent[dim]
    return dim


@internal
def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@internal
def enter(line: LineArrays, scratch: Scratch, stamp: int, p: int) -> None:
    """Joins the dimensions of a position with those of the positions that were entered under the same stamp."""
    entered, parent, size, dim_size = scratch.stamp, scratch.parent, scratch.size, line.dim_size
    value = line.order[p]
    _touch(entered, parent, size, dim_size, stamp, line.dim_start[value], line.dim_start[value + 1])
    for r in range(line.read_start[p], line.read_start[p + 1]):
        value = line.read_value[r]
        _touch(entered, parent, size, dim_size, stamp, line.dim_start[value], line.dim_start[value + 1])
    for entry in range(line.whole_start[p], line.whole_start[p + 1]):
        _touch(entered, parent, size, dim_size, stamp, line.whole[entry], line.whole[entry] + 1)
    for entry in range(line.sum_start[p], line.sum_start[p + 1]):
        _touch(entered, parent, size, dim_size, stamp, line.summed[entry], line.summed[entry] + 1)
    for entry in range(line.matrix_start[p], line.matrix_start[p + 1]):
        _touch(entered, parent, size, dim_size, stamp, line.matrix_dim[entry], line.matrix_dim[entry] + 1)
    for join in range(line.join_start[p], line.join_start[p + 1]):
        _touch(entered, parent, size, dim_size, stamp, line.join_a[join], line.join_a[join] + 1)
        _touch(entered, parent, size, dim_size, stamp, line.join_b[join], line.join_b[join] + 1)
        a, b = axis_of(parent, line.join_a[join]), axis_of(parent, line.join_b[join])
        if a != b:
            parent[b] = a
            size[a] = _gcd(size[a], size[b])


@internal
def _touch(entered: Array, parent: Array, size: Array, dim_size: Array, stamp: int, first: int, end: int) -> None:
    """Makes each of the dimensions `[first, end)` that was not entered yet an axis of its own."""
    for dim in range(first, end):
        if entered[dim] != stamp:
            entered[dim], parent[dim], size[dim] = stamp, dim, dim_size[dim]


@internal
def axes_of_group(line: LineArrays, scratch: Scratch, members: Array, last: int, values: Array, count: int) -> Array:
    """Returns `[AXES]` the axes of a group that can be cut, those of most bytes first; -1 where there are no more."""
    num_dims = 0
    for v in range(count):
        num_dims += line.dim_start[values[v] + 1] - line.dim_start[values[v]]
    roots = np.empty(num_dims, np.int64)
    weights = np.zeros(num_dims)
    num_roots = 0
    slot_of = scratch.slot
    for v in range(count):
        value = values[v]
        for dim in range(line.dim_start[value], line.dim_start[value + 1]):
            root = axis_of(scratch.parent, dim)
            if scratch.size[root] <= 1:
                continue
            if slot_of[root] == 0:
                roots[num_roots] = root
                num_roots += 1
                slot_of[root] = num_roots
            slot = slot_of[root] - 1
            is_twice = False
            for other in range(line.dim_start[value], dim):
                is_twice = is_twice or axis_of(scratch.parent, other) == root
            if is_twice:
                weights[slot] = -np.inf  # tiles of it would be blocks on a diagonal
            weights[slot] += line.bytes[value]
    for p in members:
        for entry in range(line.whole_start[p], line.whole_start[p + 1]):
            slot = slot_of[axis_of(scratch.parent, line.whole[entry])] - 1
            if slot >= 0:
                weights[slot] = -np.inf
        if line.first_user[p] <= last:
            for entry in range(line.sum_start[p], line.sum_start[p + 1]):
                slot = slot_of[axis_of(scratch.parent, line.summed[entry])] - 1
                if slot >= 0:
                    weights[slot] = -np.inf
    axes = np.full(AXES, -1, np.int64)
    for a in range(AXES):
        heaviest = -1
        for slot in range(num_roots):
            if weights[slot] > 0.0 and (heaviest < 0 or weights[slot] > weights[heaviest]):
                heaviest = slot
        if heaviest < 0:
            break
        axes[a] = roots[heaviest]
        weights[heaviest] = 0.0
    for slot in range(num_roots):
        slot_of[roots[slot]] = 0
    return axes
