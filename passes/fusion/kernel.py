"""The dynamic program over a line, compiled: which segments to cut it into, and how each group of a segment is tiled.

    line        a b c d e f g h       best[j + 1] = min over i of best[i] + cost(segment i … j)
    segments   [a b c][d][e f g h]
    groups      a─b c  d  e─f g─h     of a segment: what is connected by values that one makes and another reads, or
                                      that both read

A segment of a topological order is convex, whatever is in it: no path leaves it and comes back. This is the program of
Mullapudi et al. (PolyMage's grouping, ASPLOS 2016, section 4.2) and of Jangda and Bondhugula ("An effective fusion and
tile size model", PPoPP 2018, section 3) on a line instead of all of the graph's cuts, so that it is quadratic at most;
groups within a segment give back what a line takes away where chains interleave.

A group is a nest of at most two loops over axes that its dimensions have in common (`axes.py`). With the loops `outer`
and `inner`, a value that has both axes is in fast memory a tile at a time, one that has neither all the time:

    has axes         kept
    outer, inner     a tile of both, from its first use to its last; two of what is read from slow memory or written
                     there, since the next one is under way meanwhile
    outer            a tile of it, all the time
    inner, or none   whole, all the time

So each operand is read once and nothing is computed twice, whatever the tiling is, and a tiling is possible if what it
keeps fits. Sums over a tiled axis are accumulated, and whole only at the end, so that no member of the group may read
them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from memplan.passes.fusion.line import Arrays

Array = np.ndarray[Any, Any]

# Axes of a group that are tried, those of most bytes first.
AXES = 4

# Ways to cut an axis that are tried: into up to so many tiles, and into tiles of fewer elements than that.
_FINE = 64

# Of the time that data takes, what counts even where it hides behind arithmetic: of two ways that are equally fast, the
# one that moves less leaves more to others.
_HIDDEN = 0.02

# A tiling whose time is that close to the best possible one is good enough.
_CLOSE = 1.01


class Machine(NamedTuple):
    """What a group costs depends on.

    Attributes:
      bandwidth: bytes per second of the slow memory.
      launch: seconds of starting an instruction that touches more than `tiny` bytes.
      tiny: see there.
      depth, width: of a matrix unit.
      usual, most: bytes of fast memory that every instruction may keep, and that a group may keep if it must.
    """

    bandwidth: float
    launch: float
    tiny: float
    depth: float
    width: float
    usual: float
    most: float


class Scratch(NamedTuple):
    """Memory to work in.

    Attributes:
      stamp: `[d]` when a dimension was last entered.
      parent: `[d]` joined dimensions, as disjoint sets.
      size: `[d]` of a set's representative: into how many tiles all of its dimensions can be cut, at most.
      slot: `[max(n, d)]` and `mark`: `[m]`, zero between calls.
    """

    stamp: Array
    parent: Array
    size: Array
    slot: Array
    mark: Array


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


def scratch_for(line: Arrays) -> Scratch:
    """Returns memory to work in."""
    n, d, m = len(line.order), len(line.dim_size), len(line.position)
    return Scratch(
        np.full(d, -1, np.int64),
        np.zeros(d, np.int64),
        np.zeros(d, np.int64),
        np.zeros(max(d, n) + 1, np.int64),
        np.zeros(m, np.int64),
    )


@njit(cache=True)
def _find(parent: Array, dim: int) -> int:
    while parent[dim] != dim:
        parent[dim] = parent[parent[dim]]
        dim = parent[dim]
    return dim


@njit(cache=True)
def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@njit(cache=True)
def _enter(line: Arrays, scratch: Scratch, stamp: int, p: int) -> None:
    """Joins the dimensions of a position with those of what it was entered with before, under the same stamp."""
    entered, parent, size, dim_size = scratch.stamp, scratch.parent, scratch.size, line.dim_size
    value = line.order[p]
    _touch(entered, parent, size, dim_size, stamp, line.dim_start[value], line.dim_start[value + 1])
    for r in range(line.read_start[p], line.read_start[p + 1]):
        value = line.read_value[r]
        _touch(entered, parent, size, dim_size, stamp, line.dim_start[value], line.dim_start[value + 1])
    for entry in range(line.whole_start[p], line.whole_start[p + 1]):
        _touch(entered, parent, size, dim_size, stamp, line.whole[entry], line.whole[entry] + 1)
    for entry in range(line.sum_start[p], line.sum_start[p + 1]):
        _touch(entered, parent, size, dim_size, stamp, line.summed[entry], line.summed[entry] + 1)
    for entry in range(line.matrix_start[p], line.matrix_start[p + 1]):
        _touch(entered, parent, size, dim_size, stamp, line.matrix_dim[entry], line.matrix_dim[entry] + 1)
    for join in range(line.join_start[p], line.join_start[p + 1]):
        _touch(entered, parent, size, dim_size, stamp, line.join_a[join], line.join_a[join] + 1)
        _touch(entered, parent, size, dim_size, stamp, line.join_b[join], line.join_b[join] + 1)
        a, b = _find(parent, line.join_a[join]), _find(parent, line.join_b[join])
        if a != b:
            parent[b] = a
            size[a] = _gcd(size[a], size[b])


@njit(cache=True)
def _touch(entered: Array, parent: Array, size: Array, dim_size: Array, stamp: int, first: int, end: int) -> None:
    """Makes the dimensions `[first, end)` that were not entered yet axes of their own."""
    for dim in range(first, end):
        if entered[dim] != stamp:
            entered[dim], parent[dim], size[dim] = stamp, dim, dim_size[dim]


@njit(cache=True)
def _padding(size: float, unit: float) -> float:
    return np.ceil(size / unit) * unit / size if size > 0 else 1.0


@njit(cache=True)
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


@njit(cache=True)
def _tiles(number: int, size: int) -> int:
    """Returns the `number`-th way to cut an axis: into few tiles first, then into tiles of few elements."""
    return number + 1 if number < _FINE else size // (2 * _FINE - number)


@njit(cache=True)
def _values_of(line: Arrays, scratch: Scratch, members: Array, last: int, values: Array) -> tuple[int, float, float]:
    """Finds the values of a group; returns how many they are, and the bytes read and written.

    Marks say what each is: 1 made here, 2 read whole, 4 read in parts, 8 written.
    """
    mark = scratch.mark
    count = 0
    for p in members:
        values[count] = line.order[p]
        mark[values[count]] |= 1
        count += 1
    read = written = 0.0
    for p in members:
        for r in range(line.read_start[p], line.read_start[p + 1]):
            value = line.read_value[r]
            if mark[value] & 1:
                continue
            if mark[value] == 0:
                values[count] = value
                count += 1
            if mark[value] & 2 == 0:
                read += line.read_bytes[r]
                mark[value] |= 4 if line.read_part[r] else 2
    for p in members:
        if not line.leaves[p] and line.last_user[p] <= last:
            continue
        # A view is not written: what it shows is.
        source = p
        while line.viewed[source] >= 0 and mark[line.viewed[source]] & 1:
            source = line.position[line.viewed[source]]
        value = line.order[source]
        if line.viewed[source] < 0 and mark[value] & 8 == 0:
            mark[value] |= 8
            written += line.bytes[value]
    return count, read, written


@njit(cache=True)
def _axes(line: Arrays, scratch: Scratch, members: Array, last: int, values: Array, count: int) -> Array:
    """Returns the axes of a group that can be cut, `[AXES]`, those of most bytes first, -1 where there are no more."""
    num_dims = 0
    for v in range(count):
        num_dims += line.dim_start[values[v] + 1] - line.dim_start[values[v]]
    roots = np.empty(num_dims, np.int64)
    weights = np.zeros(num_dims)
    num_roots = 0
    slot_of = scratch.slot
    for v in range(count):
        value = values[v]
        for dim in range(line.dim_start[value], line.dim_start[value + 1]):
            root = _find(scratch.parent, dim)
            if scratch.size[root] <= 1:
                continue
            if slot_of[root] == 0:
                roots[num_roots] = root
                num_roots += 1
                slot_of[root] = num_roots
            slot = slot_of[root] - 1
            is_twice = False
            for other in range(line.dim_start[value], dim):
                is_twice = is_twice or _find(scratch.parent, other) == root
            if is_twice:
                weights[slot] = -np.inf  # tiles of it would be blocks on a diagonal
            weights[slot] += line.bytes[value]
    for p in members:
        for entry in range(line.whole_start[p], line.whole_start[p + 1]):
            slot = slot_of[_find(scratch.parent, line.whole[entry])] - 1
            if slot >= 0:
                weights[slot] = -np.inf
        if line.first_user[p] <= last:
            for entry in range(line.sum_start[p], line.sum_start[p + 1]):
                slot = slot_of[_find(scratch.parent, line.summed[entry])] - 1
                if slot >= 0:
                    weights[slot] = -np.inf
    axes = np.full(AXES, -1, np.int64)
    for a in range(AXES):
        heaviest = -1
        for slot in range(num_roots):
            if weights[slot] > 0.0 and (heaviest < 0 or weights[slot] > weights[heaviest]):
                heaviest = slot
        if heaviest < 0:
            break
        axes[a] = roots[heaviest]
        weights[heaviest] = 0.0
    for slot in range(num_roots):
        slot_of[roots[slot]] = 0
    return axes


@njit(cache=True)
def _products(
    line: Arrays, scratch: Scratch, members: Array, outer: int, inner: int, outer_tiles: int, inner_tiles: int,
    machine: Machine,
) -> float:  # fmt: skip
    """Returns the seconds of a group's matrix products, each tile's padded to the matrix units."""
    total = 0.0
    for p in members:
        if line.matrix[p] == 0.0:
            continue
        rows, columns, depth = line.sizes[p, 0], line.sizes[p, 1], line.sizes[p, 2]
        for entry in range(line.matrix_start[p], line.matrix_start[p + 1]):
            root = _find(scratch.parent, line.matrix_dim[entry])
            tiles = outer_tiles if root == outer else inner_tiles if root == inner else 1
            if line.matrix_side[entry] == 0:
                rows /= tiles
            elif line.matrix_side[entry] == 1:
                columns /= tiles
            else:
                depth /= tiles
        width = min(_padding(rows, machine.width), _padding(columns, machine.width))
        total += line.matrix[p] * _padding(depth, machine.depth) * width
    return total


@njit(cache=True)
def evaluate(line: Arrays, scratch: Scratch, members: Array, last: int, machine: Machine) -> Tiling:
    """Returns the best tiling of a group.

    Args:
      line: that it is of.
      scratch: its members have been entered.
      members: positions, ascending.
      last: position of the segment's last member: what is read behind it must be written.
      machine: what it costs depends on.
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
        # Of what is read in parts only the parts are kept, and these are results.
        sizes[v] = 0.0 if scratch.mark[value] == 4 else line.bytes[value]
        moves[v] = scratch.mark[value] & 8 != 0 or scratch.mark[value] & 1 == 0
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
    launch = machine.launch if read + written > machine.tiny else 0.0
    transfer = (read + written) / machine.bandwidth
    none: Any = np.int64(-1)
    one: Any = np.int64(1)
    products = _products(line, scratch, members, none, none, one, one, machine)
    ideal = launch + max(max(vector, transcendental), max(products, transfer))

    masks = np.zeros(count, np.int64)
    events = np.empty(len(members) + 2)
    whole = _kept(masks, sizes, starts, ends, moves, none, none, one, one, events)
    if whole <= machine.usual:
        return Tiling(ideal, whole, one, one, none, none, read, written)

    axes = _axes(line, scratch, members, last, values, count)
    for v in range(count):
        value = values[v]
        for dim in range(line.dim_start[value], line.dim_start[value + 1]):
            root = _find(scratch.parent, dim)
            for a in range(AXES):
                if axes[a] == root:
                    masks[v] |= 1 << a
    least = max(max(vector, transcendental), transfer)
    best = Tiling(np.inf, 0.0, one, one, none, none, read, written)
    for limit in (machine.usual, machine.most):
        if best.seconds > ideal * _CLOSE:
            found = _search(
                line, scratch, members, axes, masks, sizes, starts, ends, moves, launch, least, whole, limit, machine
            )
            if found[0] < best.seconds:
                seconds, kept, outer_tiles, inner_tiles, outer, inner = found
                best = Tiling(seconds, kept, outer_tiles, inner_tiles, outer, inner, read, written)
    return best


