"""The arrays that the timing emulator's inner loop works on (`timing_kernel.py`).

A few structured arrays hold everything, with a row for each operation, copy, and so on, because the time of a call to a
compiled function grows with the number of its arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNSET = -1.0


def _row(**fields: type) -> np.dtype[Any]:
    return np.dtype(list(fields.items()), align=True)


# One for each operation, one for the end of the program, and one more for the ends of the lists.
#   duration: seconds. start: when it starts. stall: seconds that it waits. (First execution; UNSET before it.)
#   opens, awaits, issues: where its part of the lists `opened`, `awaited` and `issued` begins.
OPERATION_ROW = _row(duration=float, start=float, stall=float, opens=int, awaits=int, issues=int)

# One for each loop and branch.
#   start, end: half-open times. trips: trip count, or probability of a branch.
#   is_branch: of a conditional, whose branches are adjacent. is_first, is_last: among those.
REGION_ROW = _row(start=int, end=int, trips=float, is_branch=bool, is_first=bool, is_last=bool)

# One for each copy.
#   bytes, bandwidth, latency, queue, channel: what it moves, and how.
#   is_pending: whether it is in its queue. next: the copy behind it there; -1 for the last.
#   remaining: bytes yet to be moved. ready: time before which its latency holds it back.
#   lowest: least `remaining` at the end of any branch within the innermost iteration.
#   issue, begin, end: when it enters its queue, could move, and is finished. (First execution; UNSET before it.)
COPY_ROW = _row(
    bytes=float, bandwidth=float, latency=float, queue=int, channel=int, is_pending=bool, next=int, remaining=float,
    ready=float, lowest=float, issue=float, begin=float, end=float,
)  # fmt: skip

# One for each queue: the copies at its front and at its back; -1 where it is empty.
QUEUE_ROW = _row(head=int, tail=int)

# One for each open loop, and for each open conditional one, with one for its open branch on top: the state when the
# iteration, the conditional or the branch began.
#   region: index of the loop, or of the first branch of the conditional.
#   clock, stalled: seconds then. num_pending: how many copies were pending.
#   done: iterations of the loop so far, or the probability of the branches so far. walked: iterations walked so far.
#   clock_sum, stalled_sum: expected seconds in the branches so far.
FRAME_ROW = _row(
    region=int, clock=float, stalled=float, num_pending=int, done=float, walked=int, clock_sum=float, stalled_sum=float
)

# One for each copy that was pending when a frame was made, in the order of its queue.
#   number: of the copy. remaining, wait: bytes and seconds that were left of it. lowest, begin, end: its own then.
#   remaining_sum, wait_sum, is_left: expectations after the branches so far, and whether it was pending after any.
SAVED_ROW = _row(
    number=int, remaining=float, wait=float, lowest=float, begin=float, end=float, remaining_sum=float, wait_sum=float,
    is_left=bool,
)  # fmt: skip

# A copy issued, and whether it is awaited at once.
ISSUE_ROW = _row(number=int, is_synchronous=bool)

Rows = NDArray[np.void]


class ScheduleRows(NamedTuple):
    """The program and its plan, for `n` operations.

    Attributes:
      operations: `[n + 2]` OPERATION_ROW.
      idle_fraction: `[n, num_channels]` part of each channel that an operation leaves to copies.
      regions: `[num_regions]` REGION_ROW.
      opened: regions by time of their start, parents first.
      awaited: copies issued earlier, by the time at which they are awaited.
      issued: ISSUE_ROW, by the time at which they are issued, in the plan's order.
    """

    operations: Rows
    idle_fraction: NDArray[np.float64]
    regions: Rows
    opened: NDArray[np.int64]
    awaited: NDArray[np.int64]
    issued: Rows


class LinkState(NamedTuple):
    """The copies and their queues.

    Attributes:
      copies: `[num_copies]` COPY_ROW.
      queues: `[num_queues]` QUEUE_ROW.
      active: `[num_channels]` scratch: heads that move data on each channel.
      whole: `[num_channels]` ones: what copies have of each channel while everything waits for them.
    """

    copies: Rows
    queues: Rows
    active: NDArray[np.int64]
    whole: NDArray[np.float64]


class Stack(NamedTuple):
    """Frames: `[depth]` FRAME_ROW; `[depth, num_queues]` QUEUE_ROW; `[depth, max_pending]` SAVED_ROW."""

    frames: Rows
    queues: Rows
    saved: Rows


def new_link_state(copies: Rows, num_queues: int, num_channels: int) -> LinkState:
    """Returns the state of links whose queues are empty."""
    queues = np.zeros(num_queues, QUEUE_ROW)
    queues["head"] = queues["tail"] = -1
    return LinkState(copies, queues, np.zeros(num_channels, np.int64), np.ones(num_channels))


def new_stack(depth: int, num_queues: int, max_pending: int) -> Stack:
    """Returns room for `depth` frames."""
    return Stack(
        np.zeros(depth, FRAME_ROW), np.zeros((depth, num_queues), QUEUE_ROW), np.zeros((depth, max_pending), SAVED_ROW)
    )
