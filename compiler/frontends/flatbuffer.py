"""A reader of FlatBuffers that trusts nothing: every offset is checked before it is followed.

    root ──► table ── vtable: where each field is, by its number in the schema; 0 where it is left out
               └───── fields: scalars, or offsets forward to tables, vectors and strings

Source: "FlatBuffers Internals" (https://flatbuffers.dev/internals/). The package `flatbuffers` reads the same format,
but checks no offset: a damaged file gives it wrong values, or an exception of any kind.

Fields of a file may share what they point to, so a small file can look as large as it likes. What is read of it in all
is therefore limited to a multiple of its size.
"""

from __future__ import annotations

import struct
from typing import Any

from memplan.compiler.errors import ParseError

# Kinds of scalars, in the letters of `struct`: signed and unsigned of 1, 2, 4 and 8 bytes, f a float.
_BYTES = {kind: struct.calcsize(f"<{kind}") for kind in "bBhHiIqQf?"}

# So many bytes are read of a file for each that it has. Honest files need two, for their vtables.
_MOST_READ, _ALWAYS_READ = 16, 1 << 16


class FlatBuffer:
    """The bytes of a file.

    Args:
      content: all of them.
      file: its name, for messages.
    """

    def __init__(self, content: bytes, file: str = "<bytes>"):
        self.content, self.file = content, file
        self._left = _MOST_READ * len(content) + _ALWAYS_READ

    def root(self) -> FlatTable:
        """Returns the table at the root; raises ParseError if it is not in the file."""
        return FlatTable(self, self.follow(0))

    def fail(self, what: str) -> ParseError:
        return ParseError(f"{what}: is the file damaged?", self.file)

    def scalar(self, at: int, kind: str) -> Any:
        """Returns the number of a kind at a place."""
        return self.scalars(at, kind, 1)[0]

    def scalars(self, at: int, kind: str, count: int) -> tuple[Any, ...]:
        """Returns so many numbers from a place on."""
        size = count * _BYTES[kind]
        if at < 0 or at + size > len(self.content):
            raise self.fail(f"{size:,} bytes at byte {at:,} are beyond the end of the file")
        self._left -= size
        if self._left < 0:
            raise self.fail("its parts refer to each other so often that reading them has no end")
        return struct.unpack_from(f"<{count}{kind}", self.content, at)

    def follow(self, at: int) -> int:
        """Returns where the offset at a place leads."""
        offset = self.scalar(at, "I")
        if offset == 0 or at + offset + 4 > len(self.content):
            raise self.fail(f"the offset at byte {at:,} leads nowhere")
        return int(at + offset)


class FlatTable:
    """A table in a file. Each method takes the number of a field, and raises ParseError if what is there is damaged.

    Args:
      buffer: the file.
      at: byte where the table is.
    """

    def __init__(self, buffer: FlatBuffer, at: int):
        self.buffer, self.at = buffer, at
        vtable = at - buffer.scalar(at, "i")
        size, _ = buffer.scalars(vtable, "H", 2)
        if size < 4 or size % 2:
            raise buffer.fail(f"the table at byte {at:,} has a description of {size} bytes")
        self._fields = buffer.scalars(vtable + 4, "H", size // 2 - 2)

    @property
    def num_fields(self) -> int:
        """How many fields its description has room for."""
        return len(self._fields)

    def place(self, field: int) -> int:
        """Returns the byte where a field is; 0 if it is left out."""
        offset = self._fields[field] if field < len(self._fields) else 0
        return self.at + offset if offset else 0

    def number(self, field: int, kind: str, default: Any = 0) -> Any:
        """Returns a number of a kind in the letters of `struct`."""
        at = self.place(field)
        return self.buffer.scalar(at, kind) if at else default

    def table(self, field: int) -> FlatTable | None:
        """Returns a table; None if the field is left out."""
        at = self.place(field)
        return FlatTable(self.buffer, self.buffer.follow(at)) if at else None

    def extent(self, field: int, kind: str = "B") -> tuple[int, int]:
        """Returns where the elements of a vector begin, and how many there are; 0 and 0 if it is left out."""
        at = self.place(field)
        if not at:
            return 0, 0
        start = self.buffer.follow(at)
        count = self.buffer.scalar(start, "I")
        if start + 4 + count * _BYTES[kind] > len(self.buffer.content):
            raise self.buffer.fail(f"the {count:,} elements at byte {start:,} do not end in the file")
        return start + 4, count

    def numbers(self, field: int, kind: str) -> tuple[Any, ...]:
        """Returns the numbers of a vector; none if it is left out."""
        start, count = self.extent(field, kind)
        return self.buffer.scalars(start, kind, count)

    def tables(self, field: int) -> list[FlatTable]:
        """Returns the tables of a vector; none if it is left out."""
        start, count = self.extent(field, "I")
        return [FlatTable(self.buffer, self.buffer.follow(start + 4 * number)) for number in range(count)]

    def text(self, field: int) -> str:
        """Returns a string; "" if it is left out. What is no UTF-8 becomes U+FFFD."""
        start, count = self.extent(field)
        return bytes(self.buffer.scalars(start, "B", count)).decode(errors="replace")
