"""From a Graph to the FlatProgram: one line of time, one storage per alias set, who touches what when.

Graph ──► schedule ──► values ──► live intervals ──► alias sets ──► FlatProgram
          (order)      (what is    (when each        (what lies     (storages, accesses)
                        the same)   is needed)        together)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from memplan.compiler.analysis.aliasing import AliasSets, alias_sets
from memplan.compiler.analysis.content import NEVER, Contents
from memplan.compiler.analysis.dataflow import find_values
from memplan.compiler.analysis.elementwise import Elementwise
from memplan.compiler.analysis.in_place import InPlace, InPlacePair
from memplan.compiler.analysis.liveness import Interval, value_intervals
from memplan.compiler.analysis.program import (
    COPIED,
    AccessKind,
    FlatProgram,
    ImplicitCopy,
    Storage,
    StorageAccess,
)
from memplan.compiler.analysis.schedule import Schedule, lay_out
from memplan.compiler.analysis.traffic import Traffic
from memplan.compiler.analysis.values import PHASES, Values
from memplan.compiler.ir import Graph


def flatten(graph: Graph, pointer_bytes: int = 0) -> FlatProgram:
    """Returns the program on one line of time.

    Args:
      graph: any Graph. The order of its instructions is the order of execution.
      pointer_bytes: what a tuple's own table of pointers to its elements takes per element. 0, the default, where
        tuples own nothing, as on TPUs; on the CPU XLA stores them, 8 bytes each.

    Raises:
      GraphError: computations call each other in a circle, the calls of the program multiply to millions of
        instructions, or an instruction states an alias of what does not exist.

    >>> from memplan.compiler.frontends import parse_hlo
    >>> program = flatten(parse_hlo("ENTRY e { x = f32[8] parameter(0) y = f32[8] negate(x) ROOT z = f32[8] abs(y) }"))
    >>> [(storage.name, storage.size, storage.start, storage.end) for storage in program.storages]
    [('x', 32, 0, 4), ('y', 32, 1, 3), ('z', 32, 2, 4)]
    """
    schedule = lay_out(graph)
    in_place = InPlace(graph)
    values = find_values(schedule, in_place, Elementwise(graph), pointer_bytes)
    sets = alias_sets(values, value_intervals(values, schedule.regions, len(schedule.steps)))
    storages, storage_of = _storages(schedule, values, sets, pointer_bytes)
    accesses = _accesses(schedule, values, sets, storage_of, Traffic(graph, in_place))
    copies = _copies(values, sets, storage_of, accesses)
    accesses += _arbitrary_writes(schedule, values, sets, storages, storage_of, accesses)
    accesses.sort(key=lambda access: (access.time, _ORDER[access.kind]))
    return FlatProgram(graph, schedule.steps, schedule.regions, tuple(storages), tuple(accesses), tuple(copies))


_ORDER = {AccessKind.READ: 0, AccessKind.UPDATE: 1, AccessKind.WRITE: 2}


@dataclass(slots=True)
class _Content:
    """What is known of a storage while it is put together; as in `Storage`."""

    name: str
    memory_space: int
    size: int = 0
    values: list[str] = field(default_factory=list)
    parameters: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    result_indices: list[tuple[int, ...]] = field(default_factory=list)
    is_constant: bool = False


def _storages(
    schedule: Schedule, values: Values, sets: AliasSets, pointer_bytes: int
) -> tuple[list[Storage], dict[int, int]]:
    """Returns the storages, by start, and the storage of each set's representative."""
    positions = values.positions
    contents: dict[int, _Content] = {}
    for t, step in enumerate(schedule.steps):
        first, nodes = positions.first[t], positions.nodes[t]
        for node, shape in enumerate(nodes.shapes):
            value = values.of[first + node]
            if value < 0:
                continue
            root = sets.find(value)
            content = contents.get(root)
            if content is None:
                content = contents[root] = _Content(positions.name(first + node), values.space[root])
            size = shape.bytes if shape.is_array else pointer_bytes * len(shape.elements)
            if size > content.size:
                content.size = size
            is_definition = values.position[value] == first + node
            if is_definition or node == 0:
                content.values.append(positions.name(first + node) if node else step.instruction.name)
            if is_definition and step.instruction.opcode == "constant":
                content.is_constant = True
    for position, number, node in values.arguments:
        content = contents[sets.find(values.of[position])]
        content.parameters.append((number, positions.nodes[positions.time(position)].paths[node]))
    for handover in values.results:
        shape = positions.shape(handover.position)
        root = sets.find(handover.place)
        if root not in contents:
            contents[root] = _Content(positions.name(handover.position), values.space[root])
        contents[root].size = max(contents[root].size, shape.bytes if shape.is_array else 0)
        if shape.is_array:
            contents[root].result_indices.append(positions.path(handover.position))

    end = len(schedule.steps)
    live = {root: _steps(sets.live(root), end) for root in contents}
    order = sorted(contents, key=lambda root: (live[root][0][0], live[root][-1][1], root))
    storages = []
    for root in order:
        content = contents[root]
        parts = live[root]
        storages.append(
            Storage(
                name=content.name,
                values=tuple(content.values) or (content.name,),
                size=content.size,
                memory_space=content.memory_space,
                start=parts[0][0],
                end=parts[-1][1],
                parameters=tuple(content.parameters),
                result_indices=tuple(content.result_indices),
                is_constant=content.is_constant,
                holes=tuple((before[1], after[0]) for before, after in pairwise(parts)),
            )
        )
    return storages, {root: i for i, root in enumerate(order)}


