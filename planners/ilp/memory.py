"""The memory of each space, in the relaxation of the mapping: sums of sizes, at every time (see `relaxation.py`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memplan.planners.ilp.linear import ZERO, add_up, column
from memplan.planners.ilp.model import Relaxation
from memplan.planners.ilp.tree import Tree
from memplan.planners.stays.assembly import home_of

Floats = NDArray[np.float64]


def write_memory(model: Relaxation) -> None:
    """Limits what is occupied in each fast space, at every time, by what the space holds less what is reserved."""
    for space in range(1, len(model.problem.spaces)):
        if model.occupied[space]:
            _limit(model, space)


def _limit(model: Relaxation, space: int) -> None:
    """Goes down the tree with the sum of what is occupied, to where nothing below occupies anything."""
    occupied, tree, program = model.occupied[space], model.tree, model.program
    room = _least_room(tree, room_of(model, space))
    inside = tree.ancestors(occupied)
    top = max(float(np.max(room[np.isfinite(room)], initial=0.0)), 1.0)
    pending = [(1, ZERO)]
    while pending:
        node, load = pending.pop()
        own = occupied.get(node, [])
        if own:
            load = load + add_up(own)
            if node in inside and len(load.terms) > 1:
                program.positions = tree.interval(node)
                total = column(program.add_column(0.0, top))
                program.at_most(load - total)
                load = total
        if node not in inside:
            if load.terms:
                program.at_most(load, max(float(room[node]), 0.0))
            continue
        for child in (2 * node, 2 * node + 1):
            if child in inside or child in occupied:
                pending.append((child, load))
            elif load.terms and np.isfinite(room[child]):
                program.at_most(load, max(float(room[child]), 0.0))


def room_of(model: Relaxation, space: int) -> Floats:
    """Returns `[num_operations]` units of the alignment that are free for what the program may move."""
    problem = model.problem
    described, unit = problem.spaces[space], problem.spaces[space].alignment
    reserved = np.array([operation.reserved[space] for operation in problem.operations], np.int64)
    room = -(-described.capacity // unit) - -(-reserved // unit)
    for number, buffer in enumerate(problem.buffers):
        if buffer.persistent and home_of(problem, number) == space:
            room[buffer.start : buffer.end] -= -(-buffer.size // unit)
    return room.astype(np.float64)


def _least_room(tree: Tree, room: Floats) -> Floats:
    """Returns `[num_nodes]` the least room of the operations in each node, infinite where a node has none.

    Args:
      tree: over the positions.
      room: `[num_operations]` units that are free.
    """
    least = np.full(2 * tree.size, np.inf)
    half = tree.size // 2
    least[half : half + len(room)] = room
    for node in range(half - 1, 0, -1):
        least[node] = min(least[2 * node], least[2 * node + 1])
    return least
