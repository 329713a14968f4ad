"""What a refusal of the compiler says: the use and the value that it names, and the reason."""

from __future__ import annotations

import re

_OPERAND = re.compile(r"instruction '([^']+)' operand (\d+)")
_DEFINED = re.compile(r"(?:defining instruction '|value defined at |for defining instruction ')([^\s']+)")


def named_by(message: str) -> tuple[tuple[str, int] | None, str]:
    """Returns the use, as instruction and operand, and the defining instruction that a refusal names.

    >>> named_by("override failed for instruction 'c' operand 1, shape f32[8], defining instruction 'b': Out of room")
    (('c', 1), 'b')
    >>> named_by("The value defined at b {1} requires allocation in the alternate memory")
    (None, 'b')
    """
    operand, defined = _OPERAND.search(message), _DEFINED.search(message)
    return (operand[1], int(operand[2])) if operand else None, defined[1] if defined else ""


def reason(message: str) -> str:
    """Returns the reason of a refusal, without the names around it.

    >>> reason("strict override failed for instruction 'a' operand 1, defining instruction 'b': Out of room")
    'Out of room'
    """
    return message.rpartition("': ")[2] if "': " in message else message.rpartition(": ")[2]
