import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.protobuf import MalformedMessage, read_message


def varint(value: int) -> bytes:
    value %= 1 << 64
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def test_every_wire_type() -> None:
    data = field(1, 150) + field(2, b"hi") + b"\x1d" + struct.pack("<f", 1.5) + b"\x21" + struct.pack("<d", -2.0)
    message = read_message(data + field(1, 3))
    assert message == {1: [150, 3], 2: [b"hi"], 3: [struct.pack("<f", 1.5)], 4: [struct.pack("<d", -2.0)]}
    assert protobuf.integer(message, 1) == 3  # the last one counts
    assert protobuf.integers(message, 1) == [150, 3]
    assert protobuf.string(message, 2) == "hi"
    assert protobuf.fixed(message, 3, "f") == 1.5
    assert protobuf.fixed(message, 4, "d") == -2.0
    assert protobuf.integer(message, 9, 7) == 7
    assert protobuf.fixed(message, 9, "d") == 0.0


def test_packed_and_negative_numbers() -> None:
    message = read_message(field(1, varint(1) + varint(-1) + varint(300)) + field(1, 5))
    assert protobuf.integers(message, 1) == [1, -1, 300, 5]
    assert protobuf.integer(read_message(field(1, -(2**63))), 1) == -(2**63)


def test_messages_in_messages() -> None:
    message = read_message(field(3, field(1, 7)) + field(3, b""))
    assert protobuf.submessages(message, 3) == [{1: [7]}, {}]
    assert protobuf.submessage(message, 4) == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x08", "the last field ends before its value does"),
        (b"\x0a\x05abc", "field 1 needs 2 bytes more than there are"),
        (b"\x0d\x01\x02", "field 1 needs 2 bytes more"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x0f", "unknown wire type 7"),
        (b"\x00\x01", "a field without a number"),
        (b"\x08" + b"\xff" * 11, "longer than 64 bits"),
        (b"\x08\x80", "the last field ends"),
    ],
)
def test_damaged_messages(data: bytes, message: str) -> None:
    with pytest.raises(MalformedMessage, match=message):
        read_message(data)


def test_fields_of_another_type() -> None:
    message = read_message(field(1, b"\xff\xfe") + field(2, 5))
    for read in (protobuf.integer,):
        with pytest.raises(MalformedMessage, match="field 1 is not an integer"):
            read(message, 1)
    for read in (protobuf.raw, protobuf.raws, protobuf.submessage):  # type: ignore[assignment]
        with pytest.raises(MalformedMessage, match="field 2 is a number"):
            read(message, 2)
    with pytest.raises(MalformedMessage, match="field 1 is not UTF-8 text"):
        protobuf.string(message, 1)
    with pytest.raises(MalformedMessage, match="the numbers of field 1 end too early"):
        protobuf.integers(message, 1)
    with pytest.raises(MalformedMessage, match="field 1 is not a number of 4 bytes"):
        protobuf.fixed(message, 1, "f")


@given(st.lists(st.tuples(st.integers(1, 2**20), st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=200))))
def test_reading_undoes_writing(fields: list[tuple[int, int | bytes]]) -> None:
    message = read_message(b"".join(field(number, value) for number, value in fields))
    expected: dict[int, list[int | bytes]] = {}
    for number, value in fields:
        expected.setdefault(number, []).append(value % (1 << 64) if isinstance(value, int) else value)
    assert message == expected


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        read_message(data)
    except MalformedMessage:
        return
