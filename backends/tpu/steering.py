"""From a Plan to the compiler options that make XLA:TPU place tensors as it says.

The compiler takes these messages of `xla.memory_space_assignment` as text protos, per program:

    xla_tpu_msa_sort_order_overrides      which values compete for the fast memory first; never refused
    xla_tpu_msa_tensor_overrides          pin, keep or prefetch a value; refused if that is impossible

The order is the strongest of them. Memory space assignment is greedy, so the first values get what the plan gave them,
and the compiler still decides what a plan cannot know (fragmentation, what instructions keep for themselves). Before
memory space assignment, where these options are read, instructions have the same names as in the compiled module.

How libtpu 0.0.52 reads them was found by trying. Values of lower `assign_value` come first, and those without one count
as 0. A pin or keep by `hlo_operand_filter` acts on the result of the instruction, so both are stated by position. The
results of slices and copies cannot be pinned, because the compiler may replace these by asynchronous ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.mapping.build import BuiltProblem
from memplan.compiler.mapping.given_copies import AccessIndex
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem

CROSS_PROGRAM = "xla_msa_max_cross_program_prefetches"
SCOPED_LIMIT = "xla_tpu_scoped_vmem_limit_kib"
COPY_SPEED = "xla_tpu_async_copy_bandwidth_scaling_factor"
LONG_STAYS = "xla_msa_max_overlap_to_mem_size_async_copy_ratio"
SORT_ORDER = "xla_tpu_msa_sort_order_overrides"
TENSORS = "xla_tpu_msa_tensor_overrides"

_NOT_PINNED = frozenset({"slice", "copy", "dynamic-slice"})


@dataclass(frozen=True, slots=True)
class Site:
    """Where the program makes an access: an operand of an instruction, or its result.

    Attributes:
      instruction, opcode: of the access.
      operand: its number; -1 for the result.
      tuple_index: into the operand, or into the result.
      kind: read, write or update.
    """

    instruction: str
    opcode: str
    operand: int
    tuple_index: tuple[int, ...]
    kind: AccessKind


@dataclass(frozen=True, slots=True)
class Rule:
    """One override.

    Attributes:
      buffer: index of the buffer that it is about.
      site: where it applies.
      action: `pin` or `prefetch`.
      text: the override as text proto.
    """

    buffer: int
    site: Site
    action: str
    text: str


def sites(built: BuiltProblem) -> tuple[Site, ...]:
    """Returns where each access of the problem is made, in the accesses' numbering."""
    program = built.program
    accesses = AccessIndex(program)
    found = []
    for t, is_copying in zip(built.times.steps, built.times.is_copying, strict=True):
        if t < 0:
            continue
        instruction = program.steps[t].instruction
        for number in accesses.of(t, is_copying):
            access = program.accesses[number]
            if built.buffer_of_storage[access.storage] >= 0:
                found.append(
                    Site(instruction.name, instruction.opcode, access.operand, access.tuple_index, access.kind)
                )
    return tuple(found)


# The order in which values compete.


def gain(problem: MappingProblem, plan: Plan, buffer: int) -> float:
    """Returns the seconds that a buffer's accesses in other memories than the slow one save, in one run."""
    return sum(
        (access.cost[0] - access.cost[plan.residencies[plan.served[number]].space]) * problem.runs_at(time)
        for number in problem.accesses_of[buffer]
        for time, access in (problem.accesses[number],)
    )


@dataclass(frozen=True, slots=True)
class _Stay:
    """What a ranking depends on: a buffer's size, how long it is in fast memory, its gain, and its offset."""

    size: int
    duration: int
    gain: float
    offset: int


# The buffer with the highest key comes first. Which ranking is best depends on the program, so several are tried.
RANKINGS: Mapping[str, Callable[[_Stay], float]] = {
    "size x time": lambda stay: stay.size * stay.duration,
    "gain per size x time": lambda stay: stay.gain / (stay.size * stay.duration),
    "gain per size": lambda stay: stay.gain / stay.size,
    "low offsets first": lambda stay: -stay.offset,
    "gain": lambda stay: stay.gain,
}


def ranked(problem: MappingProblem, plan: Plan, ranking: str) -> list[int]:
    """Returns the buffers that a plan has in fast memory, in the order in which they are to compete."""
    duration: dict[int, int] = {}
    offset: dict[int, int] = {}
    for residency in plan.residencies:
        if residency.space != 0:
            buffer = residency.buffer
            duration[buffer] = duration.get(buffer, 0) + residency.end - residency.start
            offset[buffer] = min(offset.get(buffer, residency.offset), residency.offset)
    key = RANKINGS[ranking]
    stays = {
        buffer: _Stay(max(problem.buffers[buffer].size, 1), lasts, gain(problem, plan, buffer), offset[buffer])
        for buffer, lasts in duration.items()
    }
    return sorted(stays, key=lambda buffer: (-key(stays[buffer]), buffer))


