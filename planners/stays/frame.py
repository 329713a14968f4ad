"""What all searches for stays in one fast space start from: the runs that compete for it, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.stays.assembly import Stay, home_of
from memplan.planners.stays.chains import make_chains, make_slots
from memplan.planners.stays.tables import (
    ACCESS_ROW,
    BUFFER_ROW,
    CHAIN_ROW,
    CHANGE_ROW,
    FACTS_ROW,
    ITEM_ROW,
    NONE,
    REGION_SLOTS_ROW,
    ROOFLINE_ROW,
    SLOT_ROW,
    StayTables,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def fast_spaces(problem: MappingProblem) -> list[int]:
    """Returns all spaces but the slow one, the fastest first: what one does not hold, the next one may."""
    return sorted(range(1, len(problem.spaces)), key=lambda space: (-problem.spaces[space].bandwidth, space))


class Frame:
    """The *frame* of a search: one fast space, the runs that compete for it, and the tables that a search starts from.

    Args:
      problem: whose buffers may move.
      space: index of the fast space.
      elsewhere: stays in other fast spaces, which remain as they are.
      runs: which runs compete: `all`, or only those of a `single` item, or only `whole` live ranges.

    Attributes:
      slots, chains: see `chains.py`.
      tables: what a search starts from.
      lows, highs: `[num_runs]` first and last item of the runs that compete: single items, neighbours, whole chains.
      homes: buffers that are at home in the fast space.
      access_buffer: `[num_accesses]` buffer of each access.
      sizes: `[num_buffers]` bytes, as floating-point numbers.
      served: `[num_accesses]` space that serves each access if no run here does.
      capacity: `[n + 1]` room at each time, in units of the alignment.
    """

    def __init__(
        self,
        problem: MappingProblem,
        space: int,
        elsewhere: Sequence[Stay] = (),
        runs: Literal["all", "single", "whole"] = "all",
    ):
        self.problem, self.space, self.elsewhere = problem, space, tuple(elsewhere)
        self.unit = problem.spaces[space].alignment
        homes = np.array([home_of(problem, buffer) for buffer in range(len(problem.buffers))], np.int64)
        self.access_buffer = np.array([access.buffer for _, access in problem.accesses], np.int64)
        self.served = homes[self.access_buffer]
        self.sizes = np.array([buffer.size for buffer in problem.buffers], np.float64)
        for stay in elsewhere:
            self.served[list(stay.accesses)] = stay.space
        self.slots = make_slots(problem)
        self.chains = make_chains(problem, self.slots, self._movable())
        reserved = np.array([*(operation.reserved[space] for operation in problem.operations), 0], np.int64)
        self.capacity = problem.spaces[space].capacity // self.unit - -(-reserved // self.unit)
        self.homes = [buffer for buffer in range(len(problem.buffers)) if home_of(problem, buffer) == space]
        for number in self.homes:
            buffer = problem.buffers[number]
            self.capacity[buffer.start : buffer.end] -= -(-buffer.size // self.unit)
        self.tables = self._tables()
        self.lows, self.highs = self._runs(runs)

    def _movable(self) -> list[int]:
        """Returns the buffers that live in space 0 and may visit the fast space."""
        problem, space = self.problem, self.space
        return [
            number
            for number, buffer in enumerate(problem.buffers)
            if home_of(problem, number) == 0
            and buffer.final_space in (None, 0)
            and space in buffer.spaces
            and buffer.size <= problem.spaces[space].capacity
        ]

    def _tables(self) -> StayTables:
        """Returns the tables that a search starts from: everything is at home, but for the stays elsewhere."""
        problem, chains, space, n = self.problem, self.chains, self.space, self.problem.end
        into, back = problem.link_between.get((0, space)), problem.link_between.get((space, 0))
        buffers = np.zeros(len(problem.buffers), BUFFER_ROW)
        sizes = np.array([buffer.size for buffer in problem.buffers], np.int64)
        buffers["size"] = -(-sizes // self.unit)
        for field, link in (("prefetch_seconds", into), ("eviction_seconds", back)):
            buffers[field] = (
                np.inf if link is None else problem.links[link].latency + sizes / problem.links[link].bandwidth
            )

        cost = np.array([access.cost for _, access in problem.accesses], np.float64).reshape(-1, len(problem.spaces))
        rows = np.arange(len(cost))
        moved = np.array([access.bytes for _, access in problem.accesses], np.float64)
        channel = next((problem.links[x].channel for x in (into, back) if x is not None), -1)
        shares = np.array([s.channel == channel and channel >= 0 for s in problem.spaces], np.bool_)
        bandwidth = np.array([s.bandwidth for s in problem.spaces], np.float64)
        accesses = np.zeros(len(cost), ACCESS_ROW)
        accesses["time"] = [t for t, _ in problem.accesses]
        accesses["saving"] = cost[rows, self.served] - cost[:, space]
        accesses["traffic"] = np.where(shares[self.served], moved / bandwidth[self.served], 0.0)

        repetitions = np.array(problem.repetitions, np.float64)
        operations = np.zeros(n, ROOFLINE_ROW)
        operations["repetitions"] = repetitions[self.slots.region_of_time[:-1]]
        operations["floor"] = [operation.floor for operation in problem.operations]
        overhead = np.array([operation.overhead for operation in problem.operations], np.float64)
        operations["demand"] = overhead + np.bincount(accesses["time"], cost[rows, self.served], minlength=n)
        operations["taken"] = np.bincount(accesses["time"], accesses["traffic"], minlength=n)

        slots, inner = self._slot_table(repetitions)
        regions = np.zeros(len(problem.regions), REGION_SLOTS_ROW)
        regions["first"], regions["last"] = self.slots.first, self.slots.last
        facts = np.zeros(1, FACTS_ROW)
        facts["kept_buffer"] = facts["kept_item"] = facts["kept_again"] = NONE
        facts["can_prefetch"], facts["can_evict"] = into is not None, back is not None
        table = np.zeros(len(chains.buffer), CHAIN_ROW)
        for field in CHAIN_ROW.names or ():
            table[field] = getattr(chains, field)
        return StayTables(
            slots=slots,
            regions=regions,
            chains=table,
            items=self._item_table(),
            operations=operations,
            accesses=accesses,
            buffers=buffers,
            order=chains.accesses,
            inner=inner,
            children=chains.children,
            free=self.capacity,
            facts=facts,
            journal=np.zeros(0, CHANGE_ROW),
            changes=np.zeros(1, np.int64),
        )

    def _slot_table(self, repetitions: Floats) -> tuple[np.ndarray, Integers]:
        """Returns the slots, and the regions inside of them by slot."""
        slots = self.slots
        table = np.zeros(len(slots.time), SLOT_ROW)
        table["time"], table["end"], table["is_operation"] = slots.time, slots.end, slots.is_operation
        table["repetitions"] = np.repeat(repetitions, slots.last - slots.first)
        table["trips"] = 1.0
        for number, region in enumerate(self.problem.regions):
            if region.kind is RegionKind.LOOP and slots.of_region[number] >= 0:
                table["trips"][slots.of_region[number]] = region.trip_count
        inner = np.argsort(slots.of_region, kind="stable")
        every = np.arange(len(table))
        table["inner_first"] = np.searchsorted(slots.of_region[inner], every)
        table["inner_last"] = np.searchsorted(slots.of_region[inner], every, side="right")
        return table, inner

    def _item_table(self) -> np.ndarray:
        chains, of_time = self.chains, self.slots.of_time
        table = np.zeros(len(chains.chain), ITEM_ROW)
        for field in ITEM_ROW.names or ():
            table[field] = getattr(chains, field, NONE)
        table["late"], table["closed"] = 0.0, False
        table["ready"], table["wanted"] = chains.slot + 1, chains.slot
        if not self.elsewhere:
            return table
        stay_of = np.full(len(self.problem.accesses), -1, np.int64)
        for number, stay in enumerate(self.elsewhere):
            stay_of[list(stay.accesses)] = number
        for item in range(len(table)):
            stays = stay_of[chains.accesses[chains.first_access[item] : chains.last_access[item]]]
            table["closed"][item] = (stays >= 0).any()
            if stays[0] < 0 or (stays != stays[0]).any():
                continue
            stay, region = self.elsewhere[stays[0]], chains.region[chains.chain[item]]
            slots = range(self.slots.first[region], self.slots.last[region])
            # The copies of a stay inside of a loop or conditional are made within it.
            done = [slot for _, time in stay.evictions if (slot := of_time[time]) in slots]
            start = [slot for time, _ in stay.prefetches if (slot := of_time[max(time, 0)]) in slots]
            table["ready"][item] = max(done, default=chains.slot[item] + 1)
            table["wanted"][item] = min(start, default=chains.slot[item])
        return table

    def _runs(self, runs: str) -> tuple[Integers, Integers]:
        chains = self.chains
        if runs == "whole":
            # A buffer without accesses has a chain without items, and so no run.
            outermost = (chains.parent == NONE) & (chains.first < chains.last)
            return chains.first[outermost], chains.last[outermost] - 1
        items = np.arange(len(chains.chain))
        if runs == "single":
            return items, items
        neighbours = np.flatnonzero(chains.chain[1:] == chains.chain[:-1])
        long = chains.last - chains.first > 2
        return (
            np.concatenate([items, neighbours, chains.first[long]]),
            np.concatenate([items, neighbours + 1, chains.last[long] - 1]),
        )
