"""The search for stays, as Python sees it: the orders in which runs compete, and what is decided."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.hardware.roofline import duration, durations
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan, Residency
from memplan.planners.stays.assembly import Stay
from memplan.planners.stays.booking_kernel import refresh
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.kept import kept_item
from memplan.planners.stays.packing import Blocks
from memplan.planners.stays.rules import Rules, until_next_run
from memplan.planners.stays.runs_kernel import SCORE_ROW, drop, drop_useless, gains, score_all, try_all
from memplan.planners.stays.tables import NONE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The share of the gain that an operation may wait for in the first pass: a later run may gain as much without a wait.
_FIRST_PATIENCE = 0.25

# The least weight, in seconds, of a stay: one that gains nothing by itself is packed nevertheless.
_LEAST_WEIGHT = 1e-15


@dataclass(frozen=True)
class Order:
    """The order in which runs of accesses compete for fast memory.

    Attributes:
      key: `density`: seconds saved for each part of the memory, over time, and of the link that is used; `boundedness`:
        buffer by buffer, by seconds saved in all for the square root of the size, as XLA does; `saving`: seconds saved.
      channel_weight: how much a part of the link counts in `density`, beside the same part of the memory.
      noise: relative size of the random factor of the key.
    """

    key: str
    channel_weight: float = 0.0
    noise: float = 0.0


class Decisions:
    """What one search has decided: the runs that have a stay.

    Args:
      frame: what to decide on.
      rules: what the search may do.
      kept: buffer that stays in fast memory from one run of the program to the next; -1 for none.

    Attributes:
      tables: the frame's, with what is decided.
    """

    def __init__(self, frame: Frame, rules: Rules, kept: int = NONE):
        self.frame, self.rules, self.kept = frame, rules, kept
        self.tables = frame.tables.copy()
        facts = self.tables.facts
        facts["kept_buffer"], facts["kept_item"] = kept, kept_item(frame.chains, kept)
        facts["can_prefetch"] &= rules.prefetch
        facts["can_evict"] &= rules.evict
        refresh(self.tables)
        if kept != NONE:
            facts["kept_again"] = self._reserve_for_next_run()

    def copy(self) -> Decisions:
        """Returns the same decisions, to be changed independently."""
        twin = copy.copy(self)
        twin.tables = self.tables.copy()
        return twin

    @property
    def kept_item(self) -> int:
        """The item with which the run begins that keeps a buffer from run to run of the program; -1 for none."""
        return int(self.tables.facts["kept_item"][0])

    @property
    def kept_again(self) -> int:
        """The time at which the copy of that buffer for the next run starts, to be done at the end; -1 for none."""
        return int(self.tables.facts["kept_again"][0])

    def _reserve_for_next_run(self) -> int:
        """Books the copy that brings the kept buffer back for the next run; returns its start, as late as it can be."""
        slots, operations = self.tables.slots, self.tables.operations
        buffer, n = self.tables.buffers[self.kept], self.frame.problem.end
        start, offered = int(self.frame.slots.of_time[n]), 0.0
        while start > 0 and (offered < buffer["prefetch_seconds"] or not slots[start]["is_operation"]):
            start -= 1
            if slots[start]["is_operation"]:
                operation = operations[slots[start]["time"]]
                offered += max(0.0, duration(operation["floor"], operation["demand"]) - operation["taken"])
            else:
                offered += slots[start]["idle"]
        slots["arrivals"][start] += buffer["prefetch_seconds"]
        time = int(slots[start]["time"])
        self.tables.free[time:] -= buffer["size"]
        return time

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
        seconds = durations(operations["floor"], operations["demand"]) * operations["repetitions"]
        elapsed = np.concatenate([[0.0], np.cumsum(seconds), [seconds.sum()]])
        scores = np.empty(len(frame.lows), SCORE_ROW)
        score_all(self.tables, frame.lows, frame.highs, elapsed, scores)
        saved, freed, copied, held = (scores[name] for name in ("saved", "freed", "copied", "held"))
        worth = saved + self.rules.channel_price * (freed - copied)
        chain = frame.chains.chain[frame.lows]
        if order.key == "density":
            whole = max(float(np.max(frame.capacity)), 1.0)
            with np.errstate(invalid="ignore"):  # A copy without a link takes forever: the run is worth nothing.
                key = worth / (held / whole + order.channel_weight * np.maximum(copied, 0.0) + 1e-30)
        elif order.key == "saving":
            key = worth
        elif order.key == "boundedness":
            key = self._boundedness()[frame.chains.buffer[chain]]
        else:
            raise ValueError(f"no order is called {order.key!r}")
        if order.noise:
            key = key * np.exp(order.noise * generator.standard_normal(len(key)))
        # Within a buffer, as in XLA, the first use comes first, and longer runs come before shorter ones.
        ranked = np.lexsort((frame.lows - frame.highs, frame.lows, chain, -key))
        return ranked[worth[ranked] > 0.0]

    def _boundedness(self) -> Floats:
        """Returns XLA's measure of each buffer's claim: what its accesses save, for the root of its size."""
        accesses, operations = self.tables.accesses, self.tables.operations
        operation = operations[accesses["time"]]
        demand, floor = operation["demand"], operation["floor"]
        now = durations(floor, demand) - durations(floor, demand - accesses["saving"])
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

    def without(self, runs: Iterable[int]) -> Decisions:
        """Returns the decisions with some runs given up."""
        rest = self.copy()
        for run in runs:
            rest.drop(run)
        return rest

    def partly_redecided(self, generator: np.random.Generator) -> Decisions:
        """Returns the decisions with a random part given up and decided again, in a random order.

        Ruin and recreate: Schrimpf et al., "Record breaking optimization results using the ruin and recreate
        principle", 2000.
        """
        trial = self.without(self._doomed(generator))
        trial.run(Order("density", 10.0 ** generator.uniform(-1.0, 1.0), noise=0.5), generator, passes=2)
        return trial

    def _doomed(self, draw: np.random.Generator) -> list[int]:
        """Returns runs to give up: most of those in some part of time, or a random few of all."""
        runs, n = self.runs(), self.frame.problem.end
        items = self.tables.items[runs]
        if draw.random() < 0.8:
            width = max(2, int(n * 2.0 ** -draw.uniform(1.0, 7.0)))
            start = int(draw.integers(-width, n))
            is_near = (items["run_start"] < start + width) & (items["run_end"] > start)
            return runs[is_near & (draw.random(len(runs)) < 0.7)].tolist()
        return runs[draw.random(len(runs)) < draw.uniform(0.02, 0.3)].tolist()

    def squeezed(self, left_out: Integers) -> Decisions:
        """Returns the decisions without the runs that found no offset, and with less memory where they were."""
        smaller = self.copy()
        tables = smaller.tables
        for run in left_out.tolist():
            smaller.drop(run)
            item = tables.items[run]
            half = int(tables.buffers["size"][tables.chains["buffer"][item["chain"]]]) // 2
            tables.free[item["run_start"] : item["run_end"]] -= half
        return smaller

    def gains(self, runs: Integers) -> Floats:
        """Returns the seconds of the program that each of some runs saves, given all others, waits not subtracted."""
        result = np.empty(len(runs))
        gains(self.tables, runs, result)
        return result

    def drop_useless(self, only_copied: bool) -> int:
        """Gives up runs that save nothing, given those that are left; returns how many.

        Args:
          only_copied: whether to keep those that need no copy, which cost nothing but memory.
        """
        runs = self.runs()
        items = self.tables.items[runs]
        is_copied = (items["prefetch_start"] != NONE) | (items["eviction_start"] != NONE)
        # Those with copies come first: of two that save something only together, the one without a copy is kept.
        ordered = np.concatenate([runs[is_copied], runs[~is_copied][: 0 if only_copied else None]])
        return int(drop_useless(self.tables, ordered))

    def drop_losers(self, stall: Floats) -> int:
        """Gives up runs whose copies make an operation wait for longer than they gain; returns how many.

        Args:
          stall: `[n + 1]` seconds that each operation waits.
        """
        runs = self.runs()
        items, slots = self.tables.items[runs], self.tables.slots
        gained = self.gains(runs)
        worst: dict[int, tuple[float, int]] = {}
        for done in (items["prefetch_done"], items["eviction_done"]):
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
        """Returns the arguments of `TimingEmulator.latency_of`: the space of each access, and the copies in order."""
        start, done, source, destination, buffer = self._copies()
        sizes = self.frame.sizes[buffer]
        return self._served(), start, done, source, destination, sizes

    def sketch(self) -> Plan:
        """Returns a plan without offsets: it can be emulated, but not verified."""
        problem, num_spaces = self.frame.problem, len(self.frame.problem.spaces)
        start, done, source, destination, buffer = self._copies()
        residencies = (
            Residency(number, space, NONE, described.start, described.end)
            for number, described in enumerate(problem.buffers)
            for space in range(num_spaces)
        )
        first = buffer * num_spaces
        rows = zip(
            *((first + source).tolist(), (first + destination).tolist(), start.tolist(), done.tolist()), strict=True
        )
        served = (self.frame.access_buffer * num_spaces + self._served()).tolist()
        return problem.answer("sketch", residencies, (Copy(*row) for row in rows), served)

    def _served(self) -> Integers:
        return np.where(self.tables.accesses["is_fast"], self.frame.space, self.frame.served)

    def _copies(self) -> tuple[Integers, Integers, Integers, Integers, Integers]:
        """Returns start, done, spaces from and to, and buffer of all copies, in order of start, then of done."""
        runs, space = self.runs(), self.frame.space
        items, times = self.tables.items[runs], self.frame.slots.time
        buffers = self.frame.chains.buffer[items["chain"]]
        rows = [np.zeros((0, 5), np.int64)]
        for is_prefetch, start, done in (
            (True, "prefetch_start", "prefetch_done"),
            (False, "eviction_start", "eviction_done"),
        ):
            has = items[start] != NONE
            ends = np.full((has.sum(), 2), (0, space) if is_prefetch else (space, 0))
            rows.append(np.column_stack([times[items[start][has]], times[items[done][has]], ends, buffers[has]]))
        if len(ends_kept := items["run_end"][runs == self.kept_item]):
            n = self.frame.problem.end
            rows.append(np.array([[BEFORE, 0, 0, space, self.kept]], np.int64))
            _, again = until_next_run(ends_kept[0], self.kept_again, n + 1)
            if again <= n:
                rows.append(np.array([[again, n, 0, space, self.kept]], np.int64))
        for stay in self.frame.elsewhere:
            for copies, way in ((stay.prefetches, (0, stay.space)), (stay.evictions, (stay.space, 0))):
                rows += [np.array([[*times_of_copy, *way, stay.buffer]], np.int64) for times_of_copy in copies]
        table = np.concatenate(rows)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        start, done, source, destination, buffer = table.T
        return start, done, source, destination, buffer

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
        for i in (first + np.flatnonzero(runs == self.kept_item)).tolist():
            n = self.frame.problem.end
            end[i], again = until_next_run(end[i], self.kept_again, n + 1)
            if again <= n:
                item, start, end = np.append(item, i), np.append(start, again), np.append(end, n + 1)
        return Blocks(start, end, item, size, weight)

    def stays(self, offsets: Integers | None = None) -> list[Stay]:
        """Returns the stays of the runs taken, and what is left behind for the next run of the program.

        Args:
          offsets: `[num_homes + num_runs]` bytes, of the homes in the fast space and of the runs; None if not known.
        """
        made: list[Stay] = []
        runs = self.runs()
        gained = self.gains(runs)
        n, kept = self.frame.problem.end, self.kept_item
        known = np.full(len(runs), NONE) if offsets is None else offsets[len(self.frame.homes) :]
        for run, gain, offset in zip(*(x.tolist() for x in (runs, gained, known)), strict=True):
            stay = self._stay(run, run == kept, gain, offset)
            if run == kept:
                end, again = until_next_run(stay.end, self.kept_again, n + 1)
                stay = replace(stay, end=end)
                if again <= n:
                    made.append(replace(stay, start=again, end=n + 1, accesses=(), prefetches=((again, n),)))
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
            prefetches=((BEFORE, 0),) if is_kept else copies("prefetch_start", "prefetch_done"),
            evictions=copies("eviction_start", "eviction_done"),
            place=0 if is_kept else -1,
            value=gain,
            offset=offset,
        )
