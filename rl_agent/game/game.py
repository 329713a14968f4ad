"""A MappingProblem as a game: the sequence of its moves, and all numbers that the rules use, exact.

Moves stand in program order. An item that is a loop or conditional stands before the items inside of it. A chain whose
value must be at home when its region ends has one more move there, which brings the value home if home does not have
it. The moves of the arguments that may stay in fast memory from one run of the program to the next stand before all
others, the most useful argument first; all other moves of such an argument are inside of its first one.

The rules compare whole numbers: ticks of time (see `supply.py`) and *units* of fast memory. Sizes are rounded up to
units, so that what fits here fits in bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import planner
from memplan.planners.stays.chains import Chains, Slots
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.kept import lasting_chains
from memplan.planners.stays.packing import Blocks, pack
from memplan.rl_agent.game.guide import GuidePlaces, Wish, no_places, places_of
from memplan.rl_agent.game.moves import EVICTION, NEVER, NONE, NOWHERE, PREFETCH, Move
from memplan.rl_agent.game.supply import Supply, supply_of

Integers = NDArray[np.int64]

# So many arguments are offered that may stay from run to run.
_MOST_STAYS = 16

# What moves are sorted by.
_Order = tuple[int, ...]


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
      slots, chains: see `planners/stays/chains.py`.
      supply: what operations take, and leave to copies.
      moves: in program order.
      reserved: `[n + 1]` units at the bottom that the operation of each time keeps for itself.
      homes: offset in bytes by buffer, of what is at home in the fast space, or must be there at the end.
      late: those of them that are moved there when the program ends.
      blocked: `[num_units]` bool, whether a unit belongs to one of those, all the time.
      places: what the guide says.
      wanted_from: see `GuidePlaces.wanted_from`.
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
        self.supply: Supply = supply_of(problem, self.slots, self.space)
        self._set_room(frame.homes)
        self.most_stays = problem.cross_program_prefetches if self.supply.links[PREFETCH] is not None else 0
        self.moves = self._moves()
        if isinstance(guide, str):
            guide = planner.get(guide).plan(problem, planner.Budget())
        self._be_guided(guide, wishes)

    @property
    def home_latency(self) -> float:
        """Latency in seconds with everything at home."""
        return self.supply.home_latency

    @property
    def num_chains(self) -> int:
        """How many chains there are."""
        return len(self.chains.buffer)

    def guided(self, guide: Plan | None, wishes: Sequence[Wish] = ()) -> Game:
        """Returns the same game under another guide."""
        game = copy.copy(self)
        game._be_guided(guide, wishes)
        return game

    def _be_guided(self, guide: Plan | None, wishes: Sequence[Wish]) -> None:
        problem = self.problem
        self.places: GuidePlaces = (
            no_places(problem)
            if guide is None
            else places_of(guide, problem, self.space, self.unit, self.reserved, self.supply.access_saving, wishes)
        )
        self.wanted_from = self.places.wanted_from(problem.end + 1, self.num_units)
        self.moves = tuple(
            replace(move, place=self.places.of(move.accesses, move.start, move.end)) for move in self.moves
        )

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
            saving=int(self.supply.ticks_above(self.supply.access_saving[own]).sum()),
            traffic=int(self.supply.ticks_below(self.supply.access_traffic[own]).sum()),
            seconds=float(self.supply.access_saving[own].sum()),
            traffic_seconds=float(self.supply.access_traffic[own].sum()),
            accesses=tuple(accesses.tolist()),
        )
        if len(accesses):
            move = replace(move, worth=self._worth(accesses, move.done))
        # Whole regions before what is inside of them; of an operation, reads before writes, and
        # what is large first: it has the supply, and what is small is late by less.
        return (int(slots.time[slot]), -int(slots.end[slot]), int(not move.reads), -move.size, move.buffer), move

    def _worth(self, accesses: Integers, slot: int) -> int:
        """Returns the ticks that accesses can save in fast memory each time that the operation of a slot runs."""
        repetitions = self.supply.repetitions[slot] if slot != NONE else 0.0
        if repetitions <= 0.0:
            return 0
        often = self.supply.repetitions[self.slots.of_time[[self.problem.accesses[access][0] for access in accesses]]]
        saved = max(float(self.supply.access_saving[accesses] @ often), 0.0)
        return int(self.supply.ticks_below(np.array(min(saved / repetitions, self.supply.tick * NEVER))))

    def _stays(self) -> list[tuple[_Order, Move]]:
        """Returns the moves of the arguments that may stay from run to run, and by what they are sorted."""
        problem, chains, n = self.problem, self.chains, self.problem.end
        if not self.most_stays:
            return []
        often = self.supply.repetitions[self.slots.of_time[[time for time, _ in problem.accesses]]]
        ranked: list[tuple[float, int, tuple[int, ...]]] = []
        for chain in lasting_chains(problem, chains):
            accesses = chains.accesses[
                chains.first_access[chains.first[chain]] : chains.last_access[chains.last[chain] - 1]
            ]
            saved = float(self.supply.access_saving[accesses] @ often[accesses])
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
        size, done = self.problem.buffers[buffer].size, self._done(slot, first)
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
            size=max(1, -(-size // self.unit)),
            reads=False,
            writes=False,
            is_operation=False,
            is_last=False,
            is_stay=False,
            is_first_access=False,
            done=done,
            ready=first,
            before=int(self.supply.before[done]) if done != NONE else NONE,
            carrier=int(self.supply.carrier[slot]),
            trips=int(self.supply.trips[slot]),
            carried=int(self.supply.carried[slot]),
            worth=0,
            place=NOWHERE,
            prefetch=self.supply.copy_ticks(PREFETCH, size),
            eviction=self.supply.copy_ticks(EVICTION, size),
            saving=0,
            traffic=0,
            seconds=0.0,
            traffic_seconds=0.0,
            is_long=False,
            accesses=(),
        )
