"""Offline plans: offsets of tensors in TFLM's arena, in the metadata of a .tflite file.

    metadata "OfflineMemoryAllocation" ──► buffer of int32, little endian:
        0  version of the format, 1
        1  subgraph
        2  number of offsets, n
        3  n offsets in bytes, one for each tensor; -1 where TFLM shall find a place itself

Source: tensorflow/lite/micro/docs/memory_management.md of https://github.com/tensorflow/tflite-micro, section "Offline
planned tensor allocations". TFLM wants as many offsets as all subgraphs have tensors together.

A plan is added without touching the rest of the file. Offsets in a FlatBuffer lead forward only, so a new root, with
longer lists of buffers and of metadata, stands in front of the old bytes, and leads to the old parts where they are:

    new root │ lists │ the plan │ padding │ old file, its root unused
       └───────────────────────────────────────► old subgraphs, buffers …
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from memplan.compiler.errors import MemplanError, ParseError
from memplan.compiler.frontends.flatbuffer import FlatTable
from memplan.compiler.frontends.tflite_model import IDENTIFIER, TfliteModel, read_model

NAME = "OfflineMemoryAllocation"
VERSION = 1

# Fields of the root, of which all but the first lead to something.
_VERSION, _BUFFERS, _METADATA, _LAST_FIELD = 0, 4, 6, 9

# The old bytes keep their alignment in the file up to this.
_ALIGNMENT = 64

# Vectors of bytes that are buffers begin at multiples of it.
_OF_BUFFERS = 16


@dataclass(frozen=True, slots=True)
class OfflinePlan:
    """A plan as a file has it.

    Attributes:
      version: of the format.
      subgraph: to which it applies.
      offsets: bytes, by the tensors of all subgraphs, one after the other; -1 for those that are not planned.
    """

    version: int
    subgraph: int
    offsets: tuple[int, ...]

    def encoded(self) -> bytes:
        """Returns the content of the buffer."""
        return struct.pack(f"<{3 + len(self.offsets)}i", self.version, self.subgraph, len(self.offsets), *self.offsets)


def read_offline_plan(model: TfliteModel) -> OfflinePlan | None:
    """Returns the plan in a file, the last of several as TFLM does; None without one; ParseError if it is damaged."""
    numbers = [buffer for name, buffer in model.metadata if name == NAME]
    if not numbers:
        return None
    start, size = model.buffer(numbers[-1])
    values = struct.unpack_from(f"<{size // 4}i", model.content, start)
    if size % 4 or len(values) < 3 or values[2] != len(values) - 3:
        stated = f" for {values[2]:,} offsets" if len(values) > 2 else ""
        raise ParseError(f"its {NAME} has {size:,} bytes{stated}: it is damaged", model.file)
    return OfflinePlan(values[0], values[1], values[3:])


def with_offline_plan(model: TfliteModel, plan: OfflinePlan) -> bytes:
    """Returns a file with a plan, in place of the one that it has; all else is as it was.

    Raises:
      MemplanError: the file has parts that are not known, or an offset is beyond 32 bits.
    """
    if any(not -1 <= offset < 2**31 for offset in plan.offsets):
        raise MemplanError("an offset of an offline plan has 31 bits")
    content = plan.encoded()
    written = _replaced(model, content)
    if written is None:
        written = _added(model, content)
    if read_offline_plan(read_model(written, model.file)) != plan:
        raise AssertionError("the plan that was written is not the one that is read")
    return written


def _replaced(model: TfliteModel, content: bytes) -> bytes | None:
    """Returns the file with the content of its plan overwritten; None if it has none of this size for itself alone."""
    numbers = [buffer for name, buffer in model.metadata if name == NAME]
    if len(numbers) != 1:
        return None
    start, size = model.buffer(numbers[0])
    others = [model.buffer(buffer) for name, buffer in model.metadata if name != NAME]
    others += [tensor.data for subgraph in model.subgraphs for tensor in subgraph.tensors]
    is_shared = any(begin < start + size and start < begin + length for begin, length in others)
    if size != len(content) or is_shared:
        return None
    return model.content[:start] + content + model.content[start + size :]


class _Front:
    """The bytes in front of an old file. Offsets are written when it is known where they lead."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self._open: list[tuple[int, int]] = []  # place of an offset, byte in the old file

    def number(self, value: int) -> int:
        """Adds a number of four bytes; returns its place."""
        self.bytes += struct.pack("<I", value)
        return len(self.bytes) - 4

    def lead(self, place: int, to: int) -> None:
        """Makes the offset at a place lead to another place in front."""
        struct.pack_into("<I", self.bytes, place, to - place)

    def lead_to_old(self, place: int, to: int) -> None:
        """Makes the offset at a place lead to a byte of the old file."""
        self._open.append((place, to))

    def align(self, alignment: int, ahead: int = 0) -> None:
        """Pads, so that what comes after `ahead` more bytes is at a multiple of an alignment."""
        self.bytes += bytes(-(len(self.bytes) + ahead) % alignment)

    def table(self, fields: Sequence[int]) -> list[int]:
        """Adds a table of fields of four bytes, those of these numbers, ascending.

        Returns the places: of the table, and of each field.
        """
        self.align(4)
        start = len(self.bytes)
        count = fields[-1] + 1
        self.bytes += struct.pack("<HH", 4 + 2 * count, 4 + 4 * len(fields))
        for field in range(count):
            self.bytes += struct.pack("<H", 4 + 4 * fields.index(field) if field in fields else 0)
        self.align(4)
        at = self.number(len(self.bytes) - start)
        return [at, *(self.number(0) for _ in fields)]

    def before(self, old: bytes) -> bytes:
        """Returns these bytes and the old file behind them."""
        self.align(_ALIGNMENT)
        for place, to in self._open:
            self.lead(place, len(self.bytes) + to)
        return bytes(self.bytes) + old


