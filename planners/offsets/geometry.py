"""Blocks in time: sections, loads, and parts that share no time.

A *section* is a span of time between two neighbouring starts or ends of blocks or gaps, so the same blocks take memory
throughout it (Moffitt, ASPLOS 2023, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from memplan.planners.offsets.instance import Instance, Integers

_Number = TypeVar("_Number", np.int64, np.float64)


@dataclass(frozen=True, eq=False)
class Sections:
    """When each block takes memory, in sections.

    Attributes:
      count: number of sections.
      pointer: `[num_blocks + 1] int64` where each block's ranges begin.
      first, last: `[num_ranges] int64` half-open ranges of sections, ascending for each block.
    """

    count: int
    pointer: Integers
    first: Integers
    last: Integers

    @staticmethod
    def of(instance: Instance) -> Sections:
        """Returns the sections of an instance."""
        block, lower, upper = instance.intervals()
        times = np.unique(np.concatenate([lower, upper]))
        pointer = np.searchsorted(block, np.arange(len(instance) + 1))
        return Sections(
            max(len(times) - 1, 0),
            pointer.astype(np.int64),
            np.searchsorted(times, lower).astype(np.int64),
            np.searchsorted(times, upper).astype(np.int64),
        )

    def block_of_range(self) -> Integers:
        """Returns `[num_ranges] int64` the block of each range."""
        return np.repeat(np.arange(len(self.pointer) - 1), np.diff(self.pointer))

    def loads(self, amount: Integers) -> Integers:
        """Returns `[count] int64` the sum of the amounts of each section's blocks."""
        changes = np.zeros(self.count + 1, np.int64)
        brought = amount[self.block_of_range()]
        np.add.at(changes, self.first, brought)
        np.subtract.at(changes, self.last, brought)
        return np.cumsum(changes)[: self.count]

    def most(self, of_section: Integers) -> Integers:
        """Returns `[num_blocks] int64` the largest of a quantity over each block's sections; 0 for a block of none."""
        largest = np.zeros(len(self.pointer) - 1, np.int64)
        np.maximum.at(largest, self.block_of_range(), largest_within(of_section, self.first, self.last))
        return largest

    def largest(self, of_block: Integers) -> Integers:
        """Returns `[count] int64` the largest of a quantity, at least 0, over each section's blocks.

        A range of sections is covered by two ranges whose length is a power of two, and these by halves of them.
        """
        amount = of_block[self.block_of_range()]
        level = np.frexp((self.last - self.first).astype(np.float64))[1] - 1
        most = np.zeros(self.count, np.int64)
        for power in range(int(np.max(level, initial=0)), -1, -1):
            own = level == power
            np.maximum.at(most, self.first[own], amount[own])
            np.maximum.at(most, self.last[own] - (1 << power), amount[own])
            if power:
                # What held for 2**power sections from here holds for half as many, from here and from their middle.
                half = 1 << (power - 1)
                np.maximum(most[half:], most[:-half].copy(), out=most[half:])
        return most


def largest_within(values: NDArray[_Number], first: Integers, last: Integers) -> NDArray[_Number]:
    """Returns the largest of the values in each half-open range, none of which is empty."""
    if not len(first):
        return values[:0]
    # Pairs (start, end) for reduceat; the entries between pairs are not used.
    bounds = np.empty(2 * len(first), np.int64)
    bounds[0::2], bounds[1::2] = first, last
    largest: NDArray[_Number] = np.maximum.reduceat(np.append(values, values.dtype.type(0)), bounds)[0::2]
    return largest


def components(instance: Instance) -> list[Integers]:
    """Returns the parts that share no time, each as the ascending `int64` numbers of its blocks.

    Blocks of size 0 are in no part: they can lie anywhere.
    """
    real = np.flatnonzero(instance.size > 0)
    by_start = real[np.argsort(instance.lower[real], kind="stable")]
    if not len(by_start):
        return []
    latest = np.maximum.accumulate(instance.upper[by_start])
    splits = np.flatnonzero(instance.lower[by_start][1:] >= latest[:-1]) + 1
    return [np.sort(part) for part in np.split(by_start, splits)]


def overlaps(sections: Sections) -> tuple[Integers, Integers]:
    """Returns `(pointer, other)`: `[num_blocks + 1]` where each block's `[num_pairs]` companions in time begin."""
    num_blocks = len(sections.pointer) - 1
    block = sections.block_of_range()
    mine, other = np.nonzero(
        (sections.first[:, None] < sections.last[None, :]) & (sections.first[None, :] < sections.last[:, None])
    )
    pairs = np.sort(block[mine] * num_blocks + block[other])
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]
    first, second = pairs // max(num_blocks, 1), pairs % max(num_blocks, 1)
    first, second = first[first != second], second[first != second]
    return np.searchsorted(first, np.arange(num_blocks + 1)).astype(np.int64), second.astype(np.int64)
