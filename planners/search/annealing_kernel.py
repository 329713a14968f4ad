"""The rounds of `search`: move, evaluate, accept or undo, all without Python. Compiled by numba.

Simulated annealing (Kirkpatrick, Gelatt and Vecchi, 1983), with neighbourhoods chosen by what they brought so far
(adaptive large neighbourhood search: Ropke and Pisinger, "An adaptive large neighborhood search heuristic for the
pickup and delivery problem with time windows", 2006, section 3.4).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.arrays_kernel import copy_to, fill
from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import entry, internal
from memplan.planners.search.neighbourhoods_kernel import NUM_KINDS, Neighbourhoods, go_to_neighbour
from memplan.planners.search.places_kernel import Places, place_new
from memplan.planners.stays.evaluation import Evaluation
from memplan.planners.stays.evaluation_kernel import keep, latency_after_journal, latency_of_tables, undo
from memplan.planners.stays.random_kernel import uniform
from memplan.planners.stays.tables import ACCESS_ROW, ITEM_ROW, StayTables

# What a neighbourhood earns by a neighbour: the best one so far, one better than the last, another that is accepted.
_BEST, _BETTER, _ACCEPTED = 10.0, 4.0, 1.0

# How fast the weights follow what is earned, after how many rounds, and the least share of each neighbourhood.
_REACTION, _SEGMENT, _LEAST = 0.2, 100, 0.05

# Rounds after which the whole program is evaluated again, so that rounding errors do not add up.
_RENEWAL = 1000

# The least weight of a neighbourhood that is turned on: one of weight 0 is turned off.
_NEVER_LESS = 1e-6

# Words of a row of the tables.
_ITEM_WORDS, _ACCESS_WORDS = ITEM_ROW.itemsize // 8, ACCESS_ROW.itemsize // 8

# Seconds of the solution that was accepted last, and of the best so far.
LATENCY_ROW = np.dtype([("accepted", np.float64), ("best", np.float64)], align=True)


class Walk(NamedTuple):
    """Where the search is.

    Attributes:
      now: `[size]` the tables' decisions in one array, see `evaluation.in_one_piece`.
      accepted, best: `[size]` those of the solution that was accepted last, and of the best so far.
      unsaved: `[most]` CHANGE_ROW of what was accepted since the best.
      num_unsaved: `[1]` how many there were, which may be more than there is room for.
      latency: `[1]` LATENCY_ROW.
      weights, earned, used: `[num_kinds]` of the neighbourhoods.
      rounds: `[1]` how many were made.
    """

    now: NDArray[np.int64]
    accepted: NDArray[np.int64]
    best: NDArray[np.int64]
    unsaved: NDArray[np.void]
    num_unsaved: NDArray[np.int64]
    latency: NDArray[np.void]
    weights: NDArray[np.float64]
    earned: NDArray[np.float64]
    used: NDArray[np.float64]
    rounds: NDArray[np.int64]


by_reference(Walk)


@internal
def _sum(weights: np.ndarray) -> float:
    total = 0.0
    for kind in range(NUM_KINDS):
        total += weights[kind]
    return total


@internal
def _chosen(weights: np.ndarray, drawn: float) -> int:
    """Returns a neighbourhood, with the probability of its weight."""
    left = drawn * _sum(weights)
    for kind in range(NUM_KINDS - 1):
        left -= weights[kind]
        if left < 0.0:
            return kind
    return NUM_KINDS - 1


@internal
def _learn(w: Walk) -> None:
    """Lets the weights follow what the neighbourhoods earned lately."""
    for kind in range(NUM_KINDS):
        if w.used[kind] > 0.0:
            w.weights[kind] += _REACTION * (w.earned[kind] / w.used[kind] - w.weights[kind])
    least = _LEAST * _sum(w.weights)
    for kind in range(NUM_KINDS):
        if w.weights[kind] > 0.0:
            w.weights[kind] = max(w.weights[kind], least, _NEVER_LESS)
    fill(w.earned, 0.0)
    fill(w.used, 0.0)


@internal
def _copy_words(target: np.ndarray, source: np.ndarray, first: int, last: int) -> None:
    for i in range(first, last):
        target[i] = source[i]


@internal
def _copy_changes(s: StayTables, target: np.ndarray, source: np.ndarray, journal: np.ndarray, count: int) -> None:
    """Copies decisions that differ only in the runs of a journal, and in sums over them; all if the journal is full.

    What is copied and not computed back is the same to the last digit.

    Args:
      target, source: of the arrays of a walk.
    """
    if count > len(journal):
        copy_to(target, source)
        return
    items = s.items
    places = len(target) - 3 * len(items)
    first_access = places - _ACCESS_WORDS * len(s.accesses)
    first_item = first_access - _ITEM_WORDS * len(items)
    _copy_words(target, source, 0, first_item)  # Most rounds refresh all slots.
    for i in range(count):
        run, last = journal[i].run, journal[i].run_last
        _copy_words(target, source, first_item + _ITEM_WORDS * run, first_item + _ITEM_WORDS * (last + 1))
        for k in range(items[run].first_access, items[last].last_access):
            access = first_access + _ACCESS_WORDS * s.order[k]
            _copy_words(target, source, access, access + _ACCESS_WORDS)
        for place in range(places + run, len(target), len(items)):
            target[place] = source[place]


@internal
def _roll_back(s: StayTables, w: Walk) -> None:
    """Goes back to what was accepted last."""
    _copy_changes(s, w.now, w.accepted, s.journal, s.changes[0])
    s.changes[0] = 0


@internal
def _judge(s: StayTables, e: Evaluation, random: np.ndarray, w: Walk, temperature: float) -> float:
    """Accepts what is decided now, or goes back to what was accepted before; returns what its neighbourhood earns."""
    latency, known = latency_after_journal(s, e), w.latency[0]
    change = latency - known.accepted
    if change > 0.0 and uniform(random) >= np.exp(-change / temperature):
        undo(e)
        _roll_back(s, w)
        return 0.0
    keep(e)
    _copy_changes(s, w.accepted, w.now, s.journal, s.changes[0])
    for i in range(s.changes[0]):
        count = w.num_unsaved[0]
        if count < len(w.unsaved) and i < len(s.journal):
            w.unsaved[count] = s.journal[i]
        w.num_unsaved[0] = count + 1
    s.changes[0] = 0
    known.accepted = latency
    earned = 0.0
    if latency < known.best * (1.0 - 1e-12):
        earned = _BEST
        known.best = latency
        _copy_changes(s, w.best, w.now, w.unsaved, w.num_unsaved[0])
        w.num_unsaved[0] = 0
    elif change < 0.0:
        earned = _BETTER
    elif change > 0.0:
        earned = _ACCEPTED
    return earned


@internal
def _settle(s: StayTables, e: Evaluation, w: Walk) -> None:
    """Makes what the tables say the accepted and the best solution, and the evaluation's reference."""
    copy_to(w.accepted, w.now)
    copy_to(w.best, w.now)
    s.changes[0] = w.num_unsaved[0] = 0
    w.latency[0].accepted = w.latency[0].best = latency_of_tables(s, e)


