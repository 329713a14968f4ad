"""A Graph back to HLO text, in the form in which XLA prints modules.

Parsing what `print_graph` writes gives an equal Graph. A module that XLA printed is printed back byte for byte, and
XLA's own parser takes it; one traced from JAX prints for people, with the same grammar but JAX's operations. Names that
text cannot hold, which only protos have, are replaced by others.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.compiler.ir.graph import Alias, Computation, Graph, Instruction
from memplan.compiler.ir.names import with_legal_names, without_controls
from memplan.compiler.ir.shape import print_shape


def print_graph(graph: Graph) -> str:
    """Returns the text of a whole module.

    >>> from memplan.compiler.ir.graph import Computation, Instruction
    >>> from memplan.compiler.ir.shape import Shape
    >>> x = Instruction("x", "parameter", Shape("f32", (8,)), payload="0")
    >>> y = Instruction("y", "add", Shape("f32", (8,)), operands=(0, 0))
    >>> print(print_graph(Graph("m", {"e": Computation("e", (x, y), root=1)}, "e")))
    HloModule m
    <BLANKLINE>
    ENTRY %e (x: f32[8]) -> f32[8] {
      %x = f32[8] parameter(0)
      ROOT %y = f32[8] add(%x, %x)
    }
    <BLANKLINE>
    <BLANKLINE>
    """
    graph = with_legal_names(graph)
    header = [f"HloModule {graph.name}"]
    if graph.is_scheduled:
        header.append("is_scheduled=true")
    if graph.aliases:
        header.append("input_output_alias={ " + ", ".join(map(_alias, graph.aliases)) + " }")
    header.extend(f"{key}={value}" for key, value in graph.attributes)
    parts = [", ".join(header) + "\n"]
    if graph.tables:
        parts.append(graph.tables + "\n\n")
    for computation in graph.computations.values():
        parts.append(print_computation(computation, is_entry=computation.name == graph.entry))
    return without_controls("\n".join([*parts, ""]))


def print_computation(computation: Computation, is_entry: bool = False) -> str:
    """Returns the text of one computation."""
    lines = [("ENTRY " if is_entry else "") + _signature(computation) + " {"]
    lines.extend(_instructions(computation))
    lines.append(", ".join(["}", *(f"{key}={value}" for key, value in computation.attributes)]))
    return "\n".join(lines) + "\n"


def print_instruction(instruction: Instruction, computation: Computation, is_root: bool = False) -> str:
    """Returns the line of one instruction of `computation`, without indentation."""
    names = [f"%{computation.instructions[i].name}" for i in instruction.operands]
    return _line(instruction, names, computation, is_root)


def _instructions(computation: Computation) -> Iterator[str]:
    names = [f"%{instruction.name}" for instruction in computation.instructions]
    for i, instruction in enumerate(computation.instructions):
        operands = [names[operand] for operand in instruction.operands]
        yield "  " + _line(instruction, operands, computation, i == computation.root)


def _line(instruction: Instruction, operands: list[str], computation: Computation, is_root: bool) -> str:
    inside = instruction.payload or _with_index_marks(operands)
    attributes = [f"{key}={value}" for key, value in instruction.attributes]
    if instruction.control_predecessors:
        names = ", ".join(f"%{computation.instructions[i].name}" for i in instruction.control_predecessors)
        # XLA's place for it: before the metadata.
        late = sum(key in ("metadata", "backend_config") for key, _ in instruction.attributes)
        attributes.insert(len(attributes) - late, f"control-predecessors={{{names}}}")
    head = f"{'ROOT ' if is_root else ''}%{instruction.name} = {print_shape(instruction.shape)}"
    return ", ".join([f"{head} {instruction.opcode}({inside})", *attributes])


def _with_index_marks(operands: list[str]) -> str:
    """Joins operands; every fifth is marked with its number, as XLA does for the reader's sake."""
    if len(operands) <= 5:
        return ", ".join(operands)
    return ", ".join(f"/*index={i}*/{name}" if i and i % 5 == 0 else name for i, name in enumerate(operands))


def _signature(computation: Computation) -> str:
    parameters = []
    for i in computation.parameters:
        parameter = computation.instructions[i]
        parameters.append(f"{parameter.name}: {print_shape(parameter.shape.without_layout())}")
    result = print_shape(computation.root_instruction.shape.without_layout())
    return f"%{computation.name} ({', '.join(parameters)}) -> {result}"


def _alias(alias: Alias) -> str:
    output = "{" + ", ".join(map(str, alias.output_index)) + "}"
    parameter = "{" + ", ".join(map(str, alias.parameter_index)) + "}"
    return f"{output}: ({alias.parameter}, {parameter}, {'must' if alias.must else 'may'}-alias)"
