"""The latency of a search's tables without Python between them: what `evaluation_kernel.py` works on.

A search for stays evaluates thousands of candidates a second, each of which differs little from the one before.
`TimingEmulator` takes the arrays of a plan and sorts them in each call. Here, what the tables say is kept in lists, of
which a candidate changes a few entries, and the emulator's clock is kept with marks from which it can go on.

A *mark* is the clock and what is in flight at a time outside of loops and branches. A candidate is walked from the last
mark before each change to the first time after it at which all is in flight as in the reference. What follows takes as
long as it did there:

    reference   |----|----|----|----|----|----|----|----|----|      marks
    changes               x                       x
    walked           |---------|             |----|                 what is between and after is known
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.emulator.timing_rows import (
    COPY_ROW,
    ISSUE_ROW,
    OPERATION_ROW,
    LinkState,
    Rows,
    ScheduleRows,
    Stack,
    new_link_state,
    new_stack,
)
from memplan.compiler.hardware.roofline import durations
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.tables import NONE, StayTables

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Of a copy that the tables can decide on: its half-open times, -1 if there is none, and the copies behind it in the
# lists of those that are issued and awaited at the same times. Before the last candidate: `old_start`, `old_done`.
COPY_LIST_ROW = np.dtype(
    [
        ("start", np.int64),
        ("done", np.int64),
        ("next_issued", np.int64),
        ("next_awaited", np.int64),
        ("old_start", np.int64),
        ("old_done", np.int64),
    ],
    align=True,
)

# Of a time: the copies that are issued and awaited then, the mark from which its operation can be reached, which of its
# own two marks is the reference's, and whether the last candidate is not like the reference then.
TIME_ROW = np.dtype(
    [
        ("first_issued", np.int64),
        ("first_awaited", np.int64),
        ("mark", np.int64),
        ("side", np.int64),
        ("is_changed", np.bool_),
    ],
    align=True,
)

# Of a mark: the seconds from the start of the program; how many copies are in flight, -1 where nothing is known, or
# more than there is room for; and whether it is the last candidate's.
MARK_ROW = np.dtype([("clock", np.float64), ("count", np.int64), ("is_walked", np.bool_)], align=True)

# Of a copy in flight at a mark: its number, the bytes that are left of it, and the seconds before which it cannot move.
IN_FLIGHT_ROW = np.dtype([("number", np.int64), ("remaining", np.float64), ("wait", np.float64)], align=True)

# Of a copy that is not in the tables: the half-open times at which it starts and is done.
FIXED_COPY_ROW = np.dtype([("start", np.int64), ("done", np.int64)], align=True)

# Of the evaluation: the seconds of the reference and of the last candidate; how many copies and accesses differ between
# the two; the half-open times outside of which nothing does; and the first and the last time at which the candidate may
# have a mark.
STATE_ROW = np.dtype(
    [
        ("reference", np.float64),
        ("candidate", np.float64),
        ("num_copies", np.int64),
        ("num_accesses", np.int64),
        ("first", np.int64),
        ("last", np.int64),
        ("begun", np.int64),
        ("walked", np.int64),
    ],
    align=True,
)

# Copies in flight that a mark has room for. Where there are more, walks go on from the mark before.
_MOST_IN_FLIGHT = 32

# What serves an access, where an array has a column for each: its home, or the fast space.
HOME, FAST = range(2)


class Evaluation(NamedTuple):
    """What the latency of tables of one frame is computed with. For `n` operations.

    Copies have a number each: `i` the one that fills the run of item `i`, `num_items + i` the one that brings its value
    home; then follow the one of the kept buffer for the next run, and those of stays in other fast spaces.

    Attributes:
      floor, overhead: `[n]` seconds.
      cost: `[num_accesses, 2]` seconds that each access adds to its operation, by `HOME` and `FAST`.
      taken: `[num_accesses, 2]` seconds that it takes of a channel.
      channel: `[num_accesses, 2]` which; -1 for none.
      first_access: `[n + 1]` of each operation.
      sizes: `[num_buffers]` bytes.
      fixed: `[num_fixed]` FIXED_COPY_ROW of stays in other fast spaces.
      served: `[num_accesses] int8` `HOME` or `FAST`, with which the durations are computed; -1 before the first time.
      copy_lists: `[num_copies]` COPY_LIST_ROW.
      times: `[n + 2]` TIME_ROW.
      marks: `[2, n + 2]` MARK_ROW: each time has two, of which one is the reference's.
      in_flight: `[2, n + 2, _MOST_IN_FLIGHT]` IN_FLIGHT_ROW, of the marks.
      changed_copies, changed_accesses: `[num_copies]`, `[num_accesses]` those of the last candidate, first.
      state: `[1]` STATE_ROW.
      schedule, links, stack: of the emulator's kernel.
    """

    floor: Floats
    overhead: Floats
    cost: Floats
    taken: Floats
    channel: Integers
    first_access: Integers
    sizes: Floats
    fixed: Rows
    served: NDArray[np.int8]
    copy_lists: Rows
    times: Rows
    marks: Rows
    in_flight: Rows
    changed_copies: Integers
    changed_accesses: Integers
    state: Rows
    schedule: ScheduleRows
    links: LinkState
    stack: Stack


def make_evaluation(frame: Frame, emulator: TimingEmulator) -> Evaluation:
    """Returns what the latency of a frame's tables is computed with; it has no reference yet.

    Args:
      frame: to whose tables it belongs.
      emulator: of the frame's problem.
    """
    problem, space, n = frame.problem, frame.space, frame.problem.end
    num_channels = emulator.num_channels
    places = np.stack([frame.served, np.full(len(frame.served), space)], axis=1)
    rows = np.arange(len(frame.served))[:, None]
    cost = np.array([access.cost for _, access in problem.accesses], np.float64).reshape(-1, len(problem.spaces))
    moved = np.array([access.bytes for _, access in problem.accesses], np.float64)
    channels = np.array([s.channel for s in problem.spaces], np.int64)
    bandwidths = np.array([s.bandwidth for s in problem.spaces], np.float64)

    copies, copy_lists, fixed = _copies(frame)
    floor = np.array([operation.floor for operation in problem.operations], np.float64)
    overhead = np.array([operation.overhead for operation in problem.operations], np.float64)
    operations = np.zeros(n + 2, OPERATION_ROW)
    operations["opens"] = emulator.opens
    # Of operations without accesses; the others are computed when it is known what serves them.
    operations["duration"][:n] = durations(floor, overhead)
    times = np.zeros(n + 2, TIME_ROW)
    times["first_issued"] = times["first_awaited"] = NONE
    times["mark"] = _marks(frame)
    marks = np.zeros((2, n + 2), MARK_ROW)
    marks["count"][:, 1:] = NONE
    access_times = np.array([t for t, _ in problem.accesses], np.int64)
    return Evaluation(
        floor=floor,
        overhead=overhead,
        cost=cost[rows, places],
        taken=moved[:, None] / bandwidths[places],
        channel=channels[places],
        first_access=np.searchsorted(access_times, np.arange(n + 1)),
        sizes=frame.sizes,
        fixed=fixed,
        served=np.full(len(frame.served), NONE, np.int8),
        copy_lists=copy_lists,
        times=times,
        marks=marks,
        in_flight=np.zeros((2, n + 2, _MOST_IN_FLIGHT), IN_FLIGHT_ROW),
        changed_copies=np.zeros(len(copy_lists), np.int64),
        changed_accesses=np.zeros(len(frame.served), np.int64),
        state=np.array([(0.0, 0.0, 0, 0, n + 2, 0, 0, 0)], STATE_ROW),
        schedule=ScheduleRows(
            operations,
            np.ones((n + 2, num_channels)) * (operations["duration"] > 0.0)[:, None],
            emulator.region_rows,
            emulator.opened,
            np.zeros(0, np.int64),
            np.zeros(0, ISSUE_ROW),
        ),
        links=new_link_state(copies, emulator.num_queues, num_channels),
        stack=new_stack(emulator.max_depth, emulator.num_queues, len(copies)),
    )


def _copies(frame: Frame) -> tuple[Rows, Rows, Rows]:
    """Returns COPY_ROW and COPY_LIST_ROW of all possible copies, and FIXED_COPY_ROW of stays in other fast spaces."""
    problem, space = frame.problem, frame.space
    buffers = frame.chains.buffer[frame.chains.chain].tolist()
    into, home = (0, space), (space, 0)
    described = [(buffer, into) for buffer in buffers] + [(buffer, home) for buffer in buffers] + [(0, into)]
    fixed: list[tuple[int, int]] = []
    for stay in frame.elsewhere:
        for times, route in ((stay.prefetches, (0, stay.space)), (stay.evictions, (stay.space, 0))):
            for start, done in times:
                if start >= 0:  # What the previous run of the program left costs nothing.
                    described.append((stay.buffer, route))
                    fixed.append((start, done))
    copies, copy_lists = np.zeros(len(described), COPY_ROW), np.zeros(len(described), COPY_LIST_ROW)
    for number, (buffer, route) in enumerate(described):
        if route in problem.link_between and len(frame.sizes):
            link = problem.links[problem.link_between[route]]
            row = copies[number]
            row["bytes"], row["bandwidth"], row["latency"] = frame.sizes[buffer], link.bandwidth, link.latency
            row["queue"], row["channel"] = link.queue, link.channel
    for name in ("start", "done", "next_issued", "next_awaited"):
        copy_lists[name] = NONE
    return copies, copy_lists, np.array(fixed, FIXED_COPY_ROW)


def _marks(frame: Frame) -> Integers:
    """Returns `[n + 2]` the last time up to each one that is outside of loops and branches."""
    regions = frame.problem.regions
    marks = np.arange(frame.problem.end + 2)
    outermost = [region for region in regions[1:] if region.parent == 0 and region.start < region.end]
    before = None
    for region in sorted(outermost, key=lambda region: region.start):
        # The branches of a conditional all start from the same state.
        adjoins = before is not None and before.end == region.start
        is_further = (
            adjoins and before is not None and region.kind is RegionKind.BRANCH and before.group == region.group
        )
        first = marks[region.start - 1] if is_further else region.start
        marks[region.start : region.end] = first
        before = region
    return marks


def in_one_piece(tables: StayTables) -> tuple[StayTables, Integers, Integers]:
    """Returns a copy of tables whose decisions lie in one array, with `[3, num_items]` more, and that array.

    Thus all that a search decides can be saved or restored at once. The items, the accesses and what is added lie at
    the end, in this order.
    """
    parts = {name: getattr(tables, name) for name in ("slots", "operations", "free", "facts", "items", "accesses")}
    ends = np.cumsum([part.nbytes // 8 for part in parts.values()]).tolist()
    num_items = len(tables.items)
    whole = np.full(ends[-1] + 3 * num_items, NONE, np.int64)
    views: dict[str, np.ndarray] = {}
    for (name, part), end in zip(parts.items(), ends, strict=True):
        views[name] = whole[end - part.nbytes // 8 : end].view(part.dtype)
        views[name][:] = part
    return tables._replace(**views), whole[ends[-1] :].reshape(3, num_items), whole
