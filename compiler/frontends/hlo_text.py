"""HLO text to Graph: the modules that `compiled.as_text()` and `--xla_dump_to` write, before and after optimization.

    module       ::= [HloModule NAME {, attribute}] tables {computation}
    computation  ::= [ENTRY] NAME [(parameters) -> shape] { {instruction} } {, attribute}

A computation may also stand in the attribute that calls it, and an instruction among the operands of another.
The grammar is that of XLA's own parser (xla/hlo/parser/hlo_parser.cc), but this one is tolerant: opcodes and attributes
that it does not know are kept, so that dumps of a newer compiler can be read. Line breaks mean nothing. The time is
linear in the length of the text.
"""

from __future__ import annotations

import re
from typing import NoReturn

from memplan.compiler.errors import GraphError, ParseError
from memplan.compiler.frontends.hlo_attributes import LISTS_OF_COMPUTATIONS, called_computations, parse_aliases
from memplan.compiler.frontends.hlo_lexical import (
    NAME,
    SPACE,
    MalformedText,
    end_of_brackets,
    excerpt,
    line_and_column,
    plain,
    skip_space,
    without_comments,
)
from memplan.compiler.frontends.hlo_shape import MAX_BYTES, shape_at
from memplan.compiler.frontends.hlo_source import SourceTables, read_tables, source_of
from memplan.compiler.frontends.hlo_statement import Statement, attributes_at, statement_at, with_elements_taken
from memplan.compiler.ir.graph import Alias, Computation, Graph, Instruction, Source
from memplan.compiler.ir.inference.infer import SHAPES_IMPLIED, implied_shape, infer_shape
from memplan.compiler.ir.inference.operation import ShapeUnknown
from memplan.compiler.ir.names import legal_name
from memplan.compiler.ir.opcodes import is_known
from memplan.compiler.ir.ordering import reordered, topological_order
from memplan.compiler.ir.shape import Shape
from memplan.compiler.ir.validate import InstructionError, callees_first, check_graph

_MODULE = re.compile(rf"{SPACE}HloModule\s++([^\s,:]++):?")
# Dimensions without a meaning at the end of an array's labels, `b01f?_01i?o->b01f?`, which XLA forgets.
_LAST_UNUSED = re.compile(r"\?++(?=_|->|$)")
_NAME_HERE = re.compile(rf"%?+({NAME})")
_MAX_NESTING = 64  # of computations that stand in the attributes that call them
_COMPUTATION = re.compile(rf"{SPACE}(?:(ENTRY\s++)|(?!ENTRY\s))%?+({NAME}){SPACE}")


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
    try:
        text = without_comments(plain(text))
    except MalformedText as error:
        _fail(error.message, file, text, error.offset)
    parser = _Parser(text, file)
    try:
        return parser.module()
    except MalformedText as error:
        _fail(error.message, file, text, error.offset)
    except InstructionError as error:
        _fail(error.reason, file, text, parser.places.get((error.computation, error.instruction), 0))
    except GraphError as error:
        _fail(str(error), file, text, parser.aliases_at)


def _fail(message: str, file: str, text: str, offset: int) -> NoReturn:
    line, column = line_and_column(text, offset)
    raise ParseError(message, file, line, column) from None