@njit(cache=True)
def _search(
    line: Arrays, scratch: Scratch, members: Array, axes: Array, masks: Array, sizes: Array, starts: Array,
    ends: Array, moves: Array, launch: float, least: float, whole: float, limit: float, machine: Machine,
) -> tuple[float, float, int, int, int, int]:  # fmt: skip
    """Returns the fastest tiling that fits: with no loop, with one, or if that is not enough with two.

    Args:
      masks, sizes, starts, ends, moves: of the values, see `_kept`.
      launch, least: seconds of starting the group, and that it takes at least.
      whole: bytes that it keeps if it is not tiled.
      limit: bytes that it may keep.
      others: as in `evaluate`.
    """
    none: Any = np.int64(-1)
    one: Any = np.int64(1)
    num_axes = 0
    while num_axes < AXES and axes[num_axes] >= 0:
        num_axes += 1
    events = np.empty(len(members) + 2)
    best = (np.inf, 0.0, one, one, none, none)
    for option in range(1 + num_axes + num_axes * (num_axes - 1)):
        if best[0] < np.inf and option in (1, num_axes + 1):
            break  # without a further loop it is simpler
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
        products = _products(line, scratch, members, outer_axis, inner_axis, outer_tiles, inner_tiles, machine)
        seconds = launch + max(least, products)
        if seconds < best[0]:
            best = (seconds, kept, outer_tiles, inner_tiles, outer_axis, inner_axis)
    return best


