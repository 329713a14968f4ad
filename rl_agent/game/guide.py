"""The guide: a plan whose offsets the game prefers.

A game is played in program order, so it chooses offsets before it knows what comes later, and memory is left in
fragments. A packer that knows all times does better. The residencies of a *guide*, any plan for the problem, are
therefore packed once more in whole units, and a move that is in fast memory in the guide has the offset of its
residency as its *place*. The game uses the place if it is free. A residency that finds no place, because whole units
are more than it needs, may not take room from the others. The rules use nothing else of the guide: all decisions are
the player's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.stays.assembly import home_of
from memplan.planners.stays.packing import UNPLACED, Blocks, pack
from memplan.rl_agent.game.moves import LOST, NOWHERE

Integers = NDArray[np.int64]

# Placements that an exact search for offsets may try where heuristics leave residencies over.
_EXACT_NODES = 10_000

# Seconds: the weight of a residency that serves nothing, or saves nothing.
_LEAST_WEIGHT = 1e-15


@dataclass(frozen=True)
class GuidePlaces:
    """The offsets of a guide.

    Attributes:
      of_access: `[num_accesses]` units, the offset of the residency that serves it in the fast space; `NOWHERE` if none
        does, `LOST` if it has no place.
      span: `[num_accesses, 2]` half-open times of what serves it; empty if it has no place.
      times: `[num_placed, 2]` half-open times of the residencies that have a place.
      units: `[num_placed, 2]` their units.
    """

    of_access: Integers
    span: Integers
    times: Integers
    units: Integers

    def of(self, accesses: Sequence[int], start: int, end: int) -> int:
        """Returns the place of a move's value: of the residency that serves its accesses, if it lasts as long.

        Args:
          accesses: of the move.
          start, end: half-open times of the move.
        """
        if not accesses:
            return NOWHERE
        first, last = self.span[accesses[0]]
        place = int(self.of_access[accesses[0]])
        return place if place == LOST or (first <= start and end <= last) else NOWHERE

    def wanted_from(self, num_times: int, num_units: int) -> Integers:
        """Returns when the next residency of the guide starts on each unit.

        Returns: `[num_times, num_units]`, the start at or after each time; `num_times` for never.
        """
        table = np.full((num_times, num_units), num_times, np.int64)
        for (start, _), (low, high) in zip(self.times.tolist(), self.units.tolist(), strict=True):
            table[start, low:high] = start
        return np.minimum.accumulate(table[::-1], axis=0)[::-1]


def no_places(problem: MappingProblem) -> GuidePlaces:
    """Returns the places without a guide: none."""
    count, none = len(problem.accesses), np.zeros((0, 2), np.int64)
    return GuidePlaces(np.full(count, NOWHERE), np.zeros((count, 2), np.int64), none, none)


@dataclass(frozen=True, slots=True)
class Wish:
    """A wish: accesses that the guide serves at home, but that should have a place if there is room beside the rest.

    Attributes:
      buffer: index.
      start, end: half-open times.
      accesses: that it would serve.
    """

    buffer: int
    start: int
    end: int
    accesses: tuple[int, ...]


def places_of(
    plan: Plan,
    problem: MappingProblem,
    space: int,
    unit: int,
    reserved: Integers,
    saving: NDArray[np.float64],
    wishes: Sequence[Wish] = (),
) -> GuidePlaces:
    """Returns the places of a plan's residencies in a space that is divided into units.

    Args:
      plan: for the problem.
      problem: that is played.
      space: the fast one.
      unit: bytes.
      reserved: `[n + 1]` units at the bottom that operations keep for themselves.
      saving: `[num_accesses]` seconds that each access saves in the space.
      wishes: packed with the residencies. If there is not enough room for all, those worth least are left out.
    """
    here = [
        number
        for number, residency in enumerate(plan.residencies)
        if residency.space == space and home_of(problem, residency.buffer) != space
    ]
    if not here and not wishes:
        return no_places(problem)
    lasting = [plan.residencies[number] for number in here]
    buffer = [residency.buffer for residency in lasting] + [wish.buffer for wish in wishes]
    start = [residency.start for residency in lasting] + [wish.start for wish in wishes]
    end = [residency.end for residency in lasting] + [wish.end for wish in wishes]
    repetitions = np.array([problem.runs_at(time) for time, _ in problem.accesses])
    saved = saving * repetitions
    worth = np.bincount(np.array(plan.served, np.int64), saved, minlength=len(plan.residencies))[here]
    worth = np.concatenate([worth, [saved[list(wish.accesses)].sum() for wish in wishes]])
    size = np.array([-(-problem.buffers[number].size // unit) for number in buffer], np.int64)
    blocks = Blocks(
        np.array(start, np.int64),
        np.array(end, np.int64),
        np.arange(len(size)),
        size * unit,
        np.maximum(worth, _LEAST_WEIGHT),
    )
    packed = pack(_in_units(problem, space, unit, reserved), space, blocks, exact_nodes=_EXACT_NODES)
    offset = np.where(packed == UNPLACED, LOST, packed // unit)
    of_residency = np.full(len(plan.residencies), NOWHERE)
    of_residency[here] = offset[: len(here)]
    served = np.array(plan.served, np.int64)
    of_access = of_residency[served]
    span = np.array([(residency.start, residency.end) for residency in plan.residencies], np.int64)[served]
    for wish, place in zip(wishes, offset[len(here) :].tolist(), strict=True):
        of_access[list(wish.accesses)] = NOWHERE if place == LOST else place
        span[list(wish.accesses)] = wish.start, wish.end
    span[of_access < 0] = 0
    is_placed = packed != UNPLACED
    return GuidePlaces(
        of_access=of_access,
        span=span,
        times=np.column_stack([blocks.start, blocks.end])[is_placed],
        units=np.column_stack([offset, offset + size])[is_placed],
    )


def _in_units(problem: MappingProblem, space: int, unit: int, reserved: Integers) -> MappingProblem:
    """Returns a problem in whose fast space everything is a multiple of a unit."""
    described = problem.spaces[space]
    spaces = list(problem.spaces)
    spaces[space] = replace(described, capacity=described.capacity // unit * unit, alignment=unit)
    operations = []
    for operation, units in zip(problem.operations, reserved.tolist(), strict=False):
        kept = list(operation.reserved)
        kept[space] = units * unit
        operations.append(replace(operation, reserved=tuple(kept)))
    return replace(problem, spaces=tuple(spaces), operations=tuple(operations))
