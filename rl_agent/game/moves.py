"""A MappingProblem as a game: the sequence of its moves, and all numbers that the rules use, exact.

One move is one decision: what becomes of a buffer at one of its items (see `planners/chains.py`). Moves stand in
program order. An item that is a loop or conditional stands before the items inside of it. A chain whose value must be
at home when its region ends has one move more there, at which the value is brought home if it is not. Before all others
stand those of the arguments that may stay in fast memory from one run of the program to the next, the most useful
first; all other moves of such an argument are inside of it.

Rounding. The rules compare whole numbers: *ticks* of time and *units* of fast memory. Supply is rounded down and demand
up, so that what fits here fits in seconds and bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import planner
from memplan.planners.stays.assembly import home_of
from memplan.planners.stays.chains import Chains, Slots
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.packing import Blocks, pack
from memplan.rl_agent.game.guide import NOWHERE, Places, Wish, no_places, places_of

Integers = NDArray[np.int64]

NONE = -1

# Ticks of all operations together, everything at home, and those that all loops offer at most over which copies may be
# in flight: small enough for sums of 32 bits, large enough that a short operation still has many.
_ALL_TICKS, _PASSING_TICKS = 2**27, 2**29

# So many arguments are offered that may stay from run to run.
_MOST_STAYS = 16

# More ticks than any supply.
NEVER = 2**30

# What moves are sorted by.
_Order = tuple[int, ...]

# In place of the ticks of a slot: where no copy can move, and of a loop over which copies may be in flight, whose ticks
# are with those of the operation before it.
CLOSED, PASSED = -1, -2


@dataclass(frozen=True, slots=True)
class Move:
    """One decision.

    Attributes:
      buffer: index.
      chain: index in `Game.chains`.
      item: index of the item in `Game.chains`; -1 for the move at the end of a chain, and for a whole argument.
      parent: move of the item around; -1 for none. If that one is in fast memory, so is this.
      slot: index in `Game.slots`; at the end of a chain, the last one at which a copy can be awaited.
      start, end: half-open times.
      held: until when the value is wanted where it is: the end of the chain's next move, if that one needs it.
      lasting: the end of the chain's last move that needs the value, if it stays in fast memory until then.
      size: units of fast memory.
      reads: whether it needs the value that the buffer has before.
      writes: whether it changes the value.
      is_operation: whether it is one operation, rather than a loop, a conditional, the end of a chain, or all the time.
      is_last: whether it is the end of a chain.
      is_stay: whether it is an argument that may stay from run to run.
      is_first_access: whether it is the first move of its operation.
      done: last slot at or before it at which a copy can be awaited; -1 for none.
      ready: first slot at which the chain's value may be fetched from home, if nothing was written before.
      before: the operation before that of `done`, if copies may be in flight from there until then; otherwise `done`.
      carrier: the slot outside of the loop that the move is in which carries the ticks of that loop; -1 for none.
      trips: by which they are multiplied there.
      carried: ticks of the loops behind its operation, with everything at home, that it carries.
      worth: ticks that its accesses can save each time that the operation of `done` runs, if its memory time counts.
      place: units, where the guide has the value; `NOWHERE` or `LOST` if it has no place.
      prefetch, eviction: ticks of supply that a copy into fast memory, and one home, takes; `NEVER` where no link
        leads there.
      saving, traffic: ticks of memory time, and of the link's channel, that its operation saves in fast memory.
      seconds, traffic_seconds: of memory time, and of the link's channel, that its operation saves in fast memory.
      is_long: whether its value is wanted there for long, if it stays until its last use.
      accesses: numbers of the accesses of the item, those inside of it included.
    """

    buffer: int
    chain: int
    item: int
    parent: int
    slot: int
    start: int
    end: int
    held: int
    lasting: int
    size: int
    reads: bool
    writes: bool
    is_operation: bool
    is_last: bool
    is_stay: bool
    is_first_access: bool
    done: int
    ready: int
    before: int
    carrier: int
    trips: int
    carried: int
    worth: int
    place: int
    prefetch: int
    eviction: int
    saving: int
    traffic: int
    seconds: float
    traffic_seconds: float
    is_long: bool
    accesses: tuple[int, ...]


class Game:
    """The moves of a problem, and what is known before the first of them.

    Args:
      problem: with a fast space; the fastest one is played for, any others stay empty.
      units: into how many equal parts the fast space is divided, at most.
      reach: over how many slots a copy may stretch, and be looked for.
      guide: a plan whose offsets are preferred, or the name of the planner that makes it; None for no preference.
      wishes: what has a place beside the guide's residencies, see `guide.py`.

    Attributes:
      space: index of the fast space.
      unit: bytes of one unit.
      num_units: how many there are.
      tick: seconds.
      slots, chains: see `planners/chains.py`.
      moves: in program order.
      floor, demand, taken, repetitions: `[num_slots]` of an operation: ticks that it takes at least, ticks of memory
        time and of the link's channel with everything at home, and how often it runs; 0 for loops and conditionals. The
        end of the program takes no time.
      floor_seconds, demand_seconds: `[num_slots]` float64, the first two in seconds.
      idle: `[num_slots]` ticks that an operation, and the loops behind it, leave to copies, everything at home;
        `PASSED` for those loops; `CLOSED` for other loops and conditionals, and for operations that no other one of
        their region follows.
      awaited: `[num_slots]` the time at which a copy is awaited that has ticks up to a slot.
      before: `[num_slots]` see `Move`; `carrier`, `trips` and `carried` are those of all its operations.
      access_saving, access_traffic: `[num_accesses]` float64, seconds of memory time and of the link's channel that
        each access saves in fast memory.
      into, back: numbers of the links into fast memory and home; None where there is none.
      queue: numbers of their queues, -1 for none.
      reserved: `[n + 1]` units at the bottom that the operation of each time keeps for itself.
      homes: offset in bytes by buffer, of what is at home in the fast space, or must be there at the end.
      late: those of them that are moved there when the program ends.
      blocked: `[num_units]` bool, whether a unit belongs to one of those, all the time.
      home_latency: seconds, everything at home.
      duration_seconds, taken_seconds: `[num_slots]` float64, of an operation and of the link's channel, everything at
        home.
      can_wait: whether an operation may wait for a copy: both links must be on one channel.
      latency_seconds, copy_seconds: float64, of the links into fast memory and home, and `[num_buffers]` of each
        buffer's bytes.
      latency: ticks, the first of them, rounded down.
      places: what the guide says; `wanted_from`: see `Places.wanted_from`.
      most_stays: how many arguments may stay from run to run.

    Raises:
      PlannerError: there is no fast space, or what is at home there does not fit, or no planner has the guide's name.
    """

    def __init__(
        self,
        problem: MappingProblem,
        units: int = 512,
        reach: int = 128,
        guide: Plan | str | None = "greedy",
        wishes: Sequence[Wish] = (),
    ):
        spaces = fast_spaces(problem)
        if not spaces:
            raise PlannerError(f"{problem.target} has no fast memory: there is nothing to decide in {problem.name}")
        if units < 1 or reach < 1:
            raise PlannerError(f"units={units}, reach={reach}: the game needs at least one of each")
        self.problem, self.reach = problem, reach
        self.space = spaces[0]
        space = problem.spaces[self.space]
        self.unit = max(1, -(-space.capacity // (units * space.alignment))) * space.alignment
        self.num_units = space.capacity // self.unit
        frame = Frame(problem, self.space, (), "single")
        self.slots: Slots = frame.slots
        self.chains: Chains = frame.chains
        self._set_operations()
        self._set_room(frame.homes)
        self.most_stays = problem.cross_program_prefetches if self.into is not None else 0
        self.moves = self._moves()
        if isinstance(guide, str):
            guide = planner.get(guide).solve(problem, planner.Budget())
        self._be_guided(guide, wishes)

    def guided(self, guide: Plan | None, wishes: Sequence[Wish] = ()) -> Game:
        """Returns the same game under another guide."""
        game = copy.copy(self)
        game._be_guided(guide, wishes)
        return game

    def _be_guided(self, guide: Plan | None, wishes: Sequence[Wish]) -> None:
        problem = self.problem
        self.places: Places = (
            no_places(problem)
            if guide is None
            else places_of(guide, problem, self.space, self.unit, self.reserved, self.access_saving, wishes)
        )
        self.wanted_from = self.places.wanted_from(problem.end + 1, self.num_units)
        self.moves = tuple(
            replace(move, place=self.places.of(move.accesses, move.start, move.end)) for move in self.moves
        )

    def _set_operations(self) -> None:
        problem, slots, n = self.problem, self.slots, self.problem.end
        self.into = problem.link_between.get((0, self.space))
        self.back = problem.link_between.get((self.space, 0))
        links = [problem.links[number] for number in (self.into, self.back) if number is not None]
        self.queue = tuple(
            problem.links[number].queue if number is not None else NONE for number in (self.into, self.back)
        )
        # Of two channels the busier one would count; their sum is an upper bound of it.
        channels = {link.channel for link in links}
        busy = [1.0 / s.bandwidth if s.channel in channels and s.channel >= 0 else 0.0 for s in problem.spaces]
        cost = np.array([access.cost for _, access in problem.accesses], np.float64).reshape(-1, len(problem.spaces))
        moved = np.array([access.bytes for _, access in problem.accesses], np.float64)
        time = np.array([t for t, _ in problem.accesses], np.int64)
        home = np.array([home_of(problem, access.buffer) for _, access in problem.accesses], np.int64)
        rows = np.arange(len(time))
        self.access_saving = cost[rows, home] - cost[:, self.space]
        self.access_traffic = moved * (np.array(busy)[home] - busy[self.space])

        slot = slots.of_time[:n]
        floor, demand, taken = (np.zeros(len(slots.time)) for _ in range(3))
        floor[slot] = [operation.floor for operation in problem.operations]
        demand[slot] = [operation.overhead for operation in problem.operations]
        np.add.at(demand, slots.of_time[time], cost[rows, home])
        np.add.at(taken, slots.of_time[time], moved * np.array(busy)[home])
        self.repetitions = np.zeros(len(slots.time))
        self.repetitions[slot] = np.array(problem.repetitions)[slots.region_of_time[:n]]
        self.repetitions[slots.of_time[n]] = 1.0  # the end of the program, which may wait for copies home
        self.floor_seconds, self.demand_seconds, self.taken_seconds = floor, demand, taken
        duration = np.maximum(floor, demand)
        self.duration_seconds = duration
        self.home_latency = float(self.repetitions @ duration)
        self.tick = max(float(duration.sum()), 1e-30) / _ALL_TICKS
        self.floor, self.demand = self.ticks_below(floor), self.ticks_below(demand)
        self.taken = self.ticks_above(taken)
        self._set_supply()
        self.can_wait = self.into is not None and len(channels) == 1
        size = np.array([buffer.size for buffer in problem.buffers], np.float64)
        ways = [None if number is None else problem.links[number] for number in (self.into, self.back)]
        self.latency_seconds = tuple(0.0 if link is None else link.latency for link in ways)
        self.latency = tuple(self.ticks_below(np.array(self.latency_seconds)).tolist())
        self.copy_seconds = tuple(size * 0.0 if link is None else size / link.bandwidth for link in ways)

    def _set_supply(self) -> None:
        """Sets what operations leave to copies, and which loops copies may be in flight over."""
        slots, count = self.slots, len(self.slots.time)
        lasting = np.maximum(self.floor, self.demand)
        idle = np.maximum(lasting - self.taken, 0)
        self.idle, self.awaited, self.before = np.full(count, CLOSED), slots.end.copy(), np.arange(count)
        self.carrier, self.trips, self.carried = np.full(count, NONE), np.zeros(count, np.int64), np.zeros_like(idle)
        passed = self._passed()
        for first, last in zip(slots.first.tolist(), slots.last.tolist(), strict=True):
            for slot in range(first, last):
                end = slot + 1
                while end < last and end in passed:
                    end += 1
                if end == last or not (slots.is_operation[slot] and slots.is_operation[end]):
                    continue
                for loop in range(slot + 1, end):
                    body, trips = passed[loop]
                    most = _PASSING_TICKS // (len(passed) * max(1, int(lasting[body].sum())))
                    self.carrier[body], self.trips[body] = slot, min(trips, most)
                    self.carried[slot] += min(trips, most) * int(idle[body].sum())
                    self.idle[loop] = PASSED
                self.idle[slot] = idle[slot] + self.carried[slot]
                self.awaited[slot:end] = slots.time[end]
                self.before[end] = slot

    def _passed(self) -> dict[int, tuple[slice, int]]:
        """Returns the loops that copies may pass, if an operation is before and after: slots inside, and iterations."""
        slots, found = self.slots, {}
        for number, region in enumerate(self.problem.regions):
            body = slice(int(slots.first[number]), int(slots.last[number]))
            if region.kind is RegionKind.LOOP and region.trip_count >= 1.0 and slots.is_operation[body].all():
                found[int(slots.of_region[number])] = (body, int(region.trip_count))
        return found

    def ticks_below(self, seconds: np.ndarray) -> Integers:
        """Returns ticks, rounded down."""
        return np.floor(seconds / self.tick * (1 - 1e-12)).astype(np.int64)

    def ticks_above(self, seconds: np.ndarray) -> Integers:
        """Returns ticks, rounded up, but not more than `NEVER`."""
        return np.ceil(np.minimum(seconds / self.tick * (1 + 1e-12), NEVER)).astype(np.int64)

    def _set_room(self, homes: list[int]) -> None:
        problem, n = self.problem, self.problem.end
        reserved = np.array([*(operation.reserved[self.space] for operation in problem.operations), 0], np.int64)
        self.reserved = np.minimum(-(-reserved // self.unit), self.num_units)
        self.blocked = np.zeros(self.num_units, np.bool_)
        self.homes: dict[int, int] = {}
        # A result that starts elsewhere is moved here when the program ends.
        late = [
            number
            for number, buffer in enumerate(problem.buffers)
            if buffer.final_space == self.space and number not in homes
        ]
        lasting = [*homes, *late]
        if lasting:
            start = [problem.buffers[b].start for b in homes] + [n] * len(late)
            end = [problem.buffers[b].end for b in homes] + [n + 1] * len(late)
            size = np.array([problem.buffers[b].size for b in lasting], np.int64)
            blocks = Blocks.of(np.array(start, np.int64), np.array(end, np.int64), size)
            for buffer, offset in zip(lasting, pack(problem, self.space, blocks).tolist(), strict=True):
                described = problem.buffers[buffer]
                if offset < 0:
                    name = problem.spaces[self.space].name
                    raise PlannerError(f"{described.name} does not fit {name}, where the program wants it")
                self.homes[buffer] = offset
                if buffer in homes:
                    self.blocked[offset // self.unit : -(-(offset + described.size) // self.unit)] = True
        self.late = tuple(late)

    def _copy_ticks(self, link: int | None, buffer: int) -> int:
        if link is None:
            return NEVER
        described = self.problem.links[link]
        seconds = described.latency + self.problem.buffers[buffer].size / described.bandwidth
        return max(1, int(self.ticks_above(np.array(seconds))))

    def _done(self, slot: int, first: int) -> int:
        """Returns the last slot at or before one, from `first` on, that is an operation; -1 for none."""
        while slot >= first and not self.slots.is_operation[slot]:
            slot -= 1
        return slot if slot >= first else NONE

    def _moves(self) -> tuple[Move, ...]:
        chains = self.chains
        drafts: list[tuple[_Order, Move]] = []
        for chain in range(self.num_chains):
            items = range(int(chains.first[chain]), int(chains.last[chain]))
            drafts += [self._item(chain, item) for item in items]
            if chains.needs_home[chain] and chains.writes[items.start : items.stop].any():
                drafts.append(self._last(chain))
        drafts += self._stays()
        drafts.sort(key=lambda draft: draft[0])
        place = {move.item: number for number, (_, move) in enumerate(drafts) if move.item != NONE}
        stay = {move.chain: number for number, (_, move) in enumerate(drafts) if move.is_stay}
        wanted: dict[int, tuple[int, int]] = {}  # when the next move of a chain ends, and the last, if they read
        for number, (order, move) in reversed(list(enumerate(drafts))):
            held, lasting = wanted.get(move.chain, (0, 0))
            move = replace(move, held=max(move.end, held), lasting=max(move.end, lasting))
            # What lasts longer than an eighth of the program is kept apart from what comes and goes.
            move = replace(move, is_long=move.lasting - move.start > self.problem.end // 8)
            drafts[number] = (order, move)
            wanted[move.chain] = (move.end, move.lasting) if move.reads else (0, 0)
        moves: list[Move] = []
        previous = NONE
        for _, move in drafts:
            around = int(chains.parent[move.chain])
            inside = place[around] if around >= 0 else NONE if move.is_stay else stay.get(move.chain, NONE)
            is_first = move.is_operation and move.slot != previous
            previous = move.slot if move.is_operation else previous
            moves.append(replace(move, parent=inside, is_first_access=is_first))
        return tuple(moves)

    def _item(self, chain: int, item: int) -> tuple[_Order, Move]:
        """Returns the move of an item, and by what it is sorted."""
        chains, slots = self.chains, self.slots
        slot = int(chains.slot[item])
        is_operation = bool(slots.is_operation[slot])
        accesses = chains.accesses[chains.first_access[item] : chains.last_access[item]]
        own = accesses[: len(accesses) * is_operation]
        move = replace(
            self._empty(chain, slot),
            item=item,
            start=int(chains.start[item]),
            end=int(chains.end[item]),
            reads=bool(chains.reads[item]),
            writes=bool(chains.writes[item]),
            is_operation=is_operation,
            saving=int(self.ticks_above(self.access_saving[own]).sum()),
            traffic=int(self.ticks_below(self.access_traffic[own]).sum()),
            seconds=float(self.access_saving[own].sum()),
            traffic_seconds=float(self.access_traffic[own].sum()),
            accesses=tuple(accesses.tolist()),
        )
        if len(accesses):
            move = replace(move, worth=self._worth(accesses, move.done))
        # Whole regions before what is inside of them; of an operation, reads before writes, and
        # what is large first: it has the supply, and what is small is late by less.
        return (int(slots.time[slot]), -int(slots.end[slot]), int(not move.reads), -move.size, move.buffer), move

    def _worth(self, accesses: Integers, slot: int) -> int:
        """Returns the ticks that accesses can save in fast memory each time that the operation of a slot runs."""
        repetitions = self.repetitions[slot] if slot != NONE else 0.0
        if repetitions <= 0.0:
            return 0
        often = self.repetitions[self.slots.of_time[[self.problem.accesses[access][0] for access in accesses]]]
        saved = max(float(self.access_saving[accesses] @ often), 0.0)
        return int(self.ticks_below(np.array(min(saved / repetitions, self.tick * NEVER))))

    def _stays(self) -> list[tuple[_Order, Move]]:
        """Returns the moves of the arguments that may stay from run to run, and by what they are sorted."""
        problem, chains, n = self.problem, self.chains, self.problem.end
        if not self.most_stays:
            return []
        changed = {access.buffer for _, access in problem.accesses if access.kind is not AccessKind.READ}
        often = self.repetitions[self.slots.of_time[[time for time, _ in problem.accesses]]]
        ranked: list[tuple[float, int, tuple[int, ...]]] = []
        for chain in np.flatnonzero((chains.parent == NONE) & (chains.first < chains.last)).tolist():
            buffer = problem.buffers[chains.buffer[chain]]
            if buffer.initial_space is None or buffer.end <= n or chains.buffer[chain] in changed:
                continue
            accesses = chains.accesses[
                chains.first_access[chains.first[chain]] : chains.last_access[chains.last[chain] - 1]
            ]
            saved = float(self.access_saving[accesses] @ often[accesses])
            if saved > 0.0:
                ranked.append((-saved, chain, tuple(accesses.tolist())))
        drafts: list[tuple[_Order, Move]] = []
        for rank, (_, chain, served) in enumerate(sorted(ranked)[:_MOST_STAYS]):
            move = replace(
                self._empty(chain, int(self.slots.of_time[0])),
                start=0,
                end=n + 1,
                is_stay=True,
                done=NONE,
                accesses=served,
            )
            drafts.append(((-1, rank, 0, move.buffer), move))
        return drafts

    def _last(self, chain: int) -> tuple[_Order, Move]:
        """Returns the move at the end of a chain, and by what it is sorted."""
        slots, region = self.slots, self.chains.region[chain]
        last = int(slots.last[region]) - 1
        slot = self._done(last, int(slots.first[region]))
        move = replace(self._empty(chain, slot), reads=True, is_last=True)
        # After all that happens in the region, before what follows it.
        return (int(slots.end[last]) - 1, 1, 0, move.buffer), move

    def _empty(self, chain: int, slot: int) -> Move:
        """Returns a move at a slot that does nothing."""
        buffer, first = int(self.chains.buffer[chain]), int(self.slots.first[self.chains.region[chain]])
        done = self._done(slot, first)
        return Move(
            buffer=buffer,
            chain=chain,
            item=NONE,
            parent=NONE,
            slot=slot,
            start=int(self.slots.time[slot]),
            end=int(self.slots.time[slot]),
            held=0,
            lasting=0,
            size=max(1, -(-self.problem.buffers[buffer].size // self.unit)),
            reads=False,
            writes=False,
            is_operation=False,
            is_last=False,
            is_stay=False,
            is_first_access=False,
            done=done,
            ready=first,
            before=int(self.before[done]) if done != NONE else NONE,
            carrier=int(self.carrier[slot]),
            trips=int(self.trips[slot]),
            carried=int(self.carried[slot]),
            worth=0,
            place=NOWHERE,
            prefetch=self._copy_ticks(self.into, buffer),
            eviction=self._copy_ticks(self.back, buffer),
            saving=0,
            traffic=0,
            seconds=0.0,
            traffic_seconds=0.0,
            is_long=False,
            accesses=(),
        )

    @property
    def num_chains(self) -> int:
        """How many chains there are."""
        return len(self.chains.buffer)
