"""Simulated annealing of an arrangement by moves, each judged by the emulator's clock. Compiled by numba.

A move is kept if the program is not slower, or as the temperature allows (Kirkpatrick, Gelatt and Vecchi, "Optimization
by simulated annealing", 1983). Before the clock is asked, a move is refused if it would be without any wait.
"""

from __future__ import annotations

import numpy as np

from memplan.compiler.kernels import entry, internal
from memplan.planners.stays.arrangement import Arrangement
from memplan.planners.stays.arrangement_kernel import go_to_best, latency_after_changes, remember_best, roll_back
from memplan.planners.stays.evaluation import Evaluation
from memplan.planners.stays.evaluation_kernel import keep, latency_of_tables, undo
from memplan.planners.stays.moves_kernel import make_move
from memplan.planners.stays.random_kernel import uniform
from memplan.planners.stays.rules_kernel import duration
from memplan.planners.stays.tables import StayTables


@internal
def _seconds(s: StayTables) -> float:
    """Returns what all operations take, without waits."""
    total = 0.0
    for t in range(len(s.operations)):
        operation = s.operations[t]
        total += duration(operation.floor, operation.demand) * operation.repetitions
    return total


@entry
def settle(s: StayTables, e: Evaluation) -> float:
    """Returns the seconds of the program, and lets the evaluation refer to what the tables say."""
    return latency_of_tables(s, e)


@entry
def anneal_runs(
    s: StayTables,
    e: Evaluation,
    p: Arrangement,
    pool: np.ndarray,
    rounds: int,
    temperature: float,
    cooling: float,
    is_first: bool,
    is_last: bool,
) -> float:
    """Makes some moves, and goes to the best arrangement that they led to.

    Args:
      s: tables that hold the arrangement.
      e: that refers to them.
      pool: items around which runs are put in, sorted by their starts.
      rounds: how many moves are tried.
      temperature: seconds, of the first round.
      cooling: by what the temperature is multiplied in each round.
      is_first: whether the best arrangement is forgotten before.
      is_last: whether to go to the best arrangement afterwards.

    Returns:
      the seconds of the best arrangement.
    """
    counts, now, seconds = p.counts[0], e.state[0].reference, _seconds(s)
    if is_first:
        counts.least = now
        remember_best(s, p)
    for _ in range(rounds):
        temperature *= cooling
        counts.journal = 0
        if not make_move(s, p, pool):
            roll_back(s, p)
            continue
        most = now - temperature * np.log(1.0 - uniform(p.random))
        if seconds - counts.saved > most * (1.0 + 1e-9):
            roll_back(s, p)
            continue
        latency = latency_after_changes(s, e, p)
        if latency > most:
            undo(e)
            roll_back(s, p)
            continue
        keep(e)
        now = latency
        seconds -= counts.saved
        if now < counts.least * (1.0 - 1e-12):
            counts.least = now
            remember_best(s, p)
    if is_last:  # Of arrangements that are as good, it is the first one that was found.
        counts.journal = 0
        go_to_best(s, p)
        counts.least = latency_after_changes(s, e, p)
        keep(e)
    return float(counts.least)
