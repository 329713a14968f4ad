"""How long collectives take on the links between devices.

The compiler states no cycles for them, so they are costed from the bandwidth and the latency of a link, which the
target's file states. The devices of a group are taken to be neighbours on a line, as those along an axis of a small TPU
slice, which has no links around (Austin et al., How to Scale Your Model, part 3; N devices, V bytes of operands on
each). Each row is what the busiest link carries one way, and over how many links the last byte goes. Four or more
devices that are all of the program are on a ring, which goes through every grid with a side of even length: each way
carries half, and the last byte goes half as far.

    all-gather            V (N - 1)                        N - 1
    reduce-scatter        V (N - 1) / N                    N - 1
    all-reduce            both of them, one on V, the other on V / N
    all-to-all            V ⌊N/2⌋ ⌈N/2⌉ / N                N - 1     half of the devices to the other half
    collective-permute    V                                1         between neighbours, on a ring as well
    collective-broadcast  V                                N - 1

Several axes at once would be faster, so this is an upper estimate of what the hardware can do.

XLA:TPU overlaps some with computations: `X-start` and `X-done` as anywhere, or a fusion with `AsyncCollectiveStart`,
others that compute while data goes on, and one with `AsyncCollectiveDone`; each of these holds the collective.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from memplan.compiler.ir import Computation, Graph, Instruction
from memplan.compiler.ir.partitions import num_partitions

COLLECTIVES = frozenset(
    {
        "all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute", "collective-reduce",
        "ragged-all-to-all", "reduce-scatter",
    }
)  # fmt: skip

# mesh['x'=2,'y'=4] {'y'}; a part of an axis is 'y':(2)2.
_MESH = re.compile(r"mesh\[([^\]]{0,2000})\][^{]*\{([^}]{0,2000})\}")
_AXIS = re.compile(r"'([^']{1,200})'=(\d{1,9})")
_USED = re.compile(r"'([^']{1,200})'(?::\(\d{1,9}\)(\d{1,9}))?")
_IOTA = re.compile(r"\[(\d{1,9}),(\d{1,9})\]<=")
_FIRST_GROUP = re.compile(r"\{\{([\d,\s]{1,100000})\}")

# On two or three devices a ring is a line.
_SMALLEST_RING = 4

# The calls in the fusions of a collective that is asynchronous, and the name of a fusion that reduces and scatters.
ASYNC_CALLS = _START, _DONE = "AsyncCollectiveStart", "AsyncCollectiveDone"
_REDUCE_SCATTER = "all-reduce-scatter"


@dataclass(frozen=True, slots=True)
class Interconnect:
    """The links between devices.

    Attributes:
      peak_bandwidth: bytes per second one way over one link, by the data sheet.
      bandwidth: bytes per second that programs reach.
      latency: seconds of a byte over one link.
    """

    peak_bandwidth: float
    bandwidth: float
    latency: float


def has_collectives(graph: Graph) -> bool:
    """Whether devices of a program tell each other anything."""
    return any(instruction.opcode.removesuffix("-start") in COLLECTIVES for _, instruction in graph.instructions())


def group_size(graph: Graph, instruction: Instruction) -> int:
    """Returns how many devices a collective is between; all of the program if it names no groups."""
    groups = instruction.attribute("replica_groups")
    if found := _MESH.search(groups):
        sizes = {name: int(size) for name, size in _AXIS.findall(found[1])}
        used = _USED.findall(found[2])
        return math.prod(int(part) if part else sizes.get(name, 1) for name, part in used)
    if found := _IOTA.search(groups):
        return int(found[2])
    if found := _FIRST_GROUP.search(groups):
        return found[1].count(",") + 1
    return num_partitions(graph)


def collective_seconds(
    graph: Graph, computation: Computation, instruction: Instruction, interconnect: Interconnect
) -> float:
    """Returns how long the links need for a collective, or for the one that a `-start` begins."""
    opcode = instruction.opcode.removesuffix("-start")
    count = group_size(graph, instruction)
    if count <= 1 and opcode != "collective-permute":
        return 0.0
    size = sum(
        leaf.bytes
        for operand in instruction.operands
        for _, leaf in computation.instructions[operand].shape.leaves()
        if leaf.is_array
    )
    if opcode == "collective-permute":
        return interconnect.latency + size / interconnect.bandwidth
    links = count - 1
    if opcode in ("all-reduce", "collective-reduce"):
        links, carried = 2 * links, 2.0 * size * (count - 1) / count
    elif opcode == "all-gather":
        carried = float(size * (count - 1))
    elif opcode == "reduce-scatter":
        carried = size * (count - 1) / count
    elif opcode in ("all-to-all", "ragged-all-to-all"):
        carried = size * (count // 2) * (count - count // 2) / count
    else:
        carried = float(size)
    seconds = links * interconnect.latency + carried / interconnect.bandwidth
    is_ring = count >= _SMALLEST_RING and count == num_partitions(graph)
    return seconds / 2 if is_ring else seconds


def awaited_seconds(
    graph: Graph, computation: Computation, instruction: Instruction, interconnect: Interconnect
) -> float:
    """Returns how long the links need for what ends with an instruction: a collective, or where one is awaited.

    Nothing overlaps here; `transfers` says from where on an asynchronous one may.
    """
    opcode = instruction.opcode
    if opcode in COLLECTIVES:
        return collective_seconds(graph, computation, instruction, interconnect)
    if opcode.endswith("-done") and instruction.operands:
        start = computation.instructions[instruction.operands[0]]
        if start.opcode.removesuffix("-start") in COLLECTIVES:
            return collective_seconds(graph, computation, start, interconnect)
        return _in_bodies(graph, start, interconnect) if start.opcode == "async-start" else 0.0
    if opcode == "fusion":
        calls = set(_calls(graph, instruction))
        if _START in calls or (_DONE not in calls and any(map(is_going_on, _collectives(graph, instruction)))):
            return 0.0
        return _in_bodies(graph, instruction, interconnect)
    return 0.0


def is_going_on(instruction: Instruction) -> bool:
    """Whether a collective within a fusion is one that another fusion has started."""
    config = instruction.attribute("backend_config")
    return "async_collective_fusion_config" in config and '"flag_start":"-1"' not in config


def transfers(
    graph: Graph, computation: Computation, interconnect: Interconnect
) -> Iterator[tuple[Instruction, Instruction, float]]:
    """Yields the asynchronous collectives of a computation: what starts one, what awaits it, the seconds of its links.

    >>> from memplan.compiler.frontends import parse_hlo
    >>> graph = parse_hlo('''HloModule m, is_scheduled=true, num_partitions=2
    ... ENTRY e {
    ...   p = f32[1000] parameter(0)
    ...   s = (f32[1000], f32[1000], u32[], u32[]) collective-permute-start(p), source_target_pairs={{0,1},{1,0}}
    ...   ROOT d = f32[1000] collective-permute-done(s)
    ... }''')
    >>> [(start.name, done.name, round(seconds, 9)) for start, done, seconds in
    ...  transfers(graph, graph.entry_computation, Interconnect(1e9, 1e9, 1e-6))]
    [('s', 'd', 5e-06)]
    """
    started: dict[str, list[Instruction]] = {}
    for instruction in computation.instructions:
        if instruction.opcode.endswith("-done") and instruction.operands:
            start = computation.instructions[instruction.operands[0]]
            if seconds := awaited_seconds(graph, computation, instruction, interconnect):
                yield start, instruction, seconds
        elif instruction.opcode == "fusion" and instruction.called:
            calls = set(_calls(graph, instruction))
            if not calls & {_START, _DONE}:
                continue
            channel = "".join(each.attribute("channel_id") for each in _collectives(graph, instruction))
            if _START in calls:
                started.setdefault(channel, []).append(instruction)
            elif started.get(channel):
                yield (
                    started[channel].pop(0),
                    instruction,
                    awaited_seconds(graph, computation, instruction, interconnect),
                )


def _within(graph: Graph, instruction: Instruction) -> Iterator[tuple[Computation, Instruction]]:
    """Yields the instructions of what an instruction calls."""
    for name in instruction.called:
        computation = graph.computations[name]
        for inner in computation.instructions:
            yield computation, inner


def _collectives(graph: Graph, instruction: Instruction) -> list[Instruction]:
    return [inner for _, inner in _within(graph, instruction) if inner.opcode in COLLECTIVES]


def _calls(graph: Graph, instruction: Instruction) -> Iterator[str]:
    for _, inner in _within(graph, instruction):
        if inner.opcode == "custom-call":
            yield inner.attribute("custom_call_target").strip('"')


def _in_bodies(graph: Graph, instruction: Instruction, interconnect: Interconnect) -> float:
    total = 0.0
    for computation, inner in _within(graph, instruction):
        if inner.opcode in COLLECTIVES:
            seconds = collective_seconds(graph, computation, inner, interconnect)
            # Each device keeps its part of the sum: the second half of an all-reduce is left out.
            halved = inner.opcode == "all-reduce" and computation.name.startswith(_REDUCE_SCATTER)
            total += seconds / 2 if halved else seconds
    return total
