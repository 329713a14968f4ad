"""Changes of an input that keep much of its structure: of texts, of bytes, and of the fields of protocol buffers.

Every change takes a `random.Random` and is reproduced by its seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

# Numbers at which types, limits and conversions end, and numbers that are none.
EXTREMES = (
    "0", "-1", "1", "2", "-0", "00", "+1", "7.5", "1e9", "1e400", "-1e400", "nan", "inf", "-inf", "NaN", "Infinity",
    "127", "128", "255", "256", "65535", "65536", "2147483647", "2147483648", "-2147483648", "4294967295",
    "4294967296", "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "9" * 40, "9" * 5000, "1_000", "0x10", "1e-400", "1.", ".5",
    "\u0661\u0662", "\u00b2", "\uff11", "1 0", "true", "null", "?", "<=16", "",
)  # fmt: skip

# Pieces that scanners stumble over.
PIECES = (
    "(", ")", "{", "}", "[", "]", "<", ">", ",", ":", "=", ";", "%", "#", '"', "'", "\\", "/*", "*/", "//", "->", "@",
    "\n", "\r", "\t", "\0", "\x1b[31m", "\x7f", "\ufeff", "\u202e", "\u2028", "\ud7ff", "\U0001f600", "\\x", "\\777",
    "...", "null", "true", "{}", "[]", "()", "{{", "}}", '""', "-", "_", " " * 1000,
)  # fmt: skip

_WORD = re.compile(r"[\w.\-]+|[^\w\s]")
_NUMBER = re.compile(r"-?\d[\d.eE+\-]*")
_CLOSING = {"(": ")", "{": "}", "[": "]", "<": ">", '"': '"'}
_OPENING = re.compile(r'[({\[<"]')
DEPTHS = (2, 3, 10, 100, 100, 300, 1000, 3000, 10_000)

Random = random.Random


def pick_span(chance: Random, length: int, longest: int = 200) -> tuple[int, int]:
    """Returns a place `[start, end)` in something of a length; short ones are more likely."""
    start = chance.randrange(length + 1)
    return start, min(length, start + int(longest ** chance.random()))


def mutated_text(chance: Random, text: str, others: Sequence[str]) -> str:
    """Returns a text after one to a few changes.

    Args:
      chance: what decides.
      text: to change.
      others: texts of the same kind, for splices.
    """
    for _ in range(1 + int(chance.expovariate(1.0))):
        text = chance.choice(TEXT_CHANGES)(chance, text, chance.choice(others))
    return text


def _character(chance: Random, text: str, other: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice((chr(chance.randrange(32, 127)), chr(chance.randrange(0x250)))) + text[at + 1 :]


def _delete(chance: Random, text: str, other: str) -> str:
    start, end = pick_span(chance, len(text))
    return text[:start] + text[end:]


def _repeat(chance: Random, text: str, other: str) -> str:
    start, end = pick_span(chance, len(text), 60)
    times = chance.choice(DEPTHS) if end - start < 20 else 2
    return text[:end] + text[start:end] * times + text[end:]


def _insert(chance: Random, text: str, other: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(PIECES) + text[at:]


def _swap(chance: Random, text: str, other: str) -> str:
    """Exchanges two tokens, or puts a token of another text in the place of one."""
    first = _WORD.search(text, chance.randrange(len(text) + 1))
    if first is None:
        return text
    if chance.random() < 0.5:
        second = _WORD.search(text, min(len(text), first.end() + int(500 * chance.random() ** 2)))
        if second is None:
            return text
        middle = text[first.end() : second.start()]
        return text[: first.start()] + second.group() + middle + first.group() + text[second.end() :]
    second = _WORD.search(other, chance.randrange(len(other) + 1))
    return text[: first.start()] + (second.group() if second else "") + text[first.end() :]


def _number(chance: Random, text: str, other: str) -> str:
    found = _NUMBER.search(text, chance.randrange(len(text) + 1))
    if found is None:
        return text
    return text[: found.start()] + chance.choice(EXTREMES) + text[found.end() :]


def _line(chance: Random, text: str, other: str) -> str:
    """Deletes, doubles or moves a line, or takes one from another text."""
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    what = chance.randrange(4)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(chance.randrange(len(lines) + 1), lines[at])
    elif what == 2:
        lines.insert(chance.randrange(len(lines)), lines.pop(at))
    else:
        lines.insert(at, chance.choice(other.split("\n")))
    return "\n".join(lines)


def _splice(chance: Random, text: str, other: str) -> str:
    return text[: chance.randrange(len(text) + 1)] + other[chance.randrange(len(other) + 1) :]


def _nest(chance: Random, text: str, other: str) -> str:
    """Puts brackets around a bracket's content, a few times or very often."""
    found = _OPENING.search(text, chance.randrange(len(text) + 1))
    if found is None:
        return text
    closing = _CLOSING[found.group()]
    end = text.find(closing, found.end())
    depth = chance.choice(DEPTHS)
    if end < 0 or chance.random() < 0.1:
        return text[: found.end()] + found.group() * depth + text[found.end() :]
    inside = text[found.end() : end]
    separator = chance.choice(("", "", inside + ","))
    nested = (found.group() + separator) * depth + inside + closing * depth
    return text[: found.end()] + nested + text[end:]


