"""The search for stays, as Python sees it: what `_search.py` works on, the orders in which runs compete, the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.mapping.plan import BEFORE
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners._assembly import Stay, home_of
from memplan.planners._chains import make_chains, make_slots
from memplan.planners._search import NONE, Model, State, drop_run, gain, refresh, score, try_all

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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
    passes: int = 4
    channel_price: float = 0.2
    tries: int = 24


class Frame:
    """What all searches for stays in one fast space have in common.

    Args:
      problem: of which to move buffers.
      space: index of the fast space.
      elsewhere: stays in other fast spaces, that stay as they are.
      keep_between_uses: whether runs of more than one item compete.

    Attributes:
      model: for `_search.py`.
      lows, highs: `[num_runs]` items of the runs that compete: single items, neighbours, whole chains.
      served: `[num_accesses]` space that serves each access if no run here does.
      capacity: `[n + 1]` room at each time, in units of the alignment.
    """

    def __init__(
        self, problem: MappingProblem, space: int, elsewhere: Sequence[Stay] = (), keep_between_uses: bool = True
    ):
        self.problem, self.space, self.elsewhere = problem, space, tuple(elsewhere)
        self.unit = problem.spaces[space].alignment
        self.num_accesses = len(problem.accesses)
        self.served = np.zeros(self.num_accesses, np.int64)
        for number, (_, access) in enumerate(problem.accesses):
            self.served[number] = home_of(problem, access.buffer)
        for stay in elsewhere:
            self.served[list(stay.accesses)] = stay.space
        self.slots = make_slots(problem)
        self.chains = make_chains(problem, self.slots, self._movable())
        reserved = np.array([*(operation.reserved[space] for operation in problem.operations), 0], np.int64)
        self.capacity = problem.spaces[space].capacity // self.unit - -(-reserved // self.unit)
        for number, buffer in enumerate(problem.buffers):
            if home_of(problem, number) == space:
                self.capacity[buffer.start : buffer.end] -= -(-buffer.size // self.unit)
        self.model = self._model()
        self.lows, self.highs = self._runs(keep_between_uses)
        self._prepare_state()

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

    def _model(self) -> Model:
        problem, slots, chains, space = self.problem, self.slots, self.chains, self.space
        repetitions = np.array(problem.repetitions, np.float64)
        into, back = problem.link_between.get((0, space)), problem.link_between.get((space, 0))
        channel = next((problem.links[x].channel for x in (into, back) if x is not None), -1)
        size = np.array([buffer.size for buffer in problem.buffers], np.int64)
        seconds = np.full((2, len(size)), np.inf)
        for row, number in enumerate((into, back)):
            if number is not None:
                seconds[row] = problem.links[number].latency + size / problem.links[number].bandwidth
        num_slots = len(slots.time)
        region_of_slot = np.repeat(np.arange(len(problem.regions)), slots.last - slots.first)
        trips = np.ones(num_slots)
        for number, region in enumerate(problem.regions):
            if region.kind is RegionKind.LOOP and slots.of_region[number] >= 0:
                trips[slots.of_region[number]] = region.trip_count
        inner = np.argsort(slots.of_region, kind="stable")
        inner_of = slots.of_region[inner]
        spaces, accesses = problem.spaces, [access for _, access in problem.accesses]
        traffic = [
            access.bytes / spaces[s].bandwidth if spaces[s].channel == channel and channel >= 0 else 0.0
            for access, s in zip(accesses, self.served.tolist(), strict=True)
        ]
        saving = [access.cost[s] - access.cost[space] for access, s in zip(accesses, self.served.tolist(), strict=True)]
        return Model(
            end_time=problem.end,
            slot_time=slots.time,
            slot_end=slots.end,
            is_operation=slots.is_operation,
            slot_repetitions=repetitions[region_of_slot],
            operation_repetitions=repetitions[slots.region_of_time[:-1]],
            trips=trips,
            inner_first=np.searchsorted(inner_of, np.arange(num_slots)),
            inner_last=np.searchsorted(inner_of, np.arange(num_slots), side="right"),
            inner=inner,
            region_first=slots.first,
            region_last=slots.last,
            chain_buffer=chains.buffer,
            chain_region=chains.region,
            chain_first=chains.first,
            chain_last=chains.last,
            needs_home=chains.needs_home,
            chain_parent=chains.parent,
            item_chain=chains.chain,
            item_slot=chains.slot,
            item_start=chains.start,
            item_end=chains.end,
            reads=chains.reads,
            writes=chains.writes,
            writer=chains.writer,
            first_access=chains.first_access,
            last_access=chains.last_access,
            accesses=chains.accesses,
            first_child=chains.first_child,
            last_child=chains.last_child,
            children=chains.children,
            floor=np.array([operation.floor for operation in problem.operations], np.float64),
            access_time=np.array([t for t, _ in problem.accesses], np.int64),
            saving=np.array(saving, np.float64),
            traffic=np.array(traffic, np.float64),
            size=-(-size // self.unit),
            fill_seconds=seconds[0],
            spill_seconds=seconds[1],
            can_fill=into is not None,
            can_spill=back is not None,
            kept_buffer=NONE,
        )

    def _runs(self, keep_between_uses: bool) -> tuple[Integers, Integers]:
        chains = self.chains
        items = np.arange(len(chains.chain))
        if not keep_between_uses:
            return items, items
        neighbours = np.flatnonzero(chains.chain[1:] == chains.chain[:-1])
        long = chains.last - chains.first > 2
        return (
            np.concatenate([items, neighbours, chains.first[long]]),
            np.concatenate([items, neighbours + 1, chains.last[long] - 1]),
        )

    def _prepare_state(self) -> None:
        """Computes what a search starts from: everything at home, but for the stays elsewhere."""
        problem, chains, model = self.problem, self.chains, self.model
        n = problem.end
        cost = np.array([access.cost for _, access in problem.accesses], np.float64).reshape(-1, len(problem.spaces))
        cost_now = cost[np.arange(self.num_accesses), self.served]
        overhead = np.array([operation.overhead for operation in problem.operations], np.float64)
        self.demand = overhead + np.bincount(model.access_time, cost_now, minlength=n)
        self.taken = np.bincount(model.access_time, model.traffic, minlength=n)
        self.closed = np.zeros(len(chains.chain), np.bool_)
        self.ready = chains.slot + 1
        self.wanted = chains.slot.copy()
        if not self.elsewhere:
            return
        stay_of = np.full(self.num_accesses, -1, np.int64)
        for number, stay in enumerate(self.elsewhere):
            stay_of[list(stay.accesses)] = number
        of_time = self.slots.of_time
        for item in range(len(chains.chain)):
            stays = stay_of[chains.accesses[chains.first_access[item] : chains.last_access[item]]]
            self.closed[item] = (stays >= 0).any()
            stay = self.elsewhere[stays[0]] if stays[0] >= 0 else None
            if stay is not None and (stays == stays[0]).all():
                self.ready[item] = max((of_time[done] for _, done in stay.spills), default=chains.slot[item] + 1)
                starts = [max(start, 0) for start, _ in stay.fills]
                self.wanted[item] = min((of_time[start] for start in starts), default=chains.slot[item])

    def fastest_seconds(self) -> float:
        """Returns the seconds of the program if everything stays where it is, waits aside."""
        return float(self.model.operation_repetitions @ np.maximum(self.model.floor, self.demand))


class Decisions:
    """One search: the runs that have a stay so far.

    Args:
      frame: what to decide on.
      shrink: `[n + 1]` units of memory that are not to be used at each time.
      kept: buffer that stays in fast memory from one run of the program to the next; -1 for none.
    """

    def __init__(self, frame: Frame, rules: Rules, shrink: Integers | None = None, kept: int = NONE):
        self.frame, self.rules = frame, rules
        self.model = frame.model._replace(
            kept_buffer=kept,
            can_fill=frame.model.can_fill and rules.prefetch,
            can_spill=frame.model.can_spill and rules.evict,
        )
        num_items, num_slots = len(frame.chains.chain), len(frame.slots.time)
        self.state = State(
            free=frame.capacity - (shrink if shrink is not None else 0),
            demand=frame.demand.copy(),
            taken=frame.taken.copy(),
            is_fast=np.zeros(frame.num_accesses, np.bool_),
            run=np.full(num_items, NONE),
            run_last=np.full(num_items, NONE),
            run_start=np.zeros(num_items, np.int64),
            run_end=np.zeros(num_items, np.int64),
            fill_start=np.full(num_items, NONE),
            fill_done=np.full(num_items, NONE),
            spill_start=np.full(num_items, NONE),
            spill_done=np.full(num_items, NONE),
            idle=np.zeros(num_slots),
            arrivals=np.zeros(num_slots),
            backlog=np.zeros(num_slots),
            slack=np.zeros(num_slots),
            closed=frame.closed,
            ready=frame.ready,
            wanted=frame.wanted,
        )
        refresh(self.model, self.state)
        self.refill: tuple[int, int] | None = None
        if kept != NONE:
            self._reserve_for_next_run(kept)

    def _reserve_for_next_run(self, buffer: int) -> None:
        """Books the copy that brings the kept buffer back for the next run, as late as it can be."""
        slots, state = self.frame.slots, self.state
        done = int(slots.of_time[self.frame.problem.end])
        start, offered = done, 0.0
        while start > slots.first[0] and (offered < self.model.fill_seconds[buffer] or not slots.is_operation[start]):
            start -= 1
            operation = slots.time[start]
            if slots.is_operation[start]:
                busy = max(self.model.floor[operation], state.demand[operation])
                offered += max(0.0, float(busy - state.taken[operation]))
            else:
                offered += float(state.idle[start])
        self.refill = (int(slots.time[start]), self.frame.problem.end)
        state.arrivals[start] += self.model.fill_seconds[buffer]
        state.free[self.refill[0] :] -= self.model.size[buffer]

    def run(self, order: Order, generator: np.random.Generator) -> None:
        """Takes runs in an order, then looks again at what is left until nothing more can be taken."""
        following = Order("density", order.channel_weight if order.key == "density" else 0.3)
        for number in range(self.rules.passes):
            refresh(self.model, self.state)
            ranked = self._ranked(order if number == 0 else following, generator)
            price, tries = self.rules.channel_price, self.rules.tries
            if not try_all(self.model, self.state, ranked, self.frame.lows, self.frame.highs, price, tries):
                break

    def _ranked(self, order: Order, generator: np.random.Generator) -> Integers:
        """Returns the runs that might pay, the best first."""
        frame, model, state = self.frame, self.model, self.state
        seconds = np.maximum(model.floor, state.demand) * model.operation_repetitions
        elapsed = np.concatenate([[0.0], np.cumsum(seconds), [seconds.sum()]])
        saved, freed, copied, held = score(model, state, frame.lows, frame.highs, elapsed)
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
        """Returns XLA's measure of each buffer's claim: what its accesses save by themselves, for the root of its size."""
        model, state = self.model, self.state
        t = model.access_time
        before = np.maximum(model.floor, state.demand)[t]
        after = np.maximum(model.floor[t], state.demand[t] - model.saving)
        is_bound = state.demand[t] > model.floor[t]
        benefit = np.where(is_bound, before - after, state.demand[t] - model.floor[t]) * model.operation_repetitions[t]
        buffer = np.array([access.buffer for _, access in self.frame.problem.accesses], np.int64)
        num_buffers = len(self.frame.problem.buffers)
        total = np.bincount(buffer, np.maximum(benefit, 0.0), minlength=num_buffers)
        largest = np.full(num_buffers, -np.inf)
        np.maximum.at(largest, buffer, benefit)
        return np.where(largest > 0.0, total, largest) / np.sqrt(np.maximum(model.size, 1))

    def runs(self) -> Integers:
        """Returns the runs taken."""
        return np.flatnonzero(self.state.run == np.arange(len(self.state.run)))

    def drop(self, run: int) -> None:
        """Gives up a run."""
        drop_run(self.model, self.state, run)

    def gain(self, run: int) -> float:
        """Returns the seconds of the program that a run saves, given all others."""
        return float(gain(self.model, self.state, run))

    def stays(self) -> list[Stay]:
        """Returns the stays of the runs taken, and what is left behind for the next run of the program."""
        chains, state, space = self.frame.chains, self.state, self.frame.space
        n = self.frame.problem.end
        times = self.frame.slots.time
        made = []
        is_kept = False
        for run in self.runs().tolist():
            chain = chains.chain[run]
            buffer, last = int(chains.buffer[chain]), int(state.run_last[run])
            start, end = int(state.run_start[run]), int(state.run_end[run])
            fills, spills, place = (), (), -1
            if state.fill_start[run] != NONE:
                fills = ((int(times[state.fill_start[run]]), int(times[state.fill_done[run]])),)
            if state.spill_start[run] != NONE:
                spills = ((int(times[state.spill_start[run]]), int(times[state.spill_done[run]])),)
            if buffer == self.model.kept_buffer and run == chains.first[chain] and chains.parent[chain] == NONE:
                assert self.refill is not None
                is_kept, fills, place = True, ((BEFORE, 0),), 0
                if end >= self.refill[0]:
                    end = n + 1
            made.append(
                Stay(
                    buffer=buffer,
                    space=space,
                    start=start,
                    end=end,
                    accesses=tuple(chains.accesses[chains.first_access[run] : chains.last_access[last]].tolist()),
                    fills=fills,
                    spills=spills,
                    place=place,
                    value=self.gain(run),
                )
            )
            if place == 0 and end <= n:
                made.append(Stay(buffer, space, self.refill[0], n + 1, (), fills=(self.refill,), place=0))
        if not is_kept and self.model.kept_buffer != NONE:
            return [stay for stay in made if stay.place < 0]
        return made
