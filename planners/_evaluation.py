"""The latency of a search's tables without Python between them: what `_evaluation_kernel.py` works on.

The search for stays evaluates thousands of candidates a second. `TimingEmulator` takes arrays of a plan and sorts them
anew for each call; here all arrays are made once, and the kernel fills them straight from the tables.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.emulator.timing_rows import (
    COPY,
    ISSUE,
    OPERATION,
    Machine,
    Rows,
    Schedule,
    Stack,
    new_machine,
    new_stack,
)
from memplan.planners._frame import Frame
from memplan.planners._tables import NONE, Tables

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Of a copy as the tables name it: its half-open times, whether it goes from home to the fast space (1), from there home
# (0), or between others (2 and on, by elsewhere), and its buffer.
MOVE = np.dtype([("start", np.int64), ("done", np.int64), ("way", np.int64), ("buffer", np.int64)], align=True)

# Of a way that copies take: see `emulator/timing_rows.COPY`.
WAY = np.dtype(
    [("bandwidth", np.float64), ("latency", np.float64), ("queue", np.int64), ("channel", np.int64)], align=True
)


class Evaluation(NamedTuple):
    """What the latency of tables of one frame is computed with. For `n` operations.

    Attributes:
      floor, overhead: `[n]` seconds.
      cost: `[num_accesses, 2]` seconds that each access adds to its operation, at home and in the fast space.
      taken: `[num_accesses, 2]` seconds that it takes of a channel.
      channel: `[num_accesses, 2]` which; -1 for none.
      sizes: `[num_buffers]` bytes.
      ways: WAY of copies home, from home, and of those in `fixed`.
      fixed: MOVE of the copies of stays in other fast spaces.
      refill: `[1]` when the kept buffer is copied back for the next run; -1 if none is kept.
      kept_item: `[1]` item whose run keeps it; -1 for none.
      moves, sorted_moves: MOVE, scratch.
      counts: `[n + 3]` scratch.
      busy: `[n, num_channels]` scratch.
      schedule, machine, stack: of the emulator's kernel, with room for all copies that can be.
    """

    floor: Floats
    overhead: Floats
    cost: Floats
    taken: Floats
    channel: Integers
    sizes: Floats
    ways: Rows
    fixed: Rows
    refill: Integers
    kept_item: Integers
    moves: Rows
    sorted_moves: Rows
    counts: Integers
    busy: Floats
    schedule: Schedule
    machine: Machine
    stack: Stack


def make_evaluation(frame: Frame, emulator: TimingEmulator, kept: int = NONE, refill: int = NONE) -> Evaluation:
    """Returns what the latency of the frame's tables is computed with.

    Args:
      frame: whose tables.
      emulator: of the frame's problem.
      kept: buffer that stays in the fast space from one run to the next; -1 for none.
      refill: when its copy for the next run starts; -1 for none.
    """
    problem, space, n = frame.problem, frame.space, frame.problem.end
    places = np.stack([frame.served, np.full(len(frame.served), space)], axis=1)
    rows = np.arange(len(frame.served))[:, None]
    cost = np.array([access.cost for _, access in problem.accesses], np.float64).reshape(-1, len(problem.spaces))
    moved = np.array([access.bytes for _, access in problem.accesses], np.float64)
    channels = np.array([s.channel for s in problem.spaces], np.int64)
    bandwidths = np.array([s.bandwidth for s in problem.spaces], np.float64)

    routes = [(space, 0), (0, space)]
    fixed: list[tuple[int, int, int, int]] = []
    for stay in frame.elsewhere:
        for copies, route in ((stay.fills, (0, stay.space)), (stay.spills, (stay.space, 0))):
            for start, done in copies:
                if start >= 0:  # What the previous run of the program left costs nothing.
                    if route not in routes[2:]:
                        routes.append(route)
                    fixed.append((start, done, routes.index(route, 2), stay.buffer))
    ways = np.zeros(len(routes), WAY)
    for number, route in enumerate(routes):
        if route in problem.link_between:
            link = problem.links[problem.link_between[route]]
            ways[number] = (link.bandwidth, link.latency, link.queue, link.channel)

    capacity = 2 * len(frame.chains.chain) + len(fixed) + 1
    operations = np.zeros(n + 2, OPERATION)
    operations["opens"] = emulator.opens
    num_channels, num_queues = emulator.num_channels, emulator.num_queues
    chain = np.flatnonzero((frame.chains.buffer == kept) & (frame.chains.parent == NONE))
    return Evaluation(
        floor=np.array([operation.floor for operation in problem.operations], np.float64),
        overhead=np.array([operation.overhead for operation in problem.operations], np.float64),
        cost=cost[rows, places],
        taken=moved[:, None] / bandwidths[places],
        channel=channels[places],
        sizes=frame.sizes,
        ways=ways,
        fixed=np.array(fixed, MOVE),
        refill=np.array([refill], np.int64),
        kept_item=np.array([frame.chains.first[chain[0]] if len(chain) else NONE], np.int64),
        moves=np.zeros(capacity, MOVE),
        sorted_moves=np.zeros(capacity, MOVE),
        counts=np.zeros(n + 3, np.int64),
        busy=np.zeros((n, num_channels)),
        schedule=Schedule(
            operations,
            np.zeros((n, num_channels)),
            emulator.region_rows,
            emulator.opened,
            np.zeros(capacity, np.int64),
            np.zeros(capacity, ISSUE),
        ),
        machine=new_machine(np.zeros(capacity, COPY), num_queues, num_channels),
        stack=new_stack(emulator.max_depth, num_queues, capacity),
    )


def in_one_piece(tables: Tables) -> tuple[Tables, Integers, Integers]:
    """Returns a copy of tables whose decisions lie in one array, with `[3, num_items]` more, and that array.

    So all that a search decides can be kept or restored at once.
    """
    parts = {name: getattr(tables, name) for name in ("slots", "items", "operations", "accesses", "free", "facts")}
    ends = np.cumsum([part.nbytes // 8 for part in parts.values()]).tolist()
    num_items = len(tables.items)
    whole = np.full(ends[-1] + 3 * num_items, NONE, np.int64)
    views: dict[str, np.ndarray] = {}
    for (name, part), end in zip(parts.items(), ends, strict=True):
        views[name] = whole[end - part.nbytes // 8 : end].view(part.dtype)
        views[name][:] = part
    return tables._replace(**views), whole[ends[-1] :].reshape(3, num_items), whole
