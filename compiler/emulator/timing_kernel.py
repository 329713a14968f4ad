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

import numpy as np

from memplan.compiler.arrays_kernel import fill
from memplan.compiler.by_reference import by_reference
from memplan.compiler.emulator.timing_rows import LinkState, ScheduleRows, Stack
from memplan.compiler.kernels import entry, inlined, internal

# Iterations of one loop that are walked one by one at most; any others are taken to last as long as the last of these.
# Only a conditional in a loop with a copy across it, of which what is left shrinks geometrically, comes near this.
MAX_WALKED_ITERATIONS = 1000

NEVER = np.inf

by_reference(ScheduleRows, LinkState, Stack)


@internal
def append(number, links):  # type: ignore[no-untyped-def]
    """Puts a copy at the back of its queue."""
    copy = links.copies[number]
    queue = links.queues[copy.queue]
    copy.next = -1
    if queue.tail < 0:
        queue.head = number
    else:
        links.copies[queue.tail].next = number
    queue.tail = number


@internal
def issue(number, clock, links):  # type: ignore[no-untyped-def]
    """Puts a new copy into its queue."""
    copy = links.copies[number]
    copy.is_pending = True
    copy.remaining = copy.bytes
    copy.lowest = copy.bytes
    copy.ready = clock + copy.latency
    if copy.issue < 0.0:
        copy.issue = clock
    if links.queues[copy.queue].tail < 0 and copy.begin < 0.0:
        copy.begin = copy.ready
    append(number, links)


@internal
def drain(clock, until, awaited, fraction, links):  # type: ignore[no-untyped-def]
    """Moves data from `clock` to `until`, or until copy `awaited` (if not -1) is finished; returns the time reached.

    `fraction[channel]` is the part of a channel's bandwidth that copies have. The heads that are active on a channel
    share it evenly. Between two events (a head becomes ready, or finishes) all rates are constant: every step is exact.
    """
    copies, queues, active = links.copies, links.queues, links.active
    while True:
        if (awaited >= 0 and not copies[awaited].is_pending) or clock >= until:
            return clock
        fill(active, 0)
        is_empty = True
        next_ready = NEVER
        for q in range(len(queues)):
            head = queues[q].head
            if head >= 0:
                is_empty = False
                if copies[head].ready <= clock:
                    active[copies[head].channel] += 1
                else:
                    next_ready = min(next_ready, copies[head].ready)
        if is_empty:
            return until
        step = until - clock
        for q in range(len(queues)):
            head = queues[q].head
            if head >= 0 and copies[head].ready <= clock:
                channel = copies[head].channel
                if copies[head].remaining <= 0.0:
                    step = 0.0
                elif fraction[channel] > 0.0:
                    rate = copies[head].bandwidth * fraction[channel] / active[channel]
                    step = min(step, copies[head].remaining / rate)
        reached = min(clock + step, until)
        if next_ready <= reached:
            step = next_ready - clock
            reached = next_ready
        for q in range(len(queues)):
            head = queues[q].head
            if head < 0 or copies[head].ready > clock:
                continue
            copy = copies[head]
            if copy.remaining > 0.0 and fraction[copy.channel] > 0.0:
                rate = copy.bandwidth * fraction[copy.channel] / active[copy.channel]
                # The head that set the step is finished, however rate * step rounds.
                if copy.remaining / rate <= step:
                    copy.remaining = 0.0
                else:
                    copy.remaining = max(0.0, copy.remaining - rate * step)
            if copy.remaining <= 0.0:
                copy.is_pending = False
                if copy.end < 0.0:
                    copy.end = reached
                queues[q].head = copy.next
                if copy.next < 0:
                    queues[q].tail = -1
                elif copies[copy.next].begin < 0.0:
                    copies[copy.next].begin = max(reached, copies[copy.next].ready)
        clock = reached


