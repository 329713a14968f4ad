"""Combinatorial Benders cuts: they tell the integer program why a solution of it has no offsets.

The strict program accounts for memory by sums of sizes, and offsets are found afterwards. Where there are none, an
irreducible infeasible subset of the stays does not fit together (`offsets/infeasible.py`). A cut demands that at least
one stay of the subset is shorter or is not made in the next solution (Codato and Fischetti, "Combinatorial Benders'
cuts for mixed-integer linear programming", 2006):

    sum of what is kept or served by the stays of the subset  <=  their number - 1

A cut ignores the times of copies, so it may forbid a plan whose copies start later. It is therefore added to the strict
program only, whose solutions become plans, and never to the relaxation, whose bound no plan may beat.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.effort import Effort, Guard
from memplan.planners.ilp.linear import ONE, ZERO, Affine, add_up
from memplan.planners.ilp.runs import Realization
from memplan.planners.offsets.infeasible import irreducible_infeasible_subset
from memplan.planners.offsets.instance import FREE, Instance
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.packing import UNPLACED, pack
from memplan.planners.stays.reserved import reserved_runs

Integers = NDArray[np.int64]

# The placements that the exact search may try before the stays count as not packed.
_NODES = 10_000


def found_offsets(decisions: Decisions) -> Integers | None:
    """Returns `[num_homes + num_runs]` offsets of all stays, in bytes; None if there are none, or none were found."""
    frame = decisions.frame
    offsets = pack(frame.problem, frame.space, decisions.blocks(), exact_nodes=_NODES)
    return offsets if (offsets != UNPLACED).all() else None


def add_cut(realization: Realization, decisions: Decisions, guard: Guard) -> bool:
    """Adds a cut for a solution whose stays have no offsets to its program; returns whether there is such a cut.

    Args:
      realization: of the solution.
      decisions: what the solution became, before anything else is changed.
      guard: ends the search for the subset early. If none is found, the cut is for all that is alive together with a
        stay that found no offset.
    """
    frame = decisions.frame
    instance = _instance(frame, decisions)
    capacity = frame.problem.spaces[frame.space].capacity // frame.unit
    subset = irreducible_infeasible_subset(instance, capacity, Effort.FAST, guard)
    if subset is not None:
        chosen = subset.blocks
    else:
        offsets = pack(frame.problem, frame.space, decisions.blocks())
        lost = int(np.argmin(offsets))
        chosen = np.flatnonzero((instance.lower < instance.upper[lost]) & (instance.upper > instance.lower[lost]))
    runs, first = decisions.runs(), len(frame.homes)
    members = [int(runs[block - first]) for block in chosen.tolist() if first <= block < first + len(runs)]
    parts = [part for run in members for part in _parts(realization, run, int(decisions.tables.items["run_last"][run]))]
    parts = [part for part in parts if part.terms]
    if not parts:
        return False
    # One of the parts must be given up.
    realization.model.program.at_most(add_up(parts) - ONE.scaled(len(parts) - 1.0))
    return True


def _instance(frame: Frame, decisions: Decisions) -> Instance:
    """Returns the instance to pack in units of the alignment: homes, stays, and what operations reserve."""
    blocks = decisions.blocks()
    reserved = reserved_runs(frame.problem, frame.space, frame.unit)
    lower, upper, gaps = [], [], []
    for item in range(len(blocks.size)):
        starts, ends = np.sort(blocks.start[blocks.item == item]), np.sort(blocks.end[blocks.item == item])
        lower.append(int(starts[0]))
        upper.append(int(ends[-1]))
        gaps.append([(end, start) for end, start in zip(ends[:-1].tolist(), starts[1:].tolist(), strict=True)])
    return Instance.of(
        lower=[*lower, *(start for start, _, _ in reserved)],
        upper=[*upper, *(end for _, end, _ in reserved)],
        size=[*(-(-blocks.size // frame.unit)).tolist(), *(size for _, _, size in reserved)],
        fixed=[FREE] * len(lower) + [0] * len(reserved),
        gaps=[*gaps, *([] for _ in reserved)],
    )


def _parts(realization: Realization, first: int, last: int) -> list[Affine]:
    """Returns what makes a stay last from its first item to its last: the values kept between, or the access served."""
    space, model = realization.frame.space, realization.model
    if first < last:
        chain = int(realization.chains.chain[first])
        gaps = [realization.gap_before(chain, item) for item in range(first + 1, last + 1)]
        return [gap.kept.get(space, ZERO) for gap in gaps if gap is not None]
    return [model.served.get(access, {}).get(space, ZERO) for access in realization.accesses(first)]
