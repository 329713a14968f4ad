"""Decisions on a program under a memory limit, and what follows from them, kept up to date at each change.

*Stage* t is the time from after the first run of node t - 1 to the end of the first run of node t, in the order of the
nodes; stage n is the end of the program. An *event* says that a value is needed in a stage, and how it is served there:

    MADE        the first run of its producer makes it here; or it is an argument, at stage -1
    KEEP        it stays from the event before
    RECOMPUTE   its producer runs again in this stage, before what needs it
    HOST        it is stored after the event before, and loaded ahead of this stage

A recomputation needs its inputs in the same stage, so an event may lead to events of other values: chains of
recomputations are no special case. Within a stage, the nodes that run again do so in their order, then node t runs.

All changes are written to a log, so that a search can try a move and take it back. Each change updates the bytes of the
stages, and their sum above the limit. The time that a change takes grows with the stages that it spans and with what
runs in the stages that it touches. Compiled by numba.
"""

from __future__ import annotations

from memplan.compiler.kernels import internal
from memplan.planners.fit.stage_kernel import StageScratch, stage_peak
from memplan.planners.fit.state_kernel import (
    AFTER,
    BEFORE,
    BOOKED,
    COST,
    DIRTY,
    FREE,
    FREED,
    FROM_HOST,
    FULL,
    HEADS,
    HOST,
    KEEP,
    LOADED_FROM,
    LOCALS,
    LOGGED,
    MADE,
    MODE,
    NEED,
    NEXT,
    NUM_FREE,
    PREV,
    RECOMPUTE,
    STAGE,
    STAMP,
    STATE,
    STORED_AT,
    TO_HOST,
    VALUE,
    WAITING,
    WIDTH,
    WORK,
    FitState,
    add_range,
    field,
    put,
)  # fmt: skip

# The most operations of one move.
_LARGEST_MOVE = 400


@internal
def find(s: FitState, v: int, t: int) -> int:
    """Returns the last event at stage t or before of a value that is made by then."""
    e = s.finger[v]
    if s.cells[e * WIDTH + VALUE] != v or s.cells[e * WIDTH + MODE] == FREE:
        e = s.first[v]
    while s.cells[e * WIDTH + STAGE] > t:
        e = s.cells[e * WIDTH + PREV]
    following = s.cells[e * WIDTH + NEXT]
    while following >= 0 and s.cells[following * WIDTH + STAGE] <= t:
        e, following = following, s.cells[following * WIDTH + NEXT]
    s.finger[v] = e
    return e


@internal
def touch(s: FitState, t: int) -> None:
    """Notes that what a stage does by itself has changed."""
    if t >= 0 and s.dirty_stamp[t] != s.totals[STAMP]:
        s.dirty_stamp[t] = s.totals[STAMP]
        s.dirty[s.totals[DIRTY]] = t
        s.totals[DIRTY] += 1


@internal
def _new_row(s: FitState) -> int:
    """Returns a free row; there is one, since a move checks the number of them as it goes."""
    at = s.offset[STATE] + NUM_FREE
    left = s.cells[at] - 1
    put(s, at, left)
    return s.cells[s.offset[FREED] + left]


@internal
def _free_row(s: FitState, e: int) -> None:
    at = s.offset[STATE] + NUM_FREE
    left = s.cells[at]
    put(s, s.offset[FREED] + left, e)
    put(s, at, left + 1)
    put(s, e * WIDTH + MODE, FREE)


@internal
def _wait_for(s: FitState, node: int, t: int, sign: int) -> None:
    """Lets a stage need the inputs of a node once more, or once less."""
    for k in range(s.input_start[node], s.input_start[node + 1]):
        if s.first[s.inputs[k]] >= 0:
            w = s.totals[WAITING]
            if 3 * w + 3 > len(s.waiting):
                s.totals[FULL] = 1
                return
            s.waiting[3 * w], s.waiting[3 * w + 1], s.waiting[3 * w + 2] = s.inputs[k], t, sign
            s.totals[WAITING] = w + 1


@internal
def _has_another(s: FitState, e: int) -> bool:
    """Whether another output of the producer is recomputed in the same stage."""
    v, t = field(s, e, VALUE), field(s, e, STAGE)
    p = s.producer[v]
    if s.output_start[p + 1] - s.output_start[p] == 1:
        return False
    for k in range(s.output_start[p], s.output_start[p + 1]):
        w = s.outputs[k]
        if w != v:
            other = find(s, w, t)
            if field(s, other, STAGE) == t and field(s, other, MODE) == RECOMPUTE:
                return True
    return False


@internal
def _compute(s: FitState, e: int, sign: int) -> None:
    """Adds or takes away the run that recomputes an event's value, unless another output needs it anyway."""
    if not _has_another(s, e):
        p = s.producer[field(s, e, VALUE)]
        at = s.offset[STATE] + COST
        put(s, at, s.cells[at] + sign * s.ticks[p])
        _wait_for(s, p, field(s, e, STAGE), sign)


