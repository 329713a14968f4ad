"""The rules of the game, in plain Python: what `environment.py` computes, to be read and to be compared with.

The game is the mallocGame of Wang et al., "Optimizing Memory Mapping Using Deep Reinforcement Learning" (2023); what is
theirs and what is ours is said in docs/game.md.

**State.** A chain has at most one residency in fast memory that may go on, from the move that *opened* it. Its value is
*dirty* if it was written there and home does not have it. Moves stand in program order, so all that was placed starts
before what is decided next ends. Hence room is known from one number for each unit of fast memory, the time until which
it is taken:

    a unit is free in [start, end)   if and only if   busy_until[unit] <= start

A closed residency may still have to last until its value is home, and an open one until its next use. It may as long as
nothing was placed on its units after its end: `limit` is the start of the first that was. So that this is rare, units
whose value is still wanted are *held*, until the end of its next use. A new residency goes to its place in the guide
(see `guide.py`), if that is free. Otherwise it goes to units that are neither taken nor held, nor wanted in the guide
before it ends, and that no operation keeps for itself as long as the value is wanted; only if there are none, and its
place was not lost in units, to any that will do for now. Of these, what is wanted long takes the highest, anything else
the lowest.

An argument that stays from run to run lies at one offset all the time, and all its accesses are fast. Its move is at
the beginning, when all is free, and all other moves of the argument are inside of it.

**Copies.** They move in the ticks that operations, all accesses decided, leave of the link's channel. A copy is issued
before slot `first` and awaited before the operation that follows slot `last`, and takes ticks of slots `first` to
`last`. These are neighbours in one region and neither loop nor conditional, but for loops that are *passed*: of nothing
but operations, none of which issues a copy, and with an operation before and after. What a passed loop leaves to copies
in all its iterations is part of what the operation before it leaves. No other copy has ticks of slots strictly between;
`first` and `last` it may share with copies of its own queue, with others none.

So of two copies in one queue neither is issued before the other and awaited after it: sorted by start, they are sorted
by done as well. Queues are first in, first out, and a copy waits for nothing but those before it and its latency. This
is counted as supply, except where a copy like it is issued before the same slot already: latencies pass at the same
time. Let copy k be the first that is late. Go back from it to the last copy j for which its latency was longer than the
queue: from then on the queue moves j, …, k without a pause. Their slots overlap one after the other (a copy awaited
before the next is issued leaves the queue empty), so no other queue has ticks of those from the issue of j to the await
of k. What j, …, k take of these slots, with the copies that were issued beside j, is as much as they move and one
latency, and the slots offer that: k is not late. No copy is in flight at the border of a branch, nor of a loop, but for
those passed, whose iterations are all alike and leave to copies what their operations do. Hence no operation waits for
these copies.

**Waiting.** If no copy into fast memory is in time, or none with room, COPY is a *late* one, as long as the wait is
shorter than what this use can save at most. It is issued before slot `first` and awaited before the use. Slots
`[first, done)` are free of copies and pass no loop, and are closed to all later copies; if `first` is the use itself,
the operation before it is. So nothing else is in flight when it is issued, nor until it is done, and no copy overtakes
it or is overtaken: how long the use waits follows from its own bytes and the operations of its slots, which are all
decided. `first` is the start of the free slots before the use, but not before its place in the guide is free; if there
is no room then, the use itself. The latency is the sum of durations and waits.

If no copy home of a dirty value is in time, that which the next move of its chain makes may be *late*, but not by more
than half of its ticks. It has the slots that are left between write and need, neighbours that pass no loop, to itself,
those that offer most; the operation that follows them waits. So again nothing else is in flight from its issue until it
is done.

If a late copy into fast memory lacks more than rounding can explain, its queue is busy until the use gets it. So
another one for the same use may *follow* it: it is issued with that one, moves when it has arrived, and the use waits
for its bytes beside.

**Dead ends.** A move is without legal action only if its value is dirty and cannot be brought home. The move
that opened the residency was not forced to DROP: it was COPY, which had brought home what was dirty before, or the
production of a new value; at both, DROP was legal. The game restarts with all moves before it as they were, and DROP
forced there. Each backup forces a move that was not forced before, so there are at most as many as moves: the game
ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from memplan.rl_agent.game.guide import LOST
from memplan.rl_agent.game.moves import CLOSED, NEVER, NONE, PASSED, Game, Move

COPY, NO_COPY, DROP = 0, 1, 2
NUM_ACTIONS = 3

# Later than all times.
FOREVER = 2**30

PREFETCH, EVICTION = 0, 1

# Ticks for each slot that a copy may stretch over, which it must lack to be followed: rounding makes less of a
# difference.
LEADING = 4


@dataclass(frozen=True, slots=True)
class Booking:
    """A copy: its slots `[first, last]`, and the ticks that it takes of the last one.

    A late copy into fast memory has all slots to itself, none if it starts where it is awaited; `is_late` says that it
    is one, and `leads` whether others may follow it. `wait` is how many seconds a copy is late, either way.
    """

    first: int
    last: int
    rest: int
    is_late: bool = False
    wait: float = 0.0
    leads: bool = False


@dataclass
class Residency:
    """One in fast memory: times and units, the copies that fill it and bring it home, the moves that it serves."""

    chain: int
    start: int
    end: int
    offset: int
    size: int
    moves: list[int]
    prefetch: Booking | None = None
    eviction: Booking | None = None


@dataclass
class Chain:
    """What is known of a chain.

    Attributes:
      opened: move that opened the residency that may go on; -1 for none.
      end: until when it lasts by now.
      limit: when something else is placed on its units.
      written: slot that wrote the value which home does not have; -1 if home has it.
      ready: slot from which home has the value.
    """

    opened: int = NONE
    end: int = 0
    limit: int = FOREVER
    written: int = NONE
    ready: int = 0


@dataclass(frozen=True)
class Choices:
    """What is possible at a move.

    Attributes:
      legal: `[3]` by action.
      prefetch: the copy that COPY makes.
      eviction: the copy that brings a dirty value home, which COPY and DROP make.
      start: when a new residency would start.
      offset: units; where it would lie.
    """

    legal: tuple[bool, bool, bool]
    prefetch: Booking | None = None
    eviction: Booking | None = None
    start: int = 0
    offset: int = NONE


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
    residencies: dict[int, Residency] = field(default_factory=dict)
    choices: Choices = field(default=Choices((False, False, False)))

    def __post_init__(self) -> None:
        self.history = [NONE] * len(self.game.moves)
        self.forced = [False] * len(self.game.moves)
        self._clear()
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

    def _clear(self) -> None:
        """Forgets all but the history and what is forced."""
        game = self.game
        self.move, self.total = 0, 0.0
        self.residencies = {}
        self.chains = [Chain() for _ in range(game.num_chains)]
        for move in game.moves:
            self.chains[move.chain].ready = move.ready
        self.left = game.idle.tolist()
        self.owner = [NONE] * len(game.slots.time)
        # Which way a copy goes that is issued before a slot and has ticks of it.
        self.issued = [NONE] * len(game.slots.time)
        self.busy_until = [FOREVER if blocked else 0 for blocked in game.blocked]
        self.held_until = self.busy_until.copy()
        self.demand = self.taken = self.stays = 0
        # Of the last late copy that others may follow: the slots at which it is awaited and issued.
        self.lead_done = self.lead_first = NONE
        self.demand_seconds = self.taken_seconds = 0.0
        # Of each operation, as decided: its duration, and the part of the link's channel that it leaves to copies.
        self.duration = game.duration_seconds.tolist()
        self.idle_seconds = np.maximum(game.duration_seconds - game.taken_seconds, 0.0).tolist()

    def _back_up(self) -> None:
        culprit = self.chains[self.game.moves[self.move].chain].opened
        self.forced[culprit] = True
        self.replay_until = culprit
        self.backups += 1
        self._clear()

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
            residency.end = max(residency.end, int(self.game.awaited[choices.eviction.last]))
            for unit in range(residency.offset, residency.offset + residency.size):
                self.busy_until[unit] = max(self.busy_until[unit], residency.end)
            self._book(choices.eviction, EVICTION, move)
            waited += choices.eviction.wait * float(self.game.repetitions[move.done])
            chain.ready = choices.eviction.last + 1
            chain.written = NONE
        if action == NO_COPY and move.reads:
            residency = self.residencies[chain.opened]
            residency.end = chain.end = move.end
            residency.moves.append(number)
            self._take(residency, move.end, move.held)
        elif action != DROP:
            residency = Residency(move.chain, choices.start, move.end, choices.offset, move.size, [number])
            if action == COPY:
                assert choices.prefetch is not None
                residency.prefetch = choices.prefetch
                self._book(choices.prefetch, PREFETCH, move)
                if choices.prefetch.is_late:
                    self._close(move)
                    if choices.prefetch.leads:
                        self.lead_done, self.lead_first = move.done, choices.prefetch.first
                    waited += choices.prefetch.wait * float(self.game.repetitions[move.done])
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

    def _take(self, residency: Residency, end: int, held: int) -> None:
        for unit in range(residency.offset, residency.offset + residency.size):
            self.busy_until[unit], self.held_until[unit] = end, held

    def _release(self, chain: Chain) -> None:
        """Lets go of the units of a chain that nothing else has taken since."""
        residency = self.residencies[chain.opened]
        for unit in range(residency.offset, residency.offset + residency.size):
            if self.busy_until[unit] <= chain.end:
                self.held_until[unit] = 0

    def _book(self, booking: Booking, way: int, move: Move) -> None:
        for slot in range(booking.first, booking.last + 1):
            if self.left[slot] != PASSED:
                is_shared = slot == booking.last and not booking.is_late
                self.left[slot] = self.left[slot] - booking.rest if is_shared else 0
                self.owner[slot] = self.game.queue[way]
        if not booking.is_late:
            self.issued[booking.first] = way
        # Nothing is in flight over a loop that has copies of its own.
        if move.carrier != NONE:
            self.left[move.carrier] = CLOSED

    def _close(self, move: Move) -> None:
        """Keeps later copies from being in flight where the program waits for that of a move."""
        if move.before < move.done and self.left[move.before] != CLOSED:
            self.left[move.before] = 0
            self.owner[move.before] = self.game.queue[PREFETCH]

    def _serve(self, move: Move, is_fast: bool) -> float:
        """Serves the accesses of a move at an operation; returns the seconds that are saved, and sets its supply."""
        game, slot = self.game, move.slot
        if move.is_first_access:
            self.demand, self.taken = int(game.demand[slot]), int(game.taken[slot])
            self.demand_seconds = float(game.demand_seconds[slot])
            self.taken_seconds = float(game.taken_seconds[slot])
        floor = float(game.floor_seconds[slot])
        before, idle_before = max(floor, self.demand_seconds), self._idle(slot)
        if is_fast:
            self.demand -= move.saving
            self.taken -= move.traffic
            self.demand_seconds -= move.seconds
            self.taken_seconds -= move.traffic_seconds
        self.duration[slot] = max(floor, self.demand_seconds)
        self.idle_seconds[slot] = max(0.0, self.duration[slot] - self.taken_seconds)
        if self.left[slot] != CLOSED:
            self.left[slot] = self._idle(slot) + move.carried
        if move.carrier != NONE and self.left[move.carrier] != CLOSED:
            self.left[move.carrier] += move.trips * (self._idle(slot) - idle_before)
        return (before - self.duration[slot]) * float(game.repetitions[slot])

    def _idle(self, slot: int) -> int:
        """Returns the ticks that the operation at hand leaves to copies, as decided so far."""
        return max(0, max(int(self.game.floor[slot]), self.demand) - self.taken)

    def _is_covered(self, move: Move) -> bool:
        """Whether an item around is in fast memory as a whole."""
        return move.parent != NONE and self.history[move.parent] != DROP

    def _look(self) -> None:
        """Finds out what is possible next."""
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
            eviction = self._copy(EVICTION, low, high, move.eviction) or self._late_eviction(low, high, move)
            if eviction is not None and not self._lasts(chain, int(game.awaited[eviction.last])):
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

    def _lasts(self, chain: Chain, until: int) -> bool:
        """Whether the residency of a chain can last until some time."""
        offset = self.residencies[chain.opened].offset
        return until <= chain.end or (until <= chain.limit and self._bottom(chain.end, until) <= offset)

    def _bottom(self, start: int, end: int) -> int:
        """Returns the units that operations of some times keep for themselves."""
        return int(self.game.reserved[start:end].max(initial=0))

    def _prefetch(self, move: Move, ready: int) -> tuple[Booking | None, int, int]:
        """Returns a copy that COPY makes, in time or late, or None; when its residency starts, and its offset or -1."""
        times = self.game.slots.time
        low = max(ready, move.done - self.game.reach)
        prefetch = self._copy(PREFETCH, low, move.done, move.prefetch)
        start, offset = move.start, NONE
        if prefetch is not None:
            start = int(times[prefetch.first])
            offset = self._fit(start, move)
        if offset == NONE and self.game.can_wait and low <= move.done and move.prefetch < NEVER:
            can_follow = self.lead_done == move.done and self.lead_first >= low
            earliest = self.lead_first if can_follow else self._earliest(low, move)
            for first, follows in ((earliest, can_follow), (move.done, False)):
                ticks = move.prefetch - (self.game.latency[PREFETCH] if follows else sum(self.left[first : move.done]))
                start = int(times[first])
                offset = self._fit(start, move) if ticks < move.worth else NONE
                if offset != NONE:
                    leads = follows or (first < move.done and ticks > LEADING * self.game.reach)
                    moving = float(self.game.copy_seconds[PREFETCH][move.buffer])
                    wait = moving if follows else self._wait(PREFETCH, first, move.done, moving)
                    return Booking(first, move.done - 1, 0, True, wait, leads), start, offset
        return prefetch, start, offset

    def _earliest(self, low: int, move: Move) -> int:
        """Returns the slot, from one on, from which a move's place and all slots before the use are free."""
        times, until = self.game.slots.time, 0
        if move.place >= 0:
            until = max(self.busy_until[move.place : move.place + move.size])
        first = move.done
        while first > low and self.left[first - 1] >= 0 and self.owner[first - 1] == NONE:
            if times[first - 1] < until:
                break
            first -= 1
        return first

    def _late_eviction(self, low: int, high: int, move: Move) -> Booking | None:
        """Returns a copy home within slots `[low, high)` that is late, or None."""
        start, supply, most = low, 0, 0
        found: tuple[int, int] | None = None
        for slot in range(low, high):
            if self.left[slot] < 0 or self.owner[slot] != NONE or self.left[slot + 1] == PASSED:
                start, supply = slot + 1, 0
                continue
            supply += self.left[slot]
            if supply > most:
                most, found = supply, (start, slot)
        if not self.game.can_wait or move.eviction >= NEVER or found is None or 2 * most <= move.eviction:
            return None
        first, last = found
        wait = self._wait(EVICTION, first, last + 1, float(self.game.copy_seconds[EVICTION][move.buffer]))
        return Booking(first, last, self.left[last], wait=wait)

    def _wait(self, way: int, first: int, done: int, moving: float) -> float:
        """Returns the seconds that a copy is late which has slots `[first, done)` to itself and moves for so long."""
        latency, moved = self.game.latency_seconds[way], 0.0
        for slot in range(first, done):
            duration = self.duration[slot]
            passed = min(latency, duration)
            latency -= passed
            if duration > 0.0:
                moved += self.idle_seconds[slot] / duration * (duration - passed)
        return latency + max(0.0, moving - moved)

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

    def _copy(self, way: int, low: int, high: int, ticks: int) -> Booking | None:
        """Returns a copy within slots `[low, high)`: into fast memory as late, home as early as can be; or None."""
        if ticks >= NEVER:
            return None
        queue = self.game.queue[way]
        candidates: Sequence[int] = range(low, high)
        for first in candidates if way == EVICTION else reversed(candidates):
            found, needed = 0, ticks - (self.game.latency[way] if self.issued[first] == way else 0)
            for slot in range(first, high):
                is_taken = self.owner[slot] != NONE
                if self.left[slot] == CLOSED or (is_taken and self.owner[slot] != queue) or self.left[first] <= 0:
                    break
                if self.left[slot] == PASSED:
                    continue
                if found + self.left[slot] >= needed:
                    return Booking(first, slot, needed - found)
                found += self.left[slot]
                if is_taken and slot > first:
                    break
        return None


def _share_units(one: Residency, other: Residency) -> bool:
    return one.offset < other.offset + other.size and other.offset < one.offset + one.size


def _only(action: int) -> tuple[bool, bool, bool]:
    return (action == COPY, action == NO_COPY, action == DROP)
