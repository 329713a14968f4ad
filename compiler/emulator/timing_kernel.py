"""The inner loop of the timing emulator, compiled by numba. `timing.py` says what it computes and prepares its arrays.

The kernel walks the schedule once. A copy that was issued and is not finished is *pending*; pending copies wait in
first-in, first-out queues, linked lists over copy numbers, and only the heads of the queues move data.

Loops. Every copy that the body of a loop issues is awaited in the same iteration, so what is pending at the start of an
iteration was issued outside of the loop. An outer copy that outlasts an iteration has no copy of the body behind it
in its queue, and moves at rates that do not depend on how much of it is left. So if none finishes during an iteration,
the next ones take exactly as long and move exactly as much, until one does: they are skipped in one step. A loop of any
trip count costs a few walked iterations per pending copy.

    pending outer copy   ████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓░
    iterations           |  1   |  2 … k: skipped  | k+1 |  (finished: all others are alike)  skipped to the end

Branches. All branches of a conditional start from the same state; the time and what is left of each copy afterwards are
expectations over the branches. A loop whose trip count has a fraction runs a last iteration with that probability.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

# Iterations of one loop that are walked one by one at most; any others are taken to last as long as the last of these.
# Only a conditional in a loop with a copy across it, of which what is left shrinks geometrically, comes near this.
MAX_WALKED_ITERATIONS = 1000

NEVER = np.inf
UNSET = -1.0


class Schedule(NamedTuple):
    """The program and its plan, for `n` operations.

    Attributes:
      duration: `[n]` seconds of each operation.
      idle_fraction: `[n, num_channels]` part of each channel that the operation leaves to copies.
      opens_at: `[n + 1]` offsets into `opened`.
      opened: regions (loops and branches), by time of their start, parents first.
      region_start, region_end: `[num_regions]` half-open times.
      is_branch: `[num_regions]`; the branches of one conditional are adjacent.
      trips: `[num_regions]` trip count, or probability of a branch.
      is_first, is_last: `[num_regions]` of the branches of its conditional.
      awaits_at: `[n + 2]` offsets into `awaited`.
      awaited: copies issued earlier, by the time at which they are awaited.
      issues_at: `[n + 2]` offsets into `issued`.
      issued: copies, by the time at which they are issued, in the plan's order.
      is_synchronous: `[num_issued]` whether a copy is awaited as soon as it is issued.
    """

    duration: NDArray[np.float64]
    idle_fraction: NDArray[np.float64]
    opens_at: NDArray[np.int64]
    opened: NDArray[np.int64]
    region_start: NDArray[np.int64]
    region_end: NDArray[np.int64]
    is_branch: NDArray[np.bool_]
    trips: NDArray[np.float64]
    is_first: NDArray[np.bool_]
    is_last: NDArray[np.bool_]
    awaits_at: NDArray[np.int64]
    awaited: NDArray[np.int64]
    issues_at: NDArray[np.int64]
    issued: NDArray[np.int64]
    is_synchronous: NDArray[np.bool_]


class Copies(NamedTuple):
    """`[num_copies]` each: bytes to move, queue and channel, bytes per second, seconds before the first byte."""

    bytes: NDArray[np.float64]
    queue: NDArray[np.int64]
    channel: NDArray[np.int64]
    bandwidth: NDArray[np.float64]
    latency: NDArray[np.float64]


class Queues(NamedTuple):
    """State of the copies in flight.

    Attributes:
      head, tail: `[num_queues]` copy at the front and at the back; -1 where the queue is empty.
      next_copy: `[num_copies]` the one behind it; -1 for a tail.
      pending: `[num_copies]` whether it is in its queue.
      remaining: `[num_copies]` bytes yet to be moved.
      ready: `[num_copies]` time before which its latency holds it back.
      lowest: `[num_copies]` least `remaining` at the end of any branch within the innermost iteration.
      active: `[num_channels]` scratch: heads that move data on each channel.
    """

    head: NDArray[np.int64]
    tail: NDArray[np.int64]
    next_copy: NDArray[np.int64]
    pending: NDArray[np.bool_]
    remaining: NDArray[np.float64]
    ready: NDArray[np.float64]
    lowest: NDArray[np.float64]
    active: NDArray[np.int64]


class Frames(NamedTuple):
    """One frame for each open loop, and for each open conditional one, with one for its open branch on top.

    A frame remembers the state at the start of the iteration, conditional or branch: the time, and of each copy that
    was pending, in the order of its queue, the bytes and the wait that were left.

    Attributes:
      region: `[depth]` index; of a conditional, of its first branch.
      clock, stalled: `[depth]` seconds then.
      done: `[depth]` iterations so far; of a conditional, the probability of its branches so far.
      walked: `[depth]` iterations that were walked.
      clock_sum, stalled_sum: `[depth]` expected seconds in the branches so far.
      head, tail: `[depth, num_queues]`.
      num_pending: `[depth]` number of copies that were pending.
      copy, remaining, wait, lowest: `[depth, max_pending]` of those.
      remaining_sum, wait_sum, is_left: `[depth, max_pending]` expectations after the branches so far, and whether
        anything was left after any of them.
    """

    region: NDArray[np.int64]
    clock: NDArray[np.float64]
    stalled: NDArray[np.float64]
    done: NDArray[np.float64]
    walked: NDArray[np.int64]
    clock_sum: NDArray[np.float64]
    stalled_sum: NDArray[np.float64]
    head: NDArray[np.int64]
    tail: NDArray[np.int64]
    num_pending: NDArray[np.int64]
    copy: NDArray[np.int64]
    remaining: NDArray[np.float64]
    wait: NDArray[np.float64]
    lowest: NDArray[np.float64]
    remaining_sum: NDArray[np.float64]
    wait_sum: NDArray[np.float64]
    is_left: NDArray[np.bool_]


class Record(NamedTuple):
    """What happened when, at the first execution; `UNSET` before it.

    Attributes:
      start: `[n]` of each operation. stall: `[n + 1]` seconds waited before it, and at the end.
      issue, begin, end: `[num_copies]` when a copy entered its queue, could first move, and was finished.
    """

    start: NDArray[np.float64]
    stall: NDArray[np.float64]
    issue: NDArray[np.float64]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]


@numba.njit(cache=True)
def make_queues(num_queues, num_channels, num_copies):  # type: ignore[no-untyped-def]
    """Returns empty queues."""
    return Queues(
        np.full(num_queues, -1, np.int64),
        np.full(num_queues, -1, np.int64),
        np.full(num_copies, -1, np.int64),
        np.zeros(num_copies, np.bool_),
        np.zeros(num_copies, np.float64),
        np.zeros(num_copies, np.float64),
        np.zeros(num_copies, np.float64),
        np.zeros(num_channels, np.int64),
    )


@numba.njit(cache=True)
def make_frames(depth, num_queues, max_pending):  # type: ignore[no-untyped-def]
    """Returns room for `depth` frames."""
    return Frames(
        np.zeros(depth, np.int64),
        np.zeros(depth, np.float64),
        np.zeros(depth, np.float64),
        np.zeros(depth, np.float64),
        np.zeros(depth, np.int64),
        np.zeros(depth, np.float64),
        np.zeros(depth, np.float64),
        np.zeros((depth, num_queues), np.int64),
        np.zeros((depth, num_queues), np.int64),
        np.zeros(depth, np.int64),
        np.zeros((depth, max_pending), np.int64),
        np.zeros((depth, max_pending), np.float64),
        np.zeros((depth, max_pending), np.float64),
        np.zeros((depth, max_pending), np.float64),
        np.zeros((depth, max_pending), np.float64),
        np.zeros((depth, max_pending), np.float64),
        np.zeros((depth, max_pending), np.bool_),
    )


@numba.njit(cache=True)
def issue(copy, clock, queues, copies, record):  # type: ignore[no-untyped-def]
    """Puts a copy into its queue."""
    queue = copies.queue[copy]
    queues.pending[copy] = True
    queues.remaining[copy] = copies.bytes[copy]
    queues.lowest[copy] = copies.bytes[copy]
    queues.ready[copy] = clock + copies.latency[copy]
    if record.issue[copy] < 0.0:
        record.issue[copy] = clock
    if queues.tail[queue] < 0 and record.begin[copy] < 0.0:
        record.begin[copy] = queues.ready[copy]
    append(copy, queue, queues)


@numba.njit(cache=True)
def append(copy, queue, queues):  # type: ignore[no-untyped-def]
    """Puts a copy at the back of a queue."""
    queues.next_copy[copy] = -1
    if queues.tail[queue] < 0:
        queues.head[queue] = copy
    else:
        queues.next_copy[queues.tail[queue]] = copy
    queues.tail[queue] = copy


@numba.njit(cache=True)
def drain(clock, until, awaited, fraction, queues, copies, record):  # type: ignore[no-untyped-def]
    """Moves data from `clock` to `until`, or until copy `awaited` (if not -1) is finished; returns the time reached.

    `fraction[channel]` is the part of a channel's bandwidth that copies have. The heads that are active on a channel
    share it evenly. Between two events (a head becomes ready, or finishes) all rates are constant: every step is exact.
    """
    num_queues = queues.head.shape[0]
    while True:
        if (awaited >= 0 and not queues.pending[awaited]) or clock >= until:
            return clock
        queues.active[:] = 0
        is_empty = True
        next_ready = NEVER
        for queue in range(num_queues):
            head = queues.head[queue]
            if head >= 0:
                is_empty = False
                if queues.ready[head] <= clock:
                    queues.active[copies.channel[head]] += 1
                else:
                    next_ready = min(next_ready, queues.ready[head])
        if is_empty:
            return until
        step = until - clock
        for queue in range(num_queues):
            head = queues.head[queue]
            if head >= 0 and queues.ready[head] <= clock:
                channel = copies.channel[head]
                if queues.remaining[head] <= 0.0:
                    step = 0.0
                elif fraction[channel] > 0.0:
                    rate = copies.bandwidth[head] * fraction[channel] / queues.active[channel]
                    step = min(step, queues.remaining[head] / rate)
        reached = min(clock + step, until)
        if next_ready <= reached:
            step = next_ready - clock
            reached = next_ready
        for queue in range(num_queues):
            head = queues.head[queue]
            if head < 0 or queues.ready[head] > clock:
                continue
            channel = copies.channel[head]
            if queues.remaining[head] > 0.0 and fraction[channel] > 0.0:
                rate = copies.bandwidth[head] * fraction[channel] / queues.active[channel]
                # The head that set the step is finished, however rate * step rounds.
                if queues.remaining[head] / rate <= step:
                    queues.remaining[head] = 0.0
                else:
                    queues.remaining[head] = max(0.0, queues.remaining[head] - rate * step)
            if queues.remaining[head] <= 0.0:
                queues.pending[head] = False
                if record.end[head] < 0.0:
                    record.end[head] = reached
                successor = queues.next_copy[head]
                queues.head[queue] = successor
                if successor < 0:
                    queues.tail[queue] = -1
                elif record.begin[successor] < 0.0:
                    record.begin[successor] = max(reached, queues.ready[successor])
        clock = reached


@numba.njit(cache=True)
def save(frame, clock, stalled, queues, frames):  # type: ignore[no-untyped-def]
    """Remembers the state at the start of an iteration, a conditional or a branch."""
    frames.clock[frame] = clock
    frames.stalled[frame] = stalled
    count = 0
    for queue in range(queues.head.shape[0]):
        frames.head[frame, queue] = queues.head[queue]
        frames.tail[frame, queue] = queues.tail[queue]
        copy = queues.head[queue]
        while copy >= 0:
            frames.copy[frame, count] = copy
            frames.remaining[frame, count] = queues.remaining[copy]
            frames.wait[frame, count] = max(0.0, queues.ready[copy] - clock)
            frames.lowest[frame, count] = queues.lowest[copy]
            frames.remaining_sum[frame, count] = 0.0
            frames.wait_sum[frame, count] = 0.0
            frames.is_left[frame, count] = False
            queues.lowest[copy] = queues.remaining[copy]
            count += 1
            copy = queues.next_copy[copy]
    frames.num_pending[frame] = count


@numba.njit(cache=True)
def restore(frame, queues, frames):  # type: ignore[no-untyped-def]
    """Brings the queues back to the state that a frame remembers."""
    for queue in range(queues.head.shape[0]):
        queues.head[queue] = frames.head[frame, queue]
        queues.tail[queue] = frames.tail[frame, queue]
        if queues.tail[queue] >= 0:
            queues.next_copy[queues.tail[queue]] = -1
    for i in range(frames.num_pending[frame]):
        copy = frames.copy[frame, i]
        queues.pending[copy] = True
        queues.remaining[copy] = frames.remaining[frame, i]
        queues.ready[copy] = frames.clock[frame] + frames.wait[frame, i]


@numba.njit(cache=True)
def add_outcome(frame, probability, clock, stalled, queues, frames):  # type: ignore[no-untyped-def]
    """Adds the present state, which is reached with some probability, to the expectations of a frame."""
    frames.done[frame] += probability
    if probability <= 0.0:
        return
    frames.clock_sum[frame] += probability * (clock - frames.clock[frame])
    frames.stalled_sum[frame] += probability * (stalled - frames.stalled[frame])
    for i in range(frames.num_pending[frame]):
        copy = frames.copy[frame, i]
        if queues.pending[copy]:
            frames.remaining_sum[frame, i] += probability * queues.remaining[copy]
            frames.wait_sum[frame, i] += probability * max(0.0, queues.ready[copy] - clock)
            frames.is_left[frame, i] = True
            queues.lowest[copy] = min(queues.lowest[copy], queues.remaining[copy])
        else:
            queues.lowest[copy] = 0.0


@numba.njit(cache=True)
def expect(frame, queues, copies, frames, record):  # type: ignore[no-untyped-def]
    """Makes the expectations of a frame the present state; returns `(clock, stalled)`.

    With the probability that is missing to 1, nothing happened since the frame was made.
    """
    missing = 1.0 - frames.done[frame]
    if missing > 1e-12:
        for i in range(frames.num_pending[frame]):
            frames.remaining_sum[frame, i] += missing * frames.remaining[frame, i]
            frames.wait_sum[frame, i] += missing * frames.wait[frame, i]
            frames.is_left[frame, i] = True
    clock = frames.clock[frame] + frames.clock_sum[frame]
    queues.head[:] = -1
    queues.tail[:] = -1
    for i in range(frames.num_pending[frame]):
        copy = frames.copy[frame, i]
        queues.pending[copy] = frames.is_left[frame, i]
        queues.lowest[copy] = min(frames.lowest[frame, i], queues.lowest[copy])
        if not frames.is_left[frame, i]:
            continue
        queues.remaining[copy] = frames.remaining_sum[frame, i]
        queues.ready[copy] = clock + frames.wait_sum[frame, i]
        # It was recorded as finished, or as begun, on one of several ways only.
        record.end[copy] = UNSET
        if queues.tail[copies.queue[copy]] >= 0:
            record.begin[copy] = UNSET
        append(copy, copies.queue[copy], queues)
    return clock, frames.stalled[frame] + frames.stalled_sum[frame]


@numba.njit(cache=True)
def iterations_alike(frame, todo, iteration, clock, queues, frames):  # type: ignore[no-untyped-def]
    """Returns how many of the `todo` further iterations are sure to be exactly like the one that just ended.

    Each moves as much of every copy as that one did, so none may finish a copy, nor end the wait of one. Within an
    iteration, the branches of a conditional may move more of it than is moved on average; `lowest` knows.
    """
    for queue in range(queues.head.shape[0]):
        if queues.head[queue] != frames.head[frame, queue]:
            return 0.0
    alike = todo
    for i in range(frames.num_pending[frame]):
        copy = frames.copy[frame, i]
        wait = max(0.0, queues.ready[copy] - clock)
        moved = frames.remaining[frame, i] - queues.remaining[copy]
        waited = frames.wait[frame, i] - wait
        margin = queues.remaining[copy] - (
            frames.remaining[frame, i] - min(queues.lowest[copy], queues.remaining[copy])
        )
        if frames.wait[frame, i] > 0.0 and (wait <= 0.0 or moved > 0.0 or waited < iteration * (1.0 - 1e-9)):
            return 0.0
        if margin <= 0.0 < queues.remaining[copy]:
            return 0.0
        if moved > 0.0:
            alike = min(alike, np.floor(margin / moved) - 1.0)
        if waited > 0.0:
            alike = min(alike, np.floor(wait / waited) - 1.0)
    return max(0.0, alike)


@numba.njit(cache=True)
def skip_iterations(frame, count, iteration, clock, queues, frames):  # type: ignore[no-untyped-def]
    """Moves the data of `count` further iterations of `iteration` seconds each, alike the one that just ended."""
    for i in range(frames.num_pending[frame]):
        copy = frames.copy[frame, i]
        moved = frames.remaining[frame, i] - queues.remaining[copy]
        wait = max(0.0, queues.ready[copy] - clock)
        waited = frames.wait[frame, i] - wait
        queues.lowest[copy] -= count * moved
        queues.remaining[copy] -= count * moved
        queues.ready[copy] = clock + count * iteration + wait - count * waited


@numba.njit(cache=True)
def forget(frame, queues, frames):  # type: ignore[no-untyped-def]
    """Gives the frame around this one its own `lowest` back, with what this frame saw."""
    for i in range(frames.num_pending[frame]):
        copy = frames.copy[frame, i]
        lowest = queues.lowest[copy] if queues.pending[copy] else 0.0
        queues.lowest[copy] = min(frames.lowest[frame, i], lowest)


@numba.njit(cache=True)
def end_iteration(frame, clock, stalled, schedule, queues, copies, frames, record):  # type: ignore[no-untyped-def]
    """Ends an iteration of a loop; returns `(whether the loop is left, clock, stalled)`."""
    trips = schedule.trips[frames.region[frame]]
    if trips - frames.done[frame] < 1.0:
        weight = trips - frames.done[frame]
        frames.done[frame] = 0.0
        frames.clock_sum[frame] = 0.0
        frames.stalled_sum[frame] = 0.0
        add_outcome(frame, weight, clock, stalled, queues, frames)
        clock, stalled = expect(frame, queues, copies, frames, record)
        return True, clock, stalled
    frames.done[frame] += 1.0
    frames.walked[frame] += 1
    todo = trips - frames.done[frame]
    iteration = clock - frames.clock[frame]
    alike = iterations_alike(frame, todo, iteration, clock, queues, frames)
    if alike < todo:
        alike = np.floor(alike)
    if frames.walked[frame] >= MAX_WALKED_ITERATIONS:
        alike = todo
    elif alike > 0.0:
        skip_iterations(frame, alike, iteration, clock, queues, frames)
    clock += alike * iteration
    stalled += alike * (stalled - frames.stalled[frame])
    frames.done[frame] += alike
    forget(frame, queues, frames)
    if alike >= todo:
        return True, clock, stalled
    save(frame, clock, stalled, queues, frames)
    return False, clock, stalled


@numba.njit(cache=True)
def open_region(region, depth, clock, stalled, schedule, queues, frames):  # type: ignore[no-untyped-def]
    """Pushes the frames of a region; returns the new depth."""
    for _ in range(2 if schedule.is_branch[region] and schedule.is_first[region] else 1):
        frames.region[depth] = region
        frames.done[depth] = 0.0
        frames.walked[depth] = 0
        frames.clock_sum[depth] = 0.0
        frames.stalled_sum[depth] = 0.0
        save(depth, clock, stalled, queues, frames)
        depth += 1
    return depth


@numba.njit(cache=True)
def close_regions(t, depth, clock, stalled, schedule, queues, copies, frames, record):  # type: ignore[no-untyped-def]
    """Ends the regions that end at `t`, innermost first; returns `(loop to repeat or -1, depth, clock, stalled)`."""
    while depth > 0 and schedule.region_end[frames.region[depth - 1]] == t:
        frame = depth - 1
        region = frames.region[frame]
        if not schedule.is_branch[region]:
            is_left, clock, stalled = end_iteration(frame, clock, stalled, schedule, queues, copies, frames, record)
            if not is_left:
                return region, depth, clock, stalled
            depth -= 1
            continue
        conditional = frame - 1
        forget(frame, queues, frames)
        add_outcome(conditional, schedule.trips[region], clock, stalled, queues, frames)
        depth -= 1
        if not schedule.is_last[region]:
            restore(conditional, queues, frames)
            return -1, depth, frames.clock[conditional], frames.stalled[conditional]
        clock, stalled = expect(conditional, queues, copies, frames, record)
        depth -= 1
    return -1, depth, clock, stalled


@numba.njit(cache=True)
def run_operation(t, clock, schedule, queues, copies, record):  # type: ignore[no-untyped-def]
    """Awaits and issues the copies of time `t` and runs its operation; returns `(clock, seconds waited)`."""
    whole = np.ones(queues.active.shape[0], np.float64)
    arrived = clock
    for i in range(schedule.awaits_at[t], schedule.awaits_at[t + 1]):
        clock = drain(clock, NEVER, schedule.awaited[i], whole, queues, copies, record)
    for i in range(schedule.issues_at[t], schedule.issues_at[t + 1]):
        copy = schedule.issued[i]
        issue(copy, clock, queues, copies, record)
        if schedule.is_synchronous[i]:
            clock = drain(clock, NEVER, copy, whole, queues, copies, record)
    waited = clock - arrived
    if record.stall[t] < 0.0:
        record.stall[t] = waited
    if t < schedule.duration.shape[0]:
        if record.start[t] < 0.0:
            record.start[t] = clock
        if schedule.duration[t] > 0.0:
            clock = drain(clock, clock + schedule.duration[t], -1, schedule.idle_fraction[t], queues, copies, record)
    return clock, waited


@numba.njit(cache=True)
def walk(schedule, copies, num_queues, num_channels, max_depth, max_pending, record):  # type: ignore[no-untyped-def]
    """Walks the schedule and fills `record`; returns `(latency, stalled)`, seconds with all repetitions."""
    queues = make_queues(num_queues, num_channels, copies.bytes.shape[0])
    frames = make_frames(max_depth, num_queues, max_pending)
    n = schedule.duration.shape[0]
    clock = stalled = 0.0
    depth = t = 0
    opened = schedule.opens_at[0]
    while True:
        is_skipped = False
        while t < n and opened < schedule.opens_at[t + 1]:
            region = schedule.opened[opened]
            opened += 1
            is_skipped = schedule.trips[region] <= 0.0
            if schedule.is_branch[region] or not is_skipped:
                depth = open_region(region, depth, clock, stalled, schedule, queues, frames)
            if is_skipped:
                t = schedule.region_end[region]
                break
        if not is_skipped:
            clock, waited = run_operation(t, clock, schedule, queues, copies, record)
            stalled += waited
            if t == n:
                return clock, stalled
            t += 1
        repeated, depth, clock, stalled = close_regions(
            t, depth, clock, stalled, schedule, queues, copies, frames, record
        )
        if repeated >= 0:
            t = schedule.region_start[repeated]
        opened = schedule.opens_at[t]
        if repeated >= 0:
            while schedule.opened[opened] != repeated:
                opened += 1
            opened += 1
