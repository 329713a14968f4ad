"""The problem of static memory allocation: blocks to pack, and the checks that they make sense.

    offset                                    A block takes `size` bytes from `lower` to `upper`, half-open, at an
      ▲   ┌───────────┐                       offset that is a multiple of its alignment, or at the one that is fixed.
      │   │  block 1  │    ┌────────┐
      │ ┌─┴─────┬─────┴────┴─┐      │  ◄──── In a gap (here of block 2) it takes nothing, but stays where it is.
      │ │block 0│      (gap) │block 2
      └─┴───────┴────────────┴──────┴──► time

This is dynamic storage allocation (Garey and Johnson, "Computers and Intractability", 1979, problem SR2) with the gaps,
alignments and fixed offsets of MiniMalloc (Moffitt, ASPLOS 2023).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import MemplanError

Integers = NDArray[np.int64]

# The offset of a block that is not fixed.
FREE = -1

# Sums of sizes and alignments stay below this, so that no search overflows 64 bits.
LARGEST = 2**61


class InstanceError(MemplanError):
    """Blocks that make no sense: times reversed, sizes negative, fixed offsets that overlap, and so on."""


@dataclass(frozen=True, eq=False)
class Instance:
    """Blocks of bytes whose times are fixed.

    Attributes:
      ids: `[num_blocks]` names, all different.
      lower, upper: `[num_blocks] int64` half-open times.
      size: `[num_blocks] int64` bytes.
      alignment: `[num_blocks] int64` the offset is a multiple of it, bytes.
      fixed: `[num_blocks] int64` the only offset that is allowed, bytes; `FREE` (-1) where any is.
      gap_block: `[num_gaps] int64` block that each gap belongs to, ascending.
      gap_lower, gap_upper: `[num_gaps] int64` half-open times within the block's, ascending for each block, in which it
        takes no memory.
    """

    ids: tuple[str, ...]
    lower: Integers
    upper: Integers
    size: Integers
    alignment: Integers
    fixed: Integers
    gap_block: Integers
    gap_lower: Integers
    gap_upper: Integers

    def __len__(self) -> int:
        return len(self.size)

    @staticmethod
    def of(
        lower: Sequence[int] | Integers,
        upper: Sequence[int] | Integers,
        size: Sequence[int] | Integers,
        alignment: Sequence[int] | Integers | None = None,
        fixed: Sequence[int] | Integers | None = None,
        gaps: Sequence[Sequence[tuple[int, int]]] | None = None,
        ids: Sequence[str] | None = None,
        place: Callable[[int], str] | None = None,
    ) -> Instance:
        """Returns a checked instance.

        Args:
          lower, upper, size: `[num_blocks]` as in the class.
          alignment: `[num_blocks]`; 1 by default.
          fixed: `[num_blocks]`; all are `FREE` by default.
          gaps: `[num_blocks]` lists of half-open times, in any order; none by default.
          ids: `[num_blocks]`; "0", "1", … by default.
          place: says where a block comes from, for messages; `block 'id'` by default.

        Raises:
          InstanceError: with the place of the first block that makes no sense.
        """
        count = len(size)
        names = tuple(ids) if ids is not None else tuple(str(number) for number in range(count))
        where = place or (lambda number: f"block {names[number]!r}" if number < len(names) else f"block {number}")
        columns: dict[str, Sequence[Any] | Integers] = {
            "lower": lower,
            "upper": upper,
            "size": size,
            "alignment": alignment if alignment is not None else [1] * count,
            "fixed": fixed if fixed is not None else [FREE] * count,
        }
        gap_lists = [sorted(own) for own in gaps] if gaps is not None else [[] for _ in range(count)]
        for name, column in {**columns, "gaps": gap_lists, "ids": names}.items():
            if len(column) != count:
                raise InstanceError(f"{len(column)} entries of {name} for {count} blocks")
        _check_ids(names, where)
        rows = {name: [int(value) for value in column] for name, column in columns.items()}
        room = 0
        for number in range(count):
            block = {name: column[number] for name, column in rows.items()}
            _check_block(block, gap_lists[number], where(number))
            room += block["size"] + block["alignment"] - 1
            if max(room, block["fixed"] + room) > LARGEST:
                raise InstanceError(f"{where(number)}: the sum of the sizes up to here overflows 64 bits")
        flat = [(number, first, last) for number, own in enumerate(gap_lists) for first, last in own]
        table = np.array(flat, np.int64).reshape(-1, 3)
        made = Instance(
            names,
            *(np.array(rows[name], np.int64) for name in ("lower", "upper", "size", "alignment", "fixed")),
            *(np.ascontiguousarray(table[:, column]) for column in range(3)),
        )
        _check_fixed(made, where)
        return made

    def intervals(self) -> tuple[Integers, Integers, Integers]:
        """Returns `(block, lower, upper)`, each `[num_intervals] int64`: when blocks take memory, by block and time."""
        # The pieces lie between the ends of the block and of its gaps.
        block = np.concatenate([np.arange(len(self)), self.gap_block])
        lower, upper = np.concatenate([self.lower, self.gap_upper]), np.concatenate([self.upper, self.gap_lower])
        starts = np.lexsort((lower, block))
        # Each start belongs to the next end of the same block, so both are sorted and paired.
        ends = np.lexsort((upper, block))
        block, lower, upper = block[starts], lower[starts], upper[ends]
        is_real = lower < upper
        return block[is_real], lower[is_real], upper[is_real]

    def subset(self, blocks: Sequence[int] | Integers) -> Instance:
        """Returns the instance of some of the blocks, in the order given."""
        chosen = np.asarray(blocks, np.int64)
        position = np.full(len(self), -1)
        position[chosen] = np.arange(len(chosen))
        gap_block = position[self.gap_block] if len(self.gap_block) else self.gap_block
        kept = np.flatnonzero(gap_block >= 0)
        kept = kept[np.lexsort((self.gap_lower[kept], gap_block[kept]))]
        return Instance(
            tuple(self.ids[number] for number in chosen.tolist()),
            self.lower[chosen],
            self.upper[chosen],
            self.size[chosen],
            self.alignment[chosen],
            self.fixed[chosen],
            gap_block[kept],
            self.gap_lower[kept],
            self.gap_upper[kept],
        )

    def check_capacity(self, capacity: int, place: Callable[[int], str] | None = None) -> None:
        """Raises InstanceError, with the place of the block, if a block alone is too large for a capacity."""
        where = place or (lambda number: f"block {self.ids[number]!r}")
        if not 0 <= capacity <= LARGEST:
            raise InstanceError(f"a capacity of {capacity:,} is not a number of bytes from 0 to {LARGEST:,}")
        for number in np.flatnonzero(self.size > capacity).tolist():
            raise InstanceError(f"{where(number)}: size {self.size[number]:,} is over the capacity of {capacity:,}")
        over = (self.fixed >= 0) & (self.size > 0) & (self.fixed + self.size > capacity)
        for number in np.flatnonzero(over).tolist():
            top = int(self.fixed[number] + self.size[number])
            raise InstanceError(f"{where(number)}: the fixed offset ends at {top:,}, over the capacity of {capacity:,}")


def _check_ids(ids: tuple[str, ...], where: Callable[[int], str]) -> None:
    first: dict[str, int] = {}
    for number, name in enumerate(ids):
        if first.setdefault(name, number) != number:
            raise InstanceError(f"{where(number)}: id {name!r} is taken by {where(first[name])}")


def _check_block(block: dict[str, int], gaps: Sequence[tuple[int, int]], where: str) -> None:
    """Raises InstanceError if a block makes no sense by itself."""
    for name, value in block.items():
        if not -(2**63) <= value < 2**63:
            raise InstanceError(f"{where}: {name} {value} does not fit 64 bits")
    if block["lower"] < 0:
        raise InstanceError(f"{where}: lower {block['lower']} is negative")
    if block["upper"] <= block["lower"]:
        raise InstanceError(f"{where}: upper {block['upper']} must be greater than lower {block['lower']}")
    if block["size"] < 0:
        raise InstanceError(f"{where}: size {block['size']} is negative")
    if block["alignment"] <= 0:
        raise InstanceError(f"{where}: alignment {block['alignment']} is not positive")
    if block["fixed"] < FREE:
        raise InstanceError(f"{where}: offset {block['fixed']} is negative")
    if block["fixed"] > 0 and block["fixed"] % block["alignment"]:
        raise InstanceError(f"{where}: offset {block['fixed']} is no multiple of the alignment {block['alignment']}")
    before = block["lower"]
    for first, last in gaps:
        if first >= last:
            raise InstanceError(f"{where}: gap {first}-{last} is empty or reversed")
        if first < block["lower"] or last > block["upper"]:
            raise InstanceError(f"{where}: gap {first}-{last} is not within {block['lower']}-{block['upper']}")
        if first < before:
            raise InstanceError(f"{where}: gap {first}-{last} overlaps the gap before it")
        before = last


def _check_fixed(instance: Instance, where: Callable[[int], str]) -> None:
    """Raises InstanceError if two blocks whose offsets are fixed overlap."""
    block, lower, upper = instance.intervals()
    chosen = (instance.fixed[block] >= 0) & (instance.size[block] > 0)
    events = [
        *((time, 1, number) for number, time in zip(block[chosen].tolist(), lower[chosen].tolist(), strict=True)),
        *((time, 0, number) for number, time in zip(block[chosen].tolist(), upper[chosen].tolist(), strict=True)),
    ]
    alive: list[tuple[int, int]] = []
    for _, starts, number in sorted(events):
        entry = (int(instance.fixed[number]), number)
        index = bisect.bisect_left(alive, entry)
        if not starts:
            alive.pop(index)
            continue
        for _, other in alive[max(index - 1, 0) : index + 1]:
            low, high = sorted((number, other), key=lambda one: int(instance.fixed[one]))
            if instance.fixed[low] + instance.size[low] > instance.fixed[high]:
                late, early = max(number, other), min(number, other)
                raise InstanceError(f"{where(late)}: its fixed offset overlaps that of {where(early)}")
        alive.insert(index, entry)
