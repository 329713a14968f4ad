"""HLO text to Graph: the modules that `compiled.as_text()` and `--xla_dump_to` write, before and after optimization.

    module       ::= [HloModule NAME {, attribute}] tables {computation}
    computation  ::= [ENTRY] NAME [(parameters) -> shape] { {instruction} } {, attribute}
    instruction  ::= [ROOT] NAME = shape opcode(operands) {, attribute}
    attribute    ::= KEY=value

The grammar is that of XLA's own parser (xla/hlo/parser/hlo_parser.cc), but this one is tolerant: opcodes and attributes
that it does not know are kept, so that dumps of a newer compiler can be read. Line breaks mean nothing.

Speed: one regular expression takes an instruction up to its operands, another each attribute; shapes are parsed once
per spelling. Whatever these expressions refuse is parsed again, slowly, by the functions at the end, which either
accept what is only unusual (deep nesting) or say what is wrong. The time is linear in the length of the text.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from typing import NoReturn

from memplan.compiler.errors import GraphError, ParseError
from memplan.compiler.frontends import hlo_lexical, hlo_source
from memplan.compiler.frontends.hlo_attributes import called_computations, parse_aliases
from memplan.compiler.frontends.hlo_lexical import MalformedText, excerpt, skip_space
from memplan.compiler.frontends.hlo_shape import shape_at
from memplan.compiler.ir.graph import Alias, Computation, Graph, Instruction, Source
from memplan.compiler.ir.opcodes import is_known
from memplan.compiler.ir.ordering import reordered, topological_order
from memplan.compiler.ir.shape import Shape
from memplan.compiler.ir.validate import InstructionError, callees_first, check_graph

_SPACE, _NAME, _SHAPE, _VALUE = hlo_lexical.SPACE, hlo_lexical.NAME, hlo_lexical.SHAPE, hlo_lexical.VALUE

_HEAD = re.compile(rf"{_SPACE}(ROOT\s++)?+%?+({_NAME})\s*+=\s*+({_SHAPE})\s*+([a-zA-Z][\w\-]*+)\(")
_FLAT = re.compile(r"([^()]*+)\)")
_ATTRIBUTE = re.compile(rf"\s*+,{_SPACE}([\w.\-]++)=({_VALUE})")
_MODULE = re.compile(rf"{_SPACE}HloModule\s++([^\s,]++)")
_COMPUTATION = re.compile(rf"{_SPACE}(ENTRY\s++)?+%?+({_NAME}){_SPACE}")
_COMMENT = re.compile(r"/\*(?:[^*]++|\*(?!/))*+\*/|//[^\n]*+")
_TYPED_OPERAND = re.compile(rf"{_SPACE}(?:{_SHAPE}\s++)?+%?+({_NAME}){_SPACE}(?:,|$)")
_PLAIN_NAME = re.compile(_NAME)

# Opcodes whose parentheses hold no operands.
_WITH_PAYLOAD = {"parameter", "constant"}


def parse(text: str, file: str = "<string>") -> Graph:
    """Returns the Graph of an HLO module, or of computations without a module's header.

    The instructions of a module that is not scheduled stay in the order of the text, sorted only where an operand
    stands after its user.

    Raises ParseError, with line and column, if the text is not HLO or breaks a rule of the IR.

    >>> graph = parse("ENTRY e { x = f32[8] parameter(0) ROOT y = f32[8] add(x, x) }")
    >>> graph.entry_computation.root_instruction.operands
    (0, 0)
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    parser = _Parser(text, file)
    try:
        return parser.module()
    except MalformedText as error:
        _fail(error.message, file, text, error.offset)
    except InstructionError as error:
        offset = parser.places.get((error.computation, error.instruction), 0)
        _fail(error.reason, file, text, offset)
    except GraphError as error:
        _fail(str(error), file, text, parser.aliases_at)


def _fail(message: str, file: str, text: str, offset: int) -> NoReturn:
    line, column = hlo_lexical.line_and_column(text, offset)
    raise ParseError(message, file, line, column) from None


@dataclass(slots=True)
class _Statement:
    """An instruction as it stands in the text: operands are names yet.

    Attributes:
      operands_at: offset of the text between the parentheses.
    """

    name: str
    opcode: str
    shape: Shape
    operands: list[str]
    attributes: list[tuple[str, str]]
    payload: str
    operands_at: int


