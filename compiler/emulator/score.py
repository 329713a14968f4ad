"""The score of a compiled module: how long it takes, by its own text.

`compiler/mapping` takes the compiler's copies out of a program, so that it can be planned from scratch. The score takes
nothing out and decides nothing: every instruction takes what the compiler states for the placement that it chose, and
every asynchronous copy goes through the queue of its link as the text starts and awaits it. So any two compilations of
one program can be compared.

    estimated_cycles     as stated, for each execution
    no estimate          our cost model, from operands and work (custom calls, kernels, sorts): never free, and listed
    X-start … X-done     a copy on its link, if it moves data between two memories that a link connects, and costs
                         nothing but its link; so is a collective, on the links between devices, also one that is
                         split over fusions; any other pair is work that is done where it is awaited
    cross-program        a prefetch that the program's previous run made costs nothing
    loops, branches      by trip count and probability
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.program import COPIED, AccessKind, FlatProgram, Step, repetitions
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import TargetError
from memplan.compiler.hardware.calibration import InstructionCosts, Touched
from memplan.compiler.hardware.estimates import estimated_cycles
from memplan.compiler.hardware.interconnect import Interconnect, has_collectives, transfers
from memplan.compiler.hardware.target import Target, TargetLink
from memplan.compiler.ir import Graph
from memplan.compiler.ir.opcodes import ASYNCHRONOUS_COPIES
from memplan.compiler.mapping.build import memory_links, memory_spaces
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan, Residency
from memplan.compiler.mapping.problem import Access, Buffer, MappingProblem, Operation
from memplan.compiler.mapping.times import OperationTimes, operation_times

# Arguments and constants are there before the first instruction.
_BEFORE_TIME = frozenset({"parameter", "constant"})

_STARTS = frozenset(f"{copy}-start" for copy in ASYNCHRONOUS_COPIES)


@dataclass(frozen=True, slots=True)
class Unestimated:
    """An instruction for which the compiler states no cycles, so that our cost model had to.

    Attributes:
      name, opcode: of the instruction.
      seconds: of one execution.
      repetitions: how often it is executed.
    """

    name: str
    opcode: str
    seconds: float
    repetitions: float


@dataclass(frozen=True)
class Score:
    """What a compiled module costs.

    Attributes:
      latency: seconds until the last instruction is done, waiting for copies included.
      clock: cycles per second.
      busy: seconds of it in which an instruction runs.
      stalled: seconds of it in which instructions wait for copies.
      unestimated: instructions that our cost model costs, in order of execution.
    """

    latency: float
    clock: float
    busy: float
    stalled: float
    unestimated: tuple[Unestimated, ...]

    @property
    def cycles(self) -> float:
        """The latency in cycles."""
        return self.latency * self.clock


# Kind, bytes and space of an access.
_Access = tuple[AccessKind, int, int]


@dataclass(frozen=True, slots=True)
class _StatedCopy:
    """An asynchronous copy: the steps that start and await it, the spaces it connects, and its bytes."""

    start: int
    done: int
    source: int
    destination: int
    bytes: int
    cross_program: bool


def score(graph: Graph, target: Target) -> Score:
    """Returns what a scheduled, optimized module costs on its target.

    Raises:
      TargetError: the target states no clock, so that cycles mean nothing.
      GraphError: the Graph breaks a rule of the IR.
    """
    if not target.clock:
        raise TargetError(f"{target.name} states no clock: its modules' cycles cannot be told in seconds")
    program = flatten(graph)
    target = target.for_program({storage.memory_space for storage in program.storages})
    accesses, copied = _accesses_by_step(program, target)
    stated = _stated_copies(program, target)
    interconnect = target.interconnect
    if interconnect is not None and has_collectives(graph):
        target = _with_peers(target, interconnect)
        stated = sorted([*stated, *_transfers(program, target, interconnect)], key=_in_order)
    moving = {step for copy in stated for step in (copy.start, copy.done)}
    timed = {
        t
        for t, step in enumerate(program.steps)
        if t not in moving
        and step.instruction.opcode not in _BEFORE_TIME
        and (accesses[t] or estimated_cycles(step.instruction) is not None)
    }
    times = operation_times(program, timed, copied.keys())
    operations, unestimated = _operations(graph, target, program, accesses, copied, times)
    problem, plan = _as_stated(graph, target, times, operations, stated)
    emulator = TimingEmulator(problem)
    timeline = emulator.emulate(plan)
    busy = sum(problem.runs_at(t) * seconds for t, seconds in enumerate(timeline.duration))
    return Score(timeline.latency, target.clock, busy, timeline.stalled, tuple(unestimated))


def _accesses_by_step(program: FlatProgram, target: Target) -> tuple[list[list[_Access]], dict[int, list[_Access]]]:
    """Returns per step its accesses to memories that the target models, and those of the implicit copies at its end."""
    accesses: list[list[_Access]] = [[] for _ in range(len(program.steps) + 1)]
    copied: dict[int, list[_Access]] = {}
    for access in program.accesses:
        space = target.space_of_xla(program.storages[access.storage].memory_space)
        if space >= 0 and access.bytes > 0:
            row = copied.setdefault(access.time, []) if access.operand == COPIED else accesses[access.time]
            row.append((access.kind, access.bytes, space))
    return accesses, copied


def _stated_copies(program: FlatProgram, target: Target) -> list[_StatedCopy]:
    """Returns the asynchronous copies between memories that a link connects, in order of their start."""
    links = {(link.source, link.destination) for link in target.links}
    started: dict[tuple[str, int], int] = {}
    stated = []
    for t, step in enumerate(program.steps):
        started[step.computation, step.index] = t
        if not step.instruction.opcode.endswith("-done"):
            continue
        start = started.get((step.computation, step.instruction.operands[0]))
        if start is None or program.steps[start].region != step.region:
            continue
        source, destination = _ends(program, program.steps[start], step)
        size = sum(leaf.bytes for _, leaf in step.instruction.shape.leaves())
        spaces = target.space_of_xla(source), target.space_of_xla(destination)
        if source >= 0 and spaces in links:
            cross_program = bool(program.steps[start].instruction.attribute("cross_program_prefetch_index"))
            stated.append(_StatedCopy(start, t, *spaces, size, cross_program))
    return sorted(stated, key=_in_order)


def _in_order(copy: _StatedCopy) -> tuple[int, int]:
    return copy.start, copy.done


def _with_peers(target: Target, interconnect: Interconnect) -> Target:
    """Returns a target with one memory more, that of other devices, to which asynchronous collectives send."""
    links = target.links
    channels = [space.channel for space in target.spaces] + [link.channel for link in links]
    link = TargetLink(
        source=target.home,
        destination=len(target.spaces),
        peak_bandwidth=interconnect.peak_bandwidth,
        bandwidth=interconnect.bandwidth,
        latency=0.0,
        queue=max((link.queue for link in links), default=-1) + 1,
        channel=max(channels) + 1,
    )
    peers = replace(target.spaces[target.home], name="other devices", xla_number=None, channel=-1)
    return replace(target, spaces=(*target.spaces, peers), links=(*links, link))


def _transfers(program: FlatProgram, target: Target, interconnect: Interconnect) -> list[_StatedCopy]:
    """Returns the asynchronous collectives, as copies to the memory of other devices that take as long."""
    found = {
        done.name: (start.name, seconds)
        for computation in {step.computation for step in program.steps}
        for start, done, seconds in transfers(program.graph, program.graph.computations[computation], interconnect)
    }
    started: dict[str, int] = {}
    stated = []
    for t, step in enumerate(program.steps):
        started[step.instruction.name] = t
        begin, seconds = found.get(step.instruction.name, ("", 0.0))
        if begin in started and program.steps[started[begin]].region == step.region:
            size = round(seconds * interconnect.bandwidth)
            peers = len(target.spaces) - 1
            stated.append(_StatedCopy(started[begin], t, target.home, peers, size, cross_program=False))
    return stated


def _ends(program: FlatProgram, start: Step, done: Step) -> tuple[int, int]:
    """Returns XLA's numbers of the memories that a copy connects; (-1, -1) for what computes, or is no copy of one."""
    opcode = start.instruction.opcode
    instructions = program.graph.computations[start.computation].instructions
    leaves = [leaf for _, leaf in done.instruction.shape.leaves()]
    if opcode not in _STARTS or len(leaves) != 1:
        return -1, -1
    return instructions[start.instruction.operands[0]].shape.memory_space, leaves[0].memory_space


