"""Which arguments may stay in fast memory from one run of the program to the next (cross-program prefetch)."""

from __future__ import annotations

import numpy as np

from memplan.compiler.analysis.program import AccessKind
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.tables import NONE


def arguments_to_keep(frame: Frame) -> list[int]:
    """Returns arguments that the program does not change, those first whose first use gains most."""
    problem, chains, tables = frame.problem, frame.chains, frame.tables
    changed = {access.buffer for _, access in problem.accesses if access.kind is not AccessKind.READ}
    ranked = []
    for chain in np.flatnonzero((chains.parent == NONE) & (chains.first < chains.last)).tolist():
        buffer, item = int(chains.buffer[chain]), chains.first[chain]
        described = problem.buffers[buffer]
        if described.initial_space is not None and described.end > problem.end and buffer not in changed:
            accesses = tables.accesses[chains.accesses[chains.first_access[item] : chains.last_access[item]]]
            gain = float(accesses["saving"] @ tables.operations["repetitions"][accesses["time"]])
            ranked.append((-gain, buffer))
    return [buffer for _, buffer in sorted(ranked)]
