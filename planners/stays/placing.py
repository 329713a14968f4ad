"""Offsets of decisions: of the homes in the space, which must have some, and of the runs, as far as they find any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.must_fit import place_all
from memplan.planners.stays.packing import UNPLACED, pack

Integers = NDArray[np.int64]


def offsets_of(decisions: Decisions, few: int = 0, exact_effort: float = 0.0, exact_nodes: int = 0) -> Integers:
    """Returns `[num_homes + num_runs]` bytes; `UNPLACED` (-1) for runs that find no place.

    Args:
      decisions: on one fast space.
      few: constraint programming is asked where at most this many find no place otherwise.
      exact_effort, exact_nodes: see `pack`.

    Raises:
      PlannerError: the homes in the space do not fit.
    """
    frame, blocks = decisions.frame, decisions.blocks()
    offsets = pack(frame.problem, frame.space, blocks, exact_nodes=exact_nodes)
    if exact_effort > 0.0 and 0 < (offsets == UNPLACED).sum() <= few:
        offsets = pack(frame.problem, frame.space, blocks, exact_effort=exact_effort)
    num_homes = len(frame.homes)
    if (offsets[:num_homes] == UNPLACED).any():
        # Homes come first, and nothing else is placed then.
        buffers = [frame.problem.buffers[number] for number in frame.homes]
        rows = [(buffer.start, buffer.end, buffer.size) for buffer in buffers]
        homes = place_all(frame.problem, frame.space, [buffer.name for buffer in buffers], rows)
        offsets = np.concatenate([homes, np.full(len(offsets) - num_homes, UNPLACED)])
    return offsets


def placed(decisions: Decisions, offsets: Integers) -> tuple[Decisions, Integers, Integers]:
    """Returns decisions without the runs that have no offset, the offsets of the rest, and those runs.

    Args:
      decisions: on one fast space.
      offsets: from `offsets_of`.
    """
    is_lost = offsets == UNPLACED
    left_out = decisions.runs()[is_lost[len(decisions.frame.homes) :]]
    return decisions.without(left_out.tolist()), offsets[~is_lost], left_out