def _operations(
    graph: Graph,
    target: Target,
    program: FlatProgram,
    accesses: Sequence[Sequence[_Access]],
    copied: Mapping[int, Sequence[_Access]],
    times: OperationTimes,
) -> tuple[list[Operation], list[Unestimated]]:
    """Returns what takes time, each as long as its placement makes it, and those that the compiler did not estimate."""
    costs = InstructionCosts(graph, target)
    nothing = (0,) * len(target.spaces)
    free = (0.0,) * len(target.spaces)
    operations = []
    unestimated = []
    runs = repetitions(times.regions)
    for t, is_copying, name, region in zip(times.steps, times.is_copying, times.names, times.region_of, strict=True):
        if t < 0:
            operations.append(Operation(name, "point", 0.0, 0.0, nothing, region, ()))
            continue
        step = program.steps[t]
        opcode = "copy" if is_copying else step.instruction.opcode
        made = copied[t] if is_copying else accesses[t]
        cycles = None if is_copying else estimated_cycles(step.instruction)
        if cycles is not None:
            seconds = cycles / target.clock
        else:
            touched = [Touched(size, space, kind is not AccessKind.READ) for kind, size, space in made]
            if is_copying:
                cost = costs.of_copies(touched)
            else:
                cost = costs.of(graph.computations[step.computation], step.instruction, touched)
            seconds = cost.seconds([access.space for access in touched])
            unestimated.append(Unestimated(name, opcode, seconds, runs[region]))
        # Buffer s stands for all that lies in space s: only the use of the bus matters here.
        served = tuple(Access(space, kind, size, free) for kind, size, space in made)
        operations.append(Operation(name, opcode, seconds, 0.0, nothing, region, served))
    return operations, unestimated


