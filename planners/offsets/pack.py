"""The entry `pack`: from an instance to a checked packing, with what is proven about it.

Importing this module loads neither compiled code nor a solver. They are loaded when first fit is not enough.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import SupportsIndex

import numpy as np

from memplan.compiler.effort import Effort, Guard, check_time_limit
from memplan.compiler.errors import PlannerError
from memplan.planners.offsets.bounds import (
    height_of,
    lower_bound,
    lower_bound_of_pieces,
    maximum_load,
    maximum_load_of_pieces,
)
from memplan.planners.offsets.check import check
from memplan.planners.offsets.first_fit import Fitted, first_fit
from memplan.planners.offsets.instance import LARGEST, Block, Instance, Integers
from memplan.planners.offsets.reduction import InstancePart, reduced

# The most blocks that first fit without compiled code packs.
_MOST_PLAIN = 500

# The most placements on skylines by effort, and the most packings of one instance.
_SKYLINE_PLACEMENTS, _SKYLINES = (1_500_000, 12_000_000, 120_000_000), (64, 256, 1024)

# First fit is too slow if more pairs of blocks overlap.
_MOST_PAIRS = 2_000_000

# The rounds of the exact methods for the first height, in the first turn of lowering and in the last one by effort.
_FIRST_ROUNDS, _LAST_ROUNDS = 5, (5, 8, 11)

# How many heights a turn tries, and by how many rounds the later ones have less than the first.
_HEIGHTS, _LESS = 6, 3

# Placements that heuristics may try before the exact methods begin, by effort, and for each round of these in a turn.
_PLACEMENTS, _PLACEMENTS_PER_TURN = (300_000, 1_000_000, 4_000_000), 20_000


class Status(Enum):
    """What is known at the end."""

    FITS = "fits"  # the capacity that was given
    INFEASIBLE = "does not fit"  # proven: no packing is within the capacity
    UNDECIDED = "not decided"  # neither was the capacity met, nor was the height proven to be the lowest
    OPTIMAL = "optimal"  # without a capacity: proven, no packing is lower


@dataclass(frozen=True, eq=False)
class Packing:
    """Offsets, and what is known about them.

    Attributes:
      status: see `Status`.
      offsets: `[num_blocks] int64` bytes, a valid packing of this height, even where that is over the capacity.
      height: bytes, the top of the highest block.
      lower_bound: bytes; proven: no packing is lower.
      maximum_load: bytes, the most that is needed at one time.
      method: what found the offsets, or proved that there are none.
      seconds: of wall-clock time.
      conflict: `int64` numbers of blocks that are proven not to fit together; empty unless it is INFEASIBLE.
      interrupted: whether the user stopped it from the keyboard; the packing is the best one so far.
      stopped: whether the time limit ended the work.
    """

    status: Status
    offsets: Integers
    height: int
    lower_bound: int
    maximum_load: int
    method: str
    seconds: float
    conflict: Integers
    interrupted: bool = False
    stopped: bool = False


def pack(
    blocks: Instance | Iterable[Block],
    capacity: int | None = None,
    effort: Effort = Effort.NORMAL,
    time_limit: float | None = None,
    seed: int = 0,
) -> Packing:
    """Returns offsets within a capacity, or as low as possible.

    Parts of the time that no block spans are packed one by one, first by heuristics, then by exact methods that run in
    parallel. The same blocks, capacity, effort and seed give the same offsets.

    >>> packing = pack([Block(size=4, lower=0, upper=3), Block(size=4, lower=2, upper=9), Block(8, lower=3, upper=5)])
    >>> packing.offsets.tolist(), packing.height, packing.status
    ([0, 8, 0], 12, <Status.OPTIMAL: 'optimal'>)

    Args:
      blocks: what to pack, one by one or as an instance, which holds columns.
      capacity: bytes. Without one, the height is minimized.
      effort: how much work to do.
      time_limit: seconds of wall-clock time after which the best packing so far is returned, not counting what must be
        compiled when something is packed for the first time after an installation; None for no limit. One packing is
        made in any case; for 100,000 blocks it takes about a second.
      seed: of what is drawn at random.

    Raises:
      InstanceError: a block makes no sense; the message names it.
      PlannerError: the time is not a positive number, or the capacity is not a number of bytes.
    """
    check_time_limit(time_limit)
    if capacity is not None:
        if not (isinstance(capacity, SupportsIndex) and 0 <= operator.index(capacity) <= LARGEST):
            raise PlannerError(f"a capacity must be a number of bytes from 0 to {LARGEST:,}, not {capacity!r:.60}")
        capacity = operator.index(capacity)
    instance = blocks if isinstance(blocks, Instance) else Instance.of_blocks(blocks)
    if instance.has_windows:
        return _pack_windows(instance, capacity, effort, Guard(time_limit), seed)
    started = time.monotonic()
    work = _PackCall(instance, capacity, effort, seed)
    is_done = work.fit_plainly()
    left = None if time_limit is None else max(0.0, time_limit - (time.monotonic() - started))
    if not is_done:
        from memplan.planners.offsets.preparation import prepare

        prepare()
    interrupted = False
    try:
        work.run(Guard(left))
    except KeyboardInterrupt:
        interrupted = True
    return work.packing(interrupted)


@dataclass(eq=False)
class _Progress:
    """What is known about a part.

    Attributes:
      part: what is packed.
      bound: units above the base; no packing of the part is lower.
      best: packing in units above the base; None before there is one.
    """

    part: InstancePart
    bound: int
    best: Fitted | None = None

    @property
    def fitted(self) -> Fitted:
        """The best packing, which there is."""
        assert self.best is not None
        return self.best

    @property
    def height(self) -> int:
        """Bytes that the best packing takes, with the base."""
        return self.part.base + self.part.unit * self.fitted.height

    @property
    def bound_in_bytes(self) -> int:
        return self.part.base + self.part.unit * self.bound


class _PackCall:
    """The state of one call of `pack`, which gives a packing whenever it is interrupted."""

    def __init__(self, instance: Instance, capacity: int | None, effort: Effort, seed: int):
        self._instance, self._capacity, self._seed = instance, capacity, seed
        self._effort, self._guard = effort, Guard()
        self._started = time.monotonic()
        self._infeasible, self._method = "", ""
        self._conflict = np.empty(0, np.int64)
        parts, self._offsets = reduced(instance)
        self._parts = [_Progress(part, lower_bound(part.instance)) for part in parts]
        self._whole: Fitted | None = None

    def fit_plainly(self) -> bool:
        """Packs a few blocks by first fit without compiled code; returns whether nothing is left to do."""
        if len(self._instance) > _MOST_PLAIN:
            return False
        for one in self._parts:
            one.best = first_fit(one.part.instance, self._target(one), self._guard)
        return self._is_over() or all(one.fitted.height <= self._target(one) for one in self._parts)

    def run(self, guard: Guard) -> None:
        self._guard = guard
        if len(self._instance) > _MOST_PLAIN:
            self._pack_whole()
        if self._is_over():
            worst = max(self._parts, key=lambda one: one.bound_in_bytes)
            self._disproven("lower bound", worst.part)
            return
        if self._whole is not None and self._whole.height <= self._wanted():
            return
        for one in self._parts:
            if self._whole is not None and self._guard.reached():
                return
            target = self._target(one)
            if one.best is None or one.best.height > target:
                self._improve(one, target, self._effort.of(*_PLACEMENTS), self._seed)
        for one in sorted(self._parts, key=lambda one: -one.height):
            if self._capacity is None:
                self._lower(one)
            elif not self._fit(one, self._capacity):
                return

    def _pack_whole(self) -> None:
        """Packs all blocks on skylines, before their parts are packed one by one."""
        from memplan.planners.offsets.skyline import SkylinePacker

        real = np.flatnonzero(self._instance.size > 0)
        packer = SkylinePacker(self._instance.subset(real))
        # One packing comes first, for the case of an interrupt.
        for placements in (0, 0 if self._is_over() else self._skyline_placements(len(real))):
            found = packer.best(self._wanted(), placements, self._seed, self._guard)
            offsets = np.where(self._instance.fixed >= 0, self._instance.fixed, 0)
            offsets[real] = found.offsets
            self._whole = Fitted(offsets, found.height, found.method)

    def _skyline_placements(self, num_blocks: int) -> int:
        return min(self._effort.of(*_SKYLINE_PLACEMENTS), self._effort.of(*_SKYLINES) * num_blocks)

    def _is_over(self) -> bool:
        return self._capacity is not None and self._bound() > self._capacity

    def _bound(self) -> int:
        return max((one.bound_in_bytes for one in self._parts), default=0)

    def _target(self, one: _Progress) -> int:
        """Returns the height that is low enough for a part, in its units, given that other parts may be higher."""
        return max(one.bound, one.part.room(self._wanted()))

    def _wanted(self) -> int:
        """Returns the height in bytes that is low enough."""
        return self._bound() if self._capacity is None else self._capacity

    def _disproven(self, method: str, part: InstancePart) -> None:
        self._infeasible = method
        self._conflict = np.sort(np.concatenate([part.blocks, part.beneath]))

    def _fit(self, one: _Progress, capacity: int) -> bool:
        """Tries to get a part below a capacity; returns whether it is."""
        if one.height > capacity:
            from memplan.planners.offsets.race import rounds_of

            if self._try(one, one.part.room(capacity), rounds_of(self._effort)) is False:
                self._disproven(self._method, one.part)
        return one.height <= capacity

    def _lower(self, one: _Progress) -> None:
        """Makes a part as low as it can be, or as low as other parts must be.

        Each turn has twice the work of the turn before. It tries the lowest height that is not disproven, then
        heuristics from another seed, then some heights halfway between what took too much work and the best packing.
        """
        seed = self._seed
        for rounds in range(_FIRST_ROUNDS, self._effort.of(*_LAST_ROUNDS) + 1):
            if one.fitted.height <= self._target(one) or self._guard.reached():
                return
            height = lowest = self._target(one)
            for number in range(_HEIGHTS):
                fits = self._try(one, height, rounds if number == 0 else rounds - _LESS)
                if fits is False:
                    one.bound = max(one.bound, height + 1)
                if not fits:
                    lowest = height + 1
                if number == 0 and one.fitted.height > lowest:
                    seed += 1
                    self._improve(one, lowest, _PLACEMENTS_PER_TURN << rounds, seed)
                if one.fitted.height <= lowest or self._guard.reached():
                    break
                height = (lowest + one.fitted.height) // 2

    def _improve(self, one: _Progress, target: int, placements: int, seed: int) -> None:
        """Replaces the packing of a part by that of the heuristics if it is lower."""
        from memplan.planners.offsets.heuristics import Fitter
        from memplan.planners.offsets.skyline import SkylinePacker

        instance = one.part.instance
        best = SkylinePacker(instance).best(target, self._skyline_placements(len(instance)), seed, self._guard)
        if best.height > target and not self._guard.reached():
            fitter = Fitter(instance)
            if fitter.num_pairs <= _MOST_PAIRS:
                fitted = fitter.best(target, placements, seed, self._guard)
                best = min(best, fitted, key=lambda found: found.height)
        if one.best is None or best.height < one.best.height:
            one.best = best

    def _try(self, one: _Progress, height: int, rounds: int) -> bool | None:
        """Returns whether a part fits a height, in its units; None if the work did not suffice to decide."""
        from memplan.planners.offsets.race import search_part

        found = search_part(one.part.instance, height, rounds, self._guard, self._seed)
        self._method = found.method
        if found.fits:
            top = int(np.max(found.offsets + one.part.instance.size))
            one.best = Fitted(found.offsets, top, found.method)
        return found.fits

    def packing(self, interrupted: bool) -> Packing:
        """Returns what is known now."""
        best = self._best()
        bound, method = self._bound(), best.method
        if self._infeasible:
            method = self._infeasible
            bound = max(bound, (self._capacity or 0) + 1)
        offsets, height = best.offsets, best.height
        packing = Packing(
            status=_status(height, bound, self._capacity, bool(self._infeasible)),
            offsets=offsets,
            height=height,
            lower_bound=bound,
            maximum_load=maximum_load(self._instance),
            method=method,
            seconds=time.monotonic() - self._started,
            conflict=self._conflict,
            interrupted=interrupted,
            stopped=self._guard.met,
        )
        return _checked(packing, self._instance, self._capacity)

    def _best(self) -> Fitted:
        """Returns the lower one of the packing of all blocks and that of their parts; either may not be there yet."""
        found = [] if self._whole is None else [self._whole]
        if all(one.best is not None for one in self._parts):
            offsets = self._offsets.copy()
            for one in self._parts:
                offsets[one.part.blocks] = one.part.base + one.part.unit * one.fitted.offsets
            highest = max(self._parts, key=lambda one: one.height, default=None)
            method = highest.fitted.method if highest is not None else "nothing to pack"
            found.append(Fitted(offsets, height_of(self._instance, offsets), method))
        if not found:
            # The interrupt came before there was any packing.
            raise KeyboardInterrupt
        return min(found, key=lambda packing: packing.height)


def _status(height: int, bound: int, capacity: int | None, is_infeasible: bool) -> Status:
    """Returns what is known of a packing of some height."""
    if is_infeasible:
        return Status.INFEASIBLE
    if capacity is None:
        return Status.OPTIMAL if height <= bound else Status.UNDECIDED
    return Status.FITS if height <= capacity else Status.UNDECIDED


def _checked(packing: Packing, instance: Instance, capacity: int | None) -> Packing:
    """Returns a packing; raises AssertionError if it breaks rules."""
    wrong = check(instance, packing.offsets, capacity if packing.status == Status.FITS else None)
    if wrong:
        raise AssertionError(f"{packing.method} gave a wrong packing: {wrong[0]}")
    return packing


def _pack_windows(instance: Instance, capacity: int | None, effort: Effort, guard: Guard, seed: int) -> Packing:
    """Returns the packing of blocks of which some take only a window of themselves for a while."""
    started = time.monotonic()
    bound, interrupted = lower_bound_of_pieces(instance), False
    fitted = first_fit(instance, bound if capacity is None else capacity, guard)
    offsets, height, method = fitted.offsets, fitted.height, fitted.method
    if height > (bound if capacity is None else capacity) and (capacity is None or bound <= capacity):
        from memplan.planners.offsets.race import rounds_of
        from memplan.planners.offsets.windows import WindowModel

        limit = height if capacity is None else capacity
        if WindowModel.can_hold(instance, limit):
            model = WindowModel(instance, limit, offsets, capacity is None, seed)
            fits, found, proven, interrupted = model.solve(rounds_of(effort), guard)
            if fits:
                offsets, height, method = found, height_of(instance, found), "constraint program"
                bound = max(bound, proven)
            elif fits is False:
                bound, method = limit + 1, "constraint program"
    elif capacity is not None and bound > capacity:
        method = "lower bound"
    is_infeasible = capacity is not None and bound > capacity
    packing = Packing(
        status=_status(height, bound, capacity, is_infeasible),
        offsets=offsets,
        height=height,
        lower_bound=bound,
        maximum_load=maximum_load_of_pieces(instance),
        method=method,
        seconds=time.monotonic() - started,
        conflict=np.arange(len(instance)) if is_infeasible else np.empty(0, np.int64),
        interrupted=interrupted,
        stopped=guard.met,
    )
    return _checked(packing, instance, capacity)
