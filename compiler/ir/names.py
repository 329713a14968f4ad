"""Names that HLO text can hold. A proto may name things by any bytes, and a printed module has to be read again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from memplan.compiler.ir.graph import Computation, Graph, Instruction

_LEGAL = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*+")
_LEGAL_OPCODE = re.compile(r"[A-Za-z][A-Za-z0-9_\-]*+")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_.\-]")

# What XLA never prints raw either: control characters but white space, and controls of the direction of writing.
CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def legal_name(name: str) -> str:
    """Returns a name itself if HLO text can hold it, else one that is like it.

    >>> legal_name("fusion.1"), legal_name("a b\\x1b[2J"), legal_name("1d")
    ('fusion.1', 'a_b__2J', '_1d')
    """
    if _LEGAL.fullmatch(name):
        return name
    name = _ILLEGAL.sub("_", name)
    # XLA keeps names that begin with two underscores for itself.
    return name if name[:1].isalpha() else "_" + name.lstrip("_")


def with_legal_names(graph: Graph) -> Graph:
    """Returns a Graph of the same meaning whose names HLO text can hold; the Graph itself if all are legal."""
    computations = renamed(graph.computations)
    changed = {name: _with_legal_names(body, computations) for name, body in graph.computations.items()}
    if not computations and all(changed[name] is graph.computations[name] for name in changed):
        return graph if _LEGAL.fullmatch(graph.name) else replace(graph, name=legal_name(graph.name))
    return replace(
        graph,
        name=legal_name(graph.name),
        computations={body.name: body for body in changed.values()},
        entry=computations.get(graph.entry, graph.entry),
    )


def without_controls(text: str) -> str:
    """Returns the text of a module with the characters escaped that would control a terminal.

    In HLO they can stand in strings only, where an octal escape means the same.
    """
    return CONTROL.sub(_octal, text)


def _octal(match: re.Match[str]) -> str:
    return "".join(f"\\{byte:03o}" for byte in match[0].encode(errors="surrogatepass"))


def renamed(names: Iterable[str]) -> dict[str, str]:
    """Returns new names, unlike all others, for those that are not legal."""
    illegal = [name for name in names if not _LEGAL.fullmatch(name)]
    if not illegal:
        return {}
    taken = set(names)
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name in illegal:
        base = unique = legal_name(name)
        while unique in taken:
            counts[base] = counts.get(base, 0) + 1
            unique = f"{base}.{counts[base]}"
        taken.add(unique)
        found[name] = unique
    return found


def _with_legal_names(body: Computation, computations: dict[str, str]) -> Computation:
    names = renamed(tuple(instruction.name for instruction in body.instructions))
    instructions = tuple(_legal(instruction, names, computations) for instruction in body.instructions)
    if body.name not in computations and all(a is b for a, b in zip(instructions, body.instructions, strict=True)):
        return body
    return replace(body, name=computations.get(body.name, body.name), instructions=instructions)


def _legal(instruction: Instruction, names: dict[str, str], computations: dict[str, str]) -> Instruction:
    calls = {name: computations[name] for name in instruction.called if name in computations}
    if instruction.name not in names and not calls and _LEGAL_OPCODE.fullmatch(instruction.opcode):
        return instruction
    return replace(
        instruction,
        name=names.get(instruction.name, instruction.name),
        opcode=_legal_opcode(instruction.opcode),
        called=tuple(calls.get(name, name) for name in instruction.called),
        attributes=tuple((key, _with_calls(value, calls)) for key, value in instruction.attributes),
    )


def _with_calls(value: str, calls: dict[str, str]) -> str:
    """Returns an attribute that names computations with their new names: `%a`, or `{%a, %b}`."""
    if not value.startswith(("%", "{%")):
        return value
    for name in sorted(calls, key=len, reverse=True):
        value = value.replace(f"%{name}", f"%{calls[name]}")
    return value


def _legal_opcode(opcode: str) -> str:
    return opcode if _LEGAL_OPCODE.fullmatch(opcode) else "op-" + _ILLEGAL.sub("_", opcode).replace(".", "_")
