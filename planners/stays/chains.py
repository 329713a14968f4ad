"""What can be decided about a program's buffers, laid out for search.

A copy starts and is done in one region, so each region has a time of its own: its *slots* (`Slots`). As a region sees
it, a buffer is a *chain* of *items* (`Chains`), and between items lie the decisions: does the buffer stay?

    program      slot 0   slot 1   slot 2         slot 3   slot 4
    operations   a        b.enter  ┌─ loop b ──┐  b        end
    loop b                         │ slot 5, 6 │

A planner gives a *run* of neighbouring items a stay in fast memory. A run over an item that is a loop covers all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.collection import collection_paused
from memplan.compiler.mapping.problem import Buffer, MappingProblem, Region

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Slots:
    """The *slots* of all regions: the steps of time as a region sees them.

    The slots of a region are, in order, its own operations and, each as one slot, the loops and conditionals inside it.
    The program's last slot is its end.

    Attributes:
      time, end: `[num_slots]` half-open times that a slot stands for; for the program's end `n` and `n + 1`.
      is_operation: `[num_slots]` whether it is an operation (or the program's end), so that copies can start there.
      first, last: `[num_regions]` half-open range of a region's slots; empty for calls, which are part of their caller.
      of_time: `[n + 1]` slot of each operation, and of the end.
      of_region: `[num_regions]` slot that stands for the region in its parent; -1 for the program.
      parent: `[num_regions]` region around it, calls looked through; -1 for the program.
      region_of_time: `[n + 1]` innermost region, calls looked through.
    """

    time: Integers
    end: Integers
    is_operation: Booleans
    first: Integers
    last: Integers
    of_time: Integers
    of_region: Integers
    parent: Integers
    region_of_time: Integers


def make_slots(problem: MappingProblem) -> Slots:
    """Returns the slots of all regions."""
    regions = problem.regions
    transparent: list[int] = []
    for number, region in enumerate(regions):
        is_call = region.kind is RegionKind.CALL and region.parent >= 0
        transparent.append(transparent[region.parent] if is_call else number)
    parent = [transparent[region.parent] if region.parent >= 0 else -1 for region in regions]
    region_of_time = [transparent[operation.region] for operation in problem.operations] + [0]

    rows: list[list[tuple[int, int, bool]]] = [[] for _ in regions]
    place_of_time: list[tuple[int, int]] = []
    place_of_region: list[tuple[int, int] | None] = [None] * len(regions)
    place_of_group: dict[tuple[int, int], tuple[int, int]] = {}

    def enter(number: int) -> None:
        """Gives a region, and those around it, slots in their parents."""
        if number == 0 or place_of_region[number] is not None:
            return
        enter(parent[number])
        around, region = parent[number], regions[number]
        group = (around, region.group) if region.kind is RegionKind.BRANCH else None
        if group is not None and group in place_of_group:
            place = place_of_group[group]
            time, end, _ = rows[around][place[1]]
            rows[around][place[1]] = (time, max(end, region.end), False)
        else:
            place = (around, len(rows[around]))
            rows[around].append((region.start, region.end, False))
            if group is not None:
                place_of_group[group] = place
        place_of_region[number] = place

    for t, innermost in enumerate(region_of_time):
        enter(innermost)
        place_of_time.append((innermost, len(rows[innermost])))
        rows[innermost].append((t, t + 1, True))

    first = np.zeros(len(regions), np.int64)
    np.cumsum([len(row) for row in rows[:-1]], out=first[1:])
    flat = [entry for row in rows for entry in row]
    return Slots(
        time=np.array([entry[0] for entry in flat], np.int64),
        end=np.array([entry[1] for entry in flat], np.int64),
        is_operation=np.array([entry[2] for entry in flat], np.bool_),
        first=first,
        last=first + np.array([len(row) for row in rows], np.int64),
        of_time=np.array([first[region] + place for region, place in place_of_time], np.int64),
        of_region=np.array([-1 if p is None else first[p[0]] + p[1] for p in place_of_region], np.int64),
        parent=np.array(parent, np.int64),
        region_of_time=np.array(region_of_time, np.int64),
    )


@dataclass(frozen=True)
class Chains:
    """The *chains* of all buffers that may move, parents before children.

    A chain is one buffer as one region sees it: a row of *items*, the slots of the region that access it. A loop or
    conditional that accesses the buffer is one item, and the buffer has a chain of its own inside. A *run* is a range
    of neighbouring items that one stay serves.

    Attributes:
      buffer, region: `[num_chains]`.
      first, last: `[num_chains]` half-open range of its items.
      needs_home: `[num_chains]` whether the value must be at home when the region ends.
      parent: `[num_chains]` item of the chain around, that this chain is the inside of; -1 for none.
      chain: `[num_items]` that an item belongs to.
      slot: `[num_items]`.
      start, end: `[num_items]` half-open times, within the buffer's live range.
      reads: `[num_items]` whether it needs the value that the buffer has before.
      writes: `[num_items]` whether it changes the value.
      writer: `[num_items]` last item before it, in its chain, that writes; -1 for none.
      first_access, last_access: `[num_items]` half-open range in `accesses`.
      accesses: access numbers, by buffer, in order of time.
      first_child, last_child: `[num_items]` half-open range in `children`.
      children: chains inside of items, by item.
    """

    buffer: Integers
    region: Integers
    first: Integers
    last: Integers
    needs_home: Booleans
    parent: Integers
    chain: Integers
    slot: Integers
    start: Integers
    end: Integers
    reads: Booleans
    writes: Booleans
    writer: Integers
    first_access: Integers
    last_access: Integers
    accesses: Integers
    first_child: Integers
    last_child: Integers
    children: Integers


class _Item(NamedTuple):
    """An item, before all of them are arrays."""

    chain: int
    slot: int
    start: int
    end: int
    reads: bool
    writes: bool
    writer: int
    first_access: int
    last_access: int


@collection_paused()
def make_chains(problem: MappingProblem, slots: Slots, buffers: list[int]) -> Chains:
    """Returns the chains of some buffers, whose home must be space 0."""
    chain_rows: list[tuple[int, int, int, int, bool, int]] = []
    item_rows: list[_Item] = []
    accesses: list[int] = []
    inside_of: list[list[int]] = []
    lookup = _Lookup(problem, slots)
    for buffer in buffers:
        base = len(accesses)
        accesses.extend(problem.accesses_of[buffer])
        described = problem.buffers[buffer]
        top = lookup.top_region(buffer)
        defined = described.initial_space is not None
        pending = [(top, base, len(accesses), -1, defined, described.final_space is not None)]
        while pending:
            region, low, high, around, defined, needs_home = pending.pop()
            chain, first_item = len(chain_rows), len(item_rows)
            if around >= 0:
                inside_of[around].append(chain)
            writer = -1
            position = low
            while position < high:
                slot, until = lookup.item(region, accesses, position, high)
                is_operation = lookup.is_operation[slot]
                reads = defined and (not is_operation or lookup.kinds[accesses[position]] is not AccessKind.WRITE)
                writes = any(lookup.kinds[number] is not AccessKind.READ for number in accesses[position:until])
                item = len(item_rows)
                item_rows.append(
                    _Item(
                        chain=chain,
                        slot=slot,
                        start=max(lookup.time[slot], described.start),
                        end=min(lookup.end[slot], described.end),
                        reads=reads,
                        writes=writes,
                        writer=writer,
                        first_access=position,
                        last_access=until,
                    )
                )
                inside_of.append([])
                writer = item if writes else writer
                defined = defined or writes
                position = until
            chain_rows.append((buffer, region, first_item, len(item_rows), needs_home, around))
            for item in range(first_item, len(item_rows)):
                if lookup.is_operation[item_rows[item].slot]:
                    continue
                # What follows a branch may want the value, and after an iteration the next one may.
                wanted = item_rows[item + 1].reads if item + 1 < len(item_rows) else needs_home
                at, until = item_rows[item].first_access, item_rows[item].last_access
                while at < until:
                    inner, after = lookup.member(region, accesses, at, until)
                    is_loop = problem.regions[inner].kind is RegionKind.LOOP
                    pending.append((inner, at, after, item, True, is_loop or wanted))
                    at = after
    return _as_arrays(chain_rows, item_rows, accesses, inside_of)


def outlives(buffer: Buffer, region: Region) -> bool:
    """Whether a buffer's value may matter before or after one execution of a region.

    A buffer that lives for exactly the time of a loop may be carried from iteration to iteration.
    """
    return (
        buffer.start < region.start
        or buffer.end > region.end
        or (buffer.start, buffer.end) == (region.start, region.end)
    )


class _Lookup:
    """Finds the slots and regions of accesses. It holds lists, which Python reads faster than arrays."""

    def __init__(self, problem: MappingProblem, slots: Slots):
        self.problem = problem
        self.times = [time for time, _ in problem.accesses]
        self.kinds = [access.kind for _, access in problem.accesses]
        self.time, self.end, self.is_operation = slots.time.tolist(), slots.end.tolist(), slots.is_operation.tolist()
        self.slot_of_time, self.slot_of_region = slots.of_time.tolist(), slots.of_region.tolist()
        self.parent, self.region_of_time = slots.parent.tolist(), slots.region_of_time.tolist()

    def top_region(self, buffer: int) -> int:
        """Returns the innermost region that holds the buffer's whole live range."""
        described = self.problem.buffers[buffer]
        is_bound = described.initial_space is not None or described.final_space is not None
        if is_bound or described.start >= self.problem.end:
            return 0
        region = self.region_of_time[described.start]
        while region > 0 and outlives(described, self.problem.regions[region]):
            region = self.parent[region]
        return region

    def item(self, region: int, accesses: list[int], position: int, high: int) -> tuple[int, int]:
        """Returns the slot in `region` of the access at a position, and the position after the slot's last access."""
        time = self.times[accesses[position]]
        inner, slot = self.region_of_time[time], self.slot_of_time[time]
        while inner != region:
            slot = self.slot_of_region[inner]
            inner = self.parent[inner]
        return slot, self._until(accesses, position, high, self.end[slot])

    def member(self, region: int, accesses: list[int], position: int, high: int) -> tuple[int, int]:
        """Returns the region right inside `region` of the access at a position, and the position after its last one."""
        inner = self.region_of_time[self.times[accesses[position]]]
        while self.parent[inner] != region:
            inner = self.parent[inner]
        return inner, self._until(accesses, position, high, self.problem.regions[inner].end)

    def _until(self, accesses: list[int], position: int, high: int, end: int) -> int:
        position += 1
        while position < high and self.times[accesses[position]] < end:
            position += 1
        return position


def _as_arrays(
    chain_rows: list[tuple[int, int, int, int, bool, int]],
    item_rows: list[_Item],
    accesses: list[int],
    inside_of: list[list[int]],
) -> Chains:
    buffer, region, first, last, needs_home, parent = np.array(chain_rows, np.int64).reshape(-1, 6).T
    items = {name: np.array(column) for name, column in zip(_Item._fields, zip(*item_rows, strict=True), strict=False)}
    empty: dict[str, np.ndarray] = {
        name: np.zeros(0, np.bool_ if name in ("reads", "writes") else np.int64) for name in _Item._fields
    }
    ends = np.cumsum([len(inside) for inside in inside_of], dtype=np.int64)
    return Chains(
        buffer=buffer,
        region=region,
        first=first,
        last=last,
        needs_home=needs_home.astype(np.bool_),
        parent=parent,
        accesses=np.array(accesses, np.int64),
        first_child=ends - np.array([len(inside) for inside in inside_of], np.int64),
        last_child=ends,
        children=np.array([chain for inside in inside_of for chain in inside], np.int64),
        **(items or empty),
    )