@internal
def save(depth, clock, stalled, links, stack):  # type: ignore[no-untyped-def]
    """Remembers the state at the start of an iteration, a conditional or a branch, in the frame at `depth`."""
    frame = stack.frames[depth]
    frame.clock = clock
    frame.stalled = stalled
    frame.num_pending = 0
    for q in range(len(links.queues)):
        stack.queues[depth, q].head = links.queues[q].head
        stack.queues[depth, q].tail = links.queues[q].tail
        number = links.queues[q].head
        while number >= 0:
            copy = links.copies[number]
            saved = stack.saved[depth, frame.num_pending]
            saved.number = number
            saved.remaining = copy.remaining
            saved.wait = max(0.0, copy.ready - clock)
            saved.lowest = copy.lowest
            saved.begin = copy.begin
            saved.end = copy.end
            saved.remaining_sum = 0.0
            saved.wait_sum = 0.0
            saved.is_left = False
            copy.lowest = copy.remaining
            frame.num_pending += 1
            number = copy.next


@internal
def restore(depth, links, stack):  # type: ignore[no-untyped-def]
    """Brings the queues back to the state that a frame remembers."""
    frame = stack.frames[depth]
    for q in range(len(links.queues)):
        links.queues[q].head = stack.queues[depth, q].head
        links.queues[q].tail = stack.queues[depth, q].tail
        if links.queues[q].tail >= 0:
            links.copies[links.queues[q].tail].next = -1
    for i in range(frame.num_pending):
        saved = stack.saved[depth, i]
        copy = links.copies[saved.number]
        copy.is_pending = True
        copy.remaining = saved.remaining
        copy.ready = frame.clock + saved.wait


@internal
def add_outcome(depth, probability, clock, stalled, links, stack):  # type: ignore[no-untyped-def]
    """Adds the present state, which is reached with some probability, to the expectations of a frame."""
    frame = stack.frames[depth]
    frame.done += probability
    if probability <= 0.0:
        return
    frame.clock_sum += probability * (clock - frame.clock)
    frame.stalled_sum += probability * (stalled - frame.stalled)
    for i in range(frame.num_pending):
        saved = stack.saved[depth, i]
        copy = links.copies[saved.number]
        if copy.is_pending:
            saved.remaining_sum += probability * copy.remaining
            saved.wait_sum += probability * max(0.0, copy.ready - clock)
            saved.is_left = True
            copy.lowest = min(copy.lowest, copy.remaining)
        else:
            copy.lowest = 0.0


@internal
def expect(depth, links, stack):  # type: ignore[no-untyped-def]
    """Makes the expectations of a frame the present state; returns `(clock, stalled)`.

    With the probability that is missing to 1, nothing happened since the frame was made.
    """
    frame = stack.frames[depth]
    missing = 1.0 - frame.done
    clock = frame.clock + frame.clock_sum
    for q in range(len(links.queues)):
        links.queues[q].head = -1
        links.queues[q].tail = -1
    for i in range(frame.num_pending):
        saved = stack.saved[depth, i]
        if missing > 1e-12:
            saved.remaining_sum += missing * saved.remaining
            saved.wait_sum += missing * saved.wait
            saved.is_left = True
        copy = links.copies[saved.number]
        copy.is_pending = saved.is_left
        copy.lowest = min(saved.lowest, copy.lowest)
        if not saved.is_left:
            continue
        copy.remaining = saved.remaining_sum
        copy.ready = clock + saved.wait_sum
        # If it was recorded as finished, or as begun, that was on one of several ways only.
        copy.end = saved.end
        if links.queues[copy.queue].tail >= 0:
            copy.begin = saved.begin
        append(saved.number, links)
    return clock, frame.stalled + frame.stalled_sum


