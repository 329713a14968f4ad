"""Reductions before the search: independent parts, blocks that may lie at the bottom, and the unit of sizes.

▲ ┌────┐ ┌───┐          A block that is alive throughout its part of the time can as well lie at the bottom:
  │ b  │ │ c │          what is beneath it moves up by its size. Without it, the part may fall into smaller ones.
  ├────┴─┴───┤
  │    a     │
  └──────────┴──► time
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memplan.planners.offsets.geometry import components
from memplan.planners.offsets.instance import Instance, Integers

# How many blocks are looked at for each block of an instance, before what is left is not split any further.
_WORK = 20


@dataclass(frozen=True, eq=False)
class InstancePart:
    """Blocks that are packed by themselves.

    Attributes:
      blocks: `int64` their numbers in the whole instance, ascending.
      beneath: `int64` numbers of the blocks at the bottom, which are alive throughout the time of the part.
      base: bytes that the blocks at the bottom take.
      unit: bytes of which offsets above the base are multiples.
      instance: the blocks, sizes in units.
    """

    blocks: Integers
    beneath: Integers
    base: int
    unit: int
    instance: Instance

    def room(self, capacity: int) -> int:
        """Returns how many units lie between the base and a capacity in bytes; negative if the base is over it."""
        return (capacity - self.base) // self.unit


def reduced(instance: Instance) -> tuple[list[InstancePart], Integers]:
    """Returns the parts of an instance, and offsets of the blocks that are in no part; other offsets mean nothing.

    Blocks of size 0 and blocks at the bottom of a part are in no part.
    """
    offsets = np.where(instance.fixed >= 0, instance.fixed, 0)
    parts: list[InstancePart] = []
    nothing = np.empty(0, np.int64)
    waiting = [(blocks, nothing, 0) for blocks in components(instance)]
    work = _WORK * len(instance)
    while waiting:
        blocks, beneath, base = waiting.pop()
        work -= len(blocks) + len(beneath)
        own = instance.subset(blocks)
        unit = unit_of(own)
        small = scaled(own, unit)
        lasting = _lasting(small)
        if not lasting.any() or lasting.all() or work < 0:
            parts.append(InstancePart(blocks, beneath, base, unit, small))
            continue
        bottom, rest = blocks[lasting], blocks[~lasting]
        tops = base + np.cumsum(instance.size[bottom])
        offsets[bottom] = tops - instance.size[bottom]
        beneath = np.concatenate([beneath, bottom])
        for component in components(instance.subset(rest)):
            waiting.append((rest[component], beneath, int(tops[-1])))
    return parts, offsets


def _lasting(small: Instance) -> NDArray[np.bool_]:
    """Returns `[num_blocks] bool`: which blocks may lie at the bottom of a part, given in units."""
    if (small.alignment > 1).any() or (small.fixed >= 0).any():
        return np.zeros(len(small), np.bool_)
    has_gaps = np.zeros(len(small), np.bool_)
    has_gaps[small.gap_block] = True
    return (small.lower == np.min(small.lower)) & (small.upper == np.max(small.upper)) & ~has_gaps


def unit_of(instance: Instance) -> int:
    """Returns a number of bytes such that in some lowest packing all offsets and tops are multiples of it.

    In a packing in which no block can move down, each block lies at 0, at its fixed offset, or on another block.

    Args:
      instance: it has no block of size 0.
    """
    unit = math.gcd(*instance.size.tolist(), *instance.fixed[instance.fixed > 0].tolist())
    while True:
        neither = instance.alignment[(unit % instance.alignment != 0) & (instance.alignment % unit != 0)]
        if not len(neither):
            return unit
        unit = math.gcd(unit, *neither.tolist())


def scaled(instance: Instance, unit: int) -> Instance:
    """Returns an instance in units of a number of bytes that `unit_of` returned."""
    is_finer = unit % instance.alignment == 0
    alignment = np.where(is_finer, 1, instance.alignment // unit)
    fixed = np.where(instance.fixed > 0, instance.fixed // unit, instance.fixed)
    return replace(instance, size=instance.size // unit, alignment=alignment, fixed=fixed)
