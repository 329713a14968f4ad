"""What the model cannot cost, or only roughly: it is listed, so that nothing is free in silence.

    arithmetic   custom calls of unknown names, opcodes that memplan does not know: only their data takes time
    devices      collectives: their time is that of the links in the target's file, and unknown if it states none
    host         infeeds, outfeeds and transfers to and from the host, which wait for what is not in the program

An instruction for which the compiler states an estimate takes that, whatever it does.
"""

from __future__ import annotations

from memplan.compiler.hardware.estimates import estimated_cycles
from memplan.compiler.hardware.interconnect import ASYNC_CALLS, COLLECTIVES, is_going_on
from memplan.compiler.hardware.library_calls import call_target, is_annotation, library_arithmetic
from memplan.compiler.hardware.target import Target
from memplan.compiler.hardware.work import COUNTED, FLATTENED
from memplan.compiler.ir import Computation, Graph, Instruction

# They move, name or order values, and compute nothing.
MOVING = frozenset(
    {
        "add-dependency", "after-all", "async-done", "async-start", "async-update", "bitcast", "bitcast-convert",
        "broadcast", "concatenate", "constant", "copy", "domain", "dynamic-reshape", "dynamic-slice",
        "dynamic-update-slice", "fusion", "gather", "get-dimension-size", "get-tuple-element", "iota", "opt-barrier",
        "optimization-barrier", "pad", "parameter", "partition-id", "replica-id", "reshape", "reverse",
        "rng-get-and-update-state", "set-dimension-size", "slice", "transpose", "tuple",
    }
)  # fmt: skip
_WITH_HOST = frozenset({"infeed", "outfeed", "recv", "send"})
_SUFFIXES = ("-start", "-update", "-done")

# So many names are written out.
_NAMED = 3


def uncosted(graph: Graph, target: Target) -> tuple[str, ...]:
    """Returns what the costs of a program on a target leave out, a sentence for each kind, in order of appearance."""
    names: dict[str, list[str]] = {}
    for computation, instruction in graph.instructions():
        if target.clock and estimated_cycles(instruction) is not None:
            continue
        if sentence := _left_out(computation, instruction, target):
            names.setdefault(sentence, []).append(instruction.name)
    return tuple(sentence.format(_listed(found)) for sentence, found in names.items())


def _left_out(computation: Computation, instruction: Instruction, target: Target) -> str:
    """Returns what is not costed of an instruction, with a place for names; "" if all is."""
    opcode = instruction.opcode
    for suffix in _SUFFIXES:
        if opcode.endswith(suffix) and opcode not in MOVING:
            if suffix != "-start":
                return ""  # all is said of the start
            opcode = opcode.removesuffix(suffix)
    kind = opcode.replace("{", "{{").replace("}", "}}")
    if opcode in COLLECTIVES and is_going_on(instruction):
        return ""  # all is said of the fusion that starts it
    if opcode in COLLECTIVES and target.interconnect is not None:
        return f"{kind} takes the time of the links between devices in the target's file, on a line or ring ({{}})"
    if opcode in COLLECTIVES:
        return f"{kind} takes no time between devices, only in memory ({{}})"
    if opcode in _WITH_HOST:
        return f"{kind} takes no time between host and device, only in memory ({{}})"
    if opcode == "custom-call":
        return _of_call(computation, instruction)
    if opcode in COUNTED or opcode in MOVING or opcode in FLATTENED or instruction.called:
        return ""
    return f"{kind} is not known: its arithmetic counts as nothing, its data as read and written once ({{}})"


def _of_call(computation: Computation, instruction: Instruction) -> str:
    target = call_target(instruction)
    if (
        is_annotation(target)
        or target in ASYNC_CALLS
        or instruction.called
        or "cost_estimate" in instruction.attribute("backend_config")
    ):
        return ""
    operands = [computation.instructions[operand].shape for operand in instruction.operands]
    try:
        if library_arithmetic(instruction, operands) is not None:
            return ""
    except (ValueError, LookupError, ArithmeticError):
        return ""  # the count of its work raises the error
    name = target.replace("{", "{{").replace("}", "}}")
    return (
        f"what the custom call {name!r} computes is not known: its arithmetic counts as nothing, its data as read and "
        "written once ({})"
    )


def _listed(names: list[str]) -> str:
    """Returns the first few of some names, and how many there are.

    >>> _listed(["a", "b", "c", "d", "e"])
    '5 times: a, b, c, …'
    """
    times = "once" if len(names) == 1 else f"{len(names):,} times"
    return f"{times}: {', '.join(names[:_NAMED])}{', …' if len(names) > _NAMED else ''}"
