"""What the readers make of one HLO text, beside what XLA's own parser says of it."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxlib import _hlo

from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import parse_bytes
from memplan.compiler.ir import Graph
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.ir.shape import Shape
from memplan.compiler.ir.trip_count import trip_count

TARGET = "tpu-v5e"
PLANNERS = ("slow", "bestfit")
OK = "ok"

Attributes = tuple[tuple[str, str], ...]

# What a refusal by the problem or a planner may say: the program is read, but this target cannot run it.
_GOOD_REASON = re.compile(r"does not fit|do not fit|unknown size|not known until|too large|larger than|exceeds")


@dataclass
class Examination:
    """What was found out about one text; "" where a step was not reached, `OK` where it went well.

    Attributes:
      xla: of XLA's parser: `OK`, or its message.
      read: of our parser.
      again: the Graph that is printed and read again equals the first: `OK`, or the first difference.
      shapes: as XLA's, by the text that XLA prints of the module: `OK`, or the first difference.
      proto: the Graph of XLA's proto of the module equals that of the text that XLA prints: `OK`, or the first
        difference.
      planned: the problem for `TARGET` is built, and `PLANNERS` solve it with plans that are valid.
      loops: that state their trip count.
      wrong_loops: of those, what is inferred differently, by name.
      missed_loops: of those, what is not inferred, by name.
      traceback: of an exception that is no MemplanError, in any step.
    """

    xla: str = ""
    read: str = ""
    again: str = ""
    shapes: str = ""
    proto: str = ""
    planned: str = ""
    loops: int = 0
    wrong_loops: tuple[str, ...] = ()
    missed_loops: tuple[str, ...] = ()
    traceback: str = ""

    @property
    def is_refused_for_a_good_reason(self) -> bool:
        return self.planned not in ("", OK) and _GOOD_REASON.search(self.planned) is not None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Verdict:
    """What XLA makes of a text.

    Attributes:
      message: `OK` if its parser takes the text, else why not.
      printed: the module as text; "" where XLA takes the text, but aborts when it prints the module.
      proto: the module as a serialized HloModuleProto.
    """

    message: str
    printed: str = ""
    proto: bytes = b""


def verdict_of_xla(text: str, only_parses: bool = False) -> Verdict:
    """Returns what XLA makes of a text. On some texts XLA aborts the process.

    Args:
      only_parses: leaves the module unprinted.
    """
    try:
        module = _hlo.hlo_module_from_text(text)
    except Exception as error:
        return Verdict(str(error).strip() or type(error).__name__)
    if only_parses:
        return Verdict(OK)
    return Verdict(OK, module.to_string(), module.as_serialized_hlo_module_proto())


def examine(text: str, verdict: Verdict, with_plans: bool = True) -> Examination:
    """Examines a text.

    Args:
      verdict: of XLA; what our readers make of a module is compared with what XLA prints of it.
      with_plans: whether problems are built and planned too.
    """
    found = Examination(xla=verdict.message)
    try:
        _examine(found, text, verdict, with_plans)
    except MemplanError:
        raise AssertionError("every refusal belongs to a step") from None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((f for f in reversed(frames) if "test" not in f.filename), frames[-1])
        found.traceback = f"{type(error).__name__}: {error} ({place.filename.rpartition('/')[2]}:{place.lineno})"
    return found


def _examine(found: Examination, text: str, verdict: Verdict, with_plans: bool) -> None:
    content = text.encode()
    try:
        graph = parse_bytes(content)
    except MemplanError as error:
        found.read = str(error)
        return
    found.read = OK
    try:
        found.again = difference(graph, parse_bytes(print_graph(graph).encode())) or OK
    except MemplanError as error:
        found.again = str(error)
    if verdict.printed:
        _compare_with_xla(found, graph, verdict)
    _compare_loops(found, graph)
    if with_plans:
        found.planned = _planned(graph)


def _compare_with_xla(found: Examination, graph: Graph, verdict: Verdict) -> None:
    try:
        printed = parse_bytes(verdict.printed.encode())
    except MemplanError as error:
        found.shapes = f"what XLA prints is refused: {error}"
        return
    found.shapes = _difference_of_shapes(graph, printed) or OK
    try:
        found.proto = difference(printed, parse_bytes(verdict.proto)) or OK
    except MemplanError as error:
        found.proto = str(error)


def difference(a: Graph, b: Graph) -> str:
    """Returns the first difference between two Graphs, "" if they are equal."""
    if a == b:
        return ""
    if a.attributes != b.attributes:
        return "module: " + _difference_of_attributes(a.attributes, b.attributes)
    for key in ("name", "entry", "is_scheduled", "aliases", "tables", "origin"):
        if getattr(a, key) != getattr(b, key):
            return f"module: {key}: {getattr(a, key)!s:.150} | {getattr(b, key)!s:.150}"
    if set(a.computations) != set(b.computations):
        return f"module: computations: {sorted(set(a.computations) ^ set(b.computations))!s:.200}"
    for name, computation in a.computations.items():
        other = b.computations[name]
        for key in ("attributes", "root"):
            if getattr(computation, key) != getattr(other, key):
                return f"computation: {key}: {getattr(computation, key)!s:.150} | {getattr(other, key)!s:.150}"
        if len(computation.instructions) != len(other.instructions):
            return "computation: number of instructions"
        for x, y in zip(computation.instructions, other.instructions, strict=True):
            for key in ("name", "opcode", "shape", "operands", "called", "payload", "control_predecessors", "source"):
                if getattr(x, key) != getattr(y, key):
                    return f"{x.opcode}: {key}: {getattr(x, key)!s:.150} | {getattr(y, key)!s:.150}"
            if x.attributes != y.attributes:
                return f"{x.opcode}: " + _difference_of_attributes(x.attributes, y.attributes)
    return "something"


def _difference_of_attributes(a: Attributes, b: Attributes) -> str:
    for key in dict.fromkeys(key for key, _ in (*a, *b)):
        left, right = (", ".join(value for k, value in pairs if k == key) for pairs in (a, b))
        if left != right:
            return f"attribute {key}: {left[:150] or 'missing'} | {right[:150] or 'missing'}"
    return f"order of attributes: {[key for key, _ in a]} | {[key for key, _ in b]}"


def _difference_of_shapes(graph: Graph, printed: Graph) -> str:
    """Returns the first kind of instruction that there are more of than in what XLA prints.

    XLA gives names and an order of its own, so instructions are told apart by opcode, data types and dimensions.
    """
    ours, theirs = _kinds(graph), _kinds(printed)
    for (opcode, shape), count in ours.items():
        if count > theirs[opcode, shape]:
            others = [
                str(other) for name, other in theirs if name == opcode and theirs[name, other] > ours[name, other]
            ]
            return f"{opcode}: {shape!s:.150} | {others[0] if others else 'missing':.150}"
    return ""


def _kinds(graph: Graph) -> Counter[tuple[str, Shape]]:
    # What runs asynchronously stands in a computation of its own, or does not.
    wrapped = {name for _, i in graph.instructions() if i.opcode.startswith("async-") for name in i.called}
    return Counter(
        (i.opcode, i.shape.without_layout())
        for computation, i in graph.instructions()
        if computation.name not in wrapped and not i.opcode.endswith(("-start", "-update", "-done"))
    )


def _compare_loops(found: Examination, graph: Graph) -> None:
    """Compares the trip counts that the text states with those that follow from the loops."""
    wrong, missed = [], []
    for computation, instruction in graph.instructions():
        if instruction.opcode != "while" or "known_trip_count" not in instruction.attribute("backend_config"):
            continue
        stated, is_known = trip_count(graph, instruction, computation)
        if not is_known:
            continue
        found.loops += 1
        kept = tuple(pair for pair in instruction.attributes if pair[0] != "backend_config")
        inferred, is_known = trip_count(graph, replace(instruction, attributes=kept), computation)
        if not is_known:
            missed.append(instruction.name)
        elif inferred != stated:
            wrong.append(f"{instruction.name}: {inferred:g} instead of {stated:g}")
    found.wrong_loops, found.missed_loops = tuple(wrong), tuple(missed)


def _planned(graph: Graph) -> str:
    return next(_faults(graph), OK)


def _faults(graph: Graph) -> Iterator[str]:
    """Yields the first fault of each planner."""
    import memplan

    try:
        problem = memplan.problem(graph if graph.is_scheduled else scheduled(graph), TARGET)
    except MemplanError as error:
        yield f"problem: {error}"
        return
    for planner in PLANNERS:
        try:
            violations = memplan.verify(problem, memplan.plan(problem, planner=planner))
        except MemplanError as error:
            yield f"{planner}: {error}"
            continue
        if violations:
            yield f"{planner}: breaks {violations[0].rule}"
