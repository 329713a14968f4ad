"""The exact search, restarted from several orders, since it is not known in advance which order is good.

The run times of a depth-first search are heavy-tailed, so a search that does not end soon is given up and another order
is tried (Gomes, Selman and Kautz, "Boosting combinatorial search through randomization", AAAI 1998). `fixed_orders`
tries the three orders of MiniMalloc in turn, with growing limits, so that in the end one search is complete.
`random_orders` draws orders by the fullest section, duration and size, and puts those blocks first that were in the way
of earlier searches (the weights of Boussemart et al., "Boosting systematic search by weighting constraints", ECAI 2004,
here for sections).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.planners.offsets.branching_kernel import EXHAUSTED, FOUND, LIMIT, Techniques, search
from memplan.planners.offsets.branching_path_kernel import RankedBlocks
from memplan.planners.offsets.geometry import Sections, overlaps
from memplan.planners.offsets.instance import Instance, Integers

# A part of more blocks is not searched: the memory of a search grows with the square of their number.
MAX_BLOCKS = 3000

# Random orders: the nodes of a search for each block, which are the unit of Luby's sequence; the factor by which
# weights fade; the largest exponents of fullest section, duration and size; and the noise beyond them.
_NODES_PER_BLOCK, _FADING = 12, 0.9
_EXPONENTS, _NOISE = (4.0, 1.5, 1.5), 0.05

# The relative step from one grain to the next, and the share of the random searches in which sizes are rounded.
_GRAIN_STEP, _GRAIN_SHARE = 0.15, 0.33


@dataclass(frozen=True)
class Trial:
    """One search of `BranchAndBound.run`, in one order and with a limit.

    Attributes:
      order, node_limit, techniques, grain: as for `run`.
    """

    order: Integers
    node_limit: int
    techniques: Techniques
    grain: int = 1


# What is tried, one after another; the generator is sent the conflicts of each trial.
Trials = Generator[Trial, Integers, None]


class RestartedSearch:
    """An exact search in one trial after another, which can be continued."""

    def __init__(self, search: BranchAndBound, trials: Trials):
        self._search, self._trials = search, trials
        self._next = next(trials)
        self._nodes = 0

    def go_on(self, nodes: int, stop: Integers) -> tuple[int, Integers]:
        """Returns FOUND with offsets, EXHAUSTED, or LIMIT.

        Args:
          nodes: that all trials together may try, earlier calls included.
          stop: `[1] int64` another thread makes it other than zero to end the search; the outcome is LIMIT then.
        """
        while self._nodes + self._next.node_limit <= nodes and not stop[0]:
            trial = self._next
            outcome, offsets, conflicts, used = self._search.run(
                trial.order, trial.node_limit, stop, trial.techniques, trial.grain
            )
            self._nodes += used
            if outcome == FOUND or (outcome == EXHAUSTED and trial.grain == 1):
                return outcome, offsets
            self._next = self._trials.send(conflicts)
        return LIMIT, np.empty(0, np.int64)


class BranchAndBound:
    """The exact search for one instance, which has no block of size 0, under one capacity."""

    def __init__(self, instance: Instance, capacity: int):
        self._instance, self._capacity = instance, capacity
        self._sections = Sections.of(instance)
        self._pointer, self._other = overlaps(self._sections)
        self._fullest = self._sections.most(self._sections.loads(instance.size))
        self._duration = instance.upper - instance.lower
        self._area = instance.size.astype(np.float64) * self._duration
        self.grains = self._usable_grains()

    def _usable_grains(self) -> list[int]:
        """Returns, ascending, the numbers of bytes to which sizes can be rounded up with no section above the capacity.

        Where no two sizes are alike, no two blocks can lie equally low, and the order of the blocks decides nothing. A
        packing of rounded sizes is also one of the sizes; if there is none, that proves nothing.
        """
        if (self._instance.alignment > 1).any() or (self._instance.fixed >= 0).any():
            return []
        usable, grain = [], 2
        while grain <= self._capacity:
            load = int(np.max(self._sections.loads(-(-self._instance.size // grain)), initial=0))
            if load <= self._capacity // grain:
                usable.append(grain)
            grain += max(1, int(grain * _GRAIN_STEP))
        return usable

    def run(
        self, order: Integers, node_limit: int, stop: Integers, techniques: Techniques, grain: int = 1
    ) -> tuple[int, Integers, Integers, int]:
        """Returns the outcome (FOUND, EXHAUSTED or LIMIT), offsets, conflicts by section, and the number of nodes.

        Args:
          order: `[num_blocks]` the blocks by rank.
          node_limit: how many placements may be tried.
          stop: `[1] int64` as for the kernel.
          techniques: which are used.
          grain: bytes to which sizes are rounded up, one of `grains` or 1.
        """
        sections, num_blocks = self._sections, len(self._instance)
        rank = np.empty(num_blocks, np.int64)
        rank[order] = np.arange(num_blocks)
        blocks, ranges = _permuted(sections.pointer, order)
        mine, pairs = _permuted(self._pointer, order)
        offsets, nodes = np.empty(num_blocks, np.int64), np.zeros(1, np.int64)
        conflicts = np.zeros(sections.count, np.int64)
        ranked = RankedBlocks(
            -(-self._instance.size[order] // grain),
            self._instance.alignment[order],
            self._instance.fixed[order],
            blocks,
            sections.first[ranges],
            sections.last[ranges],
            mine,
            rank[self._other[pairs]],
        )
        outcome = search(
            ranked,
            sections.count,
            self._capacity // grain,
            node_limit,
            techniques,
            stop,
            nodes,
            conflicts,
            offsets,
        )
        return int(outcome), grain * offsets[rank], conflicts, int(nodes[0])

    def _fixed_orders(self) -> list[tuple[Integers, bool]]:
        """Returns MiniMalloc's orders, and whether each part gets an order of its own."""
        return [
            (np.lexsort((-self._area, -self._duration, -self._fullest)), False),
            (np.lexsort((-self._fullest, -self._area, -self._duration)), False),
            (np.lexsort((-self._duration, -self._area, -self._fullest)), True),
        ]

    def fixed_orders(self) -> RestartedSearch:
        """Returns the search in MiniMalloc's orders."""

        def trials() -> Trials:
            node_limit = 2 * len(self._instance)
            while True:
                for order, reordering in self._fixed_orders():
                    yield Trial(order, node_limit, Techniques(reordering=reordering))
                node_limit *= 2

        return RestartedSearch(self, trials())

    def random_orders(self, seed: int) -> RestartedSearch:
        """Returns the search in random orders."""

        def trials() -> Trials:
            draw = np.random.default_rng(seed)
            weights = np.zeros(self._sections.count)
            unit = _NODES_PER_BLOCK * len(self._instance)
            for factor in luby():
                order = self._drawn(draw, weights)
                grain = int(draw.choice(self.grains)) if self.grains and draw.random() < _GRAIN_SHARE else 1
                conflicts = yield Trial(order, factor * unit, Techniques(), grain)
                weights = _FADING * weights + conflicts / max(1, int(conflicts.sum()))

        return RestartedSearch(self, trials())

    def limited(self, nodes: int, seed: int) -> tuple[int, Integers]:
        """Returns FOUND with offsets, EXHAUSTED, or LIMIT after a number of nodes; the same on every call.

        Fixed and random orders take turns, with limits that grow.
        """
        never = np.zeros(1, np.int64)
        draw, weights = np.random.default_rng(seed), np.zeros(self._sections.count)
        node_limit = 2 * len(self._instance)
        while nodes > 0:
            for number in range(2 * len(self._fixed_orders())):
                order, reordering = self._fixed_orders()[number // 2]
                if number % 2:
                    order, reordering = self._drawn(draw, weights), False
                techniques = Techniques(reordering=reordering)
                outcome, offsets, conflicts, used = self.run(order, min(node_limit, nodes), never, techniques)
                if outcome != LIMIT:
                    return outcome, offsets
                weights = _FADING * weights + conflicts / max(1, int(conflicts.sum()))
                nodes -= used
                if nodes <= 0:
                    break
            node_limit *= 2
        return LIMIT, np.empty(0, np.int64)

    def _drawn(self, draw: np.random.Generator, weights: NDArray[np.float64]) -> Integers:
        """Returns an order by a product of random powers of fullness (or of earlier conflicts), duration and size."""
        powers = draw.random(3) * _EXPONENTS
        troubled = float(np.max(weights, initial=0.0))
        if troubled > 0 and draw.random() < 0.7:
            scaled = np.round(1e6 * (0.001 + weights / troubled)).astype(np.int64)
            first = np.log(self._sections.most(scaled)) / 8
        else:
            first = np.log(self._fullest)
        keys = (first, np.log(self._duration), np.log(self._instance.size))
        value = sum(power * key for power, key in zip(powers, keys, strict=True))
        return np.argsort(-value - _NOISE * draw.standard_normal(len(self._instance)), kind="stable")


def luby() -> Iterator[int]:
    """Yields 1 1 2 1 1 2 4 1 …: Luby, Sinclair and Zuckerman, "Optimal speedup of Las Vegas algorithms", 1993."""
    number = 0
    while True:
        number += 1
        i = number
        while (i + 1) & i:
            i -= (1 << (i.bit_length() - 1)) - 1
        yield (i + 1) >> 1


def _permuted(pointer: Integers, order: Integers) -> tuple[Integers, Integers]:
    """Returns `(pointer, index)`: where rows begin in a new order, and which old entries they hold."""
    lengths = np.diff(pointer)[order]
    begins = np.concatenate([[0], np.cumsum(lengths)])
    return begins, np.repeat(pointer[:-1][order] - begins[:-1], lengths) + np.arange(begins[-1])


__all__ = ["EXHAUSTED", "FOUND", "LIMIT", "MAX_BLOCKS", "BranchAndBound", "RestartedSearch", "Techniques", "luby"]