def nudged(problem: MappingProblem, plan: Plan, given: Plan, least: float) -> tuple[list[int], list[int]]:
    """Returns the buffers that gain more by a plan than now, and those that lose; the largest gain per size first.

    Args:
      problem, plan: what is wanted.
      given: what the compiler does now.
      least: seconds in one run; a smaller change is left out.
    """
    buffers = {residency.buffer for each in (plan, given) for residency in each.residencies if residency.space != 0}
    change = {buffer: gain(problem, plan, buffer) - gain(problem, given, buffer) for buffer in buffers}
    order = sorted(change, key=lambda buffer: (-change[buffer] / max(problem.buffers[buffer].size, 1), buffer))
    return [b for b in order if change[b] > least], [b for b in order if change[b] < -least]


def sort_order(problem: MappingProblem, first: Sequence[int], last: Sequence[int] = ()) -> str:
    """Returns the override that lets buffers compete for the fast memory before all others, or after them."""
    rows = []
    places = [*range(-len(first), 0), *range(1, len(last) + 1)]
    for place, buffer in zip(places, (*first, *last), strict=True):
        name, tuple_index = split_value(problem.buffers[buffer].name)
        rows.append(f"overrides {{ {_position(name, tuple_index)} override_options {{ assign_value: {place} }} }}")
    return " ".join(rows)


# Demands.


def demands(
    problem: MappingProblem, plan: Plan, where: Sequence[Site], buffers: Iterable[int], names: Sequence[str]
) -> list[Rule]:
    """Returns overrides that demand what a plan says of some buffers: pins of results, prefetches of operands.

    Args:
      problem, plan: what is demanded.
      where: of each access, from `sites`.
      buffers: which.
      names: `[n]` of the operations, "" for points that are no instruction.
    """
    fills = {copy.destination: copy for copy in plan.copies if plan.residencies[copy.destination].space != 0}
    rules = []
    for buffer in buffers:
        numbers = problem.accesses_of[buffer]
        served = [plan.served[number] for number in numbers]
        if all(plan.residencies[i].space != 0 and i not in fills for i in served):
            first = next((n for n in numbers if where[n].kind is AccessKind.WRITE), None)
            if first is not None and where[first].opcode not in _NOT_PINNED:
                text = _position(where[first].instruction, where[first].tuple_index)
                rules.append(Rule(buffer, where[first], "pin", f"overrides {{ {text} pin_in_alternate_memory {{}} }}"))
            continue
        filled = set()
        for number, residency in zip(numbers, served, strict=True):
            copy = fills.get(residency)
            if copy is None or residency in filled or where[number].kind is AccessKind.WRITE:
                continue
            filled.add(residency)
            before = next((name for name in names[max(copy.start, 0) :] if name), "")
            start = f"before_instruction {{ instruction_name_regex: {_exactly(before)} }}"
            rules.append(
                Rule(
                    buffer,
                    where[number],
                    "prefetch",
                    f"overrides {{ {_operand(where[number])} prefetch {{ {start} }} }}",
                )
            )
    return rules


def split_value(name: str) -> tuple[str, tuple[int, ...]]:
    """Returns the instruction and the tuple index of a value's name.

    >>> split_value("fusion.3{1,0}"), split_value("add.2")
    (('fusion.3', (1, 0)), ('add.2', ()))
    """
    instruction, _, path = name.partition("{")
    return instruction, tuple(int(index) for index in path.rstrip("}").split(",") if index)


def _position(name: str, tuple_index: Sequence[int]) -> str:
    return f"hlo_position_matcher {{ instruction_name_regex: {_exactly(name)}{_index(tuple_index)} }}"


def _operand(site: Site) -> str:
    return (
        f"hlo_operand_filter {{ instruction_name_regex: {_exactly(site.instruction)} "
        f"operand_number: {site.operand}{_index(site.tuple_index)} }}"
    )


def _index(tuple_index: Sequence[int]) -> str:
    return "".join((" tuple_index {", *(f" index: {i}" for i in tuple_index), " }")) if tuple_index else ""


def _exactly(name: str) -> str:
    """Returns a regular expression that matches one name only, as a string of a text proto."""
    return '"^' + re.escape(name).replace("\\", "\\\\") + '$"'
