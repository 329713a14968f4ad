"""Which runs of a window get a stay, and where: an exact choice by CP-SAT, everything outside of the window fixed.

Operations get durations of at least their floor and at least what their memory traffic takes; runs take traffic off and
occupy rectangles in time and offset, which must not overlap each other nor what is fixed (`no_overlap_2d`). Where there
are too many rectangles for that, the sums of sizes must fit. Between any two slots, copies must not take more than what
the link has left. The objective is the time of the window, with a price for that of the link.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Times are integers in the model: the memory time of the window, in so many units.
_UNITS = 1_000_000

# Rectangles for which offsets are part of the model.
_MOST_RECTANGLES = 80


@dataclass(frozen=True)
class Window:
    """What is to be chosen. For `num_runs` candidates and `num_times` times.

    Attributes:
      start, end, size: `[num_runs]` half-open times, and units of the space.
      floor: `[num_runs]` lowest offset of each.
      saving: of each run, the seconds that it takes off the memory time of operations, by index.
      cost: `[num_runs]` seconds that it costs beside that.
      covers: of each run, the accesses that it serves; no two runs serve the same.
      conflicts: pairs of runs of which one would be filled before the value of the other is at home.
      prefetch: `[num_runs, 2]` half-open slots in which the copy that fills it moves, and `prefetch_seconds:
        [num_runs]` how long; nothing if it is 0.
      least, demand, repetitions: `[num_operations]` seconds of each operation without any run, and how often it runs.
      free: `[num_times, 2]` times, and the units that are free then.
      blocks: `[num_blocks, 4]` start, end, offset and top of what is fixed.
      idle: `[num_slots]` seconds that each slot leaves of the link.
      capacity: units of the space.
      chosen, offset: `[num_runs]` what is chosen now, and where it lies; -1 where that is not known.
    """

    start: Integers
    end: Integers
    size: Integers
    floor: Integers
    saving: list[dict[int, float]]
    cost: Floats
    covers: list[list[int]]
    conflicts: list[tuple[int, int]]
    prefetch: Integers
    prefetch_seconds: Floats
    least: Floats
    demand: Floats
    repetitions: Floats
    free: Integers
    blocks: Integers
    idle: Floats
    capacity: int
    chosen: NDArray[np.bool_]
    offset: Integers


def choose(window: Window, effort: float, seed: int) -> tuple[NDArray[np.bool_], Integers, float]:
    """Returns which runs are chosen, where they lie, -1 where that is not decided, and the work that was done.

    Args:
      window: with at least one candidate.
      effort: at most so much work, in the solver's deterministic seconds.
      seed: of the solver.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    num_runs = len(window.start)
    touched = sorted(set().union(*window.saving))
    unit = max(float((window.demand * window.repetitions)[touched].sum()), 1e-30) / _UNITS
    is_chosen = [model.new_bool_var("") for _ in range(num_runs)]
    serving: dict[int, list[cp_model.IntVar]] = {}
    savings: dict[int, list[tuple[int, int]]] = {}
    for run in range(num_runs):
        model.add_hint(is_chosen[run], bool(window.chosen[run]))
        for access in window.covers[run]:
            serving.setdefault(access, []).append(is_chosen[run])
        for operation, seconds in window.saving[run].items():
            units = round(seconds * window.repetitions[operation] / unit)
            savings.setdefault(operation, []).append((run, units))
    for literals in serving.values():
        if len(literals) > 1:
            model.add_at_most_one(literals)
    for one, other in window.conflicts:
        model.add_at_most_one(is_chosen[one], is_chosen[other])
    terms = [is_chosen[run] * round(window.cost[run] / unit) for run in range(num_runs)]
    for operation, parts in savings.items():
        demand = round(window.demand[operation] * window.repetitions[operation] / unit)
        least = min(round(window.least[operation] * window.repetitions[operation] / unit), demand)
        duration = model.new_int_var(least, max(demand, least), "")
        model.add(duration + sum(units * is_chosen[run] for run, units in parts) >= demand)
        terms.append(duration)
    for time, units in window.free.tolist():
        here = np.flatnonzero((window.start <= time) & (window.end > time)).tolist()
        if sum(int(window.size[run]) for run in here) > units:
            model.add(sum(int(window.size[run]) * is_chosen[run] for run in here) <= max(units, 0))
    _limit_copies(window, model, is_chosen)
    offsets = _add_rectangles(window, model, is_chosen) if num_runs <= _MOST_RECTANGLES else []
    model.minimize(sum(terms))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = effort
    solver.parameters.cp_model_probing_level = 0
    solver.parameters.symmetry_level = 0
    solver.parameters.catch_sigint_signal = False  # Ctrl-C is Python's.
    status = solver.solve(model)
    work = float(solver.response_proto.deterministic_time)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return window.chosen, window.offset, work
    chosen = np.array([bool(solver.value(literal)) for literal in is_chosen])
    places = np.array([solver.value(variable) for variable in offsets] or [-1] * num_runs, np.int64)
    return chosen, np.where(chosen, places, -1), work


def _limit_copies(window: Window, model: cp_model.CpModel, is_chosen: list[cp_model.IntVar]) -> None:
    """Between any two slots, the copies that must move there need no more than what the link has left."""
    filled = np.flatnonzero(window.prefetch_seconds > 0.0)
    before = np.concatenate([[0.0], np.cumsum(window.idle)])
    scale = _UNITS / max(float(np.max(window.prefetch_seconds, initial=0.0)), 1e-30)
    for first in np.unique(window.prefetch[filled, 0]).tolist():
        for last in np.unique(window.prefetch[filled, 1]).tolist():
            inside = filled[(window.prefetch[filled, 0] >= first) & (window.prefetch[filled, 1] <= last)]
            left = before[last] - before[first] if last > first else 0.0
            if len(inside) > 1 and window.prefetch_seconds[inside].sum() > left:
                needed = [(run, int(window.prefetch_seconds[run] * scale)) for run in inside.tolist()]
                least = max(units for _, units in needed)  # One alone was found possible.
                model.add(sum(units * is_chosen[run] for run, units in needed) <= max(int(left * scale), least))


def _add_rectangles(window: Window, model: cp_model.CpModel, is_chosen: list[cp_model.IntVar]) -> list[cp_model.IntVar]:
    """Adds offsets, and that no two rectangles overlap; returns the offsets."""
    times, places, offsets = [], [], []
    for run in range(len(window.start)):
        size, first, last = int(window.size[run]), int(window.start[run]), int(window.end[run])
        offset = model.new_int_var(int(window.floor[run]), int(window.capacity - size), "")
        if window.offset[run] >= 0:
            model.add_hint(offset, int(window.offset[run]))
        offsets.append(offset)
        times.append(model.new_optional_fixed_size_interval_var(first, last - first, is_chosen[run], ""))
        places.append(model.new_optional_fixed_size_interval_var(offset, size, is_chosen[run], ""))
    for first, last, low, top in window.blocks.tolist():
        times.append(model.new_fixed_size_interval_var(first, last - first, ""))
        places.append(model.new_fixed_size_interval_var(low, top - low, ""))
    model.add_no_overlap_2d(times, places)
    return offsets
