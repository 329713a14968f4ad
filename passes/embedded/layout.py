"""Offsets in the arena for blocks whose sizes change in time, as where a step writes over a larger buffer.

Blocks are placed one by one, each at the lowest offset that is free. The order is what is searched for: a block that
does not fit below the best height so far is placed earlier in the next try ("squeaky wheel" optimization; Joslin and
Clements, 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

# Bytes from time `start` to time `end`: `(start, end, size)`.
Piece = tuple[int, int, int]


@dataclass(frozen=True)
class ArenaChain:
    """A block at one offset.

    Attributes:
      pieces: its sizes in time, ascending, one after the other.
    """

    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """The most bytes that it takes."""
        return max(size for _, _, size in self.pieces)

    @property
    def area(self) -> int:
        """Bytes times steps."""
        return sum((end - start) * size for start, end, size in self.pieces)


def load_of(chains: Sequence[ArenaChain]) -> int:
    """Returns the most bytes that are taken at one time, which no layout is below."""
    change: dict[int, int] = {}
    for chain in chains:
        for start, end, size in chain.pieces:
            change[start] = change.get(start, 0) + size
            change[end] = change.get(end, 0) - size
    return int(np.max(np.cumsum([change[time] for time in sorted(change)]), initial=0))


def low_layout(chains: Sequence[ArenaChain], tries: int, seed: int) -> list[int]:
    """Returns offsets, in bytes, with a low top.

    Args:
      chains: what is placed.
      tries: the most orders.
      seed: of what is drawn at random.
    """
    bound = load_of(chains)
    random = np.random.default_rng(seed)
    numbers = range(len(chains))
    orders = [
        sorted(numbers, key=lambda k: -chains[k].size),
        sorted(numbers, key=lambda k: -chains[k].area),
        sorted(numbers, key=lambda k: (chains[k].pieces[0][0], -chains[k].size)),
    ]
    best: list[int] | None = None
    height = 0
    order: list[int] = orders[0]
    for number in range(tries):
        if number < len(orders):
            order = orders[number]
        offsets, failed = _placed(chains, order, height if best is not None else None)
        if failed is None:
            best, height = offsets, max((o + chains[k].size for k, o in enumerate(offsets)), default=0)
            if height <= bound:
                break
            # The next try is to be lower: what ends at the top comes earlier.
            failed = next(k for k in numbers if offsets[k] + chains[k].size == height)
        place = order.index(failed)
        order = list(order)
        order.insert(int(random.integers(0, place + 1)), order.pop(place))
    assert best is not None
    return best


def _placed(chains: Sequence[ArenaChain], order: Sequence[int], limit: int | None) -> tuple[list[int], int | None]:
    """Returns offsets, and the first block that does not end below the limit; None if all do."""
    count = sum(len(chain.pieces) for chain in chains)
    start, end, low, high = (np.empty(count, np.int64) for _ in range(4))
    offsets = [0] * len(chains)
    filled = 0
    for k in order:
        lows, highs = [], []
        for first, last, size in chains[k].pieces:
            meets = (start[:filled] < last) & (end[:filled] > first)
            lows.append(low[:filled][meets] - size)
            highs.append(high[:filled][meets])
        offset = _lowest(np.concatenate(lows), np.concatenate(highs))
        if limit is not None and offset + chains[k].size >= limit:
            return offsets, k
        offsets[k] = offset
        for first, last, size in chains[k].pieces:
            start[filled], end[filled], low[filled], high[filled] = first, last, offset, offset + size
            filled += 1
    return offsets, None


def _lowest(lows: Integers, highs: Integers) -> int:
    """Returns the least number from 0 that is in none of the open intervals."""
    offset = 0
    for k in np.argsort(lows, kind="stable").tolist():
        if lows[k] >= offset:
            # No later interval begins below; one that begins here leaves the number itself free.
            break
        offset = max(offset, int(highs[k]))
    return offset
