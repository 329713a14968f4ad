"""Packings on a skyline, of any number of blocks: many orders are tried, each in time that grows little faster than n.

What decides is which of the blocks that have room at the lowest place takes it (`skyline_kernel.py`). Large and lasting
ones come first, so that small ones fill what is left, and the sections in which memory is fullest count most: there
nothing may be lost. How much each of the three counts differs from program to program, so it is drawn at random, at
first from everywhere and then near what was best.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Guard
from memplan.planners.offsets.first_fit import Fitted
from memplan.planners.offsets.geometry import Sections, largest_within
from memplan.planners.offsets.instance import Instance, Integers
from memplan.planners.offsets.skyline_kernel import TOO_HIGH, BlockTree, stack_blocks

Reals = NDArray[np.float64]

# Exponents of the load that a section counts by.
_FULLNESS = (0, 4, 16, 64)

# The largest powers of duration and size, the deviations of the noise, and the most that the fullest section adds.
_LARGEST_POWER, _NOISE, _MOST_FOR_FULLEST = 1.5, (0.0, 0.0, 0.3, 1.0), (0.0, 0.0, 20.0, 100.0)

# The draws from everywhere that come first, and the deviation and the least noise of those near the best one.
_WIDE_DRAWS, _DEVIATION, _LEAST_NOISE = 64, 0.15, 0.05


@dataclass(frozen=True)
class Preference:
    """What makes a block come first: the logarithms of what it is, weighted.

    Attributes:
      fullness: index into `_FULLNESS`, of how much full sections count for its duration.
      duration, size: powers.
      noise: deviation of a random part.
      fullest: weight of the load of the fullest section that it is alive in, as a share of the maximum load.
    """

    fullness: int
    duration: float
    size: float
    noise: float = 0.0
    fullest: float = 0.0


# What is tried first.
_FIRST = (
    Preference(0, 1.0, 1.0),
    Preference(0, 1.0, 0.4),
    Preference(3, 1.3, 0.05),
    Preference(2, 1.0, 0.4, noise=0.3),
    Preference(0, 1.0, 0.0),
    Preference(0, 0.0, 1.0),
)


class SkylinePacker:
    """Packings of one instance, which has no block of size 0.

    In a gap, blocks are treated as if they took memory, and nothing lies beneath blocks whose offset is fixed.
    """

    def __init__(self, instance: Instance):
        sections = Sections.of(instance)
        # Blocks whose gaps leave no time at all lie at 0.
        self._absent = np.maximum(instance.fixed, 0)
        self._present = np.flatnonzero((np.diff(sections.pointer) > 0) & (instance.fixed < 0))
        self._size, self._alignment = instance.size[self._present], instance.alignment[self._present]
        self._absent_height = int(np.max(np.delete(self._absent + instance.size, self._present), initial=0))
        self._floor = sections.largest(np.where(instance.fixed >= 0, instance.fixed + instance.size, 0))
        self._first = sections.first[sections.pointer[self._present]]
        self._last = sections.last[sections.pointer[self._present + 1] - 1]
        self._tree = _tree_of(self._first, self._last)
        loads = sections.loads(instance.size) / max(1, int(np.max(sections.loads(instance.size), initial=0)))
        self._log_size = np.log(self._size)
        self._log_duration = [self._weighted_duration(loads**power) for power in _FULLNESS]
        self._fullest = largest_within(loads, self._first, self._last)

    def _weighted_duration(self, weights: Reals) -> Reals:
        total = np.concatenate([[0.0], np.cumsum(weights)])
        return np.log(np.maximum(total[self._last] - total[self._first], 1e-9))

    def packed(self, preference: Preference, draw: np.random.Generator, limit: int) -> Fitted | None:
        """Returns the packing in which blocks take the lowest place by a preference; None if it is above the limit."""
        value = (
            preference.duration * self._log_duration[preference.fullness]
            + preference.size * self._log_size
            + preference.fullest * self._fullest
        )
        if preference.noise:
            value = value + preference.noise * draw.standard_normal(len(value))
        rank = np.empty(len(value), np.int64)
        rank[np.argsort(value, kind="stable")] = np.arange(1, len(value) + 1)
        found = np.empty(len(value), np.int64)
        height = stack_blocks(
            self._size, self._alignment, self._first, self._last, self._tree, rank, self._floor, limit, found
        )
        height = max(int(height), self._absent_height)
        if height >= TOO_HIGH:
            return None
        offsets = self._absent.copy()
        offsets[self._present] = found
        return Fitted(offsets, height, "skyline")

    def best(self, target: int, placements: int, seed: int, guard: Guard) -> Fitted:
        """Returns the lowest packing found.

        Args:
          target: height that is low enough.
          placements: of blocks, at most; one packing is made in any case.
          seed: of what is drawn at random.
          guard: ends it early.
        """
        draw = np.random.default_rng(seed)
        best: Fitted | None = None
        preferences = self._preferences(draw)
        preference = next(preferences)
        for _ in range(max(1, placements // max(1, len(self._absent)))):
            if best is not None and (best.height <= target or guard.reached()):
                break
            found = self.packed(preference, draw, int(TOO_HIGH) - 1 if best is None else best.height - 1)
            best = found or best
            preference = preferences.send(found is not None)
        assert best is not None
        return best

    def _preferences(self, draw: np.random.Generator) -> Generator[Preference, bool, None]:
        """Yields what to try; is sent whether it was better than what was tried before."""
        best = _FIRST[0]
        for preference in _FIRST:
            if (yield preference):
                best = preference
        number = 0
        while True:
            preference = _drawn(draw) if number < _WIDE_DRAWS or number % 2 else _near(best, draw)
            if (yield preference):
                best = preference
            number += 1


def _drawn(draw: np.random.Generator) -> Preference:
    duration, size, fullest = draw.random(3)
    return Preference(
        int(draw.integers(len(_FULLNESS))),
        _LARGEST_POWER * duration,
        _LARGEST_POWER * size,
        _NOISE[draw.integers(len(_NOISE))],
        fullest * _MOST_FOR_FULLEST[draw.integers(len(_MOST_FOR_FULLEST))],
    )


def _near(best: Preference, draw: np.random.Generator) -> Preference:
    step = _DEVIATION * draw.standard_normal(3)
    return Preference(
        best.fullness,
        best.duration + step[0],
        best.size + step[1],
        max(best.noise, _LEAST_NOISE),
        best.fullest * np.exp(step[2]),
    )


def _tree_of(first: Integers, last: Integers) -> BlockTree:
    """Returns the k-d tree of blocks: halves by the first section and by the last one take turns."""
    leaves = 1
    while leaves < len(first):
        leaves *= 2
    padding = leaves - len(first)
    firsts = np.concatenate([first, np.full(padding, np.max(first, initial=0))])
    lasts = np.concatenate([last, np.full(padding, np.max(last, initial=0))])
    order = np.arange(leaves)
    groups = 1
    by_first = True
    while groups < leaves:
        rows = order.reshape(groups, -1)
        within = np.argsort((firsts if by_first else lasts)[rows], axis=1, kind="stable")
        order = np.take_along_axis(rows, within, 1).ravel()
        groups, by_first = 2 * groups, not by_first
    block = np.where(order < len(first), order, -1)
    bounds = [_reduced(function, column[order]) for column in (firsts, lasts) for function in (np.minimum, np.maximum)]
    return BlockTree(block, *bounds)


def _reduced(function: np.ufunc, leaf_values: Integers) -> Integers:
    """Returns `[2 * num_leaves] int64` what a function makes of the values below each node."""
    width = len(leaf_values)
    nodes = np.zeros(2 * width, np.int64)
    nodes[width:] = leaf_values
    while width > 1:
        nodes[width // 2 : width] = function(nodes[width : 2 * width : 2], nodes[width + 1 : 2 * width : 2])
        width //= 2
    return nodes
