"""Where there is supply for a copy, and room for a residency: the searches of the rules, as array operations.

They find what the loops of `reference.py` find. A copy that starts at slot `s` may take what is left between `s` and
the next slot that stops it: one that is closed or belongs to another queue, without that slot; one in which another
copy already moves, with it. With `below[s]`, the ticks that are left of all slots before `s`, what a copy may take is
`min(below[stop of t] for t > s) - below[s]`, for all `s` at once by two scans.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memplan.rl_agent.game.moves import CLOSED, NONE
from memplan.rl_agent.game.reference import FOREVER


def sums(values: jax.Array) -> jax.Array:
    """Returns the sums of the first, the first two, …, all of some numbers, `[n]`."""
    distance = 1
    while distance < values.shape[0]:
        none = jnp.zeros(distance, values.dtype)
        # One pass a doubling: without the barrier the compiler fuses them, and computes all sums many times.
        values = lax.optimization_barrier(values + jnp.concatenate([none, values[:-distance]]))
        distance *= 2
    return values


def minima_from(values: jax.Array) -> jax.Array:
    """Returns the minimum of each number of `[n]` and all behind it."""
    distance = 1
    while distance < values.shape[0]:
        none = jnp.full(distance, jnp.iinfo(values.dtype).max, values.dtype)
        values = lax.optimization_barrier(jnp.minimum(values, jnp.concatenate([values[distance:], none])))
        distance *= 2
    return values


class Copy(NamedTuple):
    """A copy in slots `[first, last]` that takes `rest` ticks of the last one; all int32, `first` is -1 for none."""

    first: jax.Array
    last: jax.Array
    rest: jax.Array

    @property
    def exists(self) -> jax.Array:
        """Whether there is one."""
        return self.first != NONE


def find_copy(
    left: jax.Array,
    owner: jax.Array,
    window: jax.Array,
    queue: jax.Array,
    low: jax.Array,
    high: jax.Array,
    ticks: jax.Array,
    is_late: bool,
) -> Copy:
    """Returns a copy within slots `[low, high)`, no more than the window: as late, or as early, as can be.

    Args:
      left: `[slots]` int32 ticks, or `CLOSED`.
      owner: `[slots]` int32 queue of the copies that move there, or -1.
      window: `[reach]` int32: 0, 1, ….
      queue, low, high, ticks: int32.
      is_late: whether the latest start is wanted, rather than the earliest.
    """
    reach, slots = window.shape[0], left.shape[0]
    base = jnp.clip(high - reach if is_late else low, 0, slots - reach)
    slot = base + window
    supply = lax.dynamic_slice(left, (base,), (reach,))
    owned = lax.dynamic_slice(owner, (base,), (reach,))
    is_shared = owned == queue
    is_usable = (slot >= low) & (slot < high) & (supply != CLOSED) & (is_shared | (owned == NONE))
    supply = jnp.where(is_usable, supply, 0)
    through = sums(supply)
    below = through - supply
    stop = jnp.where(is_usable, jnp.where(is_shared, through, FOREVER), below)
    following = jnp.concatenate([stop[1:], through[-1:]])
    offered = minima_from(following) - below
    is_start = (supply > 0) & (offered >= ticks)
    if is_late:
        first = jnp.max(jnp.where(is_start, slot, NONE))
    else:
        earliest = jnp.min(jnp.where(is_start, slot, slots))
        first = jnp.where(earliest == slots, NONE, earliest)
    goal = jnp.sum(jnp.where(slot < first, supply, 0)) + ticks
    last = base + jnp.sum(through < goal, dtype=jnp.int32)
    rest = goal - jnp.sum(jnp.where(slot < last, supply, 0))
    return Copy(first, last, rest)


def most_kept(bottom: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """Returns the units that the operations of times `[start, end)` keep for themselves; 0 if there are none.

    Args:
      bottom: `[levels, times]`, see `GameArrays`.
      start, end: int32.
    """
    level = 31 - lax.clz(jnp.maximum(end - start, 1))
    most = jnp.maximum(bottom[level, start], bottom[level, end - (1 << level)])
    return jnp.where(start < end, most, 0)


def first_fit(
    busy_until: jax.Array,
    held_until: jax.Array,
    bottoms: tuple[jax.Array, jax.Array],
    start: jax.Array,
    size: jax.Array,
) -> jax.Array:
    """Returns the lowest offset of `size` units that are free from `start` on; -1 for none.

    Those are preferred that are not held then, and stand on the first of the bottoms; any others stand on the second.
    """
    units, small = busy_until.shape[0], busy_until.dtype
    unit = lax.iota(small, units)
    start, size = start.astype(small), size.astype(small)
    is_free = busy_until <= start
    low, lowest = (unit >= bottom.astype(small) for bottom in bottoms)
    offsets = []
    for is_good in (is_free & low & (held_until <= start), is_free & lowest):
        next_bad = minima_from(jnp.where(is_good, units, unit).astype(small))
        offsets.append(jnp.min(jnp.where(next_bad - unit >= size, unit, units)).astype(jnp.int32))
    best = jnp.where(offsets[0] == units, offsets[1], offsets[0])
    return jnp.where(best == units, NONE, best)
