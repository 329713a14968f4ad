"""The wire format of protocol buffers, without any schema (protobuf.dev/programming-guides/encoding).

A message is a list of fields, each a number, a wire type and a value. `read_message` sorts them by number; what a value
means is up to the reader, who asks for it by one of the functions below. Fields that no reader asks for do no harm:
they are how newer versions of a message stay readable.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

# Field number to its values, in their order: an int for a varint, bytes for everything else.
Message = dict[int, list[int | bytes]]


class MalformedMessage(Exception):
    """Bytes that are no message, or a field that is not of the type asked for."""


def read_message(data: bytes) -> Message:
    """Splits a message into its fields; raises MalformedMessage.

    >>> read_message(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69]))
    {1: [150], 2: [b'hi']}
    """
    fields: Message = {}
    position, end = 0, len(data)
    try:
        while position < end:
            key = data[position]
            position += 1
            if key >= 0x80:
                key, position = _varint(data, position - 1)
            wire_type, number = key & 7, key >> 3
            value: int | bytes
            if wire_type == 2:
                length = data[position]
                position += 1
                if length >= 0x80:
                    length, position = _varint(data, position - 1)
                value = data[position : position + length]
                position += length
            elif wire_type == 0:
                value = data[position]
                position += 1
                if value >= 0x80:
                    value, position = _varint(data, position - 1)
            elif wire_type in (1, 5):
                length = 8 if wire_type == 1 else 4
                value = data[position : position + length]
                position += length
            else:
                raise MalformedMessage(f"byte {position - 1} begins a field of the unknown wire type {wire_type}")
            if position > end:
                raise MalformedMessage(f"field {number} needs {position - end} bytes more than there are")
            if number == 0:
                raise MalformedMessage(f"byte {position - 1} belongs to a field without a number")
            if number in fields:
                fields[number].append(value)
            else:
                fields[number] = [value]
    except IndexError:
        raise MalformedMessage("the last field ends before its value does") from None
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns the unsigned value of a varint, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift >= 70:
            raise MalformedMessage(f"a number at byte {position} is longer than 64 bits")


def integers(message: Message, number: int) -> list[int]:
    """Returns a repeated integer field, packed or not, as signed 64-bit numbers."""
    found: list[int] = []
    for value in message.get(number, ()):
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        position = 0
        try:
            while position < len(value):
                item, position = _varint(value, position)
                found.append(_signed(item))
        except IndexError:
            raise MalformedMessage(f"the numbers of field {number} end too early") from None
    return found


def integer(message: Message, number: int, default: int = 0) -> int:
    """Returns an integer field; the last value counts where there are several."""
    values = message.get(number)
    if not values:
        return default
    if not isinstance(values[-1], int):
        raise MalformedMessage(f"field {number} is not an integer")
    return _signed(values[-1])


def integer32(message: Message, number: int) -> int:
    """Returns a field of the type int32, of which protobuf keeps the lowest 32 bits."""
    return (integer(message, number) + (1 << 31)) % (1 << 32) - (1 << 31)


def raw(message: Message, number: int) -> bytes:
    """Returns a field of bytes."""
    values = message.get(number)
    if not values:
        return b""
    if not isinstance(values[-1], bytes):
        raise MalformedMessage(f"field {number} is a number, not a string or a message")
    return values[-1]


def raws(message: Message, number: int) -> Sequence[bytes]:
    """Returns a repeated field of bytes, strings or messages."""
    values = message.get(number, [])
    found = [value for value in values if isinstance(value, bytes)]
    if len(found) != len(values):
        raise MalformedMessage(f"field {number} is a number, not a string or a message")
    return found


def string(message: Message, number: int) -> str:
    """Returns a string field."""
    return text(raw(message, number), number)


def text(value: bytes, number: int) -> str:
    """Decodes the value of a string field."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedMessage(f"field {number} is not UTF-8 text") from None


def submessage(message: Message, number: int) -> Message:
    """Returns a message field; an empty message where there is none."""
    return read_message(raw(message, number))


def submessages(message: Message, number: int) -> list[Message]:
    """Returns a repeated message field."""
    return [read_message(value) for value in raws(message, number)]


def fixed(message: Message, number: int, code: str) -> float:
    """Returns a float (`code` "f") or double ("d") field."""
    value = raw(message, number)
    if not value:
        return 0.0
    if len(value) != struct.calcsize(code):
        raise MalformedMessage(f"field {number} is not a number of {struct.calcsize(code)} bytes")
    return float(struct.unpack("<" + code, value)[0])


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
