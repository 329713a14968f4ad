"""What stands in memory where fit finds no program that is small enough, in the words of `memplan peak`."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.ir import Source
from memplan.compiler.report.buffers import BufferDescription, BufferKind, GroupBy, labels_of
from memplan.compiler.report.standing import MemoryPeak, StandingBuffer, groups_of
from memplan.passes.fit.program import FitProgram
from memplan.planners.fit.plan import FitPlan, Run
from memplan.planners.fit.verifier import verify_fit

# The equations of a program have lines, and no layers.
BY = GroupBy.LINE


def peak_of_plan(program: FitProgram, plan: FitPlan) -> MemoryPeak:
    """Returns what stands at the peak of a plan, by the model: values, and what the node that runs needs besides."""
    problem = program.problem
    check = verify_fit(problem, plan)
    time = check.peak_step
    reader: dict[int, str] = {}
    for step in plan.steps:
        if isinstance(step, Run):
            reader |= dict.fromkeys(problem.nodes[step.node].inputs, problem.nodes[step.node].name)
    constants = set(versions.opened(program.closed)[0].constvars)
    buffers = []
    for number, size in check.standing(problem, time):
        value = problem.values[number]
        if not value.size:
            continue
        kind = BufferKind.RESULT if value.is_result else BufferKind.TEMPORARY
        producer = ""
        if value.producer is not None:
            producer = problem.nodes[value.producer].name
        elif program.variables[number] in constants:
            kind = BufferKind.CONSTANT
        else:
            kind = BufferKind.UPDATED if value.is_donated else BufferKind.ARGUMENT
        described = describe(value.name, value.shape, value.size, kind, value.origin, producer, reader.get(number, ""))
        buffers.append(StandingBuffer(number, size, described))
    operation, origin, reserved = "the end", "", 0
    if plan.steps and isinstance(step := plan.steps[time], Run):
        node = problem.nodes[step.node]
        operation, origin, reserved = node.name, node.origin, node.workspace
    return _peak("memory, by the model", buffers, time, len(plan.steps), operation, origin, reserved)


def peak_of_interface(buffers: Sequence[StandingBuffer]) -> MemoryPeak:
    """Returns arguments and results as what stands in memory at any time."""
    return _peak("arguments and results", buffers)


def describe(
    name: str, shape: str, size: int, kind: BufferKind, origin: str = "", producer: str = "", last_use: str = ""
) -> BufferDescription:
    """Returns what is known of a value of a program in JAX; see `BufferDescription`.

    Args:
      name, shape, size, kind, producer, last_use: as there.
      origin: `file:line`; "" if it is not known.
    """
    file, line = _place(origin)
    return BufferDescription(
        name=name,
        size=size,
        padding=0,
        shape=shape,
        kind=kind,
        op_name="",
        file=file,
        line=line,
        producer=producer,
        last_use=last_use,
        aliases=(),
        is_carried=False,
    )


def _place(origin: str) -> tuple[str, int]:
    file, _, line = origin.rpartition(":")
    return (file, int(line)) if file and line.isdecimal() else ("", 0)


def _peak(
    name: str,
    buffers: Sequence[StandingBuffer],
    time: int = 0,
    num_steps: int = 0,
    operation: str = "",
    origin: str = "",
    reserved: int = 0,
) -> MemoryPeak:
    return MemoryPeak(
        name=name,
        number=0,
        capacity=None,
        bytes=sum(buffer.bytes for buffer in buffers) + reserved,
        time=time,
        num_steps=num_steps,
        operation=operation,
        source=Source("", *_place(origin)),
        reserved=reserved,
        groups=groups_of(buffers, labels_of([buffer.description for buffer in buffers], BY)),
        to_come=0,
    )
