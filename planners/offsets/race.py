"""Whether an instance fits, decided by several methods at the same time; the first answer counts.

Each method has a thread. The compiled search and CP-SAT release Python's global lock, so threads suffice, and they
share the memory. A flag stops them all, so a time limit, an answer and Ctrl-C take effect within milliseconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from memplan.planners.offsets.bounds import lower_bound
from memplan.planners.offsets.branching import FOUND, LIMIT, MAX_BLOCKS, BranchAndBound
from memplan.planners.offsets.constraint import ConstraintModel
from memplan.planners.offsets.heuristics import Fitter
from memplan.planners.offsets.instance import Instance, Integers
from memplan.planners.offsets.reduction import InstancePart, reduced

# The constraint solver joins after this many seconds, when most instances are solved.
_HEAD_START = 1.0

# The seconds between two looks at the clock, and for Ctrl-C.
_LOOK = 0.02

# The share of the time, and the most seconds, that heuristics may take.
_HEURISTIC_SHARE, _HEURISTIC_SECONDS = 0.1, 0.3

Answer = tuple[bool | None, Integers]


@dataclass(frozen=True, eq=False)
class FitDecision:
    """Whether an instance fits a capacity.

    Attributes:
      fits: None if the time did not suffice to decide.
      offsets: `[num_blocks] int64` if it fits, otherwise empty.
      method: which method decided.
    """

    fits: bool | None
    offsets: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    method: str = ""


def decide(instance: Instance, capacity: int, deadline: float, seed: int = 0) -> FitDecision:
    """Returns whether an instance fits a capacity, with offsets if it does.

    Args:
      instance: any.
      capacity: bytes.
      deadline: on the monotonic clock.
      seed: of what is drawn at random.

    Raises:
      KeyboardInterrupt: all threads are stopped then.
    """
    if lower_bound(instance) > capacity:
        return FitDecision(False, method="lower bound")
    methods = []
    parts, offsets = reduced(instance)
    for part in parts:
        found = _decide_part(part, capacity, deadline, seed)
        if not found.fits:
            return found
        offsets[part.blocks] = part.base + part.unit * found.offsets
        methods.append(found.method)
    return FitDecision(True, offsets, " and ".join(dict.fromkeys(methods)) or "nothing to pack")


def _decide_part(part: InstancePart, capacity: int, deadline: float, seed: int) -> FitDecision:
    """Returns whether a part fits a capacity in bytes; offsets are in its units, from its base."""
    room = part.room(capacity)
    if lower_bound(part.instance) > room:
        return FitDecision(False, method="lower bound")
    patience = min(_HEURISTIC_SECONDS, _HEURISTIC_SHARE * (deadline - time.monotonic()))
    fitted = Fitter(part.instance).best(room, time.monotonic() + patience, seed)
    if fitted.height <= room:
        return FitDecision(True, fitted.offsets, fitted.method)
    return search_part(part.instance, room, deadline, seed)


def search_part(instance: Instance, capacity: int, deadline: float, seed: int) -> FitDecision:
    """Returns whether an instance fits a capacity, by the exact methods.

    Args:
      instance: it has no block of size 0.
      capacity: in the same units as its sizes.
      deadline, seed: as for `decide`.
    """
    race = _Race(deadline)
    if len(instance) <= MAX_BLOCKS:
        search = BranchAndBound(instance, capacity)
        race.enter("search in fixed orders", lambda: _told(search.fixed_orders(race.stop)))
        race.enter("search in random orders", lambda: _told(search.random_orders(race.stop, seed)))
        if ConstraintModel.can_hold(instance, capacity):
            race.enter("CP-SAT", lambda: _constraint(race, instance, capacity, seed))
    answer, offsets, method = race.run()
    return FitDecision(answer, offsets, method)


def _told(outcome: tuple[int, Integers]) -> Answer:
    return (None if outcome[0] == LIMIT else outcome[0] == FOUND), outcome[1]


def _constraint(race: _Race, instance: Instance, capacity: int, seed: int) -> Answer:
    if race.over.wait(_HEAD_START):
        return None, np.empty(0, np.int64)
    model = ConstraintModel(instance, capacity, seed)
    race.on_stop.append(model.stop)
    return model.solve(max(0.01, race.deadline - time.monotonic()))


class _Race:
    """Threads that race for the first answer.

    Attributes:
      stop: `[1] int64` becomes other than zero when it is over; compiled code looks at it.
      over: the same as an event.
      on_stop: called when it is over.
    """

    def __init__(self, deadline: float):
        self.deadline = deadline
        self.stop = np.zeros(1, np.int64)
        self.over = threading.Event()
        self.on_stop: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._answer: tuple[bool | None, Integers, str] = (None, np.empty(0, np.int64), "")
        self._error: BaseException | None = None

    def enter(self, name: str, method: Callable[[], Answer]) -> None:
        """Adds a method; its answer is ignored once it is stopped."""
        self._threads.append(threading.Thread(target=self._work, args=(name, method), name=name, daemon=True))

    def _work(self, name: str, method: Callable[[], Answer]) -> None:
        try:
            fits, offsets = method()
        except BaseException as error:  # raised where the threads are joined
            with self._lock:
                self._error = self._error or error
            self.over.set()
            return
        with self._lock:
            if fits is not None and not self.over.is_set():
                self._answer = (fits, offsets if fits else np.empty(0, np.int64), name)
                self.over.set()

    def run(self) -> tuple[bool | None, Integers, str]:
        """Returns the first answer with its method's name, or none when the time is up."""
        for thread in self._threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in self._threads) and not self.over.wait(_LOOK):
                if time.monotonic() > self.deadline:
                    break
        finally:
            with self._lock:
                self.over.set()
            self.stop[0] = 1
            while any(thread.is_alive() for thread in self._threads):
                # Repeatedly, since a solver that is just starting ignores it.
                for stop in self.on_stop:
                    stop()
                self._threads[-1].join(_LOOK)
                for thread in self._threads[:-1]:
                    thread.join(_LOOK)
        if self._error is not None:
            raise self._error
        return self._answer
