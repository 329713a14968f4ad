"""What a copy takes of its channel and of memory, in the relaxation of the mapping (see `relaxation.py`, *Copies*)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from memplan.planners.ilp.linear import ZERO, Affine
from memplan.planners.ilp.model import Flight, Gap, Relaxation, RelaxedCopy
from memplan.planners.ilp.nest import Nest
from memplan.planners.ilp.stages import Stage, make_stages


def write_copy(
    model: Relaxation, nest: Nest, gap: Gap, ends: tuple[int, int], copied: Affine, window: tuple[int, int]
) -> None:
    """Adds to a model what a copy takes of its channel, and of memory while it is in flight.

    Args:
      model: that the copy is added to.
      nest: of the problem's regions.
      gap: in which the copy is done.
      ends: the spaces `(source, destination)`.
      copied: whether the copy is made.
      window: the earliest time at which it can start and the latest at which it can be done.
    """
    problem, program = model.problem, model.program
    number = problem.link_between[ends]
    link = problem.links[number]
    times = problem.repetitions[gap.region] * nest.cheapest[gap.region]
    seconds = problem.buffers[gap.buffer].size / link.bandwidth * times
    if seconds <= 0.0:
        return
    # A copy that can start at the start of the span may have moved before it.
    is_open = gap.region == 0 and window[0] == model.span.first > 0
    if not is_open:
        model.copies.append(RelaxedCopy(gap.region, number, *window, copied, seconds, times))
    fine_start, fine_end = (model.takes_room(gap.buffer, space) for space in ends)
    ratio = model.precision.ratio_of(gap.name_of(ends))
    stages = make_stages(model.tree, ratio, nest.inner[gap.region], *window, fine_start, fine_end)
    nodes = [node for stage in stages for node in stage.nodes]
    # What has moved before each node, and before the end.
    moved = [program.fraction() if is_open else ZERO]
    for left, right in itertools.pairwise(nodes):
        program.positions = model.tree.interval(left)[0], model.tree.interval(right)[1]
        moved.append(program.fraction())
    moved.append(copied)
    for node, before, after in zip(nodes, moved, moved[1:], strict=False):
        if before.terms:
            program.at_most(before - after)
        model.move(link.channel, node, (after - before).scaled(seconds))
        gap.moved.setdefault(ends, []).append((*model.tree.interval(node), after - before))
    _Ends(model, gap, ends, copied, (link.channel, seconds)).write(stages, moved)


@dataclass(frozen=True)
class _Ends:
    """The memory at both ends of a copy while it is in flight.

    Attributes:
      model, gap, ends, copied: as for `write_copy`.
      moving: number of the channel, and the seconds for which the copy moves over the whole program.
    """

    model: Relaxation
    gap: Gap
    ends: tuple[int, int]
    copied: Affine
    moving: tuple[int, float]

    def write(self, stages: Sequence[Stage], moved: Sequence[Affine]) -> None:
        """Occupies the destination for what has begun to move, and the source for what has not moved yet.

        Args:
          stages: of the copy.
          moved: what part has moved before each node of the stages, and at the end.
        """
        model, gap = self.model, self.gap
        source, destination = self.ends
        fine_start, fine_end = (model.takes_room(gap.buffer, space) for space in self.ends)
        start, end = model.tree.interval(stages[0].nodes[0])[0], model.tree.interval(stages[-1].nodes[-1])[1]
        previous, number = moved[0], 0
        for stage in stages:
            before, after = moved[number], moved[number + len(stage.nodes)]
            number += len(stage.nodes)
            first, last = model.tree.interval(stage.nodes[0])[0], model.tree.interval(stage.nodes[-1])[1]
            is_exact = model.precision.strict or stage.is_whole
            model.program.positions = first, last
            if fine_end:
                # What moves in a node was issued by its last operation at the latest.
                begun = _begun(model, after)
                for node in stage.nodes:
                    model.occupy(destination, node, gap.buffer, begun if is_exact else previous)
                if not is_exact:
                    model.occupy(destination, model.tree.size + last - 1, gap.buffer, begun - previous)
                previous = begun
                self._confine(destination, self.copied - begun, last, end)
            if fine_start and first >= 2 * gap.first and last <= 2 * gap.last:
                left = self.copied - (before if is_exact else after)
                kept = gap.kept.get(source, ZERO)
                beyond = model.program.binary() if model.precision.whole else model.program.fraction()
                model.program.at_most(left - kept - beyond)
                for node in stage.nodes:
                    model.occupy(source, node, gap.buffer, beyond)
                self._confine(source, self.copied - kept - beyond, start, first if is_exact else last)

    def _confine(self, space: int, confined: Affine, low: int, high: int) -> None:
        """Notes that the copy moves within positions `[low, high)` if `confined` is 1, see `Flight`."""
        if self.model.precision.whole:
            self.model.flights.append(Flight(*self.moving, space, confined, low, high))


def _begun(model: Relaxation, part: Affine) -> Affine:
    """Returns what part of the destination a copy occupies, given how much of it has moved."""
    if not model.precision.whole or not part.terms:
        return part
    begun = model.program.binary()
    model.program.at_most(part - begun)
    return begun
