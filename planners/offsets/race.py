"""Whether an instance fits, decided by several methods at the same time.

The methods work in rounds, each with twice the work of the round before. In a round, every method has a thread and the
same amount of work; the compiled search and CP-SAT release Python's global lock, so threads suffice. The answer does
not depend on which thread is done first:

- The methods have an order. Offsets that a method found stop those after it, while those before it go on to the end of
  the round; the first method in the order that found offsets gives the answer.
- A proof that nothing fits stops all: none of them can have found offsets.

A flag stops a thread within milliseconds, so the guard and Ctrl-C do as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from memplan.compiler.effort import Effort, Guard
from memplan.planners.offsets.bounds import lower_bound
from memplan.planners.offsets.branching import FOUND, LIMIT, MAX_BLOCKS, BranchAndBound, RestartedSearch
from memplan.planners.offsets.constraint import ConstraintModel
from memplan.planners.offsets.heuristics import Fitter
from memplan.planners.offsets.instance import Instance, Integers
from memplan.planners.offsets.reduction import InstancePart, reduced

# The nodes that each search may try until the end of the first round; twice as many until the end of the next one.
_FIRST_NODES = 50_000

# The constraint solver joins in this round, when most instances are solved, and its deterministic seconds for each node
# of the searches.
_LATE, _CONSTRAINT_SECONDS = 4, 1e-7

# Placements that heuristics may try before the exact methods begin.
_PLACEMENTS = 300_000

# The seconds between two looks at the guard, and for Ctrl-C.
_LOOK = 0.02

Answer = tuple[bool | None, Integers]
_UNDECIDED: Answer = None, np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class FitDecision:
    """Whether an instance fits a capacity.

    Attributes:
      fits: None if the work did not suffice to decide.
      offsets: `[num_blocks] int64` if it fits, otherwise empty.
      method: which method found the offsets, or what proved that there are none.
    """

    fits: bool | None
    offsets: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    method: str = ""


def rounds_of(effort: Effort) -> int:
    """Returns how many rounds the exact methods make for one capacity."""
    return effort.of(fast=6, normal=10, high=13)


def decide(instance: Instance, capacity: int, rounds: int, guard: Guard, seed: int = 0) -> FitDecision:
    """Returns whether an instance fits a capacity, with offsets if it does.

    Args:
      instance: any.
      capacity: bytes.
      rounds: of the exact methods, at most.
      guard: ends it early.
      seed: of what is drawn at random.

    Raises:
      KeyboardInterrupt: all threads are stopped then.
    """
    if lower_bound(instance) > capacity:
        return FitDecision(False, method="lower bound")
    methods = []
    parts, offsets = reduced(instance)
    for part in parts:
        found = _decide_part(part, capacity, rounds, guard, seed)
        if not found.fits:
            return found
        offsets[part.blocks] = part.base + part.unit * found.offsets
        methods.append(found.method)
    return FitDecision(True, offsets, " and ".join(dict.fromkeys(methods)) or "nothing to pack")


def _decide_part(part: InstancePart, capacity: int, rounds: int, guard: Guard, seed: int) -> FitDecision:
    """Returns whether a part fits a capacity in bytes; offsets are in its units, from its base."""
    room = part.room(capacity)
    if lower_bound(part.instance) > room:
        return FitDecision(False, method="lower bound")
    fitted = Fitter(part.instance).best(room, _PLACEMENTS, seed, guard)
    if fitted.height <= room:
        return FitDecision(True, fitted.offsets, fitted.method)
    return search_part(part.instance, room, rounds, guard, seed)


def search_part(instance: Instance, capacity: int, rounds: int, guard: Guard, seed: int) -> FitDecision:
    """Returns whether an instance fits a capacity, by the exact methods.

    Args:
      instance: it has no block of size 0.
      capacity: in the same units as its sizes.
      rounds, guard, seed: as for `decide`.
    """
    if len(instance) > MAX_BLOCKS:
        return FitDecision(None)
    search = BranchAndBound(instance, capacity)
    fixed, drawn = search.fixed_orders(), search.random_orders(seed)
    can_hold = ConstraintModel.can_hold(instance, capacity)
    for number in range(rounds):
        if guard.reached():
            break
        nodes = _FIRST_NODES << number
        race = _Race(guard)
        race.enter("search in fixed orders", partial(_searched, fixed, nodes))
        race.enter("search in random orders", partial(_searched, drawn, nodes))
        if can_hold and number >= _LATE:
            model = ConstraintModel(instance, capacity, seed)
            race.enter("CP-SAT", partial(_constrained, model, _CONSTRAINT_SECONDS * nodes), model.stop)
        fits, offsets, method = race.run()
        if fits is not None:
            return FitDecision(fits, offsets, method)
    return FitDecision(None)


def _searched(search: RestartedSearch, nodes: int, stop: Integers) -> Answer:
    outcome, offsets = search.go_on(nodes, stop)
    return (None if outcome == LIMIT else outcome == FOUND), offsets


def _constrained(model: ConstraintModel, effort: float, stop: Integers) -> Answer:
    return _UNDECIDED if stop[0] else model.solve(effort)


@dataclass(eq=False)
class _Entry:
    """A method in a race.

    Attributes:
      name: for the user.
      method: gets `stop`; its answer is undecided if it is stopped.
      on_stop: called, repeatedly, when it is to stop.
      stop: `[1] int64` becomes other than zero when it is to stop; compiled code looks at it.
      answer: what it said.
      thread: that it works in.
    """

    name: str
    method: Callable[[Integers], Answer]
    on_stop: Callable[[], None]
    stop: Integers = field(default_factory=lambda: np.zeros(1, np.int64))
    answer: Answer = _UNDECIDED
    thread: threading.Thread | None = None


class _Race:
    """One round: threads beside each other, and an answer that does not depend on which is done first."""

    def __init__(self, guard: Guard):
        self._guard = guard
        self._entries: list[_Entry] = []
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def enter(
        self, name: str, method: Callable[[Integers], Answer], on_stop: Callable[[], None] = lambda: None
    ) -> None:
        """Adds a method; those that are added before it take precedence."""
        self._entries.append(_Entry(name, method, on_stop))

    def _work(self, number: int) -> None:
        entry = self._entries[number]
        try:
            fits, offsets = entry.method(entry.stop)
        except BaseException as error:  # raised where the threads are joined
            with self._lock:
                self._error = self._error or error
            self._stop_from(0)
            return
        entry.answer = fits, offsets
        if fits is not None:
            self._stop_from(number + 1 if fits else 0)

    def _stop_from(self, number: int) -> None:
        for entry in self._entries[number:]:
            entry.stop[0] = 1

    def _join(self) -> None:
        """Waits a moment for each thread, and calls those that are to stop."""
        for entry in self._entries:
            assert entry.thread is not None
            if entry.thread.is_alive() and entry.stop[0]:
                entry.on_stop()  # Repeatedly, since a solver that is just starting ignores it.
            entry.thread.join(_LOOK)

    def run(self) -> tuple[bool | None, Integers, str]:
        """Returns the answer with its method's name; an undecided one if the work did not suffice."""
        for number, entry in enumerate(self._entries):
            entry.thread = threading.Thread(target=self._work, args=(number,), name=entry.name, daemon=True)
            entry.thread.start()
        try:
            while self._is_running():
                self._join()
                if self._is_running() and self._guard.reached():
                    self._stop_from(0)
        finally:
            self._stop_from(0)
            while self._is_running():
                self._join()
        if self._error is not None:
            raise self._error
        for entry in self._entries:
            if entry.answer[0]:
                return True, entry.answer[1], entry.name
        if any(entry.answer[0] is False for entry in self._entries):
            return False, _UNDECIDED[1], "exact methods"
        return *_UNDECIDED, ""

    def _is_running(self) -> bool:
        return any(entry.thread is not None and entry.thread.is_alive() for entry in self._entries)
