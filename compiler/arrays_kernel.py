"""What compiled loops do with whole arrays, in plain loops, which are compiled in a fraction of the time.

Numba's own assignment to a slice brings the code with it that writes the message of a wrong shape, and its own sorting
is compiled once for each type and in nine parts. Shapes are not checked here. Compiled by numba.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import internal

# Keys that are sorted by insertion before they are merged.
_INSERTED = 16


@internal
def fill(array, value):  # type: ignore[no-untyped-def]
    """Makes all entries of a one-dimensional array equal."""
    for i in range(len(array)):
        array[i] = value


@internal
def copy_to(target, source):  # type: ignore[no-untyped-def]
    """Copies a one-dimensional array into another one of the same length."""
    for i in range(len(target)):
        target[i] = source[i]


@internal
def argsort(keys, count: int, order: np.ndarray, spare: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """Writes the numbers of the first keys in the order of ascending keys; equal keys keep their order.

    Args:
      keys: `[at least count]`; none is NaN.
      count: how many to rank.
      order: `[at least count] int64` receives the numbers.
      spare: `[at least count] int64` scratch.
    """
    for i in range(count):
        place, key = i, keys[i]
        while place % _INSERTED != 0 and keys[order[place - 1]] > key:
            order[place] = order[place - 1]
            place -= 1
        order[place] = i
    width = _INSERTED
    while width < count:
        for start in range(0, count, 2 * width):
            left, middle = start, min(start + width, count)
            right, end = middle, min(start + 2 * width, count)
            for place in range(start, end):
                if right == end or (left < middle and keys[order[left]] <= keys[order[right]]):
                    spare[place] = order[left]
                    left += 1
                else:
                    spare[place] = order[right]
                    right += 1
        for place in range(count):
            order[place] = spare[place]
        width *= 2