def _added(model: TfliteModel, content: bytes) -> bytes:
    """Returns the file with a new root in front, which leads to the plan and to all old parts but an older plan."""
    root = model.root
    fields = [field for field in range(root.num_fields) if root.place(field)]
    if fields[-1] > _LAST_FIELD:
        raise MemplanError(f"{model.file}: field {fields[-1]} of its root is not known, so it cannot be kept")
    fields = sorted({*fields, _METADATA})
    front = _Front()
    front.bytes += bytes(4) + IDENTIFIER
    at, *places = front.table(fields)
    front.lead(0, at)
    place_of = dict(zip(fields, places, strict=True))
    for field, place in place_of.items():
        if field == _VERSION:
            struct.pack_into("<I", front.bytes, place, root.number(_VERSION, "I"))
        elif field not in (_BUFFERS, _METADATA):
            front.lead_to_old(place, root.buffer.follow(root.place(field)))
    buffers = root.tables(_BUFFERS)
    kept = [entry for entry in root.tables(_METADATA) if entry.text(0) != NAME]
    new_buffer = _list(front, place_of[_BUFFERS], buffers)
    new_entry = _list(front, place_of[_METADATA], kept)
    at, name, number = front.table([0, 1])
    front.lead(new_entry, at)
    struct.pack_into("<I", front.bytes, number, len(buffers))
    at, data = front.table([0])
    front.lead(new_buffer, at)
    front.lead(name, front.number(len(NAME)))
    front.bytes += NAME.encode() + b"\0"
    front.align(_OF_BUFFERS, ahead=4)
    front.lead(data, front.number(len(content)))
    front.bytes += content
    return front.before(model.content)


def _list(front: _Front, place: int, old: Sequence[FlatTable]) -> int:
    """Adds the list that the offset at a place leads to, of old tables and a new one; returns the latter's place."""
    front.lead(place, front.number(len(old) + 1))
    for table in old:
        front.lead_to_old(front.number(0), table.at)
    return front.number(0)