@internal
def _take_ticks(s: FitState, e: int, part: int, t: int, step: int, end: int, ticks: int) -> int:
    """Books ticks of a channel from stage t on, towards `end`; returns the last stage, or `end` if there is too little.

    A transfer goes on into another stage only if nothing else is booked there. So at most one is under way between two
    stages, and a channel that is first in, first out has each done in the stage where its booking ends. What was booked
    is chained in rows of its own, for the release.
    """
    start, left, free = t, ticks, s.offset[part]
    while t != end:
        if t != start and s.cells[free + t] < s.ticks[t]:
            start, left = t, ticks
        if t == start and s.cells[free + t] == 0:
            start = t + step
        left -= min(left, s.cells[free + t])
        s.totals[WORK] += 1
        if left == 0:
            break
        t += step
    if t == end:
        return end
    k, left = start, ticks
    while left > 0:
        taken = min(left, s.cells[free + k])
        if taken > 0:
            if s.cells[s.offset[STATE] + NUM_FREE] < 8:
                return end
            row = _new_row(s)
            put(s, row * WIDTH + VALUE, -1)
            put(s, row * WIDTH + STAGE, free + k)
            put(s, row * WIDTH + NEED, taken)
            put(s, row * WIDTH + NEXT, field(s, e, BOOKED))
            put(s, e * WIDTH + BOOKED, row)
            put(s, free + k, s.cells[free + k] - taken)
            left -= taken
        k += step
    return t


@internal
def _release(s: FitState, e: int) -> None:
    row = field(s, e, BOOKED)
    while row >= 0:
        at = field(s, row, STAGE)
        put(s, at, s.cells[at] + field(s, row, NEED))
        following = field(s, row, NEXT)
        _free_row(s, row)
        row = following
    put(s, e * WIDTH + BOOKED, -1)


@internal
def _book(s: FitState, e: int) -> bool:
    """Books the store and the load of a HOST event; returns False, with nothing booked, if the gap is too short."""
    v, a, b = field(s, e, VALUE), field(s, field(s, e, PREV), STAGE), field(s, e, STAGE)
    if not s.can_host[v] or b - a < 3:
        return False
    stored = _take_ticks(s, e, TO_HOST, a + 1, 1, b, s.store_ticks[v])
    loaded = stored
    if stored < b:
        loaded = _take_ticks(s, e, FROM_HOST, b - 1, -1, stored, s.load_ticks[v])
    if loaded <= stored + 1:
        _release(s, e)
        return False
    put(s, e * WIDTH + STORED_AT, stored)
    put(s, e * WIDTH + LOADED_FROM, loaded)
    return True


@internal
def _cover(s: FitState, e: int, sign: int) -> None:
    """Adds or takes away the bytes between an event and the one before it."""
    mode, size = field(s, e, MODE), sign * s.size[field(s, e, VALUE)]
    a, b = field(s, field(s, e, PREV), STAGE), field(s, e, STAGE)
    if mode == KEEP:
        add_range(s, a + 1, b, size)
    elif mode == HOST:
        add_range(s, a + 1, field(s, e, STORED_AT) + 1, size)
        add_range(s, field(s, e, LOADED_FROM), b, size)


@internal
def _uncover(s: FitState, e: int) -> None:
    _cover(s, e, -1)
    if field(s, e, MODE) == HOST:
        _release(s, e)


@internal
def _serve(s: FitState, e: int, mode: int) -> None:
    """Serves an event that is uncovered in a way; HOST becomes KEEP if the link has no time."""
    if mode == HOST and not _book(s, e):
        mode = KEEP
    put(s, e * WIDTH + MODE, mode)
    _cover(s, e, 1)
    if mode == RECOMPUTE:
        _compute(s, e, 1)


@internal
def _fits(s: FitState, low: int, high: int, size: int) -> bool:
    fits = True
    for t in range(max(low, 0), high):
        fits = fits and s.need[t] + size <= s.limit[0]
    return fits


@internal
def _mode_of_new(s: FitState, v: int, a: int, t: int) -> int:
    """Returns how a value is served that a recomputation needs and that is not resident then."""
    p = s.producer[v]
    if p < 0 or not s.can_repeat[p] or s.size[v] == 0:
        return KEEP
    if s.policy[1] > 0.0 and _fits(s, a + 1, t, s.size[v]):
        return KEEP
    return KEEP if s.ticks[p] > s.policy[0] * s.size[v] else RECOMPUTE