@entry
def anneal(
    s: StayTables,
    e: Evaluation,
    h: Neighbourhoods,
    p: Places,
    w: Walk,
    rounds: int,
    temperature: float,
    cooling: float,
    is_placed: bool,
    is_new: bool,
) -> None:
    """Makes some rounds.

    Args:
      temperature: seconds, of the first round.
      cooling: by what it is multiplied in each round.
      is_placed: whether what finds no offset is dropped at once; otherwise offsets are left for later.
      is_new: whether what the tables say is made the accepted and the best solution first.
    """
    if is_new:
        _settle(s, e, w)
    for _ in range(rounds):
        kind = _chosen(w.weights, uniform(h.random))
        w.used[kind] += 1.0
        if go_to_neighbour(s, h, kind):
            if is_placed:
                for number in range(len(p.shuffle)):
                    p.shuffle[number] = 0.5 + uniform(h.random)
                place_new(s, p, uniform(h.random) < 0.7, uniform(h.random) < 0.5)
            w.earned[kind] += _judge(s, e, h.random, w, temperature)
        else:
            _roll_back(s, w)
        w.rounds[0] += 1
        if w.rounds[0] % _SEGMENT == 0:
            _learn(w)
        if w.rounds[0] % _RENEWAL == 0:
            w.latency[0].accepted = latency_of_tables(s, e)
        temperature *= cooling