def _steps(intervals: Sequence[Interval], num_steps: int) -> list[Interval]:
    """Returns the steps that intervals of phases cover, as disjoint intervals with steps between them."""
    steps: list[Interval] = []
    for start, end in intervals:
        first, last = start // PHASES, min(-(-end // PHASES), num_steps + 1)
        if steps and first <= steps[-1][1]:
            steps[-1] = (steps[-1][0], max(last, steps[-1][1]))
        else:
            steps.append((first, last))
    return steps


def _accesses(
    schedule: Schedule, values: Values, sets: AliasSets, storage_of: dict[int, int], traffic: Traffic
) -> list[StorageAccess]:
    """Returns what the steps, and the virtual step at the end, do to the storages."""
    positions = values.positions
    updated: dict[tuple[int, int, tuple[int, ...]], InPlacePair] = {}
    stored: set[tuple[int, tuple[int, ...]]] = set()
    for t, pair, operand, result in values.in_place:
        if sets.find(operand) == sets.find(result):
            updated[t, pair.operand, pair.operand_index] = pair
            stored.add((t, pair.output_index))
    rewritten = {(t, pair.operand) for t, pair, _, _ in values.in_place}

    accesses = []
    for read in values.reads:
        t = read.time
        instruction = schedule.steps[t].instruction
        nodes = positions.nodes[read.source]
        shape, path = nodes.shapes[read.node], nodes.paths[read.node]
        storage = storage_of[sets.find(read.value)]
        kind = AccessKind.READ
        if read.waits:
            size = 0
        elif (t, read.operand, path) in updated:
            kind = AccessKind.UPDATE
            size = traffic.update(instruction, updated[t, read.operand, path], shape)
        elif (t, read.operand) in rewritten:
            size = shape.bytes  # a new array is written, with the old content where it is not updated
        else:
            size = traffic.read(instruction, read.operand, shape)
        accesses.append(StorageAccess(t, storage, kind, read.operand, path, size))
    for t, node, value in values.writes:
        nodes = positions.nodes[t]
        path = nodes.paths[node]
        if (t, path) not in stored:
            accesses.append(
                StorageAccess(t, storage_of[sets.find(value)], AccessKind.WRITE, -1, path, nodes.shapes[node].bytes)
            )
    for handover in values.results:
        shape = positions.shape(handover.position)
        if shape.is_array:
            storage = storage_of[sets.find(handover.place)]
            path = positions.path(handover.position)
            accesses.append(StorageAccess(len(schedule.steps), storage, AccessKind.READ, 0, path, shape.bytes))
    return accesses


def _copies(
    values: Values, sets: AliasSets, storage_of: dict[int, int], accesses: list[StorageAccess]
) -> list[ImplicitCopy]:
    """Returns the copies that are needed, and adds what they access."""
    positions = values.positions
    copies = []
    for handover in sets.copies:
        time, shape = handover.time, positions.shape(handover.position)
        if shape.is_array:
            source, destination = storage_of[sets.find(handover.value)], storage_of[sets.find(handover.place)]
            name = positions.name(handover.position)
            copies.append(ImplicitCopy(time, source, destination, shape.bytes, name))
            accesses.append(StorageAccess(time, source, AccessKind.READ, COPIED, (), shape.bytes))
            accesses.append(StorageAccess(time, destination, AccessKind.WRITE, COPIED, (), shape.bytes))
    return copies


def _arbitrary_writes(
    schedule: Schedule,
    values: Values,
    sets: AliasSets,
    storages: Sequence[Storage],
    storage_of: dict[int, int],
    accesses: Sequence[StorageAccess],
) -> list[StorageAccess]:
    """Returns a WRITE of nothing by each step that allocates memory which may be read as it is.

    Where every way to a read fills the memory first, the allocation does nothing at all.
    """
    allocations = [(t, node, storage_of[sets.find(value)]) for t, node, value in values.allocations]
    of_storage: dict[int, list[StorageAccess]] = {storage: [] for _, _, storage in allocations}
    for access in accesses:
        if access.storage in of_storage:
            of_storage[access.storage].append(access)
    contents = Contents(
        schedule.regions,
        [region.owner for region in schedule.regions],
        [*(step.region for step in schedule.steps), 0],
    )
    read = set()
    for storage, touching in of_storage.items():
        touching.sort(key=lambda access: (access.time, _ORDER[access.kind]))
        described = storages[storage]
        is_written = bool(described.parameters) or described.is_constant
        live = (described.start, described.end)
        unwritten, _ = contents.follow(((access.time, access.kind) for access in touching), live, is_written)
        if unwritten != NEVER:
            read.add(storage)
    return [
        StorageAccess(t, storage, AccessKind.WRITE, -1, values.positions.nodes[t].paths[node], 0)
        for t, node, storage in allocations
        if storage in read
    ]
