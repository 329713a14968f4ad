"""Positions: every array, and every tuple around arrays, that an instruction of the flattened program gives.

A position is what XLA calls an HloPosition: an instruction and a tuple index into its shape. Positions are numbered in
order of time, those of one step in the order of `Shape` with a tuple before its elements:

    while.3 = (s32[], (f32[8], f32[9]))     first+0 {}   first+1 {0}   first+2 {1}   first+3 {1,0}   first+4 {1,1}
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass

from memplan.compiler.analysis.schedule import Schedule
from memplan.compiler.ir import Shape


@dataclass(frozen=True, slots=True)
class Nodes:
    """A shape and all shapes in it, each tuple before its elements.

    Attributes:
      paths: `[num_nodes]` tuple indices.
      shapes: `[num_nodes]`.
      arrays: numbers of the nodes that are arrays.
      elements: numbers of the nodes that are the elements of the whole shape; empty if it is no tuple.
      number: tuple index to the number of the node.
    """

    paths: tuple[tuple[int, ...], ...]
    shapes: tuple[Shape, ...]
    arrays: tuple[int, ...]
    elements: tuple[int, ...]
    number: Mapping[tuple[int, ...], int]

    def __len__(self) -> int:
        return len(self.shapes)

    def element(self, index: int) -> range:
        """Returns the nodes of an element of the whole shape."""
        end = self.elements[index + 1] if index + 1 < len(self.elements) else len(self.shapes)
        return range(self.elements[index], end)

    def below(self, path: tuple[int, ...]) -> range:
        """Returns the node at a tuple index and all nodes in it."""
        start = end = self.number[path]
        while end < len(self.paths) and self.paths[end][: len(path)] == path:
            end += 1
        return range(start, end)


class NodeCache:
    """Nodes of shapes, computed once per Shape object."""

    def __init__(self) -> None:
        self._nodes: dict[int, Nodes] = {}
        self._kept: list[Shape] = []  # an id is only good as long as its object lives

    def of(self, shape: Shape) -> Nodes:
        nodes = self._nodes.get(id(shape))
        if nodes is None:
            nodes = self._nodes[id(shape)] = _nodes(shape)
            self._kept.append(shape)
        return nodes


def _nodes(shape: Shape) -> Nodes:
    paths: list[tuple[int, ...]] = []
    shapes: list[Shape] = []
    pending: list[tuple[tuple[int, ...], Shape]] = [((), shape)]
    while pending:
        path, part = pending.pop()
        paths.append(path)
        shapes.append(part)
        for i in reversed(range(len(part.elements))):
            pending.append(((*path, i), part.elements[i]))
    return Nodes(
        tuple(paths),
        tuple(shapes),
        tuple(i for i, part in enumerate(shapes) if part.is_array),
        tuple(i for i, path in enumerate(paths) if len(path) == 1),
        {path: i for i, path in enumerate(paths)},
    )


class Positions:
    """The numbering of all positions of a schedule.

    Attributes:
      nodes: `[num_steps]` the nodes of each step's shape.
      first: `[num_steps + 1]` number of each step's first position; the last entry is the number of positions.
    """

    def __init__(self, schedule: Schedule):
        cache = NodeCache()
        self.schedule = schedule
        self.nodes = [cache.of(step.instruction.shape) for step in schedule.steps]
        self.first = [0]
        for nodes in self.nodes:
            self.first.append(self.first[-1] + len(nodes))

    def __len__(self) -> int:
        return self.first[-1]

    def time(self, position: int) -> int:
        """Returns the time of the step that a position belongs to."""
        return bisect.bisect_right(self.first, position) - 1

    def shape(self, position: int) -> Shape:
        time = self.time(position)
        return self.nodes[time].shapes[position - self.first[time]]

    def path(self, position: int) -> tuple[int, ...]:
        """Returns the tuple index of a position in the shape of its instruction."""
        time = self.time(position)
        return self.nodes[time].paths[position - self.first[time]]

    def name(self, position: int) -> str:
        """Returns `instruction` or `instruction{tuple index}`."""
        time, path = self.time(position), self.path(position)
        name = self.schedule.steps[time].instruction.name
        return name + "{" + ",".join(map(str, path)) + "}" if path else name
