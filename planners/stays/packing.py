"""Offsets by best fit: blocks of bytes whose times are fixed find their places in a memory.

One block after another takes the gap that suits it among those placed before. The best order differs from program to
program, so several are tried: by duration as XLA's repacker does (best fit, blocks sorted by descending duration, then
size), by size and by area as the planners of small runtimes do (Pisarchyk and Lee, "Efficient memory management for
deep neural net inference", 2020, section 4), each with the smallest gap that is large enough and with the lowest one.
If blocks are left over, they choose first in the next round (squeaky wheel optimization: Joslin and Clements, 1999).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.offsets.best_fit_kernel import UNPLACED, BlockSizes, Intervals, fit_most
from memplan.planners.offsets.instance import FREE, Instance
from memplan.planners.offsets.limited import fit_within
from memplan.planners.stays.exact_packing import PlacedBlocks, place_left_over
from memplan.planners.stays.reserved import reserved_runs

Integers = NDArray[np.int64]

# Rounds in which blocks that were left over choose first, fewer for many blocks; and how many may bring nothing.
_MAX_ROUNDS, _WORK, _MAX_IDLE_ROUNDS = 60, 100_000, 12

# An exact search is tried without the 0, 1, 2, 4, … least precious of the blocks that were left over, fewer than this.
_MOST_GIVEN_UP = 3


@dataclass(frozen=True)
class Blocks:
    """The blocks to be packed into one space.

    Attributes:
      start, end: `[num_intervals]` half-open times.
      item: `[num_intervals]` the block whose bytes are taken then; a block of several intervals takes the same bytes.
      size: `[num_items]` bytes of each block.
      weight: `[num_items]` what is lost if a block finds no place.
    """

    start: Integers
    end: Integers
    item: Integers
    size: Integers
    weight: NDArray[np.float64]

    @staticmethod
    def of(start: Integers, end: Integers, size: Integers) -> Blocks:
        """Returns blocks of one interval each, whose weight is size times duration."""
        return Blocks(start, end, np.arange(len(size)), size, (size * (end - start)).astype(np.float64))


def pack(
    problem: MappingProblem,
    space: int,
    blocks: Blocks,
    stack_lasting: bool = False,
    exact_effort: float = 0.0,
    exact_nodes: int = 0,
) -> Integers:
    """Returns offsets for blocks, in bytes; `UNPLACED` (-1) for those that found no place.

    Args:
      problem: says how large the space is, and what operations reserve of it.
      space: index.
      blocks: what to pack.
      stack_lasting: whether blocks that last for the whole program are stacked at the bottom first. That is fast, and
        good where the space has room for everything.
      exact_effort: of constraint programming, in its deterministic seconds, for each group of blocks that find no place
        otherwise; 0 for none.
      exact_nodes: of an exact search for offsets of all blocks, or of all but a few of those that were left over; 0 for
        none.
    """
    packer = _SpacePacker(problem, space, blocks, stack_lasting)
    best, best_loss, fit = np.full(len(blocks.size), UNPLACED), np.inf, True
    order = np.arange(len(blocks.size))
    choices = itertools.product(packer.orders(), (True, False))
    for candidate, best_fit in itertools.islice(choices, max(2, _WORK // (len(blocks.size) + 1))):
        offsets = packer.place(candidate, best_fit)
        loss = float(blocks.weight[offsets == UNPLACED].sum())
        if loss < best_loss:
            best, best_loss, order, fit = offsets, loss, candidate, best_fit
        if best_loss == 0.0:
            return packer.in_bytes(best)
    offsets, idle_rounds = best, 0
    for _ in range(min(_MAX_ROUNDS, _WORK // (len(blocks.size) + 1))):
        left_over = offsets[order] == UNPLACED
        order = np.concatenate([order[left_over], order[~left_over]])
        offsets = packer.place(order, fit)
        loss = float(blocks.weight[offsets == UNPLACED].sum())
        idle_rounds += 1
        if loss < best_loss:
            best, best_loss, idle_rounds = offsets, loss, 0
        if best_loss == 0.0:
            return packer.in_bytes(best)
        if idle_rounds == _MAX_IDLE_ROUNDS:
            break
    if exact_nodes:
        best = packer.place_exactly(best, blocks.weight, exact_nodes)
    return packer.in_bytes(packer.place_left_over(best, exact_effort) if exact_effort else best)


class _SpacePacker:
    """Blocks in the form that the compiled loops want: in units of the alignment, intervals sorted by start."""

    def __init__(self, problem: MappingProblem, space: int, blocks: Blocks, stack_lasting: bool):
        self.unit = problem.spaces[space].alignment
        self.capacity = problem.spaces[space].capacity // self.unit
        self.size = -(-blocks.size // self.unit)
        num_items = len(blocks.size)
        by_start = np.argsort(blocks.start, kind="stable")
        self.starts, self.ends = blocks.start[by_start], blocks.end[by_start]
        self.item_at = blocks.item[by_start]
        by_item = np.argsort(self.item_at, kind="stable")
        self.position_of = by_item
        self.first_interval = np.searchsorted(self.item_at[by_item], np.arange(num_items + 1))
        self._intervals = Intervals(
            pointer=self.first_interval,
            position=self.position_of,
            starts=self.starts,
            ends=self.ends,
            block_at=self.item_at,
            before=np.searchsorted(self.starts, self.ends),
        )
        self._sizes = BlockSizes(self.size, np.ones(num_items, np.int64), np.full(num_items, UNPLACED))
        self.floor = self._floors(problem, space, num_items)
        self._problem, self._space, self._weight = problem, space, blocks.weight
        self.duration = np.bincount(blocks.item, blocks.end - blocks.start, minlength=num_items)
        self.first_start = np.full(num_items, problem.end + 1)
        np.minimum.at(self.first_start, blocks.item, blocks.start)
        self.stacked = np.full(num_items, UNPLACED)
        if stack_lasting:
            lasting = np.flatnonzero(self.duration == problem.end + 1)
            tops = np.max(self.floor[lasting], initial=0) + np.cumsum(self.size[lasting])
            lasting, tops = lasting[tops <= self.capacity], tops[tops <= self.capacity]
            self.stacked[lasting] = tops - self.size[lasting]
            self.floor = np.maximum(self.floor, np.max(tops, initial=0))

    def _floors(self, problem: MappingProblem, space: int, num_items: int) -> Integers:
        """Returns the lowest offset that each item may have: the most that is reserved while it is alive."""
        reserved = np.array([*(operation.reserved[space] for operation in problem.operations), 0], np.int64)
        floors = np.zeros(num_items, np.int64)
        if reserved.any() and len(self.starts):
            # Pairs (start, end) for reduceat; the entries between pairs are not looked at.
            bounds = np.empty(2 * len(self.starts), np.int64)
            bounds[0::2], bounds[1::2] = self.starts, self.ends
            padded = np.append(reserved, 0)
            np.maximum.at(floors, self.item_at, np.maximum.reduceat(padded, bounds)[0::2])
        return -(-floors // self.unit)

    def orders(self) -> Iterator[Integers]:
        """Yields the orders to try, the most promising first."""
        size, duration, start = self.size, self.duration, self.first_start
        yield np.lexsort((start, -size, -duration))
        yield np.lexsort((start, -duration, -size))
        yield np.lexsort((start, -size * duration))
        yield np.lexsort((-size, start))

    def place(self, order: Integers, best_fit: bool) -> Integers:
        """Returns offsets in units of the alignment."""
        rest = order[self.stacked[order] == UNPLACED]
        offsets = fit_most(rest, self._intervals, self._sizes, self.floor, self.capacity, best_fit)
        return np.where(self.stacked == UNPLACED, offsets, self.stacked)

    def place_exactly(self, offsets: Integers, weight: NDArray[np.float64], nodes: int) -> Integers:
        """Returns offsets of all blocks, or of all but the least precious of those left over, if some were found.

        Args:
          offsets: `[num_items]` units of the alignment, that heuristics found.
          weight: `[num_items]` what is lost if a block finds no place.
          nodes: that each search may try.
        """
        left_over = np.flatnonzero(offsets == UNPLACED)
        left_over = left_over[np.argsort(weight[left_over], kind="stable")]
        given_up = 0
        while given_up < min(len(left_over), _MOST_GIVEN_UP):
            chosen = np.setdiff1d(np.arange(len(offsets)), left_over[:given_up])
            found = fit_within(self._instance(chosen), self.capacity, nodes)
            if found is not None:
                placed = np.full(len(offsets), UNPLACED)
                placed[chosen] = found[: len(chosen)]
                return placed
            given_up = max(1, 2 * given_up)
        return offsets

    def _instance(self, chosen: Integers) -> Instance:
        """Returns some blocks, and then what operations reserve, as an instance in units of the alignment."""
        number_of = np.full(len(self.size), UNPLACED)
        number_of[chosen] = np.arange(len(chosen))
        block = number_of[self.item_at]
        kept = np.flatnonzero(block >= 0)
        # Within a block, the intervals are sorted by start. What lies between two of them is a gap.
        kept = kept[np.argsort(block[kept], kind="stable")]
        block, starts, ends = block[kept], self.starts[kept], self.ends[kept]
        ends = ends[np.lexsort((ends, block))]
        is_same = block[1:] == block[:-1]
        gap = np.flatnonzero(is_same & (ends[:-1] < starts[1:]))
        first, last = np.flatnonzero(np.append(True, ~is_same)), np.flatnonzero(np.append(~is_same, True))
        runs = np.array(reserved_runs(self._problem, self._space, self.unit), np.int64).reshape(-1, 3)
        count = len(chosen) + len(runs)
        return Instance(
            ids=tuple(map(str, range(count))),
            lower=np.concatenate([starts[first], runs[:, 0]]),
            upper=np.concatenate([ends[last], runs[:, 1]]),
            size=np.concatenate([self.size[chosen], runs[:, 2]]),
            alignment=np.ones(count, np.int64),
            fixed=np.repeat(np.array([FREE, 0]), (len(chosen), len(runs))),
            gap_block=block[gap],
            gap_lower=ends[gap],
            gap_upper=starts[gap + 1],
            gap_low=np.zeros(len(gap), np.int64),
            gap_high=np.zeros(len(gap), np.int64),
        )

    def place_left_over(self, offsets: Integers, effort: float) -> Integers:
        """Returns offsets in units of the alignment, with what constraint programming could place beside."""
        blocks = PlacedBlocks(self.starts, self.ends, self.item_at, self.size, self.floor, self._weight, self.capacity)
        return place_left_over(blocks, offsets, effort)

    def in_bytes(self, offsets: Integers) -> Integers:
        return np.where(offsets == UNPLACED, UNPLACED, offsets * self.unit)