def _cut(chance: Random, text: str, other: str) -> str:
    return text[: chance.randrange(len(text) + 1)]


TEXT_CHANGES: tuple[Callable[[Random, str, str], str], ...] = (
    _character, _delete, _repeat, _insert, _swap, _swap, _number, _number, _line, _line, _splice, _nest, _cut,
)  # fmt: skip


# ---- bytes


def mutated_bytes(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Returns bytes after one to a few changes; see `mutated_text`."""
    for _ in range(1 + int(chance.expovariate(1.0))):
        content = _changed_bytes(chance, content, chance.choice(others))
    return content


def _changed_bytes(chance: Random, content: bytes, other: bytes) -> bytes:
    at = chance.randrange(len(content) + 1)
    start, end = pick_span(chance, len(content))
    what = chance.randrange(8)
    if what == 0 and at < len(content):
        return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
    if what == 1:
        return content[:at] + chance.randbytes(chance.choice((1, 1, 2, 4, 8))) + content[at + 1 :]
    if what == 2:
        return content[:start] + content[end:]
    if what == 3:
        return content[:end] + content[start:end] * chance.choice((1, 2, 100)) + content[end:]
    if what == 4:
        return content[:at] + other[chance.randrange(len(other) + 1) :]
    if what == 5:
        return content[:at]
    if what == 6:
        extreme = chance.choice((b"\0", b"\x7f", b"\x80", b"\xff")) * chance.choice((1, 2, 4, 8, 9, 10))
        return content[:at] + extreme + content[at + len(extreme) * chance.randrange(2) :]
    first, last = pick_span(chance, len(other))
    return content[:at] + other[first:last] + content[at:]


# ---- protocol buffers

_VARINTS = (0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def varint(value: int) -> bytes:
    """Returns a number as the wire format has it."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def proto_fields(content: bytes) -> list[tuple[int, bytes]] | None:
    """Returns `(key, value)` of the fields of a message, `None` if it is none; the value of a number is its varint."""
    fields = []
    at = 0
    try:
        while at < len(content):
            key, at = _read_varint(content, at)
            wire = key & 7
            if wire == 0:
                _, end = _read_varint(content, at)
            elif wire == 2:
                length, at = _read_varint(content, at)
                end = at + length
            elif wire in (1, 5):
                end = at + (8 if wire == 1 else 4)
            else:
                return None
            if end > len(content) or key < 8:
                return None
            fields.append((key, content[at:end]))
            at = end
    except IndexError:
        return None
    return fields


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return value, at
        shift += 7


def proto_message(fields: Sequence[tuple[int, bytes]]) -> bytes:
    """Returns the message of fields."""
    return b"".join(varint(key) + (varint(len(value)) if key & 7 == 2 else b"") + value for key, value in fields)


def mutated_proto(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Returns a message after one to a few changes of fields somewhere inside; lengths around them are kept right."""
    for _ in range(1 + int(chance.expovariate(1.0))):
        if chance.random() < 0.2:
            content = _changed_bytes(chance, content, chance.choice(others))
        else:
            content = _changed_message(chance, content, chance.choice(others), 0)
    return content


def _changed_message(chance: Random, content: bytes, other: bytes, depth: int) -> bytes:
    fields = proto_fields(content)
    if not fields:
        return _changed_bytes(chance, content, other)
    at = chance.randrange(len(fields))
    key, value = fields[at]
    if key & 7 == 2 and value and depth < 12 and chance.random() < 0.85:
        fields[at] = key, _changed_message(chance, value, other, depth + 1)
        return proto_message(fields)
    what = chance.randrange(7)
    if what == 0:
        del fields[at]
    elif what == 1:
        fields.insert(at, fields[at])
    elif what == 2:
        fields.append((key, fields[chance.randrange(len(fields))][1]))
    elif what == 3:
        fields[at] = chance.choice(fields)[0], value
    elif what == 4 and key & 7 == 2:
        for _ in range(chance.choice(DEPTHS[:7])):
            value = varint(key) + varint(len(value)) + value
        fields[at] = key, value
    elif what == 5:
        number = chance.randrange(1, 100)
        fields.insert(at, (number << 3, varint(chance.choice(_VARINTS))))
    else:
        changed = varint(chance.choice(_VARINTS)) if key & 7 == 0 else _changed_bytes(chance, value, other)
        fields[at] = (key, changed) if key & 7 in (0, 2) else (key, value[::-1])
    return proto_message(fields)
