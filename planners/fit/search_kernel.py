"""Ruin and recreate on decisions on a program under a memory limit. Compiled by numba.

A round keeps a few values that were recomputed or on the host (ruin). Then it drops values over the stages above the
limit, each time one that costs the fewest seconds for the bytes that it frees there (recreate), and at last it keeps
what fits after all. The result is accepted if it is better, or worse by less than what the temperature allows. Source:
Schrimpf et al., "Record breaking optimization results using the ruin and recreate principle", 2000.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.arrays_kernel import copy_to
from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import entry, internal
from memplan.planners.fit.events_kernel import change, find
from memplan.planners.fit.stage_kernel import StageScratch, runs_of_stage, stage_peak
from memplan.planners.fit.state_kernel import (
    AFTER,
    COST,
    HEADS,
    HOST,
    KEEP,
    LOCALS,
    LOGGED,
    MODE,
    NEXT,
    OVER,
    RECOMPUTE,
    STAGE,
    STATE,
    VALUE,
    WORK,
    FitState,
    field,
    undo_to,
)  # fmt: skip
from memplan.planners.stays.random_kernel import below, uniform

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Candidates that are tried at each step, the most events that a round ruins, and the stages that it looks at.
_TRIED, _RUINED, _LOOKS = 12, 8, 4

# The most steps of one recreation that follows a ruin.
_STEPS = 60

# Weight of the newest evaluation in the estimate of what dropping a value costs.
_LEARNED = 0.5


class FitSearch(NamedTuple):
    """What the search remembers, and scratch.

    Attributes:
      estimate: `[values]` ticks that dropping it costs, as seen so far.
      best: `[cells]` of the best state.
      score: `[4]` bytes above the limit and ticks of the accepted state, and of the best one.
      random: `[1] uint64`.
      candidate, key: `[_TRIED]`.
      pool: `[rows]` events that are recomputed or on the host.
      temperature: `[1]` ticks.
    """

    estimate: Floats
    best: Integers
    score: Integers
    random: NDArray[np.uint64]
    candidate: Integers
    key: Floats
    pool: Integers
    temperature: Floats


by_reference(FitSearch)


@internal
def _cost(s: FitState) -> int:
    return s.cells[s.offset[STATE] + COST]


@internal
def _peak_stage(s: FitState, random: np.ndarray, anywhere: bool) -> int:
    """Returns the stage that needs most; or, `anywhere`, a random one above the limit."""
    best, count = 0, 0
    for t in range(len(s.need)):
        if anywhere and s.need[t] > s.limit[0]:
            count += 1
            if below(random, count) == 0:
                best = t
        elif not anywhere and s.need[t] > s.need[best]:
            best = t
    return best


@internal
def _gather(s: FitState, q: FitSearch, t: int) -> int:
    """Writes the most promising events whose values stay over stage t for them; returns how many there are."""
    count, worst = 0, 0
    over = max(s.need[t] - s.limit[0], 1)
    for v in range(len(s.first)):
        if s.first[v] < 0 or s.size[v] == 0 or field(s, s.first[v], STAGE) > t:
            continue
        e = find(s, v, t)
        b = field(s, e, NEXT)
        if b < 0 or field(s, b, MODE) != KEEP:
            continue
        p = s.producer[v]
        if not s.can_host[v] and (p < 0 or not s.can_repeat[p]):
            continue
        key = (q.estimate[v] + 1.0) * (0.3 + uniform(q.random)) / min(s.size[v], over)
        if count < _TRIED:
            q.candidate[count], q.key[count] = b, key
            count += 1
        elif key < q.key[worst]:
            q.candidate[worst], q.key[worst] = b, key
        else:
            continue
        worst = 0
        for k in range(count):
            if q.key[k] > q.key[worst]:
                worst = k
    return count


@internal
def _set_policy(s: FitState, q: FitSearch, v: int) -> None:
    """Draws which inputs of recomputations are kept, and which are recomputed in turn."""
    drawn = uniform(q.random)
    s.policy[1] = 1.0 if uniform(q.random) < 0.7 else 0.0
    if drawn < 0.25:
        s.policy[0] = -1.0
    elif drawn < 0.6:
        s.policy[0] = 1e300
    else:
        s.policy[0] = (q.estimate[v] + 1.0) / s.size[v] * 10.0 ** (2.0 * uniform(q.random) - 0.5)


@internal
def _drop_one(s: FitState, x: StageScratch, q: FitSearch, t: int) -> bool:
    """Drops the value over stage t that costs least for what it frees; returns False if none frees anything."""
    count = _gather(s, q, t)
    best, best_mode, best_merit, first, second = -1, KEEP, 0.0, 0.0, 0.0
    cost, over = _cost(s), s.totals[OVER]
    for k in range(count):
        e = q.candidate[k]
        v = field(s, e, VALUE)
        p = s.producer[v]
        for mode in (RECOMPUTE, HOST):
            if (mode == HOST and not s.can_host[v]) or (mode == RECOMPUTE and (p < 0 or not s.can_repeat[p])):
                continue
            _set_policy(s, q, v)
            mark = s.totals[LOGGED]
            if change(s, x, e, mode):
                added, freed = _cost(s) - cost, over - s.totals[OVER]
                if mode == RECOMPUTE:
                    q.estimate[v] += _LEARNED * (max(added, 0) - q.estimate[v])
                if freed > 0:
                    merit = (added + 1.0) / freed if added >= 0 else (added - 1.0) * freed
                    if best < 0 or merit < best_merit:
                        best, best_mode, best_merit = e, mode, merit
                        first, second = s.policy[0], s.policy[1]
            else:
                q.estimate[v] = 4.0 * q.estimate[v] + 1e6
            undo_to(s, mark)
    if best < 0:
        return False
    s.policy[0], s.policy[1] = first, second
    return change(s, x, best, best_mode)


@internal
def _undrop_one(s: FitState, x: StageScratch, t: int) -> bool:
    """Keeps a value that is recomputed in stage t, if less lies above the limit then."""
    e, over = s.cells[s.offset[HEADS] + t], s.totals[OVER]
    while e >= 0:
        if field(s, e, MODE) == RECOMPUTE:
            mark = s.totals[LOGGED]
            if change(s, x, e, KEEP) and s.totals[OVER] < over:
                return True
            undo_to(s, mark)
        e = field(s, e, AFTER)
    return False


@internal
def _recreate(s: FitState, x: StageScratch, q: FitSearch, steps: int, commits: bool) -> None:
    """Drops values until nothing lies above the limit, or nothing helps."""
    for _ in range(steps):
        if s.totals[OVER] == 0:
            return
        done = False
        for look in range(_LOOKS):
            t = _peak_stage(s, q.random, look > 0)
            done = _drop_one(s, x, q, t) or _undrop_one(s, x, t)
            if done:
                break
        if not done:
            return
        if commits:
            s.totals[LOGGED] = 0


@internal
def _fill_pool(s: FitState, q: FitSearch) -> int:
    count = 0
    for t in range(len(s.need)):
        e = s.cells[s.offset[HEADS] + t]
        while e >= 0:
            if field(s, e, MODE) == RECOMPUTE or field(s, e, MODE) == HOST:
                q.pool[count] = e
                count += 1
            e = field(s, e, AFTER)
    return count


@internal
def _is_live(s: FitState, e: int) -> bool:
    mode = field(s, e, MODE)
    return field(s, e, VALUE) >= 0 and RECOMPUTE <= mode <= HOST


@internal
def _keep_more(s: FitState, x: StageScratch, q: FitSearch, count: int, tries: int) -> None:
    """Keeps values that are recomputed, where that makes the state better."""
    for _ in range(min(tries, count)):
        e = q.pool[below(q.random, count)]
        if not _is_live(s, e):
            continue
        mark, cost, over = s.totals[LOGGED], _cost(s), s.totals[OVER]
        mode = HOST if s.can_host[field(s, e, VALUE)] and uniform(q.random) < 0.5 else KEEP
        if not change(s, x, e, mode) or s.totals[OVER] > over or _cost(s) >= cost:
            undo_to(s, mark)


@internal
def _ruin(s: FitState, x: StageScratch, q: FitSearch, count: int) -> None:
    """Keeps some values that are recomputed or on the host: neighbours in time, or any."""
    wanted = 1 + below(q.random, _RUINED)
    start, together = below(q.random, count), uniform(q.random) < 0.7
    for k in range(wanted):
        e = q.pool[(start + k) % count if together else below(q.random, count)]
        if _is_live(s, e):
            mark = s.totals[LOGGED]
            if not change(s, x, e, KEEP):
                undo_to(s, mark)


@internal
def _accept(s: FitState, q: FitSearch) -> None:
    s.totals[LOGGED] = 0
    q.score[0], q.score[1] = s.totals[OVER], _cost(s)
    if (q.score[0], q.score[1]) < (q.score[2], q.score[3]):
        q.score[2], q.score[3] = q.score[0], q.score[1]
        copy_to(q.best, s.cells)


@entry
def start_search(s: FitState, x: StageScratch, q: FitSearch, steps: int) -> None:
    """Drops values, beginning with the state as it is, until it fits or nothing helps."""
    s.totals[LOGGED] = 0
    _recreate(s, x, q, steps, True)
    q.score[2], q.score[3] = np.int64(2**62), np.int64(2**62)
    _accept(s, q)


@entry
def go_on(s: FitState, x: StageScratch, q: FitSearch, work: int) -> None:
    """Makes rounds until this much work is done, counted in operations on events and stages."""
    end = s.totals[WORK] + work
    while s.totals[WORK] < end:
        s.totals[WORK] += 1 + len(s.need) // 16
        count = _fill_pool(s, q)
        if count == 0 and s.totals[OVER] == 0:
            return
        mark = s.totals[LOGGED]
        if count > 0:
            _ruin(s, x, q, count)
        _recreate(s, x, q, _STEPS, False)
        count = _fill_pool(s, q)
        _keep_more(s, x, q, count, 16)
        allowed = np.int64(-q.temperature[0] * np.log(uniform(q.random) + 1e-300)) if q.score[0] == 0 else np.int64(0)
        if (s.totals[OVER], _cost(s)) <= (q.score[0], q.score[1] + allowed):
            _accept(s, q)
        else:
            undo_to(s, mark)


@entry
def runs_in_stage(s: FitState, x: StageScratch, t: int) -> int:
    """Writes the runs of a stage in their order to `x.spare`; returns how many there are."""
    count = runs_of_stage(s.cells, s.offset[HEADS], t, x)
    for i in range(count):
        x.spare[i] = x.runs[x.order[i]]
    return count


@entry
def fill_locals(s: FitState, x: StageScratch) -> None:
    """Writes what each stage needs by itself, into its cell alone."""
    for t in range(len(s.need)):
        s.cells[s.offset[LOCALS] + t] = stage_peak(s.cells, s.offset[HEADS], t, x)