@internal
def iterations_alike(depth, todo, iteration, clock, links, stack):  # type: ignore[no-untyped-def]
    """Returns how many of the `todo` further iterations are sure to be exactly like the one that just ended.

    Each moves as much of every copy as that one did, so none may finish a copy, nor end the wait of one. Within an
    iteration, the branches of a conditional may move more of it than is moved on average; `lowest` knows.
    """
    for q in range(len(links.queues)):
        if links.queues[q].head != stack.queues[depth, q].head:
            return 0.0
    alike = todo
    for i in range(stack.frames[depth].num_pending):
        saved = stack.saved[depth, i]
        copy = links.copies[saved.number]
        wait = max(0.0, copy.ready - clock)
        moved = saved.remaining - copy.remaining
        waited = saved.wait - wait
        margin = copy.remaining - (saved.remaining - min(copy.lowest, copy.remaining))
        if saved.wait > 0.0 and (wait <= 0.0 or moved > 0.0 or waited < iteration * (1.0 - 1e-9)):
            return 0.0
        if margin <= 0.0 < copy.remaining:
            return 0.0
        if moved > 0.0:
            alike = min(alike, np.floor(margin / moved) - 1.0)
        if waited > 0.0:
            alike = min(alike, np.floor(wait / waited) - 1.0)
    return max(0.0, alike)


@internal
def skip_iterations(depth, count, iteration, clock, links, stack):  # type: ignore[no-untyped-def]
    """Moves the data of `count` further iterations of `iteration` seconds each, alike the one that just ended."""
    for i in range(stack.frames[depth].num_pending):
        saved = stack.saved[depth, i]
        copy = links.copies[saved.number]
        moved = saved.remaining - copy.remaining
        wait = max(0.0, copy.ready - clock)
        waited = saved.wait - wait
        copy.lowest -= count * moved
        copy.remaining -= count * moved
        copy.ready = clock + count * iteration + wait - count * waited


@internal
def forget(depth, links, stack):  # type: ignore[no-untyped-def]
    """Gives the frame around this one its own `lowest` back, with what this frame saw."""
    for i in range(stack.frames[depth].num_pending):
        saved = stack.saved[depth, i]
        copy = links.copies[saved.number]
        lowest = copy.lowest if copy.is_pending else 0.0
        copy.lowest = min(saved.lowest, lowest)


@internal
def end_iteration(depth, clock, stalled, schedule, links, stack):  # type: ignore[no-untyped-def]
    """Ends an iteration of the loop at `depth`; returns `(whether the loop is left, clock, stalled)`."""
    frame = stack.frames[depth]
    trips = schedule.regions[frame.region].trips
    if trips - frame.done < 1.0:
        weight = trips - frame.done
        frame.done = 0.0
        frame.clock_sum = 0.0
        frame.stalled_sum = 0.0
        add_outcome(depth, weight, clock, stalled, links, stack)
        clock, stalled = expect(depth, links, stack)
        return True, clock, stalled
    frame.done += 1.0
    frame.walked += 1
    todo = trips - frame.done
    iteration = clock - frame.clock
    alike = iterations_alike(depth, todo, iteration, clock, links, stack)
    if alike < todo:
        alike = np.floor(alike)
    if frame.walked >= MAX_WALKED_ITERATIONS:
        alike = todo
    elif alike > 0.0:
        skip_iterations(depth, alike, iteration, clock, links, stack)
    clock += alike * iteration
    stalled += alike * (stalled - frame.stalled)
    frame.done += alike
    forget(depth, links, stack)
    if alike >= todo:
        return True, clock, stalled
    save(depth, clock, stalled, links, stack)
    return False, clock, stalled


@internal
def open_region(number, depth, clock, stalled, schedule, links, stack):  # type: ignore[no-untyped-def]
    """Pushes the frames of a region; returns the new depth."""
    region = schedule.regions[number]
    for _ in range(2 if region.is_branch and region.is_first else 1):
        frame = stack.frames[depth]
        frame.region = number
        frame.done = 0.0
        frame.walked = 0
        frame.clock_sum = 0.0
        frame.stalled_sum = 0.0
        save(depth, clock, stalled, links, stack)
        depth += 1
    return depth