class _Parser:
    """One run over a text.

    Attributes:
      places: (computation, instruction) to the offset of its name, for messages; instruction "" is the computation.
    """

    def __init__(self, text: str, file: str):
        self.text, self.file = text, file
        self.places: dict[tuple[str, str], int] = {}
        self.shapes: dict[str, Shape] = {}
        self.aliases_at = 0
        self.unknown_opcodes: dict[str, int] = {}  # to the offset of the first one
        self.tables = hlo_source.SourceTables()
        self.is_scheduled = False
        self.callers: list[tuple[str, Instruction]] = []

    def module(self) -> Graph:
        text = self.text
        name = ""
        attributes: list[tuple[str, str]] = []
        aliases: tuple[Alias, ...] = ()
        position = 0
        if (match := _MODULE.match(text, 0)) is not None:
            name = match.group(1)
            raw_attributes, position = self.attributes(match.end())
            for key, value, at in raw_attributes:
                if key == "is_scheduled":
                    self.is_scheduled = value == "true"
                elif key == "input_output_alias":
                    self.aliases_at = at
                    aliases = parse_aliases(value, at)
                else:
                    attributes.append((key, value))
            self.tables, position = hlo_source.read_tables(text, position)
        computations: dict[str, Computation] = {}
        entry = ""
        while (after_space := skip_space(text, position)) < len(text):
            computation, is_entry, position = self.computation(after_space)
            if computation.name in computations:
                raise MalformedText(
                    f"a second computation is called {computation.name!r}", self.places[computation.name, ""]
                )
            computations[computation.name] = computation
            if is_entry:
                if entry:
                    raise MalformedText(
                        f"a second ENTRY; the first is {entry!r}", self.places[computation.name, ""]
                    )
                entry = computation.name
        if not computations:
            if not text.strip():
                raise MalformedText("the file is empty", 0)
            raise MalformedText("there is no computation: is the file truncated?", len(text))
        if not entry:
            entry = next(reversed(computations))  # as XLA does
        for caller, instruction in self.callers:
            for callee in instruction.called:
                if callee not in computations:
                    reason = f"computation {callee!r} is not defined"
                    raise InstructionError(reason, caller, instruction.name)
        ordered = {key: computations[key] for key in callees_first(computations)}
        graph = Graph(
            name or entry,
            ordered,
            entry,
            self.is_scheduled,
            aliases,
            tuple(attributes),
            self.tables.text,
            "hlo",
            self.file,
            self.warnings(),
        )
        check_graph(graph)
        return graph

    def warnings(self) -> tuple[str, ...]:
        found = []
        line = 1
        position = 0
        for opcode, offset in self.unknown_opcodes.items():  # in the order of the text
            line += self.text.count("\n", position, offset)
            position = offset
            column = offset - self.text.rfind("\n", 0, offset)
            found.append(f"{self.file}:{line}:{column}: opcode {opcode!r} is not known: kept as opaque")
        return tuple(found)

    def attributes(self, position: int) -> tuple[list[tuple[str, str, int]], int]:
        """Returns the `(key, value, offset of the value)` that follow, each after a comma, and the offset after them."""
        text, found = self.text, []
        while True:
            match = _ATTRIBUTE.match(text, position)
            if match is not None:
                key, value = match.groups()
                found.append((sys.intern(key), value, match.start(2)))
                position = match.end()
                if position < len(text) and text[position] not in ",\n":
                    # The value may go on with what the expression could not match.
                    end = self.value_end(match.start(2), position)
                    found[-1] = (found[-1][0], text[match.start(2) : end], match.start(2))
                    position = end
                continue
            after_space = skip_space(text, position)
            if not text.startswith(",", after_space):
                return found, position
            key_at = skip_space(text, after_space + 1)
            name = _PLAIN_NAME.match(text, key_at)
            if name is None or not text.startswith("=", name.end()):
                raise MalformedText(f"expected an attribute KEY=VALUE, found {excerpt(text, key_at)}", key_at)
            start = skip_space(text, name.end() + 1)
            position = hlo_lexical.end_of_value(text, start)
            found.append((sys.intern(name.group()), text[start:position], start))

    def value_end(self, start: int, matched: int) -> int:
        if self.text[matched] in "{([\"":
            return hlo_lexical.end_of_value(self.text, start)
        return matched

    def computation(self, position: int) -> tuple[Computation, bool, int]:
        """Parses one computation; returns it, whether it is the entry, and the offset after it."""
        text = self.text
        match = _COMPUTATION.match(text, position)
        if match is None:
            raise MalformedText(f"expected a computation, found {excerpt(text, position)}", position)
        name = match.group(2)
        self.places.setdefault((name, ""), match.start(2))
        body = self.signature_end(match.end())
        if not text.startswith("{", body):
            found = excerpt(text, body)
            if name == "HloModule":
                raise MalformedText("a second HloModule: a file holds one module", match.start(2))
            if text.startswith("=", match.end()):
                raise MalformedText("an instruction stands outside of any computation", match.start(2))
            if not self.places_of_computations():
                raise MalformedText(f"expected HLO text (HloModule …), found {excerpt(text, match.start(2))}", match.start(2))
            raise MalformedText(f"expected {{ to begin computation {name!r}, found {found}", body)
        statements, root, position = self.statements(name, body + 1)
        raw_attributes, position = self.attributes(position)
        computation = self.resolve(name, statements, root, tuple((key, value) for key, value, _ in raw_attributes))
        return computation, match.group(1) is not None, position

    def signature_end(self, position: int) -> int:
        """Returns the offset after `(parameters) -> shape`, which the instructions state again; it may be missing."""
        text = self.text
        if text.startswith("(", position):
            position = hlo_lexical.end_of_brackets(text, position)
            position = skip_space(text, position)
            if not text.startswith("->", position):
                raise MalformedText(f"expected -> after the parameters, found {excerpt(text, position)}", position)
            position = skip_space(text, position + 2)
            _, position = shape_at(text, position)
            position = skip_space(text, position)
        return position

    def statements(self, computation: str, position: int) -> tuple[list[_Statement], int, int]:
        """Parses instructions up to the closing brace; returns them, the root's index, and the offset after it."""
        text, shapes, places = self.text, self.shapes, self.places
        found: list[_Statement] = []
        root = -1
        while True:
            match = _HEAD.match(text, position)
            if match is not None:
                is_root, name, shape_text, opcode = match.groups()
                name_at, position = match.start(2), match.end()
                shape = shapes.get(shape_text)
                if shape is None:
                    shape, end = shape_at(text, match.start(3))
                    if end != match.end(3):
                        raise MalformedText(f"expected an opcode, found {excerpt(text, end)}", end)
                    shapes[shape_text] = shape
            else:
                after_space = skip_space(text, position)
                if text.startswith("}", after_space):
                    return found, root if root >= 0 else len(found) - 1, after_space + 1
                is_root, name, name_at, shape, opcode, position = self.head_slowly(computation, after_space)
            if is_root:
                if root >= 0:
                    raise MalformedText(f"a second ROOT; the first is {found[root].name!r}", name_at)
                root = len(found)
            key = (computation, name)
            if key in places:
                raise MalformedText(f"a second instruction is called {name!r}", name_at)
            places[key] = name_at
            flat = _FLAT.match(text, position)
            operands_at = position
            if flat is not None:
                inside = flat.group(1)
                position = flat.end()
            else:
                position = hlo_lexical.end_of_brackets(text, position - 1)
                inside = text[operands_at : position - 1]
            payload = ""
            operands: list[str] = []
            if opcode in _WITH_PAYLOAD:
                payload = inside
            elif inside:
                operands = self.operands(inside, operands_at)
            attributes: list[tuple[str, str]] = []
            raw_attributes, position = self.attributes(position)
            for key_name, value, _ in raw_attributes:
                attributes.append((key_name, value))
            found.append(_Statement(name, sys.intern(opcode), shape, operands, attributes, payload, operands_at))

    def operands(self, inside: str, offset: int) -> list[str]:
        """Returns the operands' names; each may be preceded by its shape."""
        if "/" in inside:
            plain = _COMMENT.sub("", inside)
        else:
            plain = inside
        if "[" not in plain and "(" not in plain:
            names = [name.strip().removeprefix("%") for name in plain.split(",")]
            for name in names:
                if _PLAIN_NAME.fullmatch(name) is None:
                    if not plain.strip():
                        return []
                    at = offset + inside.find(name)
                    raise MalformedText(f"expected the name of an operand, found {excerpt(self.text, at)}", at)
            return names
        found: list[str] = []
        position = 0
        while position < len(inside) or not found:
            match = _TYPED_OPERAND.match(inside, position)
            if match is None:
                start = skip_space(inside, position)
                if not inside.startswith("%", start) and (_PLAIN_NAME.match(inside, start) or inside[start:start+1] == "("):
                    # Its shape is nested deeper than the expression takes, or malformed.
                    _, end = _shape_within(inside, start, offset)
                    match = _TYPED_OPERAND.match(inside, end)
                if match is None:
                    raise MalformedText(f"expected an operand, found {excerpt(inside, start)}", offset + start)
            found.append(match.group(1))
            position = match.end()
        return found

    def head_slowly(self, computation: str, position: int) -> tuple[bool, str, int, Shape, str, int]:
        """Parses an instruction up to its opening parenthesis where the expression failed; says what is wrong."""
        text = self.text
        if position >= len(text):
            raise MalformedText(f"computation {computation!r} is never closed: is the file truncated?", len(text))
        is_root = re.compile(r"ROOT\s++").match(text, position)
        if is_root:
            position = is_root.end()
        name = re.compile(rf"%?+({_NAME})\s*+").match(text, position)
        if name is None:
            raise MalformedText(f"expected an instruction, found {excerpt(text, position)}", position)
        position = name.end()
        if not text.startswith("=", position):
            raise MalformedText(f"expected = after the name {name.group(1)!r}, found {excerpt(text, position)}", position)
        position = skip_space(text, position + 1)
        shape, position = shape_at(text, position)
        position = skip_space(text, position)
        opcode = re.compile(r"[a-zA-Z][\w\-]*+").match(text, position)
        if opcode is None:
            raise MalformedText(f"expected an opcode, found {excerpt(text, position)}", position)
        position = skip_space(text, opcode.end())
        if not text.startswith("(", position):
            raise MalformedText(f"expected ( after {opcode.group()!r}, found {excerpt(text, position)}", position)
        return bool(is_root), name.group(1), name.start(1), shape, opcode.group(), position + 1

    def resolve(
        self, name: str, statements: list[_Statement], root: int, own_attributes: tuple[tuple[str, str], ...]
    ) -> Computation:
        """Turns the names of operands into indices, and sorts where the text is in no legal order."""
        index = {statement.name: i for i, statement in enumerate(statements)}
        instructions: list[Instruction] = []
        sources: dict[str, Source] = {}
        is_legal = True
        for i, statement in enumerate(statements):
            try:
                operands = tuple([index[operand] for operand in statement.operands])
            except KeyError as error:
                self.undefined(statement, str(error.args[0]))
            predecessors: tuple[int, ...] = ()
            called: tuple[str, ...] = ()
            source = Source()
            attributes = statement.attributes
            if attributes:
                for key, value in attributes:
                    if key == "metadata":
                        if value not in sources:
                            sources[value] = hlo_source.source_of(value, self.tables)
                        source = sources[value]
                    elif key == "control-predecessors":
                        predecessors = (*predecessors, *self.predecessors(value, index, statement))
                if predecessors:
                    attributes = [pair for pair in attributes if pair[0] != "control-predecessors"]
                called = called_computations(attributes)
            if statement.opcode not in self.unknown_opcodes and not is_known(statement.opcode):
                self.unknown_opcodes[statement.opcode] = statement.operands_at - 1 - len(statement.opcode)
            if (operands and max(operands) >= i) or (predecessors and max(predecessors) >= i):
                is_legal = False
            instruction = Instruction(
                statement.name,
                statement.opcode,
                statement.shape,
                operands,
                called,
                tuple(attributes),
                statement.payload,
                predecessors,
                source,
            )
            instructions.append(instruction)
            if called:
                self.callers.append((name, instruction))
        computation = Computation(name, tuple(instructions), root, own_attributes)
        if is_legal:
            return computation
        order = topological_order(instructions, name)
        if self.is_scheduled:
            place = {i: k for k, i in enumerate(order)}
            early = next(i for i in range(len(order)) if place[i] != i)
            reason = "the module says is_scheduled=true, but an operand stands after its user"
            raise InstructionError(reason, name, instructions[early].name)
        return reordered(computation, order)

    def undefined(self, statement: _Statement, operand: str) -> NoReturn:
        at = self.text.find(operand, statement.operands_at)
        raise MalformedText(f"operand {operand!r} of {statement.name!r} is not defined in its computation", at)

    def predecessors(self, value: str, index: dict[str, int], statement: _Statement) -> tuple[int, ...]:
        names = [name.strip().removeprefix("%") for name in value.strip("{}").split(",")]
        found = []
        for name in names:
            if name not in index:
                self.undefined(statement, name)
            found.append(index[name])
        return tuple(found)
