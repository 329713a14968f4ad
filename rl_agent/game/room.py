"""Where there is supply for a copy, and room for a residency: the searches of the rules as array operations in JAX.

They find what the loops of `slot_supply.py` and `reference.py` find. A copy that starts at slot `s` may take what is
left between `s` and the next slot that stops it. A slot that is closed or belongs to another queue stops it before that
slot; a slot in which another copy of its queue moves already stops it behind that slot. Let `below[s]` be the ticks
that are left of all slots before `s`. The copy may take `min(below[stop of t] for t > s) - below[s]`, which two scans
compute for all `s` at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memplan.rl_agent.game.moves import CLOSED, FOREVER, NEVER, NONE, PASSED


def sums(values: jax.Array) -> jax.Array:
    """Returns the sums of the first, the first two, …, all of some numbers, `[n]`."""
    return _doubled(values, jnp.add, 0, is_before=True)


def minima_from(values: jax.Array) -> jax.Array:
    """Returns the minimum of each number of `[n]` and all behind it."""
    return _doubled(values, jnp.minimum, jnp.iinfo(values.dtype).max, is_before=False)


def maxima_to(values: jax.Array) -> jax.Array:
    """Returns the maximum of each number of `[n]` and all before it."""
    return _doubled(values, jnp.maximum, jnp.iinfo(values.dtype).min, is_before=True)


def _doubled(
    values: jax.Array, combine: Callable[[jax.Array, jax.Array], jax.Array], neutral: int, is_before: bool
) -> jax.Array:
    """Returns each number of `[n]` combined with all before, or behind, it."""
    reach = 1 << (values.shape[0] - 1).bit_length()
    # Neutral numbers are there from the start, so that a pass is one operation on two slices, which compilers turn into
    # vector instructions.
    neutrals = jnp.full(reach - 1, neutral, values.dtype)
    values = jnp.concatenate([neutrals, values] if is_before else [values, neutrals])
    distance = 1
    while distance < reach:
        # One pass a doubling: without the barrier the compiler may fuse them, and computes all many times.
        values = lax.optimization_barrier(combine(values[:-distance], values[distance:]))
        distance *= 2
    return values


def set_throughout(flags: jax.Array, size: jax.Array) -> jax.Array:
    """Returns which bits are set in all of the `size` numbers from each one on; behind the last number none is.

    Args:
      flags: `[n]` uint8.
      size: int32, at least 1.
    """
    units = flags.shape[0]
    bits = (units - 1).bit_length()
    # Bits of `doubled` are set in 2**k numbers, of `found` in as many as the lowest k bits of `others` say.
    others = size - 1
    doubled = jnp.concatenate([flags, jnp.zeros(1 << bits, jnp.uint8)])
    found = jnp.full_like(doubled, 0xFF)
    for bit in range(bits):
        distance = 1 << bit
        both = doubled[:-distance] & found[distance:]
        found = jnp.where((others & distance) != 0, both, found[:-distance])
        found, doubled = lax.optimization_barrier((found, doubled[:-distance] & doubled[distance:]))
    return jnp.where(size <= units, flags & found[1:], jnp.uint8(0))


class FoundCopy(NamedTuple):
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
    is_issued: jax.Array,
    window: jax.Array,
    queue: jax.Array,
    low: jax.Array,
    high: jax.Array,
    ticks: jax.Array,
    latency: jax.Array,
    is_late: bool,
) -> FoundCopy:
    """Returns a copy within slots `[low, high)`, no more than the window: as late, or as early, as can be.

    Args:
      left: `[slots]` int32 ticks, or `CLOSED`, or `PASSED`.
      owner: `[slots]` int32 queue of the copies that move there, or -1.
      is_issued: `[slots]` bool, whether a copy like it is issued there.
      window: `[reach]` int32: 0, 1, ….
      queue, low, high, ticks: int32.
      latency: int32 of the ticks, which it does not take if it is issued with another one.
      is_late: whether the latest start is wanted, rather than the earliest.
    """
    reach, slots = window.shape[0], left.shape[0]
    base = jnp.clip(high - reach if is_late else low, 0, slots - reach)
    slot = base + window
    supply = lax.dynamic_slice(left, (base,), (reach,))
    owned = lax.dynamic_slice(owner, (base,), (reach,))
    needed = ticks - jnp.where(lax.dynamic_slice(is_issued, (base,), (reach,)), latency, 0)
    is_shared = owned == queue
    is_usable = (slot >= low) & (slot < high) & (supply != CLOSED) & (is_shared | (owned == NONE))
    supply = jnp.where(is_usable & (supply != PASSED), supply, 0)
    through = sums(supply)
    below = through - supply
    stop = jnp.where(is_usable, jnp.where(is_shared, through, FOREVER), below)
    following = jnp.concatenate([stop[1:], through[-1:]])
    offered = minima_from(following) - below
    is_start = (supply > 0) & (offered >= needed)
    if is_late:
        first = jnp.max(jnp.where(is_start, slot, NONE))
    else:
        earliest = jnp.min(jnp.where(is_start, slot, slots))
        first = jnp.where(earliest == slots, NONE, earliest)
    goal = jnp.sum(jnp.where(slot < first, supply, 0)) + needed[jnp.clip(first - base, 0, reach - 1)]
    last = base + jnp.sum(through < goal, dtype=jnp.int32)
    rest = goal - jnp.sum(jnp.where(slot < last, supply, 0))
    return FoundCopy(first, last, rest)


def most_kept(bottom: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """Returns the units that the operations of times `[start, end)` keep for themselves; 0 if there are none.

    Args:
      bottom: `[levels, times]`, see `GameArrays`.
      start, end: int32.
    """
    level = 31 - lax.clz(jnp.maximum(end - start, 1))
    most = jnp.maximum(bottom[level, start], bottom[level, end - (1 << level)])
    return jnp.where(start < end, most, 0)


class LateEvictionCopy(NamedTuple):
    """A copy home that is late.

    Attributes:
      copy: none if no slots offer enough.
      wait: float32 ticks that it is late.
    """

    copy: FoundCopy
    wait: jax.Array


def find_late_eviction(
    left: jax.Array,
    owner: jax.Array,
    duration: jax.Array,
    window: jax.Array,
    low: jax.Array,
    high: jax.Array,
    latency: jax.Array,
    ticks: jax.Array,
    moving: jax.Array,
) -> LateEvictionCopy:
    """Returns the copy home that has those neighbours among slots `[low, high)` to itself which offer most.

    Args:
      left, owner, window: see `find_copy`.
      duration: `[slots]` int32 ticks of the operations.
      low, high: int32, no more than the window.
      latency, ticks, moving: see `late_copy`.
    """
    reach, slots = window.shape[0], left.shape[0]
    base = jnp.clip(low, 0, slots - reach)
    slot = base + window
    supply, owned, lasts = (lax.dynamic_slice(column, (base,), (reach,)) for column in (left, owner, duration))
    # Only slots before `high` count, and behind those there is always another one.
    following = jnp.append(supply[1:], left[jnp.minimum(base + reach, slots - 1)])
    is_usable = (slot >= low) & (slot < high) & (supply >= 0) & (owned == NONE) & (following != PASSED)
    supply = jnp.where(is_usable, supply, 0)
    through = sums(supply)
    runs = through - maxima_to(jnp.where(is_usable, 0, through))
    best = jnp.argmax(runs).astype(jnp.int32)
    last = base + best
    first = jnp.max(jnp.where(~is_usable & (slot < last), slot + 1, jnp.maximum(low, base)))
    exists = (2 * runs[best] > ticks) & (ticks < NEVER)
    is_own = (slot >= first) & (slot <= last)
    wait = _wait(jnp.where(is_own, supply, 0), jnp.where(is_own, lasts, 0), latency, moving)
    return LateEvictionCopy(FoundCopy(jnp.where(exists, first, NONE), last, supply[best]), wait)


def _wait(supply: jax.Array, lasts: jax.Array, latency: jax.Array, moving: jax.Array) -> jax.Array:
    """Returns the float32 ticks that a copy is late: of slots, what they offer to it, and how long they last."""
    through = sums(lasts)
    passed = jnp.clip(latency - (through - lasts), 0, lasts)
    share = 1.0 - passed / jnp.maximum(lasts, 1)
    return jnp.maximum(latency - through[-1], 0) + jnp.maximum(moving - jnp.sum(supply * share), 0.0)


class LateCopy(NamedTuple):
    """A copy that may be late, in slots `[first, done)`.

    Attributes:
      first: int32.
      lacking: int32 ticks, at most, that it is late.
      wait: float32 ticks that it is late.
    """

    first: jax.Array
    lacking: jax.Array
    wait: jax.Array


def late_copy(
    left: jax.Array,
    is_open: jax.Array,
    duration: jax.Array,
    window: jax.Array,
    low: jax.Array,
    done: jax.Array,
    latency: jax.Array,
    ticks: jax.Array,
    moving: jax.Array,
) -> LateCopy:
    """Returns the copy that has all open slots before a use to itself.

    Args:
      left: `[slots]` int32 ticks, or `CLOSED`, or `PASSED`.
      is_open: `[slots]` bool, whether nothing moves there and the place is free.
      duration: `[slots]` int32 ticks of the operations.
      window: `[reach]` int32: 0, 1, ….
      low, done: int32, it has slots of `[low, done)`, no more than the window.
      latency: int32 ticks, after which it moves.
      ticks: int32, of supply that it takes, latency included.
      moving: float32 ticks of supply that it takes, latency not included.
    """
    reach, slots = window.shape[0], left.shape[0]
    base = jnp.clip(done - reach, 0, slots - reach)
    slot = base + window
    supply, lasts, is_usable = (lax.dynamic_slice(column, (base,), (reach,)) for column in (left, duration, is_open))
    is_usable &= supply >= 0
    first = jnp.maximum(low, jnp.max(jnp.where(~is_usable & (slot < done), slot + 1, 0)))
    is_own = (slot >= first) & (slot < done)
    supply, lasts = jnp.where(is_own, supply, 0), jnp.where(is_own, lasts, 0)
    return LateCopy(first, ticks - jnp.sum(supply), _wait(supply, lasts, latency, moving))


def choose_offset(is_offset: jax.Array, is_good: jax.Array, place: jax.Array, is_long: jax.Array) -> jax.Array:
    """Returns the offset of a residency; -1 if there is none.

    Args:
      is_offset: `[units]` bool, whether it may lie there.
      is_good: `[units]` bool, whether it lies well there.
      place: int32, the offset that is preferred to all, -1 for none.
      is_long: bool, whether the highest offset is wanted, rather than the lowest.
    """
    units = is_offset.shape[0]
    unit = lax.iota(jnp.int32, units)
    best = is_offset & is_good
    best = jnp.where(jnp.any(best), best, is_offset)
    highest = jnp.max(jnp.where(best, unit, NONE))
    lowest = jnp.min(jnp.where(best, unit, units))
    found = jnp.where(is_long | (highest == NONE), highest, lowest)
    return jnp.where((place >= 0) & is_offset[jnp.maximum(place, 0)], place, found)
