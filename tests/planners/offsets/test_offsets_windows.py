"""Blocks with windows: packings are right and as low as trying every offset finds."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from memplan.compiler.effort import Effort, Guard
from memplan.planners.offsets.bounds import height_of, maximum_load_of_pieces
from memplan.planners.offsets.check import check
from memplan.planners.offsets.csv_file import parse_instance
from memplan.planners.offsets.first_fit import first_fit
from memplan.planners.offsets.infeasible import irreducible_infeasible_subset
from memplan.planners.offsets.instance import Instance, InstanceError
from memplan.planners.offsets.pack import Status, pack
from memplan.planners.offsets.windows import decide_windows

INTERLOCKING = "id,lower,upper,size,alignment,hint,gaps\na,0,10,2,1,0,0-5@0:1\nb,0,10,2,1,-1,5-10@1:2\n"


def taken(instance: Instance, offsets: tuple[int, ...]) -> list[tuple[int, int]]:
    """Returns `(time, byte)` of every byte that every block takes, one by one; the same one twice is an overlap."""
    windows = {
        (int(block), t): (int(low), int(high))
        for block, lower, upper, low, high in zip(
            instance.gap_block, instance.gap_lower, instance.gap_upper, instance.gap_low, instance.gap_high, strict=True
        )
        for t in range(int(lower), int(upper))
    }
    return [
        (t, offsets[block] + byte)
        for block in range(len(instance))
        for t in range(int(instance.lower[block]), int(instance.upper[block]))
        for byte in range(*windows.get((block, t), (0, int(instance.size[block]))))
    ]


def is_right(instance: Instance, offsets: tuple[int, ...]) -> bool:
    bytes_taken = taken(instance, offsets)
    is_legal = all(
        offset % alignment == 0 and fixed in (-1, offset)
        for offset, alignment, fixed in zip(offsets, instance.alignment, instance.fixed, strict=True)
    )
    return is_legal and len(set(bytes_taken)) == len(bytes_taken)


def lowest(instance: Instance) -> int:
    """Returns the least height, by trying all offsets."""
    for height in itertools.count():
        ranges = [range(height - size + 1) for size in instance.size.tolist()]
        if any(is_right(instance, offsets) for offsets in itertools.product(*ranges)):
            return height
    raise AssertionError


def random_instance(seed: int) -> Instance:
    """Returns two to four blocks with gaps, windows, alignments and fixed offsets."""
    chance = random.Random(seed)
    rows = []
    for _ in range(chance.randint(2, 4)):
        lower = chance.randint(0, 3)
        upper = lower + chance.randint(2, 5)
        size = chance.randint(1, 4)
        cuts = sorted(chance.sample(range(lower, upper + 1), 2 * chance.randint(0, (upper - lower + 1) // 2)))
        gaps: list[tuple[int, ...]] = []
        for first, last in zip(cuts[::2], cuts[1::2], strict=True):
            low = chance.randint(0, size - 1)
            gaps.append((first, last) if chance.random() < 0.3 else (first, last, low, chance.randint(low + 1, size)))
        fixed = chance.choice((-1, -1, -1, -1, 0, 2))
        rows.append((lower, upper, size, chance.choice((1, 1, 2)), fixed, gaps))
    lower, upper, size, alignment, fixed, gaps = (list(column) for column in zip(*rows, strict=True))
    try:
        return Instance.of(lower, upper, size, alignment, fixed, gaps)
    except InstanceError:  # two fixed offsets overlap
        return Instance.of(lower, upper, size, alignment, None, gaps)


@pytest.mark.parametrize("seed", range(40))
def test_a_packing_is_as_low_as_trying_every_offset_finds(seed: int) -> None:
    instance = random_instance(seed)
    best = lowest(instance)
    packed = pack(instance)
    assert packed.status == Status.OPTIMAL
    assert packed.height == packed.lower_bound == best
    assert is_right(instance, tuple(packed.offsets.tolist()))
    assert packed.maximum_load <= best
    assert pack(instance, best).status == Status.FITS
    if best > int(instance.size.max()):
        assert pack(instance, best - 1).status == Status.INFEASIBLE
        assert decide_windows(instance, best - 1, 10, Guard()) is False
    assert decide_windows(instance, best, 10, Guard()) is True


@pytest.mark.parametrize("seed", range(40))
def test_the_check_agrees_with_bytes_taken_one_by_one(seed: int) -> None:
    instance, chance = random_instance(seed), random.Random(seed)
    for _ in range(60):
        offsets = tuple(chance.randint(0, 5) for _ in range(len(instance)))
        assert (check(instance, offsets) == []) == is_right(instance, offsets), offsets


@pytest.mark.parametrize("seed", range(40))
def test_first_fit_is_right_and_the_load_is_that_of_the_fullest_time(seed: int) -> None:
    instance = random_instance(seed)
    offsets = first_fit(instance, 0, Guard(0.0)).offsets
    assert is_right(instance, tuple(offsets.tolist()))
    assert height_of(instance, offsets) >= maximum_load_of_pieces(instance)
    times = [t for t, _ in taken(instance, tuple(offsets.tolist()))]
    assert maximum_load_of_pieces(instance) == max(map(times.count, times))


def test_a_gap_takes_its_window() -> None:
    """While one block takes its window the other takes both of its bytes, so three bytes are needed, and suffice."""
    instance = parse_instance(INTERLOCKING).instance
    packed = pack(instance)
    assert (packed.status, packed.height, packed.maximum_load) == (Status.OPTIMAL, 3, 3)
    assert packed.offsets.tolist() == [0, 1]
    assert pack(instance, 3).status == Status.FITS
    assert pack(instance, 2).status == Status.INFEASIBLE
    assert pack(parse_instance(INTERLOCKING.replace("@0:1", "").replace("@1:2", "")).instance, 2).status == Status.FITS


def test_blocks_interlock_where_neither_is_above_the_other() -> None:
    instance = Instance.of([0, 0], [2, 2], [3, 3], gaps=[[(0, 1, 0, 1), (1, 2, 2, 3)], [(0, 1, 2, 3), (1, 2, 0, 1)]])
    packed = pack(instance)
    assert (packed.status, packed.height) == (Status.OPTIMAL, 3)


def test_a_subset_that_does_not_fit_is_found() -> None:
    instance = Instance.of([0] * 3, [4] * 3, [4, 4, 4], gaps=[[(0, 2, 0, 1)], [], [(0, 4, 3, 4)]])
    subset = irreducible_infeasible_subset(instance, 7)
    assert subset is not None
    assert (subset.blocks.tolist(), subset.irreducible) == ([0, 1], True)


@pytest.mark.parametrize(
    ("gap", "message"),
    [
        ("0-5@", "is not of the form lower-upper or lower-upper@low:high"),
        ("0-5@1", "is not of the form"),
        ("0-5@1:2:3", "is not of the form"),
        ("0-5@1:1", "window 1:1 of a gap is empty or reversed"),
        ("0-5@2:1", "window 2:1 of a gap is empty or reversed"),
        ("0-5@0:3", "window 0:3 of a gap is not within the size 2"),
        ("0-5@-1:1", "window -1:1 of a gap is not within the size 2"),
        ("0-5@0:99999999999999999999", "window 99999999999999999999 does not fit 64 bits"),
        ("0-5@0:1 4-6@0:1", "gap 4-6 overlaps the gap before it"),
    ],
)
def test_windows_that_make_no_sense_are_refused_with_their_row(gap: str, message: str) -> None:
    with pytest.raises(InstanceError, match=rf"^x\.csv: row 2: .*{message}"):
        parse_instance(INTERLOCKING.replace("0-5@0:1", gap), "x.csv")


def test_fixed_offsets_may_interlock_but_not_overlap() -> None:
    gaps = [[(0, 4, 0, 1)], [(0, 4, 1, 2)]]
    assert pack(Instance.of([0, 0], [4, 4], [2, 2], fixed=[0, 0], gaps=gaps)).height == 2
    with pytest.raises(InstanceError, match="its fixed offset overlaps that of"):
        Instance.of([0, 0], [4, 4], [2, 2], fixed=[1, 0], gaps=gaps)


def test_windows_go_with_their_blocks_into_a_subset() -> None:
    instance = parse_instance(INTERLOCKING).instance
    part = instance.subset([1])
    assert (part.gap_low.tolist(), part.gap_high.tolist()) == ([1], [2])
    assert [column.tolist() for column in part.pieces()] == [[0, 0], [0, 5], [5, 10], [0, 1], [2, 2]]


def test_old_files_have_inclusive_ends_of_gaps_with_windows_too(tmp_path: Path) -> None:
    old = parse_instance("id,start,end,size,gaps\na,0,9,2,0-4@0:1\n").instance
    assert (int(old.upper[0]), int(old.gap_upper[0]), int(old.gap_high[0])) == (10, 5, 1)


def test_numbers_beyond_the_solver_are_packed_by_first_fit() -> None:
    size = 2**52
    gaps = [[(0, 1, 0, size // 2)], []]
    packed = pack(Instance.of([0, 0], [2, 2], [size, size], gaps=gaps), effort=Effort.FAST)
    assert packed.height == 2 * size
    assert np.array_equal(np.sort(packed.offsets), [0, size])
