"""The Graph: a program as computations of instructions, in the terms of HLO.

Frontends build it; analyses, passes and planners' problems are derived from it. It is immutable: a pass returns a new
Graph that shares what it did not change.

    Graph ── computations ──► Computation ── instructions ──► Instruction ── operands ──► index in the same Computation
                                                                         └─ called ────► name of another Computation
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from memplan.compiler.ir.shape import Shape


@dataclass(frozen=True, slots=True)
class Source:
    """Where an instruction comes from in the user's program.

    Attributes:
      op_name: JAX's path of the operation, such as `jit(step)/jvp()/dot_general`.
      file, line: 1-based line of the innermost user frame; "" and 0 where unknown.
    """

    op_name: str = ""
    file: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """`file:line`; "" where it is not known."""
        return f"{self.file}:{self.line}" if self.file else ""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation.

    Attributes:
      name: unique within the Graph's computation, without a leading `%`.
      opcode: HLO's name, such as `fusion`; one that memplan does not know is kept and treated as opaque.
      shape: of the result.
      operands: indices into the `instructions` of the same computation.
      called: names of the computations that it calls, in the order of its attributes (of a `while`: condition and body
        stand under the attributes of those names, see `attribute`).
      attributes: `(key, value)` pairs as printed after the operands, in order, values raw; without
        `control-predecessors`, which have a field of their own.
      payload: text between the parentheses of a `parameter` (its number), a `constant` (its literal) and the like.
      control_predecessors: indices of instructions that must run before it though they are not operands.
      source: place in the user's program.
      evaluate: for Graphs traced from JAX, computes the results from the operands' arrays: `evaluate(*operands)` gives
        one array, or a tuple of arrays for a tuple shape. None in Graphs read from dumps.
    """

    name: str
    opcode: str
    shape: Shape
    operands: tuple[int, ...] = ()
    called: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    payload: str = ""
    control_predecessors: tuple[int, ...] = ()
    source: Source = Source()
    evaluate: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    def attribute(self, key: str, default: str = "") -> str:
        """Returns the raw text of an attribute, or `default`."""
        for name, value in self.attributes:
            if name == key:
                return value
        return default

    @property
    def parameter_number(self) -> int:
        """Number of a `parameter`."""
        return int(self.payload)


@dataclass(frozen=True)
class Computation:
    """A sequence of instructions with parameters and one root.

    Attributes:
      name: without a leading `%`.
      instructions: in order of execution: every operand stands before its users.
      root: index of the instruction that gives the result.
      attributes: raw `(key, value)` pairs after the closing brace, such as `execution_thread`.
    """

    name: str
    instructions: tuple[Instruction, ...]
    root: int
    attributes: tuple[tuple[str, str], ...] = ()

    @cached_property
    def parameters(self) -> tuple[int, ...]:
        """Indices of the parameters, by parameter number."""
        found = [i for i, instruction in enumerate(self.instructions) if instruction.opcode == "parameter"]
        return tuple(sorted(found, key=lambda i: self.instructions[i].parameter_number))

    @cached_property
    def users(self) -> tuple[tuple[int, ...], ...]:
        """Per instruction, the indices of the instructions that take it as operand, ascending, each once."""
        users: list[list[int]] = [[] for _ in self.instructions]
        for i, instruction in enumerate(self.instructions):
            for operand in dict.fromkeys(instruction.operands):
                users[operand].append(i)
        return tuple(map(tuple, users))

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Instruction name to index."""
        return {instruction.name: i for i, instruction in enumerate(self.instructions)}

    @property
    def root_instruction(self) -> Instruction:
        return self.instructions[self.root]


@dataclass(frozen=True, slots=True)
class Alias:
    """An output of the program that reuses the memory of an argument.

    Attributes:
      output_index: tuple index into the entry's result.
      parameter: number of the entry's parameter.
      parameter_index: tuple index into that parameter.
      must: whether the caller insists on it (`must-alias`), else it is allowed (`may-alias`).
    """

    output_index: tuple[int, ...]
    parameter: int
    parameter_index: tuple[int, ...]
    must: bool


@dataclass(frozen=True)
class Graph:
    """A whole program.

    Attributes:
      name: of the module.
      computations: by name, callees before callers; the entry is one of them.
      entry: name of the computation where execution begins.
      is_scheduled: whether the compiler fixed the order of the instructions (otherwise memplan chose it).
      aliases: arguments whose memory results reuse.
      attributes: raw `(key, value)` pairs of the module's header, in order; without `is_scheduled` and
        `input_output_alias`, which have fields of their own.
      tables: raw text of the tables of file names and stack frames, for printing back; "" where there are none.
      origin: "hlo" or "jaxpr": what the opcodes' attributes look like.
      file: where it was read from, for messages.
      warnings: what a reader should know, such as opcodes that were not known.
      result_tree: for Graphs traced from JAX, the structure of the function's results (`jax.tree_util.PyTreeDef`); else
        None.
    """

    name: str
    computations: Mapping[str, Computation]
    entry: str
    is_scheduled: bool = False
    aliases: tuple[Alias, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    tables: str = ""
    origin: str = "hlo"
    file: str = field(default="", compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    result_tree: Any = field(default=None, compare=False, repr=False)

    @property
    def entry_computation(self) -> Computation:
        return self.computations[self.entry]

    @cached_property
    def callers(self) -> Mapping[str, tuple[tuple[str, int], ...]]:
        """Per computation, what calls it: (name of the caller, index of the instruction there), each once."""
        found: dict[str, dict[tuple[str, int], None]] = {name: {} for name in self.computations}
        for computation in self.computations.values():
            for i, instruction in enumerate(computation.instructions):
                for name in instruction.called:
                    found[name][computation.name, i] = None
        return {name: tuple(sites) for name, sites in found.items()}

    def called(self, instruction: Instruction, key: str) -> Computation:
        """Returns the computation that an attribute of `instruction` names, such as `body`; KeyError if none."""
        return self.computations[instruction.attribute(key).lstrip("%")]

    def instructions(self) -> Iterator[tuple[Computation, Instruction]]:
        """Yields every instruction of every computation."""
        for computation in self.computations.values():
            for instruction in computation.instructions:
                yield computation, instruction
