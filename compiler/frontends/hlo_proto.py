"""HloModuleProto, or the HloProto around it, to Graph: the `.pb` files of `--xla_dump_to`.

The messages are those of xla/service/hlo.proto, read field by field with a reader of our own: no schema package is
needed, fields of a newer XLA are skipped, and damaged bytes end in a message instead of an abort of XLA's C++.

A text says some things more briefly than the proto, and the Graph follows the text: an asynchronous instruction whose
computation only wraps one operation reads as `slice-start` (its computation disappears), a scheduled module has its
instructions in their scheduled order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from memplan.compiler.errors import GraphError, ParseError
from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.hlo_attributes import called_computations
from memplan.compiler.frontends.hlo_lexical import MalformedText, end_of_value, plain
from memplan.compiler.frontends.hlo_source import SourceTables, source_of
from memplan.compiler.frontends.hlo_statement import end_of_literal
from memplan.compiler.frontends.proto_attributes import attributes_of, output_aliasing
from memplan.compiler.frontends.proto_common import Attributes, common_attributes, frontend_attributes, late_attributes
from memplan.compiler.frontends.proto_literal import literal_text
from memplan.compiler.frontends.proto_metadata import escaped
from memplan.compiler.frontends.proto_shape import shape_from_proto
from memplan.compiler.frontends.protobuf import (
    MalformedMessage,
    Message,
    integer,
    integer32,
    integers,
    raw,
    raws,
    string,
)
from memplan.compiler.ir.graph import Alias, Computation, Graph, Instruction, Source
from memplan.compiler.ir.names import renamed, without_controls
from memplan.compiler.ir.opcodes import is_known
from memplan.compiler.ir.ordering import reordered, topological_order
from memplan.compiler.ir.shape import Shape, print_shape
from memplan.compiler.ir.validate import callees_first, check_graph

T = TypeVar("T")

_MAX_WRAPPERS = 3  # HloModuleProto in HloProto in HloSnapshot


def is_hlo_proto(content: bytes) -> bool:
    """Tells whether bytes are meant as one of these messages; they may be damaged all the same."""
    try:
        _unwrapped(content)
        return True
    except MalformedMessage:
        # Both messages begin with field 1, a string or a message; text may begin with that byte too, a line feed.
        return content[:1] == b"\n" and any(byte < 9 or 13 < byte < 32 for byte in content[:512])


def parse(content: bytes, file: str = "<bytes>") -> Graph:
    """Returns the Graph of a serialized HloModuleProto, HloProto or HloSnapshot.

    Raises ParseError, naming the file and, where possible, the instruction, if it is damaged or breaks a rule.
    """
    try:
        graph = _Reader(_unwrapped(content), file).module()
        check_graph(graph)
        return graph
    except MalformedMessage as error:
        raise ParseError(f"damaged HLO proto: {error}: is the file truncated?", file) from None
    except GraphError as error:
        raise ParseError(str(error), file) from None


def module_bytes(content: bytes, file: str = "<bytes>") -> bytes:
    """Returns the serialized HloModuleProto in one of these messages; raises ParseError if there is none."""
    try:
        return _unwrapped_bytes(content)[0]
    except MalformedMessage as error:
        raise ParseError(f"damaged HLO proto: {error}: is the file truncated?", file) from None


def _unwrapped(content: bytes) -> Message:
    """Returns the HloModuleProto in `content`; raises MalformedMessage if there is none."""
    return _unwrapped_bytes(content)[1]


def _unwrapped_bytes(content: bytes) -> tuple[bytes, Message]:
    for _ in range(_MAX_WRAPPERS):
        message = protobuf.read_message(content)
        if _is_module(message):
            return content, message
        content = raw(message, 1)
    raise MalformedMessage("no HloModuleProto in it")


def _is_module(message: Message) -> bool:
    """A module has a name and names its entry; what is around it begins with a message, so with byte 10, in field 1."""
    return (2 in message or 6 in message) and bool(raws(message, 3)) and not raw(message, 1).startswith(b"\n")


@dataclass
class _Computation:
    """A computation whose instructions name each other by id.

    Attributes:
      messages: of the instructions, in order of execution.
      shapes: of the instructions' results.
      index: instruction id to index.
    """

    name: str
    messages: list[Message]
    shapes: list[Shape]
    index: dict[int, int]
    root: int
    attributes: tuple[tuple[str, str], ...]

    def place(self, identity: int) -> int | None:
        """Returns the index of an instruction; ids may carry the computation's id in their upper half, or not."""
        index = self.index.get(identity)
        return self.index.get(identity & 0xFFFFFFFF) if index is None else index


