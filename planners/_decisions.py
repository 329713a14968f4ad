"""The search for stays, as Python sees it: what `_search.py` works on, the orders in which runs compete, the result."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan, Residency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners._assembly import Stay, home_of
from memplan.planners._chains import make_chains, make_slots
from memplan.planners._search import drop, gains, refresh, score, try_all
from memplan.planners._tables import ACCESS, BUFFER, CHAIN, FACTS, ITEM, NONE, OPERATION, REGION, SLOT, Tables
from memplan.planners.packing import Blocks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# In the first pass an operation waits only for what gains several times the wait; what arrives in time may come later.
_FIRST_PATIENCE = 0.25

# Seconds: a stay that gains nothing by itself is packed rather than left out, all the same.
_LEAST_WEIGHT = 1e-15


@dataclass(frozen=True)
class Order:
    """In which order runs of accesses compete for fast memory.

    Attributes:
      key: `density`: seconds saved for each part of the memory, over time, and of the link that is used; `boundedness`:
        buffer by buffer, by seconds saved in all for the square root of the size, as XLA does; `saving`: seconds saved.
      channel_weight: of `density`: how much a part of the link counts beside the same part of the memory.
      noise: relative, of the key, drawn at random.
    """

    key: str
    channel_weight: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What a search may do; see `GreedyOptions`."""

    prefetch: bool = True
    evict: bool = True
    wait: bool = True
    passes: int = 4
    channel_price: float = 0.2
    tries: int = 24


def fast_spaces(problem: MappingProblem) -> list[int]:
    """Returns all spaces but the slow one, the fastest first: what it does not hold, the next one may."""
    return sorted(range(1, len(problem.spaces)), key=lambda space: (-problem.spaces[space].bandwidth, space))


