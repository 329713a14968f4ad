"""The flattened schedule: one line of time for the entry computation and everything that control flow calls.

A `while` lays out its condition, then its body; a `conditional` its branches, one after another; a `call` its callee;
the calling step comes right after them:

    t     0     1     2       3     4       5     6      7        8
          a     b   ( cond … )   ( body …        root )  while    c
                    └────────── loop region ─────────┘   owner

Fusions, combiners of reductions and wrapped asynchronous computations are not laid out: their step is atomic. This is
the order that XLA flattens schedules to (hlo_live_range.cc, `FlattenSchedule`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.compiler.analysis.program import RegionKind, Step, StepRegion
from memplan.compiler.errors import GraphError
from memplan.compiler.ir import Computation, Graph, Instruction
from memplan.compiler.ir.trip_count import trip_count

# A program whose calls multiply to more steps than this is refused rather than laid out.
MAX_STEPS = 4_000_000

_CONTROL_FLOW = frozenset({"while", "conditional", "call"})


@dataclass(frozen=True, slots=True)
class CallFrame:
    """One place where a computation is laid out; a computation that is called twice has two.

    Attributes:
      computation: what is laid out.
      region: index of the innermost region around its steps.
      times: `[num_instructions]` time of each instruction.
      callees: per time of a `while`, `conditional` or `call` step in it, the frames of what the step calls, in order:
        condition and body, or branches, or the callee.
    """

    computation: Computation
    region: int
    times: list[int]
    callees: dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The order of execution.

    Attributes:
      graph: what was laid out.
      steps: `[num_steps]` in order of execution.
      regions: region 0 is the program; parents stand before children.
      frames: frame 0 is that of the entry computation; callers stand before callees.
      frame_of: `[num_steps]` the frame of each step.
    """

    graph: Graph
    steps: tuple[Step, ...]
    regions: tuple[StepRegion, ...]
    frames: tuple[CallFrame, ...]
    frame_of: Sequence[int]

    def operand_times(self, time: int) -> list[int]:
        """Returns the times of the steps that define the operands of a step."""
        times = self.frames[self.frame_of[time]].times
        return [times[operand] for operand in self.steps[time].instruction.operands]


# What an instruction lays out before its own step: kind of region (None: still the region of the part before it), trip
# count, whether the program states it, the computation.
_Part = tuple[RegionKind | None, float, bool, Computation]


@dataclass(slots=True)
class _OpenRegion:
    """A region whose end and owner are not known yet."""

    kind: RegionKind
    start: int
    parent: int
    trip_count: float
    known: bool
    end: int = -1
    owner: int = -1


def lay_out(graph: Graph) -> Schedule:
    """Returns the flattened schedule of a Graph.

    Raises:
      GraphError: computations call each other in a circle, or the calls multiply to more than `MAX_STEPS` steps.
    """
    _check_size(graph)
    steps: list[Step] = []
    frame_of: list[int] = []
    regions = [_OpenRegion(RegionKind.PROGRAM, 0, -1, 1.0, True)]
    frames = [CallFrame(graph.entry_computation, 0, [], {})]

    # Frames that are being laid out, innermost last: (frame, next instruction, what that one still has to lay out,
    # regions and frames that it has laid out).
    stack: list[tuple[int, int, list[_Part], list[tuple[int, int]]]] = [(0, 0, [], [])]
    while stack:
        number, position, waiting, opened = stack.pop()
        frame = frames[number]
        instructions = frame.computation.instructions
        count = len(instructions)
        while position < count:
            instruction = instructions[position]
            if instruction.opcode in _CONTROL_FLOW and instruction.called:
                if not opened:
                    waiting = _parts(graph, instruction, frame.computation)
                if waiting:
                    kind, trips, known, callee = waiting.pop()
                    if kind is None:
                        region = opened[-1][0]
                    else:
                        region = len(regions)
                        regions.append(_OpenRegion(kind, len(steps), frame.region, trips, known))
                    frames.append(CallFrame(callee, region, [], {}))
                    opened.append((region, len(frames) - 1))
                    stack.append((number, position, waiting, opened))
                    stack.append((len(frames) - 1, 0, [], []))
                    break
                for region, _ in opened:
                    regions[region].owner = len(steps)
                frame.callees[len(steps)] = tuple(callee_frame for _, callee_frame in opened)
                opened = []
            frame.times.append(len(steps))
            frame_of.append(number)
            steps.append(Step(frame.computation.name, position, instruction, frame.region))
            position += 1
        else:
            regions[frame.region].end = len(steps)
    return Schedule(
        graph,
        tuple(steps),
        tuple(StepRegion(r.kind, r.start, r.end, r.parent, r.trip_count, r.known, r.owner) for r in regions),
        tuple(frames),
        frame_of,
    )


def _parts(graph: Graph, instruction: Instruction, caller: Computation) -> list[_Part]:
    """Returns the parts of a control-flow instruction, the first one last."""
    parts: list[_Part]
    if instruction.opcode == "while":
        trips, known = trip_count(graph, instruction, caller)
        condition, body = graph.called(instruction, "condition"), graph.called(instruction, "body")
        parts = [(RegionKind.LOOP, trips, known, condition), (None, trips, known, body)]
    elif instruction.opcode == "conditional":
        probability = 1.0 / len(instruction.called)
        parts = [(RegionKind.BRANCH, probability, False, graph.computations[name]) for name in instruction.called]
    else:
        parts = [(RegionKind.CALL, 1.0, True, graph.computations[instruction.called[0]])]
    return parts[::-1]


def _check_size(graph: Graph) -> None:
    """Raises GraphError if the Graph cannot be laid out."""
    sizes: dict[str, int] = {}
    path: set[str] = set()
    stack = [graph.entry]
    while stack:
        name = stack[-1]
        instructions = graph.computations[name].instructions
        callees = [c for i in instructions if i.opcode in _CONTROL_FLOW for c in i.called]
        missing = [callee for callee in dict.fromkeys(callees) if callee not in sizes]
        if not missing:
            stack.pop()
            path.discard(name)
            sizes[name] = len(instructions) + sum(sizes[callee] for callee in callees)
            if sizes[name] > MAX_STEPS:
                raise GraphError(
                    f"{graph.file or graph.name}: {name!r} runs {sizes[name]} instructions once its calls are "
                    f"expanded; memplan plans programs of up to {MAX_STEPS}"
                )
            continue
        path.add(name)
        for callee in missing:
            if callee in path:
                raise GraphError(f"{graph.file or graph.name}: {name!r} calls {callee!r}, which calls it in turn")
        stack.extend(missing)