def _as_stated(
    graph: Graph,
    target: Target,
    times: OperationTimes,
    operations: Sequence[Operation],
    stated: Sequence[_StatedCopy],
) -> tuple[MappingProblem, Plan]:
    """Returns a problem in which everything takes what it is stated to take, and the plan that has the copies."""
    end = len(operations)
    count = len(target.spaces)
    buffers = [Buffer(space.name, 0, 0, end + 1, (i,)) for i, space in enumerate(target.spaces)]
    residencies = [Residency(i, i, 0, 0, end + 1) for i in range(count)]
    copies = []
    for copy in stated:
        start, done = times.at(copy.start), times.at(copy.done)
        buffer = len(buffers)
        buffers.append(Buffer(f"copy {buffer - count}", copy.bytes, 0, end + 1, (copy.source, copy.destination)))
        residencies += [
            Residency(buffer, copy.source, 0, 0, end + 1),
            Residency(buffer, copy.destination, 0, start, end + 1),
        ]
        source = len(residencies) - 2
        copies.append(
            Copy(source, source + 1, BEFORE, 0) if copy.cross_program else Copy(source, source + 1, start, done)
        )
    problem = MappingProblem(
        name=graph.name,
        target=target.name,
        spaces=memory_spaces(target),
        links=memory_links(target),
        regions=times.regions,
        operations=tuple(operations),
        buffers=tuple(buffers),
        clock=target.clock,
    )
    served = tuple(access.buffer for operation in operations for access in operation.accesses)
    return problem, Plan("", graph.name, target.name, "stated", tuple(residencies), tuple(copies), served)
