"""Why blocks do not fit: an irreducible subset that does not fit either.

Blocks are left out as long as the rest does not fit, many at a time while that works and one at a time in the end. This
is the deletion filter (Chinneck and Dravnieks, "Locating minimal infeasible constraint sets in linear programs", 1991).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memplan.compiler.effort import Effort, Guard
from memplan.planners.offsets.geometry import Sections, components
from memplan.planners.offsets.instance import Instance, Integers
from memplan.planners.offsets.race import decide, rounds_of
from memplan.planners.offsets.windows import decide_windows

# By how many rounds of the exact methods (see `race.py`) a decision on a part of the blocks has less than one on all of
# them, and how many decisions may fail to be made before the reduction ends.
_LESS, _MOST_UNDECIDED = 4, 10


@dataclass(frozen=True, eq=False)
class InfeasibleSubset:
    """Blocks that do not fit a capacity together.

    Attributes:
      blocks: `int64` their numbers, ascending; that they do not fit is proven.
      irreducible: whether it is proven that they fit if any one is left out.
    """

    blocks: Integers
    irreducible: bool


def irreducible_infeasible_subset(
    instance: Instance,
    capacity: int,
    effort: Effort = Effort.NORMAL,
    guard: Guard | None = None,
    seed: int = 0,
    within: Integers | None = None,
) -> InfeasibleSubset | None:
    """Returns a subset of an instance that does not fit a capacity, irreducible if the work suffices.

    Returns None if the work did not suffice to prove that the instance itself does not fit.

    Args:
      instance: any.
      capacity: bytes.
      effort: how much work to do.
      guard: ends it early.
      seed: of what is drawn at random.
      within: numbers of blocks that are known not to fit, as in `Packing.conflict`.
    """
    return _Reduction(instance, capacity, rounds_of(effort), guard or Guard(), seed).run(within)


class _Reduction:
    def __init__(self, instance: Instance, capacity: int, rounds: int, guard: Guard, seed: int):
        self._instance, self._capacity, self._rounds = instance, capacity, rounds
        self._guard, self._seed, self._undecided = guard, seed, 0

    def _fits(self, blocks: Integers, rounds: int) -> bool | None:
        if self._undecided >= _MOST_UNDECIDED or self._guard.reached():
            rounds = 0
        chosen = self._instance.subset(blocks)
        if chosen.has_windows:
            fits = decide_windows(chosen, self._capacity, rounds, self._guard, self._seed)
        else:
            fits = decide(chosen, self._capacity, rounds, self._guard, self._seed).fits
        self._undecided += fits is None
        return fits

    def run(self, within: Integers | None) -> InfeasibleSubset | None:
        overloaded = self._overloaded()
        kept = within if overloaded is None else overloaded
        if kept is None or not len(kept):
            parts = components(self._instance)
            # A part is infeasible by itself, so the first such part is enough.
            kept = next((part for part in parts if self._fits(part, self._rounds) is False), None)
            if kept is None:
                return None
        irreducible = True
        candidates = kept[np.argsort(self._instance.size[kept], kind="stable")].tolist()
        width = max(1, len(candidates) // 4)
        needed: set[int] = set()
        while candidates:
            trial = candidates[:width]
            rest = np.setdiff1d(kept, trial)
            fits = self._fits(rest, max(1, self._rounds - _LESS))
            if fits is False:
                kept = rest
                candidates = candidates[width:]
                width = max(1, min(2 * width, len(candidates) // 4))
            elif len(trial) > 1:
                width = max(1, width // 4)
            else:
                irreducible = irreducible and fits is True
                needed.add(trial[0])
                candidates = candidates[1:]
        return InfeasibleSubset(np.sort(kept), irreducible)

    def _overloaded(self) -> Integers | None:
        """Returns the blocks of the fullest section if it is over the capacity; windows do not count."""
        sections = Sections.of(self._instance)
        loads = sections.loads(self._instance.size)
        if int(np.max(loads, initial=0)) <= self._capacity:
            return None
        fullest = int(np.argmax(loads))
        inside = (sections.first <= fullest) & (fullest < sections.last)
        return np.unique(sections.block_of_range()[inside])
