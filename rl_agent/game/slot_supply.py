"""The supply of a game in progress, in plain Python: what each slot has left for copies, and which copies are there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.moves import CLOSED, EVICTION, NEVER, NONE, PASSED, PREFETCH, Move
from memplan.rl_agent.game.residencies import BookedCopy


class SlotSupply:
    """What is left of the supply, and who has the rest, `[num_slots]` each.

    Args:
      game: before its first move.

    Attributes:
      left: ticks, or `CLOSED`, or `PASSED`.
      owner: queue of the copies that move there, or -1.
      issued: which way a copy goes that is issued before a slot and has ticks of it, or -1.
      duration: seconds of the operation, as decided so far.
      idle_seconds: the part of them in which the link's channel is left to copies.
    """

    def __init__(self, game: Game):
        self.game = game
        supply = game.supply
        self.left = supply.idle.tolist()
        self.owner = [NONE] * len(game.slots.time)
        self.issued = [NONE] * len(game.slots.time)
        self.duration = supply.duration_seconds.tolist()
        self.idle_seconds = np.maximum(supply.duration_seconds - supply.taken_seconds, 0.0).tolist()

    def book(self, booked: BookedCopy, way: int, move: Move) -> None:
        """Gives a copy one way, which a move needs, its slots."""
        for slot in range(booked.first, booked.last + 1):
            if self.left[slot] != PASSED:
                is_shared = slot == booked.last and not booked.is_late
                self.left[slot] = self.left[slot] - booked.rest if is_shared else 0
                self.owner[slot] = self.game.supply.queue[way]
        if not booked.is_late:
            self.issued[booked.first] = way
        # Nothing is in flight over a loop that has copies of its own.
        if move.carrier != NONE:
            self.left[move.carrier] = CLOSED

    def close(self, move: Move) -> None:
        """Keeps later copies from being in flight where the program waits for the copy of a move."""
        if move.before < move.done and self.left[move.before] != CLOSED:
            self.left[move.before] = 0
            self.owner[move.before] = self.game.supply.queue[PREFETCH]

    def find(self, way: int, low: int, high: int, ticks: int) -> BookedCopy | None:
        """Returns a copy in time within slots `[low, high)`, or None.

        It starts as late as possible into fast memory, and as early as possible home.
        """
        if ticks >= NEVER:
            return None
        queue = self.game.supply.queue[way]
        candidates: Sequence[int] = range(low, high)
        for first in candidates if way == EVICTION else reversed(candidates):
            found, needed = 0, ticks - (self.game.supply.latency[way] if self.issued[first] == way else 0)
            for slot in range(first, high):
                is_taken = self.owner[slot] != NONE
                if self.left[slot] == CLOSED or (is_taken and self.owner[slot] != queue) or self.left[first] <= 0:
                    break
                if self.left[slot] == PASSED:
                    continue
                if found + self.left[slot] >= needed:
                    return BookedCopy(first, slot, needed - found)
                found += self.left[slot]
                if is_taken and slot > first:
                    break
        return None

    def find_late_eviction(self, low: int, high: int, move: Move) -> BookedCopy | None:
        """Returns a late copy home within slots `[low, high)`, or None."""
        start, supply, most = low, 0, 0
        found: tuple[int, int] | None = None
        for slot in range(low, high):
            if self.left[slot] < 0 or self.owner[slot] != NONE or self.left[slot + 1] == PASSED:
                start, supply = slot + 1, 0
                continue
            supply += self.left[slot]
            if supply > most:
                most, found = supply, (start, slot)
        if not self.game.supply.can_wait or move.eviction >= NEVER or found is None or 2 * most <= move.eviction:
            return None
        first, last = found
        wait = self.wait(EVICTION, first, last + 1, float(self.game.supply.copy_seconds[EVICTION][move.buffer]))
        return BookedCopy(first, last, self.left[last], wait=wait)

    def wait(self, way: int, first: int, done: int, moving: float) -> float:
        """Returns the seconds that a copy is late which has slots `[first, done)` to itself.

        Args:
          way: of the copy.
          first, done: half-open range of its slots.
          moving: seconds that the link moves its bytes.
        """
        latency, moved = self.game.supply.latency_seconds[way], 0.0
        for slot in range(first, done):
            lasts = self.duration[slot]
            passed = min(latency, lasts)
            latency -= passed
            if lasts > 0.0:
                moved += self.idle_seconds[slot] / lasts * (lasts - passed)
        return latency + max(0.0, moving - moved)
