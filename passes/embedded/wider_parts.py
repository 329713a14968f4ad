"""Steps that write in place take wider parts, where the arena has room for them.

A depthwise convolution that writes over its input channel by channel reads single bytes with a stride. Four channels at
a time are read as one word, but need four times the workspace. The plan is made with the least workspace; memory that
it leaves free while such a step runs is used here, so neither the peak nor the arena grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memplan.compiler.embedded.plan import ArenaBlock, EmbeddedPlan


def with_wider_parts(plan: EmbeddedPlan) -> EmbeddedPlan:
    """Returns the plan with wider parts where the peak and the arena stay what they are."""
    ways, blocks, loads = list(plan.in_place), list(plan.blocks), plan.loads
    for time, k in enumerate(plan.order):
        way = ways[k]
        if way is None or way.slices is None:
            continue
        for wider in plan.program.steps[k].in_place:
            if replace(wider, width=way.width, workspace=way.workspace) != way or wider.width <= way.width:
                continue
            if loads[time] + wider.workspace - way.workspace > plan.peak:
                continue
            others = [b for b in blocks if b.start <= time < b.end and b.buffer is not None]
            offset = _free_offset(others, wider.workspace, plan.arena)
            if offset is not None:
                ways[k] = wider
                blocks = [b for b in blocks if b.buffer is not None or b.start != time]
                blocks.append(ArenaBlock(None, offset, wider.workspace, time, time + 1))
    return replace(plan, in_place=tuple(ways), blocks=tuple(blocks))


def _free_offset(blocks: Sequence[ArenaBlock], size: int, end: int) -> int | None:
    """Returns the lowest place for so many bytes beside blocks, below an end; None if there is none."""
    offset = 0
    for block in sorted(blocks, key=lambda each: each.offset):
        if block.offset - offset >= size:
            return offset
        offset = max(offset, block.offset + block.size)
    return offset if end - offset >= size else None
