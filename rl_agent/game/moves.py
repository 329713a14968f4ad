"""What a move of the game is, and the numbers that the rules use in place of others.

One move is one decision: what becomes of a buffer at one of its items (see `planners/stays/chains.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

# The actions: a copy from home, staying (or being produced) in fast memory, being served at home.
COPY, NO_COPY, DROP = 0, 1, 2
NUM_ACTIONS = 3

# Bits of a game's history: the action, and whether a backup forced it.
ACTIONS, FORCED = 3, 4

# The two ways of a copy, into fast memory and home: numbers of links, queues and latencies.
PREFETCH, EVICTION = 0, 1

# In place of a number of a move, chain, item, slot, queue, unit or way, where there is none.
NONE = -1

# In place of a move's offset in the guide: the guide has nothing there, or what it has finds no room in whole units.
NOWHERE, LOST = -1, -2

# In place of the ticks of a slot: no copy can move there; or it is a loop over which copies may be in flight, whose
# ticks are counted with those of the operation before it.
CLOSED, PASSED = -1, -2

# More ticks than any supply.
NEVER = 2**30

# Later than all times.
FOREVER = 2**30

# A late copy may be followed by others if it lacks more than so many ticks for each slot that a copy may stretch over:
# rounding makes less of a difference.
LEADING = 4


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
