"""The rules of the game in plain Python, to be read, and for `environment.py` to be compared with.

The game is the mallocGame of Wang et al., "Optimizing Memory Mapping Using Deep Reinforcement Learning" (2023);
docs/game.md says what is theirs and what is ours.

**State.** A chain has at most one residency in fast memory that may go on, from the move that *opened* it. Its value is
*dirty* if it was written there and home does not have it. Moves stand in program order, so every residency that was
placed earlier starts before the one that is decided next ends. One number for each unit of fast memory, the time until
which it is taken, is therefore enough to know where there is room:

    a unit is free in [start, end)   if and only if   busy_until[unit] <= start

A closed residency may still have to last until its value is home, and an open one until its next use. It may do so as
long as nothing was placed on its units after its end: `limit` is the start of the first residency that was. To make
this rare, units whose value is still wanted are *held* until the end of its next use. A new residency goes to its place
in the guide (see `guide.py`), if that is free. Otherwise it goes to units that are neither taken nor held, that the
guide does not want before the residency ends, and that no operation keeps for itself as long as the value is wanted.
Only if there are none, and its place was not lost in units, it goes to any units that will do for now. What is wanted
long takes the highest of these units, anything else the lowest.

An argument that stays from run to run lies at one offset all the time, and all its accesses are fast. Its move is at
the beginning, when all is free, and all other moves of the argument are inside of it.

**Copies.** They move in the ticks that operations, all accesses decided, leave of the link's channel. A copy is issued
before slot `first`, is awaited before the operation that follows slot `last`, and takes ticks of slots `first` to
`last`. These slots are neighbours in one region and neither loop nor conditional, except for loops that are *passed*: a
passed loop has operations only, none of which issues a copy, and an operation before and after it. What it leaves to
copies in all its iterations is part of what the operation before it leaves. No other copy has ticks of slots strictly
between `first` and `last`. A copy may share these two with copies of its own queue, but not with others.

So for two copies in one queue, neither is issued before the other and awaited after it: sorted by start, they are
sorted by done as well. Queues are first in, first out, and a copy waits for nothing but those before it and its
latency. The latency is counted as supply, except where another copy in the same direction is issued before the same
slot: their latencies pass at the same time. Let copy k be the first that is late. Go back from it to the last copy j
for which its latency was longer than the queue: from then on the queue moves j, …, k without a pause. Their slots
overlap one after the other (a copy awaited before the next is issued leaves the queue empty), so no other queue has
ticks of those from the issue of j to the await of k. What j, …, k take of these slots, with the copies that were issued
beside j, is as much as they move and one latency, and the slots offer that: k is not late. No copy is in flight at the
border of a branch, nor of a loop, except for passed loops, whose iterations are all alike and leave to copies what
their operations do. Hence no operation waits for these copies.

**Waiting.** If no copy into fast memory is in time, or none has room, COPY is a *late* one, as long as the wait is
shorter than what this use can save at most. It is issued before slot `first` and awaited before the use. Slots
`[first, done)` are free of copies and pass no loop, and are closed to all later copies; if `first` is the use itself,
the operation before it is. So nothing else is in flight from its issue until it is done, and no copy overtakes it or is
overtaken: how long the use waits follows from its own bytes and the operations of its slots, which are all decided.
`first` is the start of the free slots before the use, but not before the copy's place in the guide is free. If there is
no room then, `first` is the use itself. The latency is the sum of durations and waits.

If no copy home of a dirty value is in time, the copy that the next move of its chain makes may be *late*, but not by
more than half of its ticks. It has slots between write and need to itself: those neighbours that are left, pass no loop
and offer most. The operation that follows them waits. Again nothing else is in flight from its issue until it is done.

If a late copy into fast memory lacks more than rounding can explain, its queue is busy until the use gets it. Another
copy for the same use may then *follow* it: it is issued with the first one, moves when that one has arrived, and the
use waits for its bytes as well.

**Dead ends.** A move has no legal action only if its value is dirty and cannot be brought home. The move that opened
the residency was not forced to DROP: it was COPY, which had brought home what was dirty before, or the production of a
new value; DROP was legal at both. The game restarts with all moves before it as they were, and DROP forced there. Each
backup forces a move that was not forced before, so there are at most as many backups as moves: the game ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from memplan.compiler.hardware.roofline import duration
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.moves import (
    CLOSED,
    COPY,
    DROP,
    EVICTION,
    FOREVER,
    LEADING,
    LOST,
    NEVER,
    NO_COPY,
    NONE,
    PREFETCH,
    Move,
)
from memplan.rl_agent.game.residencies import BookedCopy, ChainState, Choices, GameResidency
from memplan.rl_agent.game.slot_supply import SlotSupply


@dataclass
class Reference:
    """A game being played.

    Attributes:
      game: its moves and numbers.
      move: number of the next move.
      history: actions, by move, of this try or of the one before.
      forced: whether a move is forced to DROP, by move.
      replay_until: moves before this one repeat the history.
      reward: seconds of latency that the last step saved.
      total: seconds that all steps saved.
      backups: how often the game was set back.
      is_dead: whether the next step sets the game back.
      stays: how many arguments stay from run to run.
      residencies: in fast memory, by the move that opened them.
      choices: at the next move.
      chains: what is known of each.
      slot_supply: what is left to copies.
      busy_until, held_until: `[num_units]` times until which a unit is taken, and until which its value is wanted.
    """

    game: Game
    move: int = 0
    history: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    replay_until: int = 0
    reward: float = 0.0
    total: float = 0.0
    backups: int = 0
    is_dead: bool = False
    stays: int = 0
    residencies: dict[int, GameResidency] = field(default_factory=dict)
    choices: Choices = field(default=Choices((False, False, False)))

    def __post_init__(self) -> None:
        self.history = [NONE] * len(self.game.moves)
        self.forced = [False] * len(self.game.moves)
        self._restart()
        self._look()

    @property
    def done(self) -> bool:
        """Whether all moves are made."""
        return self.move == len(self.game.moves)

    @property
    def legal(self) -> tuple[bool, bool, bool]:
        """Which actions are legal: exactly one where the move is forced, none when the game is over."""
        return self.choices.legal

    def step(self, action: int) -> None:
        """Makes a move; raises ValueError if it is not legal."""
        if not self.legal[action]:
            raise ValueError(f"action {action} is not legal at move {self.move}: {self.legal}")
        if self.is_dead:
            self.reward = -self.total
            self._back_up()
        else:
            self.reward = self._play(self.game.moves[self.move], action)
            self.total += self.reward
        self._look()

    def _restart(self) -> None:
        """Forgets all but the history and what is forced."""
        game = self.game
        self.move, self.total = 0, 0.0
        self.residencies = {}
        self.chains = [ChainState() for _ in range(game.num_chains)]
        for move in game.moves:
            self.chains[move.chain].ready = move.ready
        self.slot_supply = SlotSupply(game)
        self.busy_until = [FOREVER if blocked else 0 for blocked in game.blocked]
        self.held_until = self.busy_until.copy()
        self.demand = self.taken = self.stays = 0  # the first two of the operation at hand, as decided so far
        # The slots at which the last late copy that others may follow is awaited and issued.
        self.lead_done = self.lead_first = NONE
        self.demand_seconds = self.taken_seconds = 0.0

    def _back_up(self) -> None:
        culprit = self.chains[self.game.moves[self.move].chain].opened
        self.forced[culprit] = True
        self.replay_until = culprit
        self.backups += 1
        self._restart()

    def _play(self, move: Move, action: int) -> float:
        """Makes a move; returns the seconds that it saves."""
        waited = 0.0
        if not self._is_covered(move):
            waited = self._place(move, action)
        self.history[self.move] = action
        self.move += 1
        return (self._serve(move, action != DROP) if move.is_operation else 0.0) - waited

    def _place(self, move: Move, action: int) -> float:
        """Makes the copies and the residency of a decision; returns the seconds that the program waits for them."""
        number, chain, choices, waited = self.move, self.chains[move.chain], self.choices, 0.0
        if chain.opened != NONE and (action != NO_COPY or not move.reads):
            self._release(chain)
        if chain.written != NONE and chain.opened != NONE and move.reads and action != NO_COPY:
            assert choices.eviction is not None
            residency = self.residencies[chain.opened]
            residency.eviction = choices.eviction
            residency.end = max(residency.end, int(self.game.supply.awaited[choices.eviction.last]))
            for unit in range(residency.offset, residency.offset + residency.size):
                self.busy_until[unit] = max(self.busy_until[unit], residency.end)
            self.slot_supply.book(choices.eviction, EVICTION, move)
            waited += choices.eviction.wait * float(self.game.supply.repetitions[move.done])
            chain.ready = choices.eviction.last + 1
            chain.written = NONE
        if action == NO_COPY and move.reads:
            residency = self.residencies[chain.opened]
            residency.end = chain.end = move.end
            residency.moves.append(number)
            self._take(residency, move.end, move.held)
        elif action != DROP:
            residency = GameResidency(move.chain, choices.start, move.end, choices.offset, move.size, [number])
            if action == COPY:
                assert choices.prefetch is not None
                residency.prefetch = choices.prefetch
                self.slot_supply.book(choices.prefetch, PREFETCH, move)
                if choices.prefetch.is_late:
                    self.slot_supply.close(move)
                    if choices.prefetch.leads:
                        self.lead_done, self.lead_first = move.done, choices.prefetch.first
                    waited += choices.prefetch.wait * float(self.game.supply.repetitions[move.done])
            self.stays += move.is_stay
            for other in self.chains:
                if other.opened != NONE and _share_units(self.residencies[other.opened], residency):
                    other.limit = min(other.limit, choices.start)
            self.residencies[number] = residency
            chain.opened, chain.end, chain.limit, chain.written = number, move.end, FOREVER, NONE
            self._take(residency, move.end, move.held)
        else:
            chain.opened = chain.written = NONE
        if move.writes:
            chain.written = move.slot if action != DROP else NONE
            chain.ready = move.slot + 1 if action == DROP else chain.ready
        return waited

    def _take(self, residency: GameResidency, end: int, held: int) -> None:
        for unit in range(residency.offset, residency.offset + residency.size):
            self.busy_until[unit], self.held_until[unit] = end, held

    def _release(self, chain: ChainState) -> None:
        """Lets go of the units of a chain that nothing else has taken since."""
        residency = self.residencies[chain.opened]
        for unit in range(residency.offset, residency.offset + residency.size):
            if self.busy_until[unit] <= chain.end:
                self.held_until[unit] = 0

    def _serve(self, move: Move, is_fast: bool) -> float:
        """Serves the accesses of a move at an operation; returns the seconds that are saved, and sets its supply."""
        game, slot, left = self.game, move.slot, self.slot_supply.left
        if move.is_first_access:
            self.demand, self.taken = int(game.supply.demand[slot]), int(game.supply.taken[slot])
            self.demand_seconds = float(game.supply.demand_seconds[slot])
            self.taken_seconds = float(game.supply.taken_seconds[slot])
        floor = float(game.supply.floor_seconds[slot])
        before, idle_before = duration(floor, self.demand_seconds), self._idle(slot)
        if is_fast:
            self.demand -= move.saving
            self.taken -= move.traffic
            self.demand_seconds -= move.seconds
            self.taken_seconds -= move.traffic_seconds
        self.slot_supply.duration[slot] = duration(floor, self.demand_seconds)
        self.slot_supply.idle_seconds[slot] = max(0.0, self.slot_supply.duration[slot] - self.taken_seconds)
        if left[slot] != CLOSED:
            left[slot] = self._idle(slot) + move.carried
        if move.carrier != NONE and left[move.carrier] != CLOSED:
            left[move.carrier] += move.trips * (self._idle(slot) - idle_before)
        return (before - self.slot_supply.duration[slot]) * float(game.supply.repetitions[slot])

    def _idle(self, slot: int) -> int:
        """Returns the ticks that the operation at hand leaves to copies, as decided so far."""
        return max(0, duration(int(self.game.supply.floor[slot]), self.demand) - self.taken)

    def _is_covered(self, move: Move) -> bool:
        """Whether an item around is in fast memory as a whole."""
        return move.parent != NONE and self.history[move.parent] != DROP

    def _look(self) -> None:
        """Sets `choices` to what is possible at the next move."""
        self.is_dead = False
        if self.done:
            self.choices = Choices((False, False, False))
            return
        move, number = self.game.moves[self.move], self.move
        self.choices = self._choices(move)
        legal = self.choices.legal
        if number < self.replay_until:
            only = self.history[number]
        elif self.forced[number] and legal[DROP]:
            only = DROP
        elif not any(legal):
            self.is_dead, only = True, DROP
        else:
            return
        self.choices = Choices(
            _only(only), self.choices.prefetch, self.choices.eviction, self.choices.start, self.choices.offset
        )

    def _choices(self, move: Move) -> Choices:
        if self._is_covered(move):
            return Choices(_only(NO_COPY))
        game, chain = self.game, self.chains[move.chain]
        eviction = prefetch = None
        ready = chain.ready
        is_dirty = move.reads and chain.opened != NONE and chain.written != NONE
        if is_dirty:
            low = chain.written + 1
            high = min(move.done, low + game.reach)
            eviction = self.slot_supply.find(EVICTION, low, high, move.eviction)
            eviction = eviction or self.slot_supply.find_late_eviction(low, high, move)
            if eviction is not None and not self._lasts(chain, int(game.supply.awaited[eviction.last])):
                eviction = None
            ready = eviction.last + 1 if eviction is not None else NONE
        can_drop = not is_dirty or eviction is not None
        can_copy = can_stay = False
        start, offset = move.start, NONE
        if move.reads and not move.is_last:
            can_stay = chain.opened != NONE and chain.limit == FOREVER and self._lasts(chain, move.end)
            if can_drop:
                prefetch, start, offset = self._prefetch(move, ready)
                can_copy = offset != NONE
        elif not move.is_last and (not move.is_stay or self.stays < game.most_stays):
            offset = self._fit(start, move)
            can_stay = offset != NONE
        return Choices((can_copy, can_stay, can_drop), prefetch, eviction, start, offset)

    def _lasts(self, chain: ChainState, until: int) -> bool:
        """Whether the residency of a chain can last until some time."""
        offset = self.residencies[chain.opened].offset
        return until <= chain.end or (until <= chain.limit and self._bottom(chain.end, until) <= offset)

    def _bottom(self, start: int, end: int) -> int:
        """Returns the units that operations of some times keep for themselves."""
        return int(self.game.reserved[start:end].max(initial=0))

    def _prefetch(self, move: Move, ready: int) -> tuple[BookedCopy | None, int, int]:
        """Returns a copy that COPY makes, in time or late, or None; when its residency starts, and its offset or -1."""
        times = self.game.slots.time
        low = max(ready, move.done - self.game.reach)
        prefetch = self.slot_supply.find(PREFETCH, low, move.done, move.prefetch)
        start, offset = move.start, NONE
        if prefetch is not None:
            start = int(times[prefetch.first])
            offset = self._fit(start, move)
        if offset == NONE and self.game.supply.can_wait and low <= move.done and move.prefetch < NEVER:
            can_follow = self.lead_done == move.done and self.lead_first >= low
            earliest = self.lead_first if can_follow else self._earliest(low, move)
            for first, follows in ((earliest, can_follow), (move.done, False)):
                offered = self.slot_supply.left[first : move.done]
                ticks = move.prefetch - (self.game.supply.latency[PREFETCH] if follows else sum(offered))
                start = int(times[first])
                offset = self._fit(start, move) if ticks < move.worth else NONE
                if offset != NONE:
                    leads = follows or (first < move.done and ticks > LEADING * self.game.reach)
                    moving = float(self.game.supply.copy_seconds[PREFETCH][move.buffer])
                    wait = moving if follows else self.slot_supply.wait(PREFETCH, first, move.done, moving)
                    return BookedCopy(first, move.done - 1, 0, True, wait, leads), start, offset
        return prefetch, start, offset

    def _earliest(self, low: int, move: Move) -> int:
        """Returns the slot, from one on, from which a move's place and all slots before the use are free."""
        times, until = self.game.slots.time, 0
        left, owner = self.slot_supply.left, self.slot_supply.owner
        if move.place >= 0:
            until = max(self.busy_until[move.place : move.place + move.size])
        first = move.done
        while first > low and left[first - 1] >= 0 and owner[first - 1] == NONE:
            if times[first - 1] < until:
                break
            first -= 1
        return first

    def _fit(self, start: int, move: Move) -> int:
        """Returns the offset of a new residency; -1 if there is no room."""
        busy, held, size = self.busy_until, self.held_until, move.size
        low = self._bottom(start, move.end)
        if move.place >= max(low, 0) and all(until <= start for until in busy[move.place : move.place + size]):
            return move.place
        wanted = self.game.wanted_from[start]
        lasting = self._bottom(start, move.lasting)
        rules: list[Callable[[int], bool]] = [
            lambda unit: unit >= lasting and max(busy[unit], held[unit]) <= start and wanted[unit] >= move.end
        ]
        if move.place != LOST:
            rules.append(lambda unit: unit >= low and busy[unit] <= start)
        for is_free in rules:
            run, found = 0, NONE
            for unit in range(self.game.num_units):
                run = run + 1 if is_free(unit) else 0
                if run >= size:
                    found = unit - size + 1
                    if not move.is_long:
                        return found
            if found != NONE:
                return found
        return NONE


def _share_units(one: GameResidency, other: GameResidency) -> bool:
    return one.offset < other.offset + other.size and other.offset < one.offset + one.size


def _only(action: int) -> tuple[bool, bool, bool]:
    return (action == COPY, action == NO_COPY, action == DROP)
