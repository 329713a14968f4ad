"""New HLO modules of the instructions of others: they parse, and mean something new.

A module is made of some instructions of a real one. Each operand becomes an earlier value of the same shape, or a new
parameter, so that most of what is made is accepted and reaches what lies behind the parser.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+)[^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\(([^\n]*)$", re.MULTILINE)
_NAME = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Statement:
    """An instruction: `shape opcode(rest`, whose operands are `%names` in the rest."""

    shape: str
    opcode: str
    rest: str


@dataclass(frozen=True)
class Pool:
    """What modules are made of.

    Attributes:
      statements: instructions of a module, with the shapes of its values.
      shapes: of the values, by name.
      called: texts of the computations that are not the entry, by name, callees before callers.
    """

    statements: tuple[Statement, ...]
    shapes: dict[str, str]
    called: dict[str, str]


def pool_of(text: str) -> Pool | None:
    """Returns the parts of a module, None if it has no entry that this simple grammar can take apart."""
    statements: list[Statement] = []
    shapes: dict[str, str] = {}
    called: dict[str, str] = {}
    for match in _COMPUTATION.finditer(text):
        if not match[1]:
            called[match[2]] = match.group()
            continue
        for name, shape, opcode, rest in _INSTRUCTION.findall(match[3]):
            shapes[name] = shape
            if opcode != "parameter":
                statements.append(Statement(shape, opcode, rest))
    return Pool(tuple(statements), shapes, called) if statements else None


def spliced_module(chance: random.Random, pools: Sequence[Pool]) -> str:
    """Returns a module of one to a dozen instructions of a pool."""
    pool = chance.choice(pools)
    available: dict[str, list[str]] = {}
    parameters: list[str] = []
    lines: list[str] = []

    def operand(match: re.Match[str]) -> str:
        shape = pool.shapes.get(match[1])
        if shape is None:  # a computation
            return match.group()
        known = available.setdefault(shape, [])
        if not known or chance.random() < 0.2:
            known.append(f"p{len(parameters)}")
            parameters.append(f"  {known[-1]} = {shape} parameter({len(parameters)})")
        return "%" + chance.choice(known)

    shape = "f32[]"
    for number in range(chance.randint(1, 12)):
        statement = chance.choice(pool.statements)
        rest = _NAME.sub(operand, statement.rest)
        shape = statement.shape
        lines.append(f"  v{number} = {shape} {statement.opcode}({rest}")
        available.setdefault(shape, []).append(f"v{number}")
    lines[-1] = lines[-1].replace("  ", "  ROOT ", 1)
    body = "\n".join([*parameters, *lines])
    scheduled = chance.choice((", is_scheduled=true", ""))
    return f"HloModule spliced{scheduled}\n\n{_called_by(body, pool)}ENTRY %main {{\n{body}\n}}\n"


def _called_by(body: str, pool: Pool) -> str:
    """Returns the computations that instructions call, and those that these call."""
    named = set(_NAME.findall(body))
    found: list[str] = []
    for name, text in reversed(pool.called.items()):
        if name in named:
            found.append(text + "\n\n")
            named.update(_NAME.findall(text))
    return "".join(reversed(found))
