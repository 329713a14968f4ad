"""Instances that are small enough to try every offset, and a solver that does."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from memplan import workloads
from memplan.planners.offsets.csv_file import read_instance
from memplan.planners.offsets.instance import Instance, InstanceError


@st.composite
def instances(draw: st.DrawFn, max_blocks: int = 6, plain: bool = False) -> Instance:
    """Draws blocks with gaps, alignments and fixed offsets; only times and sizes if `plain`."""
    rows = []
    for _ in range(draw(st.integers(1, max_blocks))):
        lower = draw(st.integers(0, 5))
        upper = lower + draw(st.integers(1, 5))
        size = draw(st.integers(0 if not plain else 1, 4))
        alignment, fixed, gaps = 1, -1, []
        if not plain:
            alignment = draw(st.sampled_from([1, 1, 1, 2, 3]))
            if draw(st.integers(0, 5)) == 0:
                fixed = alignment * draw(st.integers(0, 2))
            if upper - lower >= 3 and draw(st.integers(0, 2)) == 0:
                gaps = [(lower + 1, draw(st.integers(lower + 2, upper)))]
        rows.append((lower, upper, size, alignment, fixed, gaps))
    lower, upper, size, alignment, fixed, gaps = (list(column) for column in zip(*rows, strict=True))
    try:
        return Instance.of(lower, upper, size, alignment, fixed, gaps)
    except InstanceError:
        # Two fixed offsets overlap: none is fixed then.
        return Instance.of(lower, upper, size, alignment, None, gaps)


def hard() -> Instance:
    """Returns a shipped instance with odd sizes, which no method packs as low as its load in a moment."""
    shipped = read_instance(workloads.dumps_folder().parent / "packing" / "K.1048576.csv").instance
    odd = np.random.default_rng(5).integers(1, 10_000, len(shipped))
    return Instance.of(shipped.lower, shipped.upper, np.maximum(shipped.size - odd, 1))


def times_of(instance: Instance, block: int) -> set[int]:
    """Returns the times at which a block takes memory, one by one."""
    times = set(range(int(instance.lower[block]), int(instance.upper[block])))
    for gap, lower, upper in zip(instance.gap_block, instance.gap_lower, instance.gap_upper, strict=True):
        if gap == block:
            times -= set(range(int(lower), int(upper)))
    return times


def can_fit(instance: Instance, capacity: int) -> bool:
    """Whether some offsets are within a capacity: all are tried, one byte after another."""
    taken: dict[int, set[int]] = {time: set() for time in range(int(instance.upper.max(initial=0)) + 1)}

    def place(block: int) -> bool:
        if block == len(instance):
            return True
        size, alignment, fixed = int(instance.size[block]), int(instance.alignment[block]), int(instance.fixed[block])
        if size == 0:
            return place(block + 1)
        times = times_of(instance, block)
        for offset in [fixed] if fixed >= 0 else range(0, capacity - size + 1, alignment):
            place_taken = set(range(offset, offset + size))
            if offset + size > capacity or any(taken[time] & place_taken for time in times):
                continue
            for time in times:
                taken[time] |= place_taken
            if place(block + 1):
                return True
            for time in times:
                taken[time] -= place_taken
        return False

    return place(0)


def lowest_height(instance: Instance) -> int:
    """Returns the lowest height that there is."""
    height = 0
    while not can_fit(instance, height):
        height += 1
    return height
