"""The problem of static memory allocation: blocks to pack, and the checks that they make sense.

    offset                                    A block takes `size` bytes from `lower` to `upper`, half-open, at an
      ▲   ┌───────────┐                       offset that is a multiple of its alignment, or at the one that is fixed.
      │   │  block 1  │    ┌────────┐
      │ ┌─┴─────┬─────┴────┴─┐      │  ◄──── In a gap (here of block 2) it takes nothing, but stays where it is.
      │ │block 0│      (gap) │block 2
      └─┴───────┴────────────┴──────┴──► time

A gap may have a window, the bytes of the block that are still taken then (`windows.py`).

This is dynamic storage allocation (Garey and Johnson, "Computers and Intractability", 1979, problem SR2) with the gaps,
alignments and fixed offsets of MiniMalloc (Moffitt, ASPLOS 2023).
"""

from __future__ import annotations

import bisect
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

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


@dataclass(frozen=True)
class Block:
    """One block of bytes whose times are fixed, for callers that have no columns.

    Attributes:
      size: bytes.
      lower, upper: half-open times.
      alignment: the offset is a multiple of it, bytes.
      fixed: the only offset that is allowed, bytes; None where any is.
      gaps: as for `Instance.of`, the times in which the block takes nothing, or only a window of itself.
      id: a name that no other block has; None for the number of the block.
    """

    size: int
    lower: int
    upper: int
    alignment: int = 1
    fixed: int | None = None
    gaps: Sequence[tuple[int, int] | tuple[int, int, int, int]] = ()
    id: str | None = None


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
        takes no memory, or only a window of itself.
      gap_low, gap_high: `[num_gaps] int64` the window, half-open bytes of the block; 0 and 0 where there is none.
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
    gap_low: Integers
    gap_high: Integers

    @property
    def has_windows(self) -> bool:
        """Whether a block takes only a part of itself for a while."""
        return bool((self.gap_low < self.gap_high).any())

    def __len__(self) -> int:
        return len(self.size)

    @staticmethod
    def of(
        lower: Sequence[int] | Integers,
        upper: Sequence[int] | Integers,
        size: Sequence[int] | Integers,
        alignment: Sequence[int] | Integers | None = None,
        fixed: Sequence[int] | Integers | None = None,
        gaps: Sequence[Sequence[tuple[int, int] | tuple[int, int, int, int]]] | None = None,
        ids: Sequence[str] | None = None,
        place: Callable[[int], str] | None = None,
    ) -> Instance:
        """Returns a checked instance.

        Args:
          lower, upper, size: `[num_blocks]` as in the class.
          alignment: `[num_blocks]`; 1 by default.
          fixed: `[num_blocks]`; all are `FREE` by default.
          gaps: `[num_blocks]` lists of half-open times, in any order, each perhaps with the half-open bytes that are
            taken meanwhile: `(lower, upper)` or `(lower, upper, low, high)`; none by default.
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
        gap_lists: Sequence[list[tuple[int, int, int, int]]] = [[] for _ in range(count)]
        if gaps is not None:
            gap_lists = [sorted(_with_window(gap, where(number)) for gap in own) for number, own in enumerate(gaps)]
        for name, column in {**columns, "gaps": gap_lists, "ids": names}.items():
            if len(column) != count:
                raise InstanceError(f"{len(column)} entries of {name} for {count} blocks")
        _check_ids(names, where)
        rows = {name: _whole(column, name, where) for name, column in columns.items()}
        room = 0
        for number in range(count):
            block = {name: column[number] for name, column in rows.items()}
            _check_block(block, gap_lists[number], where(number))
            room += block["size"] + block["alignment"] - 1
            if max(room, block["fixed"] + room) > LARGEST:
                raise InstanceError(f"{where(number)}: the sum of the sizes up to here overflows 64 bits")
        table = np.array([(number, *gap) for number, own in enumerate(gap_lists) for gap in own], np.int64).reshape(
            -1, 5
        )
        made = Instance(
            names,
            *(np.array(rows[name], np.int64) for name in ("lower", "upper", "size", "alignment", "fixed")),
            *(np.ascontiguousarray(table[:, column]) for column in range(5)),
        )
        _check_fixed(made, where)
        return made

    @staticmethod
    def of_blocks(blocks: Iterable[Block]) -> Instance:
        """Returns the checked instance of some blocks; raises InstanceError, with the first one that makes no sense."""
        rows = list(blocks)
        for number, row in enumerate(rows):
            if not isinstance(row, Block):
                raise InstanceError(f"block {number} is of type {type(row).__name__}, not a Block")
            if row.fixed == FREE:
                raise InstanceError(f"block {number}: offset {FREE} is negative")
        return Instance.of(
            lower=[row.lower for row in rows],
            upper=[row.upper for row in rows],
            size=[row.size for row in rows],
            alignment=[row.alignment for row in rows],
            fixed=[FREE if row.fixed is None else row.fixed for row in rows],
            gaps=[row.gaps for row in rows],
            ids=[str(number) if row.id is None else row.id for number, row in enumerate(rows)],
        )

    def intervals(self) -> tuple[Integers, Integers, Integers]:
        """Returns `(block, lower, upper)`, each `[num_intervals] int64`: when blocks take all of themselves.

        They are sorted by block, then by time.
        """
        # The pieces lie between the ends of the block and of its gaps.
        block = np.concatenate([np.arange(len(self)), self.gap_block])
        lower, upper = np.concatenate([self.lower, self.gap_upper]), np.concatenate([self.upper, self.gap_lower])
        starts = np.lexsort((lower, block))
        # Each start belongs to the next end of the same block, so both are sorted and paired.
        ends = np.lexsort((upper, block))
        block, lower, upper = block[starts], lower[starts], upper[ends]
        is_real = lower < upper
        return block[is_real], lower[is_real], upper[is_real]

    def pieces(self) -> tuple[Integers, Integers, Integers, Integers, Integers]:
        """Returns `(block, lower, upper, low, high)`, each `[num_pieces] int64`: when blocks take which of their bytes.

        They are sorted by block, then by time. Blocks of size 0 take nothing.
        """
        block, lower, upper = self.intervals()
        is_window = self.gap_low < self.gap_high
        columns = (
            np.concatenate([block, self.gap_block[is_window]]),
            np.concatenate([lower, self.gap_lower[is_window]]),
            np.concatenate([upper, self.gap_upper[is_window]]),
            np.concatenate([np.zeros(len(block), np.int64), self.gap_low[is_window]]),
            np.concatenate([self.size[block], self.gap_high[is_window]]),
        )
        order = np.lexsort((columns[1], columns[0]))
        order = order[(columns[3] < columns[4])[order]]
        block, lower, upper, low, high = (column[order] for column in columns)
        return block, lower, upper, low, high

    def subset(self, blocks: Sequence[int] | Integers) -> Instance:
        """Returns the instance of some of the blocks, in the order given."""
        chosen = np.asarray(blocks, np.int64)
        begins, ends = (np.searchsorted(self.gap_block, chosen, side) for side in ("left", "right"))
        counts = ends - begins
        gap_block = np.repeat(np.arange(len(chosen)), counts)
        kept = np.arange(len(gap_block)) + np.repeat(ends - np.cumsum(counts), counts)
        return Instance(
            tuple(self.ids[number] for number in chosen.tolist()),
            self.lower[chosen],
            self.upper[chosen],
            self.size[chosen],
            self.alignment[chosen],
            self.fixed[chosen],
            gap_block,
            self.gap_lower[kept],
            self.gap_upper[kept],
            self.gap_low[kept],
            self.gap_high[kept],
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


def _whole(column: Iterable[SupportsIndex], name: str, where: Callable[[int], str]) -> list[int]:
    """Returns a column of whole numbers; raises InstanceError with the first entry that is none."""
    values: list[int] = []
    for value in column.tolist() if isinstance(column, np.ndarray) else column:
        try:
            values.append(operator.index(value))
        except TypeError:
            raise InstanceError(f"{where(len(values))}: {name} {value!r:.60} is not a whole number") from None
    return values


def _with_window(gap: tuple[int, ...], where: str) -> tuple[int, int, int, int]:
    """Returns a gap with its window, 0 and 0 where it has none."""
    try:
        numbers = [operator.index(value) for value in gap]
    except TypeError:
        numbers = []
    if len(numbers) not in (2, 4):
        raise InstanceError(f"{where}: gap {gap!r:.60} is not (lower, upper) or (lower, upper, low, high)")
    first, last, low, high = (*numbers, 0, 0)[:4]
    return first, last, low, high


def _check_ids(ids: tuple[str, ...], where: Callable[[int], str]) -> None:
    first: dict[str, int] = {}
    for number, name in enumerate(ids):
        if not isinstance(name, str):
            raise InstanceError(f"block {number}: id {name!r:.60} is not a text")
        if first.setdefault(name, number) != number:
            raise InstanceError(f"{where(number)}: id {name!r} is taken by {where(first[name])}")


def _check_block(block: dict[str, int], gaps: Sequence[tuple[int, int, int, int]], where: str) -> None:
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
    for first, last, low, high in gaps:
        if (low, high) != (0, 0) and not 0 <= low < high <= block["size"]:
            raise InstanceError(f"{where}: window {low}:{high} of a gap is not within the size {block['size']}")
        if first >= last:
            raise InstanceError(f"{where}: gap {first}-{last} is empty or reversed")
        if first < block["lower"] or last > block["upper"]:
            raise InstanceError(f"{where}: gap {first}-{last} is not within {block['lower']}-{block['upper']}")
        if first < before:
            raise InstanceError(f"{where}: gap {first}-{last} overlaps the gap before it")
        before = last


def _check_fixed(instance: Instance, where: Callable[[int], str]) -> None:
    """Raises InstanceError if two blocks whose offsets are fixed overlap."""
    block, lower, upper, low, high = instance.pieces()
    chosen = np.flatnonzero(instance.fixed[block] >= 0).tolist()
    bottom, top = instance.fixed[block] + low, instance.fixed[block] + high
    events = [
        *((time, 1, piece) for piece, time in zip(chosen, lower[chosen].tolist(), strict=True)),
        *((time, 0, piece) for piece, time in zip(chosen, upper[chosen].tolist(), strict=True)),
    ]
    alive: list[tuple[int, int]] = []
    for _, starts, piece in sorted(events):
        entry = (int(bottom[piece]), piece)
        index = bisect.bisect_left(alive, entry)
        if not starts:
            alive.pop(index)
            continue
        for _, other in alive[max(index - 1, 0) : index + 1]:
            if bottom[piece] < top[other] and bottom[other] < top[piece]:
                early, late = sorted((int(block[piece]), int(block[other])))
                raise InstanceError(f"{where(late)}: its fixed offset overlaps that of {where(early)}")
        alive.insert(index, entry)