def _checked(attributes: Attributes) -> tuple[tuple[str, str], ...]:
    """Returns attributes as HLO text holds them; raises MalformedMessage if a value is none that it can hold."""
    checked = []
    for key, value in attributes:
        try:
            held = plain(value)
            end = end_of_literal(held, 0) if key == "literal" else end_of_value(held, 0)
        except MalformedText:
            held, end = value, -1
        if end != len(held):
            raise MalformedMessage(f"the attribute {key} holds {value[:40]!r}")
        checked.append((key, held))
    return tuple(checked)


def _only_wraps_root(draft: _Computation) -> bool:
    """Tells whether a computation hands its parameters, in order, to one instruction, and has no other."""
    parameters = [i for i, m in enumerate(draft.messages) if string(m, 2) == "parameter" and i != draft.root]
    by_number = sorted(parameters, key=lambda i: integer(draft.messages[i], 9))
    operands = [draft.place(operand) for operand in integers(draft.messages[draft.root], 36)]
    return len(parameters) == len(draft.messages) - 1 and operands == by_number


class _Reader:
    def __init__(self, module: Message, file: str):
        self.message, self.file = module, file
        self.warnings: dict[str, str] = {}
        self.computations: dict[int, _Computation] = {}
        self.wrappers: dict[int, int] = {}  # id of a computation that wraps one instruction, to that one's index
        self.sources: dict[str, Source] = {}
        self.payloads = raws(module, 22)

    def module(self) -> Graph:
        message = self.message
        sequences = self.schedule()
        for data in raws(message, 3):
            parsed = protobuf.read_message(data)
            identity = integer(parsed, 5)
            if identity in self.computations:
                raise MalformedMessage(f"two computations have the id {identity}")
            self.computations[identity] = self.computation(parsed, sequences.get(identity))
        names = renamed([draft.name for draft in self.computations.values()])
        for draft in self.computations.values():
            draft.name = names.get(draft.name, draft.name)
        self.find_wrappers()
        self.tables = _tables(protobuf.submessage(message, 17))
        computations: dict[str, Computation] = {}
        for identity, draft in self.computations.items():
            if identity in self.wrappers:
                continue
            if draft.name in computations:
                raise MalformedMessage(f"two computations are called {draft.name!r}")
            computations[draft.name] = self.resolved(draft, bool(sequences))
        entry = self.computations.get(integer(message, 6))
        entry_name = entry.name if entry is not None else names.get(string(message, 2), string(message, 2))
        if entry_name not in computations:
            raise MalformedMessage(f"the entry computation {entry_name!r} is not in it")
        return Graph(
            string(message, 1),
            {name: computations[name] for name in callees_first(computations)},
            entry_name,
            bool(sequences),
            self.aliases(),
            _checked(self.header()),
            without_controls(self.tables.text),
            "hlo",
            self.file,
            tuple(self.warnings.values()),
        )

    def schedule(self) -> dict[int, list[int]]:
        """Returns the order of execution, as ids of instructions, per id of a computation; empty if there is none."""
        entries = protobuf.submessages(protobuf.submessage(self.message, 7), 1)
        return {integer(entry, 1): integers(protobuf.submessage(entry, 2), 1) for entry in entries}

    def aliases(self) -> tuple[Alias, ...]:
        found = []
        for entry in protobuf.submessages(protobuf.submessage(self.message, 8), 1):
            output, parameter_index = tuple(integers(entry, 1)), tuple(integers(entry, 3))
            found.append(Alias(output, integer(entry, 2), parameter_index, integer(entry, 4) == 2))
        return tuple(sorted(found, key=lambda alias: alias.output_index))

    def header(self) -> Attributes:
        found: Attributes = []
        donors = []
        for entry in protobuf.submessages(protobuf.submessage(self.message, 18), 1):
            index = ",".join(map(str, integers(entry, 2)))
            donors.append(f"({integer(entry, 1)}, {{{index}}})")
        if donors:
            found.append(("buffer_donor", "{ " + ", ".join(donors) + " }"))
        if 4 in self.message:
            program = protobuf.submessage(self.message, 4)
            parameters = print_shape(Shape("tuple", elements=tuple(map(shape_from_proto, raws(program, 1)))))
            result = print_shape(shape_from_proto(raw(program, 2)))
            found.append(("entry_computation_layout", f"{{{parameters}->{result}}}"))
        if text := frontend_attributes(protobuf.submessage(self.message, 19)):
            found.append(("frontend_attributes", text))
        return found

    def computation(self, message: Message, sequence: Sequence[int] | None) -> _Computation:
        name = string(message, 1)
        messages = [protobuf.read_message(data) for data in raws(message, 2)]
        if not messages:
            raise MalformedMessage(f"computation {name!r} has no instructions")
        identities = [integer(instruction, 35) for instruction in messages]
        index = {identity: i for i, identity in enumerate(identities)}
        if len(index) < len(messages):
            raise MalformedMessage(f"two instructions of {name!r} have the same id")
        if sequence is not None:
            if sorted(sequence) != sorted(identities):
                raise MalformedMessage(f"the schedule of {name!r} does not name each of its instructions once")
            messages = [messages[index[identity]] for identity in sequence]
            index = {identity: i for i, identity in enumerate(sequence)}
        root = index.get(integer(message, 6), len(messages) - 1)
        shapes = []
        for instruction in messages:
            try:
                shapes.append(shape_from_proto(raw(instruction, 3)))
            except MalformedMessage as error:
                raise MalformedMessage(f"{name}/{string(instruction, 1)}: {error}") from None
        thread = string(message, 8)
        attributes = (("execution_thread", escaped(thread)),) if thread not in ("", "main") else ()
        return _Computation(name, messages, shapes, index, root, attributes)

    def find_wrappers(self) -> None:
        """Finds the computations that wrap one instruction for an asynchronous one (XLA's syntactic sugar)."""
        wrapped: set[int] = set()
        other: set[int] = set()
        for draft in self.computations.values():
            for message in draft.messages:
                is_async = string(message, 2) in ("async-start", "async-update", "async-done")
                (wrapped if is_async else other).update(integers(message, 38))
        for identity in wrapped - other:
            candidate = self.computations.get(identity)
            if candidate is not None and _only_wraps_root(candidate):
                self.wrappers[identity] = candidate.root

    def resolved(self, draft: _Computation, is_scheduled: bool) -> Computation:
        operands = [self.indices(draft, message, 36) for message in draft.messages]
        opcodes: list[str] = []
        instructions: list[Instruction] = []
        is_legal = True
        for i, message in enumerate(draft.messages):
            name = string(message, 1)
            try:
                instruction = self.instruction(draft, i, message, operands[i])
            except MalformedMessage as error:
                raise MalformedMessage(f"{draft.name}/{name}: {error}") from None
            opcodes.append(instruction.opcode)
            if any(p >= i for p in (*instruction.operands, *instruction.control_predecessors)):
                is_legal = False
            instructions.append(instruction)
        # An asynchronous instruction is finished under the name of what it began as.
        for i, opcode in enumerate(opcodes):
            if opcode in ("async-update", "async-done") and operands[i] and operands[i][0] < i:
                begun = instructions[operands[i][0]].opcode
                base = begun.removesuffix("-start").removesuffix("-update")
                if base not in (begun, "async"):
                    kept = tuple([a for a in instructions[i].attributes if a[0] != "calls"])
                    opcode = opcode.replace("async", base, 1)
                    instructions[i] = replace(instructions[i], opcode=opcode, attributes=kept, called=())
        computation = Computation(draft.name, tuple(instructions), draft.root, draft.attributes)
        if is_legal:
            return computation
        order = topological_order(instructions, draft.name)
        if is_scheduled:
            raise MalformedMessage(f"the schedule of {draft.name!r} runs an instruction before its operands")
        return reordered(computation, order)

    def indices(self, draft: _Computation, message: Message, number: int) -> tuple[int, ...]:
        kind = "operand" if number == 36 else "control predecessor"
        found = []
        for identity in integers(message, number):
            index = draft.place(identity)
            if index is None:
                name = string(message, 1)
                raise MalformedMessage(f"{draft.name}/{name}: its {kind} has the id {identity}, which does not exist")
            found.append(index)
        return tuple(found)

    def instruction(self, draft: _Computation, i: int, message: Message, operands: tuple[int, ...]) -> Instruction:
        opcode = string(message, 2)
        payload = ""
        if opcode == "parameter":
            payload = str(integer(message, 9))
        elif opcode == "constant":
            payload = literal_text(raw(message, 8))
        identities = integers(message, 38)
        attributes: Attributes = []
        if opcode.startswith("async-"):
            opcode, attributes = self.asynchronous(message, opcode, identities)
        else:
            shapes = [draft.shapes[k] for k in operands]
            attributes = attributes_of(message, opcode, shapes, self.names(message))
        attributes += common_attributes(message)
        late = late_attributes(message, self.payloads)
        source = Source()
        for key, value in late:
            if key == "metadata":
                if value not in self.sources:
                    self.sources[value] = source_of(value, self.tables)
                source = self.sources[value]
        attributes += late
        if not is_known(opcode) and opcode not in self.warnings:
            place = f"{self.file}: {draft.name}/{string(message, 1)}"
            self.warnings[opcode] = f"{place}: opcode {opcode!r} is not known: kept as opaque"
        return Instruction(
            string(message, 1),
            opcode,
            draft.shapes[i],
            operands,
            called_computations(attributes),
            _checked(attributes),
            payload,
            self.indices(draft, message, 37),
            source,
        )

    def asynchronous(self, message: Message, opcode: str, identities: Sequence[int]) -> tuple[str, Attributes]:
        """Returns the opcode and attributes of an instruction that starts, updates or ends what it wraps."""
        attributes: Attributes = []
        is_wrapper = len(identities) == 1 and identities[0] in self.wrappers
        if opcode == "async-start" and (thread := string(message, 79)) not in ("", "main"):
            attributes.append(("async_execution_thread", escaped(thread)))
        if not is_wrapper:
            aliasing = output_aliasing(message) if opcode == "async-start" else []
            return opcode, attributes + aliasing + attributes_of(message, opcode, (), self.names(message))
        wrapper = self.computations[identities[0]]
        inner = wrapper.messages[self.wrappers[identities[0]]]
        inner_opcode = string(inner, 2)
        if opcode == "async-start":
            inner_operands = [wrapper.shapes[k] for k in self.indices(wrapper, inner, 36)]
            attributes += attributes_of(inner, inner_opcode, inner_operands, self.names(inner))
            # Frontend attributes of the instruction itself take the place of those of what it wraps.
            of_inner = common_attributes(inner)
            if frontend_attributes(protobuf.submessage(message, 68)):
                of_inner = [pair for pair in of_inner if pair[0] != "frontend_attributes"]
            attributes += of_inner + output_aliasing(message)
        return opcode.replace("async", inner_opcode, 1), attributes

    def names(self, message: Message) -> list[str]:
        """Returns the names of the computations that an instruction calls."""
        found = []
        for identity in integers(message, 38):
            if identity not in self.computations:
                raise MalformedMessage(f"it calls the computation with id {identity}, which does not exist")
            found.append(self.computations[identity].name)
        return found