@njit(cache=True)
def _regroup(line: Arrays, group: Array, reader: Array, begin: int, p: int, tiny: float) -> None:
    """Puts a position into the group that it is connected with; several groups become one, called after its first."""
    group[p] = p
    reader[line.order[p]] = p
    for r in range(line.read_start[p], line.read_start[p + 1]):
        value = line.read_value[r]
        other = reader[value]
        reader[value] = p
        # That two read the same small thing from outside is no reason to belong together.
        if other < begin or (line.bytes[value] <= tiny and line.position[value] < begin):
            continue
        low, high = min(group[p], group[other]), max(group[p], group[other])
        if low != high:
            for q in range(begin, p + 1):
                if group[q] == high:
                    group[q] = low


@njit(cache=True)
def cut(line: Arrays, scratch: Scratch, longest: int, machine: Machine) -> tuple[Array, Array]:
    """Returns the least seconds up to each position, `[n + 1]`, and where the last segment before it begins, `[n + 1]`.

    Args:
      line: to be cut.
      scratch: for it.
      longest: positions of a segment at the most.
      machine: what groups cost depends on.
    """
    n = len(line.order)
    best = np.full(n + 1, np.inf)
    begin = np.zeros(n + 1, np.int64)
    best[0] = 0.0
    group = np.zeros(n, np.int64)
    alone, fused = np.zeros(n), np.zeros(n)  # seconds of each group: its members by themselves, and as one
    members = np.empty(longest, np.int64)
    reader = np.full(len(line.position), -1, np.int64)
    for i in range(n):
        reader[:] = -1
        for j in range(i, min(n, i + longest)):
            if line.barrier[j]:
                if j == i:
                    total = best[i] + line.single[j] + _HIDDEN * line.transfer[j]
                    if total < best[j + 1]:
                        best[j + 1], begin[j + 1] = total, i
                break
            _enter(line, scratch, i, j)
            _regroup(line, group, reader, i, j, machine.tiny)
            own = group[j]
            count = 0
            alone[own] = 0.0
            for p in range(i, j + 1):
                if group[p] == own:
                    members[count] = p
                    count += 1
                    alone[own] += line.single[p] + _HIDDEN * line.transfer[p]
            tiling = evaluate(line, scratch, members[:count], j, machine)
            fused[own] = tiling.seconds + _HIDDEN * (tiling.read + tiling.written) / machine.bandwidth
            total = best[i]
            for p in range(i, j + 1):
                if group[p] == p:
                    total += min(alone[p], fused[p])
            if total < best[j + 1]:
                best[j + 1], begin[j + 1] = total, i
            if fused[own] == np.inf and count > 1:
                break  # with more in it, it will not fit either
    return best, begin


@njit(cache=True)
def groups_of(line: Arrays, begin: int, end: int, tiny: float) -> Array:
    """Returns the first member of the group of each position of a segment `[begin, end)`."""
    group = np.zeros(end, np.int64)
    reader = np.full(len(line.position), -1, np.int64)
    for p in range(begin, end):
        _regroup(line, group, reader, begin, p, tiny)
    return group[begin:]


@njit(cache=True)
def tiling_of(line: Arrays, scratch: Scratch, stamp: int, members: Array, last: int, machine: Machine) -> Tiling:
    """Returns the best tiling of a group by itself; `stamp` is one that the scratch has not seen."""
    for p in members:
        _enter(line, scratch, stamp, p)
    return evaluate(line, scratch, members, last, machine)
