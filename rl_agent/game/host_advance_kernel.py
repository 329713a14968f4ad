"""The rules as loops over one game's arrays, compiled by numba: what a move changes.

See `host_kernel.py`. `b` is the board, `s` the state of a game.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memplan.compiler.kernels import inlined
from memplan.planners.stays.rules_kernel import duration
from memplan.rl_agent.game.host_choices_kernel import is_covered
from memplan.rl_agent.game.moves import CLOSED, COPY, DROP, EVICTION, FORCED, NO_COPY, NONE, PASSED, PREFETCH


@inlined
def _book(b: Any, s: Any, first: int, last: int, rest: int, way: int) -> None:
    left, owner, queue = s.left, s.owner, b.queue[way]
    s.issued[first] = way
    for slot in range(first, last):
        if left[slot] != PASSED:
            left[slot], owner[slot] = 0, queue
    left[last] -= rest
    owner[last] = queue


@inlined
def _set_back(b: Any, s: Any, culprit: int) -> None:
    """Starts a game again, with a move forced to DROP and all moves before it as they were."""
    s.history[culprit] |= FORCED
    s.reward = -s.total
    s.replay_until = culprit
    s.backups += 1
    start(b, s)


@inlined
def start(b: Any, s: Any) -> None:
    """Writes the state before the first move, but for what is possible there, and what backups left."""
    s.move = 0
    s.done = b.num_moves == 0
    s.total = 0.0
    s.left[:] = b.idle
    s.owner[:] = NONE
    s.issued[:] = NONE
    s.busy_until[:] = b.busy_until
    s.held_until[:] = b.busy_until
    s.duration[:] = b.duration
    s.stays = 0
    s.lead_done = s.lead_first = NONE


@inlined
def advance(b: Any, moves: Any, s: Any, action: int) -> None:
    """Writes the state after a legal move or a backup, but for what is possible next."""
    number = s.move
    move = moves[number]
    if s.is_dead:
        _set_back(b, s, s.chain_opened[move.row])
        return
    waited = np.float32(0.0)
    if not is_covered(s, move):
        waited = _place(b, s, number, move, action)
    s.history[number] = action | (s.history[number] & FORCED)
    saved = np.float32(0.0)
    if move.is_operation:
        saved = _serve(b, s, number, move, action != DROP)
    s.reward = saved - waited
    s.total += s.reward
    s.move = number + 1
    s.done = number + 1 >= b.num_moves


@inlined
def _serve(b: Any, s: Any, number: int, move: Any, is_fast: bool) -> float:
    """Serves the accesses of a move at an operation, and sets its supply; returns the seconds that are saved."""
    slot, floor_seconds = move.slot, move.floor_seconds
    if move.is_first_access:
        s.demand, s.taken, s.demand_seconds = move.demand, move.taken, move.demand_seconds
    before = duration(floor_seconds, s.demand_seconds)
    idle_before = max(0, duration(move.floor, s.demand) - s.taken)
    if is_fast:
        s.demand -= move.saving
        s.taken -= move.traffic
        s.demand_seconds -= move.saved_seconds
    s.duration[slot] = duration(move.floor, s.demand)
    idle = max(0, s.duration[slot] - s.taken)
    if s.left[slot] != CLOSED:
        s.left[slot] = idle + move.carried
    if move.carrier != NONE and s.left[move.carrier] != CLOSED:
        s.left[move.carrier] += move.trips * (idle - idle_before)
    return (before - duration(floor_seconds, s.demand_seconds)) * move.repetitions


@inlined
def _limit(limits: Any, offsets: Any, tops: Any, low: int, high: int, start: int) -> None:
    """Notes that something is placed on units `[low, high)`."""
    for row in range(len(limits)):
        if offsets[row] < high and low < tops[row]:
            limits[row] = min(limits[row], start)


@inlined
def _place(b: Any, s: Any, number: int, move: Any, action: int) -> Any:
    """Makes the copies and the residency of a decision; returns the seconds that the program waits for them."""
    row = move.row
    busy, held = s.busy_until, s.held_until
    if move.is_first:
        s.chain_opened[row], s.chain_offset[row], s.chain_top[row], s.chain_end[row] = NONE, 0, 0, 0
        s.chain_limit[row], s.chain_written[row], s.chain_ready[row] = b.forever, NONE, move.ready
    is_open = s.chain_opened[row] != NONE
    low, high = s.chain_offset[row], s.chain_top[row]
    evictions = is_open and s.chain_written[row] != NONE and move.reads != 0 and action != NO_COPY
    # Nothing is in flight over a loop that has copies of its own.
    if move.carrier != NONE and (evictions or action == COPY):
        s.left[move.carrier] = CLOSED
    waited = np.float32(0.0)
    if is_open and (action != NO_COPY or not move.reads):
        end = s.chain_end[row]
        for unit in range(low, high):
            if busy[unit] <= end:
                held[unit] = 0
    if evictions:
        last = s.eviction_last
        until = b.awaited[last]
        for unit in range(low, high):
            busy[unit] = max(busy[unit], until)
        _book(b, s, s.eviction_first, last, s.eviction_rest, EVICTION)
        s.chain_ready[row] = last + 1
        s.chain_written[row] = NONE
        waited += s.eviction_wait * move.awaited_repetitions
    if action == NO_COPY and move.reads:
        s.chain_end[row] = move.end
        for unit in range(low, high):
            busy[unit], held[unit] = move.end, move.held
    elif action != DROP:
        if action == COPY and s.is_late:
            # It has its slots to itself, and nothing may be in flight where the program waits for it.
            left, owner, queue = s.left, s.owner, b.queue[PREFETCH]
            for slot in range(min(s.prefetch_first, move.before), move.done):
                if left[slot] >= 0:
                    left[slot], owner[slot] = 0, queue
            if s.leads:
                s.lead_done, s.lead_first = move.done, s.prefetch_first
            waited += s.wait * move.awaited_repetitions
        elif action == COPY:
            _book(b, s, s.prefetch_first, s.prefetch_last, s.prefetch_rest, PREFETCH)
        s.stays += move.is_stay
        low, high = s.offset, s.offset + move.size
        _limit(s.chain_limit, s.chain_offset, s.chain_top, low, high, s.start)
        s.chain_opened[row], s.chain_offset[row], s.chain_top[row], s.chain_end[row] = number, low, high, move.end
        s.chain_limit[row], s.chain_written[row] = b.forever, NONE
        for unit in range(low, high):
            busy[unit], held[unit] = move.end, move.held
    else:
        s.chain_opened[row] = s.chain_written[row] = NONE
    if move.writes:
        s.chain_written[row] = move.slot if action != DROP else NONE
        if action == DROP:
            s.chain_ready[row] = move.slot + 1
    return waited
