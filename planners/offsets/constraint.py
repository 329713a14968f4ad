"""Whether everything fits a capacity, as a constraint program: CP-SAT with two-dimensional no-overlap and cumulative.

CP-SAT proves some instances infeasible that the search over canonical placements cannot; the search finds most packings
sooner.
"""

from __future__ import annotations

import numpy as np

from memplan.planners.offsets.geometry import Sections
from memplan.planners.offsets.instance import Instance, Integers

# The largest value of the solver's variables; instances with larger numbers are not given to it.
_LARGEST = 2**50


class ConstraintModel:
    """Whether an instance, which has no block of size 0, fits a capacity."""

    def __init__(self, instance: Instance, capacity: int, seed: int):
        # OR-Tools loads pandas: only those who solve wait for it.
        from ortools.sat.python import cp_model

        self._model = model = cp_model.CpModel()
        self._solver = cp_model.CpSolver()
        self._solver.parameters.num_workers = 1
        # The waiting thread handles Ctrl-C and stops this one.
        self._solver.parameters.catch_sigint_signal = False
        self._solver.parameters.random_seed = seed % 2**31
        sections = Sections.of(instance)
        self._offsets, heights = [], []
        for size, alignment, fixed in zip(
            instance.size.tolist(), instance.alignment.tolist(), instance.fixed.tolist(), strict=True
        ):
            if fixed >= 0:
                offset = model.new_constant(fixed)
            elif alignment == 1:
                offset = model.new_int_var(0, capacity - size, "")
            else:
                offset = model.new_int_var(0, (capacity - size) // alignment, "") * alignment
            self._offsets.append(offset)
            heights.append(model.new_fixed_size_interval_var(offset, size, ""))
        block = sections.block_of_range().tolist()
        times = [
            model.new_fixed_size_interval_var(first, last - first, "")
            for first, last in zip(sections.first.tolist(), sections.last.tolist(), strict=True)
        ]
        model.add_no_overlap_2d(times, [heights[number] for number in block])
        model.add_cumulative(times, [int(instance.size[number]) for number in block], capacity)

    @staticmethod
    def can_hold(instance: Instance, capacity: int) -> bool:
        """Whether the solver takes an instance: its numbers are small enough, and each block fits by itself."""
        is_small = capacity < _LARGEST and int(np.max(instance.upper, initial=0)) < _LARGEST
        return is_small and bool((np.maximum(instance.fixed, 0) + instance.size <= capacity).all())

    def stop(self) -> None:
        """Makes `solve`, which runs in another thread, end soon."""
        self._solver.stop_search()

    def solve(self, effort: float) -> tuple[bool | None, Integers]:
        """Returns whether it fits (None if the work did not suffice to decide), and the offsets if it does.

        Args:
          effort: deterministic seconds of the solver.
        """
        from ortools.sat.python import cp_model

        self._solver.parameters.max_deterministic_time = effort
        status = self._solver.solve(self._model)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return True, np.array([self._solver.value(offset) for offset in self._offsets], np.int64)
        return (False if status == cp_model.INFEASIBLE else None), np.empty(0, np.int64)