_LOCATION_FIELDS = (
    ("file_name_id", 1), ("function_name_id", 2), ("line", 3), ("end_line", 5), ("column", 4), ("end_column", 6),
)  # fmt: skip


def _tables(message: Message) -> SourceTables:
    """Returns StackFrameIndexProto as the tables of a text."""
    if not message:
        return SourceTables()
    files = [protobuf.text(value, 1) for value in raws(message, 1)]
    functions = [protobuf.text(value, 2) for value in raws(message, 2)]
    locations = protobuf.submessages(message, 3)
    frames = protobuf.submessages(message, 4)
    places: dict[int, tuple[str, int]] = {}
    for number, frame in enumerate(frames, start=1):
        location = _at(locations, integer32(frame, 1), {})
        places[number] = (_at(files, integer32(location, 1), ""), max(0, integer32(location, 3)))
    parts = [
        _table("FileNames", [_table_name(name) for name in files]),
        _table("FunctionNames", [_table_name(name) for name in functions]),
        _table(
            "FileLocations",
            ["{" + " ".join(f"{key}={integer32(row, n)}" for key, n in _LOCATION_FIELDS) + "}" for row in locations],
        ),
        # The text counts parents from 1, so that 0 stays free for "none".
        _table(
            "StackFrames",
            [f"{{file_location_id={integer32(row, 1)} parent_frame_id={integer32(row, 2) + 1}}}" for row in frames],
        ),
    ]
    return SourceTables(places, "\n\n".join(parts))


def _table_name(name: str) -> str:
    """Returns a name as XLA prints it, which is unescaped, where that can be read again."""
    return escaped(name) if _NO_PLAIN_NAME.search(name) else f'"{name}"'


_NO_PLAIN_NAME = re.compile(r'["\\\x00-\x1f\x7f]')


def _table(title: str, rows: Sequence[str]) -> str:
    return "\n".join([title, *(f"{number} {row}" for number, row in enumerate(rows, start=1))])


def _at(items: Sequence[T], number: int, default: T) -> T:
    return items[number - 1] if 0 < number <= len(items) else default
