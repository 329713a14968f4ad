"""The best tiling of a group: what it keeps in fast memory, and the time that it takes. Compiled by numba.

A group is a nest of at most two loops over axes that its dimensions have in common (`axes.py`). With the loops `outer`
and `inner`, a value that has both axes is in fast memory one tile at a time, and a value that has neither is there all
the time:

    has axes         kept
    outer, inner     a tile of both, from its first use to its last; two tiles if the value is read from slow memory
                     or written there, since the next one is on its way meanwhile
    outer            a tile of it, all the time
    inner, or none   the whole value, all the time

So each operand is read once and nothing is computed twice, whatever the tiling is, and a tiling is possible if what it
keeps fits. Sums over a tiled axis are complete only at the end, so that no member of the group may read them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from memplan.compiler.kernels import internal
from memplan.passes.fusion.axes_kernel import AXES, Scratch, axes_of_group, axis_of
from memplan.passes.fusion.line import COLUMNS, DEPTH, ROWS, Array, LineArrays

# An axis is cut into up to this many tiles, or into tiles of fewer elements than this.
_FINE = 64

# A tiling whose time is at most this factor of the best possible time is good enough.
_CLOSE = 1.01

# What a value is to a group, as bits of its mark.
_MADE, _READ_WHOLE, _READ_IN_PARTS, _WRITTEN = 1, 2, 4, 8


class FusionTarget(NamedTuple):
    """What the cost of a group depends on.

    Attributes:
      bandwidth: bytes per second of the slow memory.
      launch: seconds of starting an instruction that touches more than `tiny` bytes.
      tiny: bytes.
      depth, width: elements of a matrix unit.
      usual, most: bytes of fast memory that every instruction may keep, and that a group may keep at the most.
    """

    bandwidth: float
    launch: float
    tiny: float
    depth: float
    width: float
    usual: float
    most: float


class Tiling(NamedTuple):
    """A group's best tiling.

    Attributes:
      seconds: infinity if none fits.
      kept: bytes of fast memory.
      outer_tiles, inner_tiles: 1 where there is no loop.
      outer, inner: dimensions that stand for the loops' axes, -1 where there is no loop.
      read, written: bytes of slow memory.
    """

    seconds: float
    kept: float
    outer_tiles: int
    inner_tiles: int
    outer: int
    inner: int
    read: float
    written: float


@internal
def evaluate(line: LineArrays, scratch: Scratch, members: Array, last: int, target: FusionTarget) -> Tiling:
    """Returns the best tiling of a group.

    Args:
      line: that the group is of.
      scratch: the group's members have been entered into it.
      members: positions, ascending.
      last: position of the segment's last member; what is read behind it must be written.
      target: what the cost depends on.
    """
    room = len(members)
    for p in members:
        room += line.read_start[p + 1] - line.read_start[p]
    values = np.empty(room, np.int64)
    count, read, written = _values_of(line, scratch, members, last, values)
    sizes = np.zeros(count)
    starts = np.zeros(count, np.int64)
    ends = np.zeros(count, np.int64)
    moves = np.zeros(count, np.bool_)
    for v in range(count):
        value = values[v]
        # Where a value is read in parts, only the parts are kept, and these are results.
        sizes[v] = 0.0 if scratch.mark[value] == _READ_IN_PARTS else line.bytes[value]
        moves[v] = scratch.mark[value] & _WRITTEN != 0 or scratch.mark[value] & _MADE == 0
        scratch.mark[value] = 0
    for k in range(len(members)):
        starts[k] = ends[k] = k
        scratch.slot[members[k]] = k
    for k in range(len(members)):
        p = members[k]
        for r in range(line.read_start[p], line.read_start[p + 1]):
            q = line.position[line.read_value[r]]
            if q >= 0 and members[scratch.slot[q]] == q:
                ends[scratch.slot[q]] = max(ends[scratch.slot[q]], k)
    vector = transcendental = products = 0.0
    for p in members:
        scratch.slot[p] = 0
        vector += line.vector[p]
        transcendental += line.transcendental[p]
    launch = target.launch if read + written > target.tiny else 0.0
    transfer = (read + written) / target.bandwidth
    none: Any = np.int64(-1)
    one: Any = np.int64(1)
    products = _products(line, scratch, members, none, none, one, one, target)
    ideal = launch + max(max(vector, transcendental), max(products, transfer))

    masks = np.zeros(count, np.int64)
    events = np.empty(len(members) + 2)
    whole = _kept(masks, sizes, starts, ends, moves, none, none, one, one, events)
    if whole <= target.usual:
        return Tiling(ideal, whole, one, one, none, none, read, written)

    axes = axes_of_group(line, scratch, members, last, values, count)
    for v in range(count):
        value = values[v]
        for dim in range(line.dim_start[value], line.dim_start[value + 1]):
            root = axis_of(scratch.parent, dim)
            for a in range(AXES):
                if axes[a] == root:
                    masks[v] |= 1 << a
    least = max(max(vector, transcendental), transfer)
    best = Tiling(np.inf, 0.0, one, one, none, none, read, written)
    for limit in (target.usual, target.most):
        if best.seconds > ideal * _CLOSE:
            found = _search(
                line, scratch, members, axes, masks, sizes, starts, ends, moves, launch, least, whole, limit, target,
                read, written,
            )  # fmt: skip
            if found.seconds < best.seconds:
                best = found
    return best


@internal
def _search(
    line: LineArrays, scratch: Scratch, members: Array, axes: Array, masks: Array, sizes: Array, starts: Array,
    ends: Array, moves: Array, launch: float, least: float, whole: float, limit: float, target: FusionTarget,
    read: float, written: float,
) -> Tiling:  # fmt: skip
    """Returns the fastest tiling that fits: without a loop, with one, or, if none of these fits, with two.

    Args:
      masks, sizes, starts, ends, moves: of the values, see `_kept`.
      launch, least: seconds of starting the group, and of all but its products at least.
      whole: bytes that the group keeps if it is not tiled.
      limit: bytes that it may keep.
      read, written: bytes of slow memory.
      others: as in `evaluate`.
    """
    none: Any = np.int64(-1)
    one: Any = np.int64(1)
    num_axes = 0
    while num_axes < AXES and axes[num_axes] >= 0:
        num_axes += 1
    events = np.empty(len(members) + 2)
    best = Tiling(np.inf, 0.0, one, one, none, none, read, written)
    for option in range(1 + num_axes + num_axes * (num_axes - 1)):
        if best.seconds < np.inf and option in (1, num_axes + 1):
            break  # it fits without a further loop
        outer = inner = none
        if 1 <= option <= num_axes:
            outer = option - 1
        elif option > num_axes:
            pair = option - 1 - num_axes
            outer, inner = pair // (num_axes - 1), pair % (num_axes - 1)
            if inner >= outer:
                inner += 1
        outer_tiles = inner_tiles = one
        kept = whole
        if outer >= 0:
            most_tiles = scratch.size[axes[outer]] if inner < 0 else scratch.size[axes[inner]]
            previous = 1
            for number in range(1, 2 * _FINE):
                tiles = _tiles(number, most_tiles)
                if tiles <= previous or most_tiles % tiles:
                    continue
                previous = tiles
                if inner < 0:
                    outer_tiles = tiles
                else:
                    outer_tiles, inner_tiles = scratch.size[axes[outer]], tiles
                kept = _kept(masks, sizes, starts, ends, moves, outer, inner, outer_tiles, inner_tiles, events)
                if kept <= limit:
                    break
        if kept > limit:
            continue
        outer_axis = axes[outer] if outer >= 0 else none
        inner_axis = axes[inner] if inner >= 0 else none
        products = _products(line, scratch, members, outer_axis, inner_axis, outer_tiles, inner_tiles, target)
        seconds = launch + max(least, products)
        if seconds < best.seconds:
            best = Tiling(seconds, kept, outer_tiles, inner_tiles, outer_axis, inner_axis, read, written)
    return best


@internal
def _values_of(
    line: LineArrays, scratch: Scratch, members: Array, last: int, values: Array
) -> tuple[int, float, float]:
    """Finds and marks the values of a group; returns how many there are, and the bytes read and written."""
    mark = scratch.mark
    count = 0
    for p in members:
        values[count] = line.order[p]
        mark[values[count]] |= _MADE
        count += 1
    read = written = 0.0
    for p in members:
        for r in range(line.read_start[p], line.read_start[p + 1]):
            value = line.read_value[r]
            if mark[value] & _MADE:
                continue
            if mark[value] == 0:
                values[count] = value
                count += 1
            if mark[value] & _READ_WHOLE == 0:
                read += line.read_bytes[r]
                mark[value] |= _READ_IN_PARTS if line.read_part[r] else _READ_WHOLE
    for p in members:
        if not line.leaves[p] and line.last_user[p] <= last:
            continue
        # A view is not written, but the value that it shows.
        source = p
        while line.viewed[source] >= 0 and mark[line.viewed[source]] & _MADE:
            source = line.position[line.viewed[source]]
        value = line.order[source]
        if line.viewed[source] < 0 and mark[value] & _WRITTEN == 0:
            mark[value] |= _WRITTEN
            written += line.bytes[value]
    return count, read, written


@internal
def _kept(
    masks: Array, sizes: Array, starts: Array, ends: Array, moves: Array, outer: int, inner: int, outer_tiles: int,
    inner_tiles: int, events: Array,
) -> float:  # fmt: skip
    """Returns the bytes that a group keeps in fast memory at the most.

    Args:
      masks: per value, bit `a` says that it has axis `a`.
      sizes: per value, bytes.
      starts, ends: per value, first and last member, from 0, that needs it.
      moves: per value, whether it is read from slow memory, or written there.
      outer, inner: axes of the loops; -1 for none.
      outer_tiles, inner_tiles: how many tiles they are cut into.
      events: scratch, two more than members.
    """
    always = 0.0
    events[:] = 0.0
    for v in range(len(masks)):
        has_outer = outer >= 0 and (masks[v] >> outer) & 1 == 1
        has_inner = inner >= 0 and (masks[v] >> inner) & 1 == 1
        tile = sizes[v]
        if has_outer:
            tile /= outer_tiles
            if has_inner:
                tile /= inner_tiles
        is_whole_loop = (outer < 0 or has_outer) and (inner < 0 or has_inner)
        if moves[v]:
            always += 2.0 * tile if outer >= 0 and is_whole_loop else tile
        elif not is_whole_loop:
            always += tile
        else:
            events[starts[v]] += tile
            events[ends[v] + 1] -= tile
    most = now = 0.0
    for k in range(len(events)):
        now += events[k]
        most = max(most, now)
    return always + most


@internal
def _tiles(number: int, size: int) -> int:
    """Returns how many tiles the `number`-th cut of an axis makes: few tiles first, then tiles of few elements."""
    return number + 1 if number < _FINE else size // (2 * _FINE - number)


@internal
def _products(
    line: LineArrays, scratch: Scratch, members: Array, outer: int, inner: int, outer_tiles: int, inner_tiles: int,
    target: FusionTarget,
) -> float:  # fmt: skip
    """Returns the seconds of a group's matrix products, with each tile padded to the matrix units."""
    total = 0.0
    for p in members:
        if line.matrix[p] == 0.0:
            continue
        rows, columns, depth = line.sizes[p, ROWS], line.sizes[p, COLUMNS], line.sizes[p, DEPTH]
        for entry in range(line.matrix_start[p], line.matrix_start[p + 1]):
            root = axis_of(scratch.parent, line.matrix_dim[entry])
            tiles = outer_tiles if root == outer else inner_tiles if root == inner else 1
            if line.matrix_side[entry] == ROWS:
                rows /= tiles
            elif line.matrix_side[entry] == COLUMNS:
                columns /= tiles
            else:
                depth /= tiles
        width = min(_padding(rows, target.width), _padding(columns, target.width))
        total += line.matrix[p] * _padding(depth, target.depth) * width
    return total


@internal
def _padding(size: float, unit: float) -> float:
    return np.ceil(size / unit) * unit / size if size > 0 else 1.0
