"""The latency of a search's tables: fills the arrays of the emulator's kernel from them, and runs it.

The same rules and the same kernel as `TimingEmulator.latency_of`, so the same seconds; what is saved is the way there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from memplan.compiler.emulator.timing_kernel import walk
from memplan.compiler.emulator.timing_rows import UNSET
from memplan.planners._evaluation import Evaluation
from memplan.planners._tables import NONE, Tables

# Functions that only compiled ones call need no entry from Python, which takes a good part of compiling them.
_INTERNAL = {"cache": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_HOME, _IN = 0, 1  # ways of copies


@njit(**_INTERNAL)
def _fill_durations(s: Tables, e: Evaluation) -> None:
    """Writes what operations take, and what they leave of the channels, given what serves their accesses."""
    operations, idle = e.schedule.operations, e.schedule.idle_fraction
    n, num_channels = e.busy.shape
    for t in range(n):
        operations[t].duration = 0.0
        for channel in range(num_channels):
            e.busy[t, channel] = 0.0
    for access in range(len(s.accesses)):
        row = s.accesses[access]
        place = 1 if row.is_fast else 0
        operations[row.time].duration += e.cost[access, place]
        channel = e.channel[access, place]
        if channel >= 0:
            e.busy[row.time, channel] += e.taken[access, place]
    for t in range(n):
        operation = operations[t]
        operation.duration = max(e.floor[t], e.overhead[t] + operation.duration)
        for channel in range(num_channels):
            left = 1.0 - e.busy[t, channel] / operation.duration if operation.duration > 0.0 else 0.0
            idle[t, channel] = max(left, 0.0)
    for t in range(n + 2):
        operations[t].start = UNSET
        operations[t].stall = UNSET


@njit(**_INTERNAL)
def _append(moves: np.ndarray, count: int, start: int, done: int, way: int, buffer: int) -> int:
    row = moves[count]
    row.start, row.done, row.way, row.buffer = start, done, way, buffer
    return count + 1


@njit(**_INTERNAL)
def _list_moves(s: Tables, e: Evaluation) -> int:
    """Lists the copies that are decided, in the order of `Decisions.arrays`, unsorted; returns how many."""
    count = 0
    for way in (_IN, _HOME):
        for number in range(len(s.items)):
            item = s.items[number]
            if item.run != number:
                continue
            start = item.fill_start if way == _IN else item.spill_start
            if start != NONE:
                done = item.fill_done if way == _IN else item.spill_done
                buffer = s.chains[item.chain].buffer
                count = _append(e.moves, count, s.slots[start].time, s.slots[done].time, way, buffer)
    kept, refill = e.kept_item[0], e.refill[0]
    if kept != NONE and refill != NONE and s.items[kept].run == kept and s.items[kept].run_end < refill:
        n = len(s.operations)
        count = _append(e.moves, count, refill, n, _IN, s.chains[s.items[kept].chain].buffer)
    for i in range(len(e.fixed)):
        row = e.fixed[i]
        count = _append(e.moves, count, row.start, row.done, row.way, row.buffer)
    return count


@njit(**_INTERNAL)
def _sort(moves: np.ndarray, count: int, by_start: bool, counts: np.ndarray, result: np.ndarray) -> None:
    """Sorts by start or by done; what is equal keeps its order."""
    counts[:] = 0
    for i in range(count):
        counts[(moves[i].start if by_start else moves[i].done) + 1] += 1
    for t in range(1, len(counts)):
        counts[t] += counts[t - 1]
    for i in range(count):
        key = moves[i].start if by_start else moves[i].done
        row = result[counts[key]]
        row.start, row.done, row.way, row.buffer = moves[i].start, moves[i].done, moves[i].way, moves[i].buffer
        counts[key] += 1


@njit(**_INTERNAL)
def _fill_copies(e: Evaluation, count: int) -> None:
    """Writes the copies, and when they are issued and awaited."""
    operations, issued, awaited, copies = e.schedule.operations, e.schedule.issued, e.schedule.awaited, e.machine.copies
    for t in range(len(operations)):
        operations[t].issues = 0
        operations[t].awaits = 0
    last = len(operations) - 1
    for number in range(count):
        move, copy = e.moves[number], copies[number]
        way = e.ways[move.way]
        copy.bytes, copy.bandwidth, copy.latency = e.sizes[move.buffer], way.bandwidth, way.latency
        copy.queue, copy.channel = way.queue, way.channel
        copy.is_pending = False
        copy.issue, copy.begin, copy.end = UNSET, UNSET, UNSET
        issued[number].number, issued[number].is_synchronous = number, move.start == move.done
        operations[move.start + 1].issues += 1
        if move.start != move.done and move.done + 1 <= last:
            operations[move.done + 1].awaits += 1
    for t in range(1, last + 1):
        operations[t].issues += operations[t - 1].issues
        operations[t].awaits += operations[t - 1].awaits
    for t in range(last + 1):
        e.counts[t] = operations[t].awaits
    for number in range(count):
        move = e.moves[number]
        if move.start != move.done:
            awaited[e.counts[move.done]] = number
            e.counts[move.done] += 1


@njit(cache=True)
def latency_of_tables(s: Tables, e: Evaluation) -> float:
    """Returns the seconds that the program takes under what is decided."""
    _fill_durations(s, e)
    count = _list_moves(s, e)
    _sort(e.moves, count, False, e.counts, e.sorted_moves)
    _sort(e.sorted_moves, count, True, e.counts, e.moves)
    _fill_copies(e, count)
    for queue in range(len(e.machine.queues)):
        e.machine.queues[queue].head = -1
        e.machine.queues[queue].tail = -1
    return float(walk(e.schedule, e.machine, e.stack)[0])