@internal
def close_regions(t, depth, clock, stalled, schedule, links, stack):  # type: ignore[no-untyped-def]
    """Ends the regions that end at `t`, innermost first; returns `(loop to repeat or -1, depth, clock, stalled)`."""
    while depth > 0 and schedule.regions[stack.frames[depth - 1].region].end == t:
        top = depth - 1
        number = stack.frames[top].region
        region = schedule.regions[number]
        if not region.is_branch:
            is_left, clock, stalled = end_iteration(top, clock, stalled, schedule, links, stack)
            if not is_left:
                return number, depth, clock, stalled
            depth -= 1
            continue
        conditional = top - 1
        forget(top, links, stack)
        add_outcome(conditional, region.trips, clock, stalled, links, stack)
        depth -= 1
        if not region.is_last:
            restore(conditional, links, stack)
            return -1, depth, stack.frames[conditional].clock, stack.frames[conditional].stalled
        clock, stalled = expect(conditional, links, stack)
        depth -= 1
    return -1, depth, clock, stalled


@inlined
def enter_regions(t, opened, depth, clock, stalled, schedule, links, stack):  # type: ignore[no-untyped-def]
    """Opens the regions from position `opened` of `schedule.opened` on that start at `t`, until one has no iterations.

    Returns `(whether one has none, the time to go on at, depth)`.
    """
    n, is_skipped = len(schedule.operations) - 2, False
    while t < n and opened < schedule.operations[t + 1].opens:
        number = schedule.opened[opened]
        region = schedule.regions[number]
        opened += 1
        is_skipped = region.trips <= 0.0
        if region.is_branch or not is_skipped:
            depth = open_region(number, depth, clock, stalled, schedule, links, stack)
        if is_skipped:
            t = region.end
            break
    return is_skipped, t, depth


@inlined
def leave_regions(t, depth, clock, stalled, schedule, links, stack):  # type: ignore[no-untyped-def]
    """Ends the regions that end at `t`; returns `(the time to go on at, opened, depth, clock, stalled)`.

    `opened` is the position in `schedule.opened` of the first region to be opened then.
    """
    repeated, depth, clock, stalled = close_regions(t, depth, clock, stalled, schedule, links, stack)
    if repeated >= 0:
        t = schedule.regions[repeated].start
    opened = schedule.operations[t].opens
    if repeated >= 0:
        while schedule.opened[opened] != repeated:
            opened += 1
        opened += 1
    return t, opened, depth, clock, stalled


@internal
def run_operation(t, clock, schedule, links):  # type: ignore[no-untyped-def]
    """Awaits and issues the copies of time `t` and runs its operation; returns `(clock, seconds waited)`."""
    operation, following = schedule.operations[t], schedule.operations[t + 1]
    arrived = clock
    for i in range(operation.awaits, following.awaits):
        clock = drain(clock, NEVER, schedule.awaited[i], links.whole, links)
    for i in range(operation.issues, following.issues):
        number = schedule.issued[i].number
        issue(number, clock, links)
        if schedule.issued[i].is_synchronous:
            clock = drain(clock, NEVER, number, links.whole, links)
    waited = clock - arrived
    if operation.stall < 0.0:
        operation.stall = waited
    if operation.start < 0.0:
        operation.start = clock
    if operation.duration > 0.0:
        clock = drain(clock, clock + operation.duration, -1, schedule.idle_fraction[t], links)
    return clock, waited


@entry
def walk(schedule, links, stack):  # type: ignore[no-untyped-def]
    """Walks the schedule and records it in its rows; returns `(latency, stalled)`, seconds with all repetitions."""
    n = len(schedule.operations) - 2
    clock = stalled = 0.0
    depth = np.int64(0)
    t = 0
    opened = schedule.operations[0].opens
    while True:
        is_skipped, t, depth = enter_regions(t, opened, depth, clock, stalled, schedule, links, stack)
        if not is_skipped:
            clock, waited = run_operation(t, clock, schedule, links)
            stalled += waited
            if t == n:
                return clock, stalled
            t += 1
        t, opened, depth, clock, stalled = leave_regions(t, depth, clock, stalled, schedule, links, stack)
