"""Stays from one run of the program to the next: which arguments may have one (XLA's cross-program prefetch)."""

from __future__ import annotations

import numpy as np

from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.stays.chains import Chains
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.rules import MOST_KEPT
from memplan.planners.stays.tables import NONE


def lasting_chains(problem: MappingProblem, chains: Chains) -> list[int]:
    """Returns the outermost chains of arguments that the program uses, does not change, and leaves to its caller."""
    changed = {access.buffer for _, access in problem.accesses if access.kind is not AccessKind.READ}
    found = []
    for chain in np.flatnonzero((chains.parent == NONE) & (chains.first < chains.last)).tolist():
        buffer = int(chains.buffer[chain])
        described = problem.buffers[buffer]
        if described.initial_space is not None and described.end > problem.end and buffer not in changed:
            found.append(chain)
    return found


def arguments_to_keep(frame: Frame) -> list[int]:
    """Returns the arguments that may stay from run to run, those first whose first use gains most."""
    chains, tables = frame.chains, frame.tables
    ranked = []
    for chain in lasting_chains(frame.problem, chains):
        item = chains.first[chain]
        accesses = tables.accesses[chains.accesses[chains.first_access[item] : chains.last_access[item]]]
        gain = float(accesses["saving"] @ tables.operations["repetitions"][accesses["time"]])
        ranked.append((-gain, int(chains.buffer[chain])))
    return [buffer for _, buffer in sorted(ranked)]


def kept_choices(frame: Frame) -> list[int]:
    """Returns what a search tries to keep from run to run: -1, for nothing, and then the best few arguments."""
    if not frame.problem.cross_program_prefetches:
        return [NONE]
    return [NONE, *arguments_to_keep(frame)[:MOST_KEPT]]


def kept_item(chains: Chains, buffer: int) -> int:
    """Returns the item with which the run begins that keeps a buffer from run to run; -1 if no run can keep it."""
    chain = np.flatnonzero((chains.buffer == buffer) & (chains.parent == NONE) & (chains.first < chains.last))
    return int(chains.first[chain[0]]) if len(chain) else NONE
