"""Packing of blocks that take only a window of themselves for a while.

    offset                                    In a gap with a window, a block takes the bytes `[low, high)` of itself.
      ▲   ┌─────┐
      │ ┌─┘     └───┐                         Two of them may interlock, so neither is above the other at all times.
      └─┴───────────┴──► time

`first_fit.py` finds a packing. CP-SAT makes it as low as it can be, or fits it to a capacity: each piece of a block in
time is a rectangle whose place follows from the block's offset.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from memplan.compiler.effort import Guard
from memplan.planners.offsets.bounds import lower_bound_of_pieces
from memplan.planners.offsets.first_fit import first_fit
from memplan.planners.offsets.instance import Instance, Integers

# The largest value of the solver's variables; instances with larger numbers are only packed by first fit.
_LARGEST = 2**50

# Seconds between two looks at the guard, and for Ctrl-C, while the solver runs in its thread.
_LOOK = 0.1

# The deterministic seconds of the solver in the first of the rounds of `race.py`, each of which has twice as much work.
_FIRST_SECONDS = 0.003


def decide_windows(instance: Instance, capacity: int, rounds: int, guard: Guard, seed: int = 0) -> bool | None:
    """Returns whether an instance fits a capacity, None if the work did not suffice to tell.

    Args:
      instance, capacity, rounds, guard, seed: as for `race.decide`.

    Raises:
      KeyboardInterrupt: the user stopped it.
    """
    if lower_bound_of_pieces(instance) > capacity:
        return False
    fitted = first_fit(instance, capacity, guard)
    if fitted.height <= capacity:
        return True
    if not WindowModel.can_hold(instance, capacity):
        return None
    fits, _, _, interrupted = WindowModel(instance, capacity, fitted.offsets, False, seed).solve(rounds, guard)
    if interrupted:
        raise KeyboardInterrupt
    return fits


class WindowModel:
    """An instance as a constraint program, which is solved in a thread, so that Ctrl-C can stop it.

    Args:
      instance: any whose numbers `can_hold` takes.
      capacity: bytes that no block may end above.
      hint: offsets to begin with.
      minimized: whether to make the packing as low as possible, otherwise any within the capacity will do.
      seed: of what is drawn at random.
    """

    def __init__(self, instance: Instance, capacity: int, hint: Integers, minimized: bool, seed: int):
        # OR-Tools loads pandas: only those who solve wait for it.
        from ortools.sat.python import cp_model

        self._model = model = cp_model.CpModel()
        self._solver = cp_model.CpSolver()
        self._solver.parameters.num_workers = 1
        self._solver.parameters.catch_sigint_signal = False
        self._solver.parameters.random_seed = seed % 2**31
        self._offsets: list[Any] = []
        for number, (size, alignment, fixed) in enumerate(
            zip(instance.size.tolist(), instance.alignment.tolist(), instance.fixed.tolist(), strict=True)
        ):
            if fixed >= 0 or size == 0:
                self._offsets.append(model.new_constant(max(fixed, 0)))
                continue
            units = model.new_int_var(0, (capacity - size) // alignment, "")
            model.add_hint(units, int(hint[number]) // alignment)
            self._offsets.append(units * alignment)
        block, lower, upper, low, high = (column.tolist() for column in instance.pieces())
        model.add_no_overlap_2d(
            [model.new_fixed_size_interval_var(a, b - a, "") for a, b in zip(lower, upper, strict=True)],
            [
                model.new_fixed_size_interval_var(self._offsets[number] + a, b - a, "")
                for number, a, b in zip(block, low, high, strict=True)
            ],
        )
        if minimized:
            height = model.new_int_var(0, capacity, "")
            for offset, size in zip(self._offsets, instance.size.tolist(), strict=True):
                if size > 0:
                    model.add(height >= offset + size)
            model.minimize(height)

    @staticmethod
    def can_hold(instance: Instance, capacity: int) -> bool:
        """Whether the solver takes an instance: its numbers are small enough, and each block fits by itself."""
        is_small = capacity < _LARGEST and int(np.max(instance.upper, initial=0)) < _LARGEST
        fits = (np.maximum(instance.fixed, 0) + instance.size <= capacity) | (instance.size == 0)
        return is_small and bool(fits.all())

    def solve(self, rounds: int, guard: Guard) -> tuple[bool | None, Integers, int, bool]:
        """Solves with the work of some rounds, or until Ctrl-C or the guard.

        Returns: whether there is a packing (None if that is not known), its offsets if there is one, a proven lower
        bound of the height that is minimized, and whether the user interrupted it.
        """
        from ortools.sat.python import cp_model

        self._solver.parameters.max_deterministic_time = _FIRST_SECONDS * 2.0**rounds
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(int(self._solver.solve(self._model))), daemon=True)
        interrupted = False
        thread.start()
        while thread.is_alive():
            try:
                thread.join(_LOOK)
                if thread.is_alive() and guard.reached():
                    self._solver.stop_search()
            except KeyboardInterrupt:
                interrupted = True
                self._solver.stop_search()
        status = found[0]
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            offsets = np.array([self._solver.value(offset) for offset in self._offsets], np.int64)
            return True, offsets, round(self._solver.best_objective_bound), interrupted
        return (False if status == cp_model.INFEASIBLE else None), np.empty(0, np.int64), 0, interrupted
