"""One instruction of HLO text, and attributes: what stands there, before names are looked up.

    instruction  ::= [ROOT] NAME = [shape] opcode(operands) {, attribute}
    operand      ::= [shape] NAME {# NUMBER} | [shape] opcode(operands)
    attribute    ::= KEY=value

One regular expression takes an instruction up to its operands, another each attribute; shapes are parsed once per
spelling. What these expressions refuse is parsed again, slowly, by `_head_slowly` and its like, which either accept
what is only unusual (deep nesting, comments) or say what is wrong.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from memplan.compiler.frontends.hlo_attributes import holds_computations, in_one_spelling
from memplan.compiler.frontends.hlo_lexical import (
    COMMENT,
    NAME,
    SHAPE,
    SPACE,
    VALUE,
    MalformedText,
    end_of_brackets,
    end_of_value,
    excerpt,
    skip_space,
)
from memplan.compiler.frontends.hlo_shape import shape_at
from memplan.compiler.ir.shape import Shape

# A first word ROOT is a mark and never a name, unless nothing separates it from what follows.
_HEAD = re.compile(rf"\s*+(?:(ROOT\s++)%?+|%|(?!ROOT\s))({NAME})\s*+=\s*+({SHAPE})\s*+([a-zA-Z][\w\-]*+)\(")
# How many characters `_HEAD` and `_ATTRIBUTE` see. Until they have matched, they keep about 100 bytes for each pass of
# a group, so anything longer is left to the functions that parse step by step.
_WINDOW = 1 << 18
_FLAT = re.compile(r"([^()]*+)\)")
_ATTRIBUTE = re.compile(rf"\s*+,\s*+([\w.\-]++)=\s*+({VALUE})")
# The group is a comment that never ends; it is no operand, and stays for the message.
_COMMENT = re.compile(rf"{COMMENT}|(/\*(?s:.*+))")
# `x#1#0` is element 0 of element 1 of `x`: newer versions print so what used to be instructions of their own.
_ELEMENT = rf"{NAME}(?:#\d{{1,9}})*"
_TYPED_OPERAND = re.compile(rf"{SPACE}(?:{SHAPE}\s++)?%?+({_ELEMENT}){SPACE}(?:,|$)")
_OPERAND = re.compile(_ELEMENT)
_NAME = re.compile(NAME)
_ROOT = re.compile(r"ROOT\s++")
_NAMED = re.compile(rf"%?+({NAME})\s*+")
_OPCODE = re.compile(r"[a-zA-Z][\w\-]*+")

# Opcodes whose parentheses hold no operands.
_WITH_PAYLOAD = frozenset({"parameter", "constant"})

_MAX_NESTING = 64  # of operands that are instructions themselves


@dataclass(slots=True)
class Statement:
    """An instruction as it stands in the text.

    Attributes:
      name: without `%`.
      shape: None where the text leaves it out.
      operands: names; `x#1` is element 1 of `x`.
      payload: what stands between the parentheses of a parameter or a constant.
      name_at, operands_at: offsets of the name, and of the text between the parentheses.
      has_elements: whether an operand is an element of a tuple.
      nested: instructions that stand among the operands, before those that they are operands of.
      inline: `(index of an attribute, offset of its value)` where an attribute holds computations themselves.
    """

    name: str
    opcode: str
    shape: Shape | None
    operands: list[str]
    attributes: list[tuple[str, str]]
    payload: str
    is_root: bool
    name_at: int
    operands_at: int
    has_elements: bool = False
    nested: list[Statement] = field(default_factory=list)
    inline: list[tuple[int, int]] = field(default_factory=list)


def statement_at(
    text: str, position: int, shapes: dict[str, Shape], new_name: Callable[[str], str]
) -> tuple[Statement | None, int]:
    """Returns the instruction that follows, or None where a closing brace does, and the offset after either.

    Args:
      shapes: those met so far in this text, by their spelling.
      new_name: gives a name to an instruction of some opcode that stands among operands, where it has none.

    Raises MalformedText if neither follows.
    """
    shape: Shape | None
    match = _HEAD.match(text, position, position + _WINDOW)
    if match is not None:
        root, name, shape_text, opcode = match.groups()
        is_root, name_at, operands_at = root is not None, match.start(2), match.end()
        shape = shapes.get(shape_text)
        if shape is None:
            shape, end = shape_at(text, match.start(3))
            if end != match.end(3):
                raise MalformedText(f"expected an opcode, found {excerpt(text, end)}", end)
            shapes[shape_text] = shape
    else:
        position = skip_space(text, position)
        if text.startswith("}", position):
            return None, position + 1
        is_root, name, name_at, shape, opcode, operands_at = _head_slowly(text, position)
    flat = _FLAT.match(text, operands_at)
    if flat is not None:
        inside, position = flat.group(1), flat.end()
    else:
        position = end_of_brackets(text, operands_at - 1)
        inside = text[operands_at : position - 1]
    statement = Statement(name, sys.intern(opcode), shape, [], [], "", is_root, name_at, operands_at)
    if opcode in _WITH_PAYLOAD:
        statement.payload = inside.strip()
    elif inside:
        statement.operands = _operands(inside, operands_at, statement, new_name)
        statement.has_elements = "#" in inside
    found, position = attributes_at(text, position)
    for key, value, at in found:
        if holds_computations(key, value):
            statement.inline.append((len(statement.attributes), at))
        statement.attributes.append((key, in_one_spelling(key, value)))
    return statement, position


def with_elements_taken(statements: list[Statement]) -> list[Statement]:
    """Puts a `get-tuple-element` before the first user of each element, as `x_1` for `x#1`, the name that XLA gives it.

    Raises MalformedText for an element of what is no tuple.
    """
    known = {statement.name: statement for statement in statements}
    taken: dict[tuple[str, int], str] = {}
    found: list[Statement] = []

    def element(whole: str, number: int, user: Statement) -> str:
        """Returns the name of the instruction that takes an element; adds the instruction where it is missing."""
        if (whole, number) in taken:
            return taken[whole, number]
        source = known.get(whole)
        if source is None:
            reason = f"{whole!r}, which {user.name!r} names, is not defined in its computation"
            raise MalformedText(reason, user.operands_at)
        if source.shape is not None and number >= len(source.shape.elements):
            reason = f"{whole!r} is {source.shape!s:.60}, which has no element {number}"
            raise MalformedText(reason, user.operands_at)
        name = f"{whole}_{number}"
        while name in known:
            name += "_"
        shape = None if source.shape is None else source.shape.elements[number]
        attributes = [("index", str(number))]
        added = Statement(
            name, "get-tuple-element", shape, [whole], attributes, "", False, user.name_at, user.operands_at
        )
        known[name] = added
        taken[whole, number] = name
        found.append(added)
        return name

    for statement in statements:
        if statement.has_elements:
            for k, operand in enumerate(statement.operands):
                name, *indices = operand.split("#")
                for index in indices:
                    name = element(name, int(index), statement)
                statement.operands[k] = name
        found.append(statement)
    return found


def attributes_at(text: str, position: int) -> tuple[list[tuple[str, str, int]], int]:
    """Returns the `(key, value, offset of the value)` that follow, each after a comma, and the offset after them."""
    found: list[tuple[str, str, int]] = []
    while True:
        match = _ATTRIBUTE.match(text, position, position + _WINDOW)
        if match is not None:
            key, value = match.groups()
            start, position = match.span(2)
            seen = match.endpos
            following = text[position : position + 1]
            if key == "literal":
                position = end_of_literal(text, start)
                value = text[start:position]
            elif following and (
                following in '{(["'
                or position == seen
                or (following.isspace() and text[seen - 1].isspace() and seen < len(text))
            ):
                # The value may go on with what the expression cannot match or see, after spaces too.
                position = end_of_value(text, start)
                value = text[start:position]
            found.append((sys.intern(key), value, start))
            continue
        after_space = skip_space(text, position)
        if not text.startswith(",", after_space):
            return found, position
        key_at = skip_space(text, after_space + 1)
        name = _NAME.match(text, key_at)
        if name is None or not text.startswith("=", name.end()):
            raise MalformedText(f"expected an attribute KEY=VALUE, found {excerpt(text, key_at)}", key_at)
        start = skip_space(text, name.end() + 1)
        position = end_of_literal(text, start) if name.group() == "literal" else end_of_value(text, start)
        found.append((sys.intern(name.group()), text[start:position], start))


def end_of_literal(text: str, start: int) -> int:
    """Returns the offset after a literal, such as `f32[2] {1, 2}`, or a tuple of literals between parentheses."""
    if text.startswith("(", start):
        return end_of_brackets(text, start)
    _, position = shape_at(text, start)
    return end_of_value(text, skip_space(text, position))


def _operands(inside: str, offset: int, user: Statement, new_name: Callable[[str], str], depth: int = 0) -> list[str]:
    """Returns the operands' names; each may stand after its shape, as old versions print it.

    Adds to `user.nested` the operands that are instructions themselves.
    """
    plain = _COMMENT.sub(r"\1", inside) if "/" in inside else inside
    if "[" in plain or "(" in plain:
        return _typed_operands(inside, offset, user, new_name, depth)
    names = [name.strip().removeprefix("%") for name in plain.split(",")]
    for name in names:
        if _OPERAND.fullmatch(name) is None:
            if not plain.strip():
                return []
            at = max(inside.find(name), 0) if name else len(inside)
            raise MalformedText(f"expected the name of an operand, found {excerpt(inside, at)}", offset + at)
    return names


def _typed_operands(inside: str, offset: int, user: Statement, new_name: Callable[[str], str], depth: int) -> list[str]:
    found: list[str] = []
    position = 0
    while position < len(inside) or inside.rstrip().endswith(","):
        match = _TYPED_OPERAND.match(inside, position)
        if match is None:
            name, position = _unusual_operand(inside, position, offset, user, new_name, depth)
        else:
            name, position = match.group(1), match.end()
        found.append(name)
        if position == len(inside) and not inside[:position].rstrip().endswith(","):
            break
    return found


def _unusual_operand(
    inside: str, position: int, offset: int, user: Statement, new_name: Callable[[str], str], depth: int
) -> tuple[str, int]:
    """Returns the name of an operand with a deep shape, or that is an instruction, and the offset after its comma."""
    start = skip_space(inside, position)
    try:
        shape, end = _optional_shape(inside, start)
    except MalformedText as error:
        reason = f"expected an operand, found {excerpt(inside, start)}: {error.message}"
        raise MalformedText(reason, offset + error.offset) from None
    match = _TYPED_OPERAND.match(inside, end)
    if match is not None:
        return match.group(1), match.end()
    name = _OPCODE.match(inside, skip_space(inside, end))
    opening = len(inside) if name is None else skip_space(inside, name.end())
    if name is None or not inside.startswith("(", opening):
        raise MalformedText(f"expected an operand's name, found {excerpt(inside, end)}", offset + end)
    if depth == _MAX_NESTING:
        raise MalformedText(f"operands nest deeper than {_MAX_NESTING} instructions", offset + start)
    try:
        closing = end_of_brackets(inside, opening)
    except MalformedText as error:
        raise MalformedText(error.message, offset + error.offset) from None
    content, content_at = inside[opening + 1 : closing - 1], offset + opening + 1
    opcode = sys.intern(name.group())
    nested = Statement("", opcode, shape, [], [], "", False, offset + start, content_at)
    if opcode in _WITH_PAYLOAD:
        nested.payload = content.strip()
    elif content:
        nested.operands = _operands(content, content_at, user, new_name, depth + 1)
        nested.has_elements = any("#" in operand for operand in nested.operands)
    nested.name = new_name(opcode)  # after those of its operands
    user.nested.append(nested)
    position = skip_space(inside, closing)
    if position < len(inside) and not inside.startswith(",", position):
        raise MalformedText(f"expected , after an operand, found {excerpt(inside, position)}", offset + position)
    return nested.name, min(position + 1, len(inside))


def _optional_shape(text: str, position: int) -> tuple[Shape | None, int]:
    """Returns the shape that begins at `position` and the offset after it, or None where an opcode does."""
    opcode = _OPCODE.match(text, position)
    if opcode is not None and opcode.group() != "b" and text.startswith("(", skip_space(text, opcode.end())):
        return None, position
    return shape_at(text, position)


def _head_slowly(text: str, position: int) -> tuple[bool, str, int, Shape | None, str, int]:
    """Parses an instruction up to its opening parenthesis, step by step, and says what is wrong."""
    if position >= len(text):
        raise MalformedText("the computation is never closed: is the file truncated?", len(text))
    root = _ROOT.match(text, position)
    if root is not None:
        position = root.end()
    name = _NAMED.match(text, position)
    if name is None:
        raise MalformedText(f"expected an instruction, found {excerpt(text, position)}", position)
    position = name.end()
    if not text.startswith("=", position):
        raise MalformedText(f"expected = after the name {name.group(1)!r}, found {excerpt(text, position)}", position)
    shape, position = _optional_shape(text, skip_space(text, position + 1))
    position = skip_space(text, position)
    opcode = _OPCODE.match(text, position)
    if opcode is None:
        raise MalformedText(f"expected an opcode, found {excerpt(text, position)}", position)
    position = skip_space(text, opcode.end())
    if not text.startswith("(", position):
        raise MalformedText(f"expected ( after {opcode.group()!r}, found {excerpt(text, position)}", position)
    return root is not None, name.group(1), name.start(1), shape, opcode.group(), position + 1