@internal
def _insert(s: FitState, v: int, t: int, a: int) -> None:
    """Makes an event of a value at stage t, after event a."""
    b = field(s, a, NEXT)
    old = field(s, b, MODE) if b >= 0 else RECOMPUTE
    if old != RECOMPUTE:
        _uncover(s, b)
    e, head = _new_row(s), s.offset[HEADS] + t
    put(s, e * WIDTH + VALUE, v)
    put(s, e * WIDTH + STAGE, t)
    put(s, e * WIDTH + NEED, 1)
    put(s, e * WIDTH + PREV, a)
    put(s, e * WIDTH + NEXT, b)
    put(s, e * WIDTH + BEFORE, -1)
    put(s, e * WIDTH + AFTER, s.cells[head])
    put(s, e * WIDTH + BOOKED, -1)
    put(s, a * WIDTH + NEXT, e)
    if b >= 0:
        put(s, b * WIDTH + PREV, e)
    if s.cells[head] >= 0:
        put(s, s.cells[head] * WIDTH + BEFORE, e)
    put(s, head, e)
    if old == RECOMPUTE:
        put(s, e * WIDTH + MODE, KEEP)
        _serve(s, e, _mode_of_new(s, v, field(s, a, STAGE), t))
    else:
        _serve(s, e, old)
        _serve(s, b, KEEP)
        touch(s, field(s, b, STAGE))
    touch(s, field(s, a, STAGE))
    touch(s, t)


@internal
def _remove(s: FitState, e: int) -> None:
    """Removes an event that nothing needs; what it made serves the next event no more."""
    a, b, before, after = field(s, e, PREV), field(s, e, NEXT), field(s, e, BEFORE), field(s, e, AFTER)
    t, mode = field(s, e, STAGE), field(s, e, MODE)
    _uncover(s, e)
    put(s, e * WIDTH + MODE, KEEP)
    if mode == RECOMPUTE:
        _compute(s, e, -1)
    following = RECOMPUTE
    if b >= 0 and field(s, b, MODE) != RECOMPUTE:
        following = mode if field(s, b, MODE) == KEEP else HOST
        _uncover(s, b)
    put(s, a * WIDTH + NEXT, b)
    if b >= 0:
        put(s, b * WIDTH + PREV, a)
        if field(s, b, MODE) != RECOMPUTE:
            put(s, b * WIDTH + MODE, KEEP)
            _serve(s, b, following)
        touch(s, field(s, b, STAGE))
    if before >= 0:
        put(s, before * WIDTH + AFTER, after)
    else:
        put(s, s.offset[HEADS] + t, after)
    if after >= 0:
        put(s, after * WIDTH + BEFORE, before)
    touch(s, field(s, a, STAGE))
    touch(s, t)
    _free_row(s, e)


@internal
def _settle(s: FitState, x: StageScratch) -> None:
    """Does what waits, and looks at the stages again that it touched."""
    done = 0
    while s.totals[WAITING] > 0 and s.totals[FULL] == 0:
        done += 1
        w = s.totals[WAITING] - 1
        s.totals[WAITING] = w
        v, t, sign = s.waiting[3 * w], s.waiting[3 * w + 1], s.waiting[3 * w + 2]
        e = find(s, v, t)
        if field(s, e, STAGE) == t:
            need = field(s, e, NEED) + sign
            put(s, e * WIDTH + NEED, need)
            touch(s, t)
            if need == 0 and field(s, e, MODE) != MADE:
                _remove(s, e)
        else:
            _insert(s, v, t, e)
        room = len(s.log_at) - s.totals[LOGGED] > 4 * len(s.need) + 1000
        rows = s.cells[s.offset[STATE] + NUM_FREE] > 2 * len(s.need) + 100
        if done > _LARGEST_MOVE or not room or not rows:
            s.totals[FULL] = 1
    s.totals[WORK] += done + 1
    if s.totals[FULL] == 0:
        for k in range(s.totals[DIRTY]):
            t = s.dirty[k]
            at = s.offset[LOCALS] + t
            peak = stage_peak(s.cells, s.offset[HEADS], t, x)
            add_range(s, t, t + 1, peak - s.cells[at])
            put(s, at, peak)
        s.totals[WORK] += s.totals[DIRTY]
    s.totals[DIRTY] = 0
    s.totals[STAMP] += 1


@internal
def change(s: FitState, x: StageScratch, e: int, mode: int) -> bool:
    """Serves an event in another way, with all that follows.

    Returns False if it became too large or is impossible. The caller takes it back then by `undo_to`.
    """
    old = field(s, e, MODE)
    v = field(s, e, VALUE)
    if mode == RECOMPUTE and (s.producer[v] < 0 or not s.can_repeat[s.producer[v]]):
        return False
    _uncover(s, e)
    put(s, e * WIDTH + MODE, KEEP)
    if old == RECOMPUTE:
        _compute(s, e, -1)
    _serve(s, e, mode)
    touch(s, field(s, field(s, e, PREV), STAGE))
    touch(s, field(s, e, STAGE))
    _settle(s, x)
    return s.totals[FULL] == 0 and field(s, e, MODE) == mode