class _Parser:
    """One run over a text.

    Attributes:
      places: (computation, instruction) to the offset of its name, for messages; instruction "" is the computation.
      aliases_at: offset of the header's aliases.
      shapes: by their spelling.
      computations: those parsed so far, by name.
      numbers: the last number given to names, by `(computation, name)`.
      depth: how many attributes the computation that is parsed stands in.
      unknown_opcodes: to the offset of the first one.
    """

    def __init__(self, text: str, file: str):
        self.text, self.file = text, file
        self.places: dict[tuple[str, str], int] = {}
        self.aliases_at = 0
        self.shapes: dict[str, Shape] = {}
        self.computations: dict[str, Computation] = {}
        self.depth = 0
        self.numbers: dict[tuple[str, str], int] = {}
        self.sources: dict[str, Source] = {}
        self.unknown_opcodes: dict[str, int] = {}
        self.tables = SourceTables()
        self.is_scheduled = False

    def module(self) -> Graph:
        text = self.text
        name, attributes, aliases, position = self.header()
        computations = self.computations
        entry = last = ""
        while (position := skip_space(text, position)) < len(text):
            computation, is_entry, position = self.computation(position, is_first=not computations)
            computations[computation.name] = computation
            last = computation.name
            if is_entry:
                if entry:
                    place = self.places[computation.name, ""]
                    raise MalformedText(f"a second ENTRY; the first is {entry!r}", place)
                entry = computation.name
        if not computations:
            if not text.strip():
                raise MalformedText("the file is empty", 0)
            raise MalformedText("there is no computation: is the file truncated?", len(text))
        if not entry:
            entry = last  # as XLA does
        self.check_callees(computations)
        graph = Graph(
            name or entry,
            {key: computations[key] for key in callees_first(computations)},
            entry,
            self.is_scheduled,
            aliases,
            attributes,
            self.tables.text,
            "hlo",
            self.file,
            self.warnings(),
        )
        check_graph(graph)
        return graph

    def header(self) -> tuple[str, tuple[tuple[str, str], ...], tuple[Alias, ...], int]:
        """Parses the module's line and tables; returns its name, attributes and aliases, and the offset after them."""
        match = _MODULE.match(self.text, 0)
        if match is None:
            return "", (), (), 0
        found, position = attributes_at(self.text, match.end())
        attributes: list[tuple[str, str]] = []
        aliases: tuple[Alias, ...] = ()
        for key, value, at in found:
            if key == "is_scheduled":
                self.is_scheduled = value == "true"
            elif key == "input_output_alias":
                self.aliases_at = at
                aliases = parse_aliases(value, at)
            else:
                attributes.append((key, value))
        self.tables, position = read_tables(self.text, position)
        return legal_name(match.group(1)), tuple(attributes), aliases, position

    def check_callees(self, computations: dict[str, Computation]) -> None:
        for computation in computations.values():
            for instruction in computation.instructions:
                for callee in instruction.called:
                    if callee not in computations:
                        reason = f"computation {callee!r} is not defined"
                        raise InstructionError(reason, computation.name, instruction.name)

    def warnings(self) -> tuple[str, ...]:
        found = []
        line, position = 1, 0
        for opcode, offset in self.unknown_opcodes.items():  # in the order of the text
            line += self.text.count("\n", position, offset)
            position = offset
            column = offset - self.text.rfind("\n", 0, offset)
            found.append(f"{self.file}:{line}:{column}: opcode {opcode!r} is not known: kept as opaque")
        return tuple(found)

    def computation(self, position: int, is_first: bool) -> tuple[Computation, bool, int]:
        """Parses one computation; returns it, whether it is the entry, and the offset after it."""
        text = self.text
        match = _COMPUTATION.match(text, position)
        if match is None:
            wanted = "HLO text (HloModule …)" if is_first else "a computation"
            raise MalformedText(f"expected {wanted}, found {excerpt(text, position)}", position)
        name, name_at = match.group(2), match.start(2)
        if (name, "") in self.places:
            raise MalformedText(f"a second computation is called {name!r}", name_at)
        self.places[name, ""] = name_at
        body = self.signature_end(match.end())
        if not text.startswith("{", body):
            if name == "HloModule":
                raise MalformedText("a second HloModule: a file holds one module", name_at)
            if text.startswith("=", body):
                raise MalformedText("an instruction stands outside of any computation", name_at)
            if is_first:
                raise MalformedText(f"expected HLO text (HloModule …), found {excerpt(text, name_at)}", name_at)
            raise MalformedText(f"expected {{ to begin computation {name!r}, found {excerpt(text, body)}", body)
        statements, position = self.statements(name, body + 1)
        attributes, position = attributes_at(text, position)
        own_attributes = tuple((key, value) for key, value, _ in attributes)
        return self.resolved(name, statements, own_attributes), match.group(1) is not None, position

    def signature_end(self, position: int) -> int:
        """Returns the offset after `(parameters) -> shape`, which the instructions state again; it may be missing."""
        text = self.text
        if text.startswith("(", position):
            position = skip_space(text, end_of_brackets(text, position))
            if not text.startswith("->", position):
                raise MalformedText(f"expected -> after the parameters, found {excerpt(text, position)}", position)
            _, position = shape_at(text, skip_space(text, position + 2))
            position = skip_space(text, position)
        return position

    def statements(self, computation: str, position: int) -> tuple[list[Statement], int]:
        """Parses instructions up to the closing brace; returns them, and the offset after it."""
        text, shapes, places = self.text, self.shapes, self.places
        found: list[Statement] = []
        root = ""
        has_elements = False

        def new_name(opcode: str) -> str:
            return self.unused(f"{opcode}.anon", computation)

        while True:
            statement, position = statement_at(text, position, shapes, new_name)
            if statement is None:
                return with_elements_taken(found) if has_elements else found, position
            if statement.nested:
                for nested in statement.nested:
                    places[computation, nested.name] = nested.name_at
                    has_elements |= nested.has_elements
                found.extend(statement.nested)
            for index, at in statement.inline:
                attribute = statement.attributes[index][0]
                statement.attributes[index] = attribute, self.named(attribute, at)
            if statement.is_root:
                if root:
                    raise MalformedText(f"a second ROOT; the first is {root!r}", statement.name_at)
                root = statement.name
            key = (computation, statement.name)
            if key in places:
                raise MalformedText(f"a second instruction is called {statement.name!r}", statement.name_at)
            places[key] = statement.name_at
            has_elements |= statement.has_elements
            found.append(statement)

    def unused(self, base: str, computation: str = "") -> str:
        """Returns a name for what has none: `base`, with a number after it if that is taken. XLA gives the same."""
        key = (computation, base)
        while True:
            number = self.numbers[key] = self.numbers.get(key, -1) + 1
            name = f"{base}.{number}" if number else base
            if ((computation, name) if computation else (name, "")) not in self.places:
                return name

    def named(self, key: str, position: int) -> str:
        """Parses the computations that stand in an attribute's value at `position`; returns a value that names them."""
        if key not in LISTS_OF_COMPUTATIONS:
            return "%" + self.inline(position)[0]
        text, names = self.text, []
        position = skip_space(text, position + 1)
        while not text.startswith("}", position):
            if text.startswith("{", position):
                name, position = self.inline(position)
            else:
                match = _NAME_HERE.match(text, position)
                if match is None:
                    raise MalformedText(f"expected a computation, found {excerpt(text, position)}", position)
                name, position = match.group(1), match.end()
            names.append(f"%{name}")
            position = skip_space(text, position)
            if text.startswith(",", position):
                position = skip_space(text, position + 1)
            elif not text.startswith("}", position):
                raise MalformedText(f"expected , after a computation, found {excerpt(text, position)}", position)
        return "{" + ", ".join(names) + "}"

    def inline(self, position: int) -> tuple[str, int]:
        """Parses a computation between braces; returns the name that it is given, and the offset after it."""
        if self.depth == _MAX_NESTING:
            raise MalformedText(f"computations nest deeper than {_MAX_NESTING} attributes", position)
        name = self.unused("_")
        self.places[name, ""] = position
        self.depth += 1
        statements, position = self.statements(name, position + 1)
        self.computations[name] = self.resolved(name, statements, ())
        self.depth -= 1
        return name, position

    def resolved(self, name: str, statements: list[Statement], attributes: tuple[tuple[str, str], ...]) -> Computation:
        """Turns the names of operands into indices, and sorts where the text is in no legal order."""
        index = {statement.name: i for i, statement in enumerate(statements)}
        instructions: list[Instruction] = []
        root = len(statements) - 1  # unless one says that it is the root
        is_legal = True
        for i, statement in enumerate(statements):
            instruction = self.instruction(name, statement, index, instructions)
            instructions.append(instruction)
            if statement.is_root:
                root = i
            for earlier in (instruction.operands, instruction.control_predecessors):
                if earlier and max(earlier) >= i:
                    is_legal = False
        computation = Computation(name, tuple(instructions), root, attributes)
        if is_legal:
            return computation
        order = topological_order(instructions, name)
        if self.is_scheduled:
            early = next(i for i, place in enumerate(order) if place != i)
            reason = "the module says is_scheduled=true, but an operand stands after its user"
            raise InstructionError(reason, name, instructions[early].name)
        return reordered(computation, order)

    def instruction(
        self, computation: str, statement: Statement, index: dict[str, int], earlier: list[Instruction]
    ) -> Instruction:
        try:
            operands = tuple([index[operand] for operand in statement.operands])
        except KeyError as error:
            self.undefined(statement, error.args[0])
        predecessors: tuple[int, ...] = ()
        called: tuple[str, ...] = ()
        source = Source()
        attributes = statement.attributes
        if attributes:
            for key, value in attributes:
                if key == "metadata":
                    found = self.sources.get(value)
                    if found is None:
                        found = self.sources[value] = source_of(value, self.tables)
                    source = found
                elif key == "control-predecessors":
                    predecessors += self.predecessors(value, statement, index)
                elif key == "channel_id" and value == "0":  # none: a proto of the module does not state it
                    attributes = [pair for pair in attributes if pair[0] != "channel_id"]
                elif key == "dim_labels" and "?" in value:
                    attributes = [(k, _LAST_UNUSED.sub("", v) if k == key else v) for k, v in attributes]
            if predecessors:
                attributes = [pair for pair in attributes if pair[0] != "control-predecessors"]
            called = called_computations(attributes)
        opcode = statement.opcode
        if opcode not in self.unknown_opcodes and not is_known(opcode):
            self.unknown_opcodes[opcode] = statement.operands_at - 1 - len(opcode)
        shape = statement.shape
        if shape is None or opcode in SHAPES_IMPLIED:
            shape = self.shape(computation, statement, operands, called, earlier)
        return Instruction(
            statement.name,
            opcode,
            shape,
            operands,
            called,
            tuple(attributes),
            statement.payload,
            predecessors,
            source,
        )

    def shape(
        self,
        computation: str,
        statement: Statement,
        operands: tuple[int, ...],
        called: tuple[str, ...],
        earlier: list[Instruction],
    ) -> Shape:
        """Returns the shape of a result that the text leaves out, or states otherwise than XLA understands it."""
        try:
            if any(operand >= len(earlier) for operand in operands):
                if statement.shape is not None:
                    return statement.shape
                raise ShapeUnknown("an operand stands after it")
            shapes = [earlier[operand].shape for operand in operands]
            if statement.shape is not None:
                return implied_shape(statement.opcode, statement.shape, shapes)
            callees = [self.computations[name] for name in called if name in self.computations]
            if len(callees) < len(called):
                raise ShapeUnknown("a computation that it calls stands after it")
            shape = infer_shape(statement.opcode, shapes, dict(statement.attributes), callees)
        except ShapeUnknown as error:
            raise InstructionError(f"its shape is left out, and {error}", computation, statement.name) from None
        if shape.num_elements > MAX_BYTES or shape.bytes > MAX_BYTES:
            raise InstructionError("its result takes more than 2^63 - 1 bytes", computation, statement.name)
        return shape

    def predecessors(self, value: str, statement: Statement, index: dict[str, int]) -> tuple[int, ...]:
        found = []
        for part in value.strip("{}").split(","):
            name = part.strip().removeprefix("%")
            if name not in index:
                self.undefined(statement, name)
            found.append(index[name])
        return tuple(found)

    def undefined(self, statement: Statement, name: str) -> NoReturn:
        at = self.text.find(name, statement.operands_at)
        raise MalformedText(f"{name!r}, which {statement.name!r} names, is not defined in its computation", at)
