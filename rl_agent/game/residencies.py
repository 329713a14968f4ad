"""What a game in progress consists of: residencies, copies, what is known of chains, and the choices at a move."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.rl_agent.game.moves import FOREVER, NONE


@dataclass(frozen=True, slots=True)
class BookedCopy:
    """A copy that has supply: its slots `[first, last]`, and the ticks that it takes of the last one.

    Attributes:
      first, last: slots.
      rest: ticks.
      is_late: whether it is a late copy into fast memory, which has all its slots to itself, and none if it starts
        where it is awaited.
      wait: seconds that it is late, either way.
      leads: whether other late copies may follow it.
    """

    first: int
    last: int
    rest: int
    is_late: bool = False
    wait: float = 0.0
    leads: bool = False


@dataclass
class GameResidency:
    """A residency in fast memory.

    Attributes:
      chain: index.
      start, end: half-open times.
      offset, size: units.
      moves: that it serves.
      prefetch: the copy that fills it; None if its value is produced there.
      eviction: the copy that brings its value home; None if there is none.
    """

    chain: int
    start: int
    end: int
    offset: int
    size: int
    moves: list[int]
    prefetch: BookedCopy | None = None
    eviction: BookedCopy | None = None


@dataclass
class ChainState:
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
    prefetch: BookedCopy | None = None
    eviction: BookedCopy | None = None
    start: int = 0
    offset: int = NONE