class Frame:
    """What all searches for stays in one fast space have in common.

    Args:
      problem: of which to move buffers.
      space: index of the fast space.
      elsewhere: stays in other fast spaces, that stay as they are.
      runs: which compete: `all`, or only `single` items, or only `whole` live ranges.

    Attributes:
      slots, chains: see `_chains.py`.
      tables: what a search starts from.
      lows, highs: `[num_runs]` items of the runs that compete: single items, neighbours, whole chains.
      homes: buffers that are at home in the fast space.
      access_buffer: `[num_accesses]`.
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

    def _tables(self) -> Tables:
        """Returns the tables that a search starts from: everything at home, but for the stays elsewhere."""
        problem, chains, space, n = self.problem, self.chains, self.space, self.problem.end
        into, back = problem.link_between.get((0, space)), problem.link_between.get((space, 0))
        buffers = np.zeros(len(problem.buffers), BUFFER)
        sizes = np.array([buffer.size for buffer in problem.buffers], np.int64)
        buffers["size"] = -(-sizes // self.unit)
        for field, link in (("fill_seconds", into), ("spill_seconds", back)):
            buffers[field] = (
                np.inf if link is None else problem.links[link].latency + sizes / problem.links[link].bandwidth
            )

        cost = np.array([access.cost for _, access in problem.accesses], np.float64).reshape(-1, len(problem.spaces))
        rows = np.arange(len(cost))
        moved = np.array([access.bytes for _, access in problem.accesses], np.float64)
        channel = next((problem.links[x].channel for x in (into, back) if x is not None), -1)
        shares = np.array([s.channel == channel and channel >= 0 for s in problem.spaces], np.bool_)
        bandwidth = np.array([s.bandwidth for s in problem.spaces], np.float64)
        accesses = np.zeros(len(cost), ACCESS)
        accesses["time"] = [t for t, _ in problem.accesses]
        accesses["saving"] = cost[rows, self.served] - cost[:, space]
        accesses["traffic"] = np.where(shares[self.served], moved / bandwidth[self.served], 0.0)

        repetitions = np.array(problem.repetitions, np.float64)
        operations = np.zeros(n, OPERATION)
        operations["repetitions"] = repetitions[self.slots.region_of_time[:-1]]
        operations["floor"] = [operation.floor for operation in problem.operations]
        overhead = np.array([operation.overhead for operation in problem.operations], np.float64)
        operations["demand"] = overhead + np.bincount(accesses["time"], cost[rows, self.served], minlength=n)
        operations["taken"] = np.bincount(accesses["time"], accesses["traffic"], minlength=n)

        slots, inner = self._slot_table(repetitions)
        regions = np.zeros(len(problem.regions), REGION)
        regions["first"], regions["last"] = self.slots.first, self.slots.last
        facts = np.zeros(1, FACTS)
        facts["kept_buffer"], facts["can_fill"], facts["can_spill"] = NONE, into is not None, back is not None
        table = np.zeros(len(chains.buffer), CHAIN)
        for field in CHAIN.names or ():
            table[field] = getattr(chains, field)
        return Tables(
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
        )

    def _slot_table(self, repetitions: Floats) -> tuple[np.ndarray, Integers]:
        """Returns the slots, and the regions inside of them by slot."""
        slots = self.slots
        table = np.zeros(len(slots.time), SLOT)
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
        table = np.zeros(len(chains.chain), ITEM)
        for field in ITEM.names or ():
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
            if stays[0] >= 0 and (stays == stays[0]).all():
                stay = self.elsewhere[stays[0]]
                table["ready"][item] = max((of_time[done] for _, done in stay.spills), default=chains.slot[item] + 1)
                starts = [of_time[max(start, 0)] for start, _ in stay.fills]
                table["wanted"][item] = min(starts, default=chains.slot[item])
        return table

    def _runs(self, runs: str) -> tuple[Integers, Integers]:
        chains = self.chains
        if runs == "whole":
            outermost = chains.parent == NONE
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


class Decisions:
    """One search: the runs that have a stay so far.

    Args:
      frame: what to decide on.
      rules: what it may do.
      kept: buffer that stays in fast memory from one run of the program to the next; -1 for none.

    Attributes:
      tables: the frame's, with what is decided.
      refill: times of the copy that brings the kept buffer back for the next run; None if none is kept.
    """

    def __init__(self, frame: Frame, rules: Rules, kept: int = NONE):
        self.frame, self.rules, self.kept = frame, rules, kept
        self.tables = frame.tables.copy()
        facts = self.tables.facts
        facts["kept_buffer"] = kept
        facts["can_fill"] &= rules.prefetch
        facts["can_spill"] &= rules.evict
        refresh(self.tables)
        self.refill = self._reserve_for_next_run() if kept != NONE else None

    def copy(self) -> Decisions:
        """Returns the same decisions, to be changed independently."""
        twin = copy.copy(self)
        twin.tables = self.tables.copy()
        return twin

    def _reserve_for_next_run(self) -> tuple[int, int]:
        """Books the copy that brings the kept buffer back for the next run, as late as it can be; returns its times."""
        slots, operations = self.tables.slots, self.tables.operations
        buffer, n = self.tables.buffers[self.kept], self.frame.problem.end
        start, offered = int(self.frame.slots.of_time[n]), 0.0
        while start > 0 and (offered < buffer["fill_seconds"] or not slots[start]["is_operation"]):
            start -= 1
            if slots[start]["is_operation"]:
                operation = operations[slots[start]["time"]]
                offered += max(0.0, max(operation["floor"], operation["demand"]) - operation["taken"])
            else:
                offered += slots[start]["idle"]
        slots["arrivals"][start] += buffer["fill_seconds"]
        time = int(slots[start]["time"])
        self.tables.free[time:] -= buffer["size"]
        return time, n

    def run(self, order: Order, generator: np.random.Generator, passes: int | None = None) -> None:
        """Takes runs in an order, then looks again at what is left until nothing more can be taken."""
        following = Order("density", order.channel_weight if order.key == "density" else 0.3)
        rules, lows, highs = self.rules, self.frame.lows, self.frame.highs
        for number in range(rules.passes if passes is None else passes):
            refresh(self.tables)
            ranked = self._ranked(order if number == 0 else following, generator)
            patience = 0.0 if not rules.wait else _FIRST_PATIENCE if number == 0 else 1.0
            taken = try_all(self.tables, ranked, lows, highs, rules.channel_price, rules.tries, patience)
            if number > 0 and not taken:
                break

    def _ranked(self, order: Order, generator: np.random.Generator) -> Integers:
        """Returns the runs that might pay, the best first."""
        frame, operations = self.frame, self.tables.operations
        seconds = np.maximum(operations["floor"], operations["demand"]) * operations["repetitions"]
        elapsed = np.concatenate([[0.0], np.cumsum(seconds), [seconds.sum()]])
        saved, freed, copied, held = score(self.tables, frame.lows, frame.highs, elapsed)
        worth = saved + self.rules.channel_price * (freed - copied)
        chain = frame.chains.chain[frame.lows]
        if order.key == "density":
            whole = max(float(frame.capacity.max()), 1.0)
            key = worth / (held / whole + order.channel_weight * np.maximum(copied, 0.0) + 1e-30)
        elif order.key == "saving":
            key = worth
        elif order.key == "boundedness":
            key = self._boundedness()[frame.chains.buffer[chain]]
        else:
            raise ValueError(f"no order is called {order.key!r}")
        if order.noise:
            key = key * np.exp(order.noise * generator.standard_normal(len(key)))
        # Within a buffer, as in XLA, from its first use on, and rather kept than fetched.
        ranked = np.lexsort((frame.lows - frame.highs, frame.lows, chain, -key))
        return ranked[worth[ranked] > 0.0]

    def _boundedness(self) -> Floats:
        """Returns XLA's measure of each buffer's claim: what its accesses save, for the root of its size."""
        accesses, operations = self.tables.accesses, self.tables.operations
        operation = operations[accesses["time"]]
        demand, floor = operation["demand"], operation["floor"]
        now = np.maximum(floor, demand) - np.maximum(floor, demand - accesses["saving"])
        benefit = np.where(demand > floor, now, demand - floor) * operation["repetitions"]
        buffer = self.frame.access_buffer
        num_buffers = len(self.frame.problem.buffers)
        total = np.bincount(buffer, np.maximum(benefit, 0.0), minlength=num_buffers)
        largest = np.full(num_buffers, -np.inf)
        np.maximum.at(largest, buffer, benefit)
        return np.where(largest > 0.0, total, largest) / np.sqrt(np.maximum(self.tables.buffers["size"], 1))

    def runs(self) -> Integers:
        """Returns the runs taken."""
        run = self.tables.items["run"]
        return np.flatnonzero(run == np.arange(len(run)))

    def drop(self, run: int) -> None:
        """Gives up a run."""
        drop(self.tables, run)

    def gains(self, runs: Integers) -> Floats:
        """Returns the seconds of the program that each of some runs saves, given all others, waits not subtracted."""
        return gains(self.tables, runs)

    def drop_losers(self, stall: Floats) -> int:
        """Gives up runs whose copies make an operation wait for longer than they gain; returns how many.

        Args:
          stall: `[n + 1]` seconds that each operation waits.
        """
        runs = self.runs()
        items, slots = self.tables.items[runs], self.tables.slots
        gained = self.gains(runs)
        worst: dict[int, tuple[float, int]] = {}
        for done in (items["fill_done"], items["spill_done"]):
            for i in np.flatnonzero(done != NONE).tolist():
                worst[done[i]] = min(worst.get(done[i], (np.inf, -1)), (float(gained[i]), int(runs[i])))
        losers = set()
        for slot, (lost, run) in worst.items():
            if lost < stall[slots["time"][slot]] * slots["repetitions"][slot]:
                losers.add(run)
        for run in sorted(losers):
            self.drop(run)
        return len(losers)

    def arrays(self) -> tuple[Integers, Integers, Integers, Integers, Integers, Floats]:
        """Returns what `TimingEmulator.latency_of` wants: the space of each access, and the copies in order."""
        start, done, source, destination, buffer = self._copies()
        sizes = self.frame.sizes[buffer]
        return self._served(), start, done, source, destination, sizes

    def sketch(self) -> Plan:
        """Returns a plan without offsets, good enough to be emulated, not to be verified."""
        problem, num_spaces = self.frame.problem, len(self.frame.problem.spaces)
        start, done, source, destination, buffer = self._copies()
        residencies = tuple(
            Residency(number, space, NONE, described.start, described.end)
            for number, described in enumerate(problem.buffers)
            for space in range(num_spaces)
        )
        first = buffer * num_spaces
        rows = zip(
            *((first + source).tolist(), (first + destination).tolist(), start.tolist(), done.tolist()), strict=True
        )
        return Plan(
            problem=problem.fingerprint,
            name=problem.name,
            target=problem.target,
            planner="sketch",
            residencies=residencies,
            copies=tuple(Copy(*row) for row in rows),
            served=tuple((self.frame.access_buffer * num_spaces + self._served()).tolist()),
        )

    def _served(self) -> Integers:
        return np.where(self.tables.accesses["is_fast"], self.frame.space, self.frame.served)

    def _copies(self) -> tuple[Integers, Integers, Integers, Integers, Integers]:
        """Returns start, done, spaces from and to, and buffer of all copies, in order of start, then of done."""
        runs, space = self.runs(), self.frame.space
        items, times = self.tables.items[runs], self.frame.slots.time
        buffers = self.frame.chains.buffer[items["chain"]]
        rows = [np.zeros((0, 5), np.int64)]
        for is_fill, start, done in ((True, "fill_start", "fill_done"), (False, "spill_start", "spill_done")):
            has = items[start] != NONE
            ends = np.full((has.sum(), 2), (0, space) if is_fill else (space, 0))
            rows.append(np.column_stack([times[items[start][has]], times[items[done][has]], ends, buffers[has]]))
        is_kept = self._is_kept(runs)
        if is_kept.any() and self.refill is not None:
            again = [[*self.refill, 0, space, self.kept]] if items["run_end"][is_kept][0] < self.refill[0] else []
            rows.append(np.array([[BEFORE, 0, 0, space, self.kept], *again], np.int64))
        for stay in self.frame.elsewhere:
            for copies, way in ((stay.fills, (0, stay.space)), (stay.spills, (stay.space, 0))):
                rows += [np.array([[*times_of_copy, *way, stay.buffer]], np.int64) for times_of_copy in copies]
        table = np.concatenate(rows)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        start, done, source, destination, buffer = table.T
        return start, done, source, destination, buffer

    def _is_kept(self, runs: Integers) -> NDArray[np.bool_]:
        """Returns which runs hold the kept buffer from the start of the program."""
        chains = self.frame.chains
        chain = chains.chain[runs]
        return (chains.buffer[chain] == self.kept) & (runs == chains.first[chain]) & (chains.parent[chain] == NONE)

    def blocks(self) -> Blocks:
        """Returns what is to be packed: the homes in the fast space, then the stays of the runs."""
        runs, homes = self.runs(), self.frame.homes
        items, buffers = self.tables.items[runs], self.frame.problem.buffers
        first = len(homes)
        item = np.arange(first + len(runs))
        start = np.concatenate([np.array([buffers[b].start for b in homes], np.int64), items["run_start"]])
        end = np.concatenate([np.array([buffers[b].end for b in homes], np.int64), items["run_end"]])
        size = self.frame.sizes[[*homes, *self.frame.chains.buffer[items["chain"]]]].astype(np.int64)
        weight = np.concatenate([np.full(first, np.inf), np.maximum(self.gains(runs), _LEAST_WEIGHT)])
        if self.refill is not None:
            for i in np.flatnonzero(self._is_kept(runs)).tolist():
                n = self.frame.problem.end
                if end[first + i] >= self.refill[0]:
                    end[first + i] = n + 1
                else:
                    item = np.append(item, first + i)
                    start, end = np.append(start, self.refill[0]), np.append(end, n + 1)
        return Blocks(start, end, item, size, weight)

    def stays(self, offsets: Integers | None = None) -> list[Stay]:
        """Returns the stays of the runs taken, and what is left behind for the next run of the program.

        Args:
          offsets: `[num_homes + num_runs]` bytes, of the homes in the fast space and of the runs; None if not known.
        """
        made: list[Stay] = []
        runs = self.runs()
        gained = self.gains(runs)
        kept = self._is_kept(runs)
        n = self.frame.problem.end
        known = np.full(len(runs), NONE) if offsets is None else offsets[len(self.frame.homes) :]
        for run, gain, is_kept, offset in zip(*(x.tolist() for x in (runs, gained, kept, known)), strict=True):
            stay = self._stay(run, is_kept, gain, offset)
            if is_kept and self.refill is not None:
                if stay.end >= self.refill[0]:
                    stay = replace(stay, end=n + 1)
                else:
                    made.append(replace(stay, start=self.refill[0], end=n + 1, accesses=(), fills=(self.refill,)))
            made.append(stay)
        return made

    def _stay(self, run: int, is_kept: bool, gain: float, offset: int) -> Stay:
        chains, times, item = self.frame.chains, self.frame.slots.time, self.tables.items[run]
        chain, last = int(item["chain"]), int(item["run_last"])

        def copies(start: str, done: str) -> tuple[tuple[int, int], ...]:
            return ((int(times[item[start]]), int(times[item[done]])),) if item[start] != NONE else ()

        return Stay(
            buffer=int(chains.buffer[chain]),
            space=self.frame.space,
            start=int(item["run_start"]),
            end=int(item["run_end"]),
            accesses=tuple(chains.accesses[chains.first_access[run] : chains.last_access[last]].tolist()),
            fills=((BEFORE, 0),) if is_kept else copies("fill_start", "fill_done"),
            spills=copies("spill_start", "spill_done"),
            place=0 if is_kept else -1,
            value=gain,
            offset=offset,
        )
