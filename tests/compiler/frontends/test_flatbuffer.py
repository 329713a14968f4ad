"""Reading FlatBuffers: what a builder wrote, and files that lie about where things are."""

import struct
from collections.abc import Callable

import pytest

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends.flatbuffer import FlatBuffer, FlatTable


def table_of(*fields: bytes) -> bytes:
    """A file of one table whose fields are inline, four bytes each."""
    vtable = struct.pack("<HH", 4 + 2 * len(fields), 4 + 4 * len(fields))
    vtable += b"".join(struct.pack("<H", 4 + 4 * n) for n in range(len(fields)))
    at = 4 + len(vtable)
    return struct.pack("<I", at) + vtable + struct.pack("<i", len(vtable)) + b"".join(fields)


def root(content: bytes) -> FlatTable:
    return FlatBuffer(content, "f.bin").root()


def test_what_a_builder_wrote() -> None:
    flatbuffers = pytest.importorskip("flatbuffers")
    builder = flatbuffers.Builder(0)
    text = builder.CreateString("köln")
    builder.StartVector(4, 3, 4)
    for number in (3, -2, 1):
        builder.PrependInt32(number)
    numbers = builder.EndVector()
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependInt16Slot(1, -7, 0)
    builder.PrependUOffsetTRelativeSlot(4, numbers, 0)
    builder.Finish(builder.EndObject())
    table = root(bytes(builder.Output()))
    assert table.text(0) == "köln"
    assert table.number(1, "h") == -7
    assert table.number(2, "i", 9) == 9
    assert table.numbers(4, "i") == (1, -2, 3)
    assert (table.table(3), table.tables(3), table.text(3), table.number(77, "b")) == (None, [], "", 0)


def test_strings_that_are_no_text_are_read_all_the_same() -> None:
    content = table_of(struct.pack("<I", 4)) + struct.pack("<I", 2) + b"\xff\xfe"
    assert root(content).text(0) == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "4 bytes at byte 0 are beyond the end"),
        (b"\0\0\0\0" * 4, "the offset at byte 0 leads nowhere"),
        (b"\xff\xff\xff\xff" + bytes(60), "the offset at byte 0 leads nowhere"),
        (struct.pack("<Ii", 4, 1000) + bytes(40), "at byte -996"),
        (struct.pack("<Ii", 4, -1000) + bytes(40), "at byte 1,004"),
        (struct.pack("<IiHH", 4, -4, 3, 4) + bytes(40), "the table at byte 4 has a description of 3 bytes"),
        (struct.pack("<IiHH", 4, -4, 4000, 4) + bytes(40), "are beyond the end"),
    ],
)
def test_a_root_that_is_not_there(content: bytes, message: str) -> None:
    with pytest.raises(ParseError, match=rf"f.bin: .*{message}.*is the file damaged"):
        root(content)


@pytest.mark.parametrize("read", [lambda t: t.text(0), lambda t: t.numbers(0, "q"), lambda t: t.tables(0)])
def test_vectors_that_do_not_end_in_the_file(read: Callable[[FlatTable], object]) -> None:
    content = table_of(struct.pack("<I", 4)) + struct.pack("<I", 2**31) + b"abcd"
    with pytest.raises(ParseError, match="elements at byte 18 do not end in the file"):
        read(root(content))


def test_a_small_file_does_not_become_a_large_one() -> None:
    """A vector of tables which all are one table, whose vectors all are one vector: n cubed from n."""
    count = 3000
    inner = table_of(struct.pack("<I", 4))
    vector = struct.pack("<I", count) + bytes(4 * count)
    table = inner[4:] + vector
    at = 14 + 4 + 4 * count  # where `table` begins
    where = at + len(inner) - 4 - 8
    offsets = b"".join(struct.pack("<I", where - (18 + 4 * n)) for n in range(count))
    content = table_of(struct.pack("<I", 4)) + struct.pack("<I", count) + offsets + table
    tables = root(content).tables(0)
    assert len({found.at for found in tables}) == 1
    assert tables[0].numbers(0, "i") == (0,) * count
    with pytest.raises(ParseError, match="refer to each other so often"):
        _ = [found.numbers(0, "i") for found in tables]
