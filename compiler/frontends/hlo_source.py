"""Where HLO comes from in the user's program: the tables of stack frames, and the metadata of instructions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from memplan.compiler.frontends.hlo_lexical import STRING, MalformedText, excerpt, unescape
from memplan.compiler.ir.graph import Source

_TITLE = re.compile(r"[ \t]*(FileNames|FunctionNames|FileLocations|StackFrames)[ \t]*(?:\n|$)")
_NAME_ROW = re.compile(rf"[ \t]*(\d{{1,9}})[ \t]+({STRING})[ \t]*(?:\n|$)")
_FIELDS_ROW = re.compile(r"[ \t]*(\d{1,9})[ \t]+\{([^{}\n]*)\}[ \t]*(?:\n|$)")
_FIELD = re.compile(r"(\w+)=(\d{1,10})(?!\d)")
_BLANK = re.compile(r"[ \t]*(?://[^\n]*)?\n")

_OP_NAME = re.compile(rf"op_name=({STRING})")
_STACK_FRAME = re.compile(r"stack_frame_id=(\d{1,10})(?!\d)")
_SOURCE_FILE = re.compile(rf"source_file=({STRING})")
_SOURCE_LINE = re.compile(r"source_line=(\d{1,10})(?!\d)")


@dataclass(frozen=True)
class SourceTables:
    """The tables that stand between a module's header and its computations.

    Attributes:
      places: number of a stack frame to the file and line of its innermost call.
      text: as printed, without the blank lines around it.
    """

    places: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    text: str = ""


def read_tables(text: str, start: int) -> tuple[SourceTables, int]:
    """Returns the tables that begin at `start`, if any do, and the offset after them; raises MalformedText."""
    rows: dict[str, dict[int, str]] = {}
    position, first, last = start, -1, start
    while True:
        while (blank := _BLANK.match(text, position)) is not None:
            position = blank.end()
        title = _TITLE.match(text, position)
        if title is None:
            break
        if first < 0:
            first = position
        position = title.end()
        table = rows.setdefault(title.group(1), {})
        pattern = _NAME_ROW if title.group(1).endswith("Names") else _FIELDS_ROW
        while (row := pattern.match(text, position)) is not None:
            table[int(row.group(1))] = row.group(2)
            position = row.end()
        last = position
        if _BLANK.match(text, position) is None and _TITLE.match(text, position) is None and position < len(text):
            if text[position].isdigit():
                raise MalformedText(f"malformed row of {title.group(1)}: {excerpt(text, position)}", position)
    if first < 0:
        return SourceTables(), start
    files = {number: unescape(name[1:-1]) for number, name in rows.get("FileNames", {}).items()}
    locations = {number: _fields(row) for number, row in rows.get("FileLocations", {}).items()}
    places: dict[int, tuple[str, int]] = {}
    for number, frame in rows.get("StackFrames", {}).items():
        location = locations.get(_fields(frame).get("file_location_id", 0), {})
        places[number] = (files.get(location.get("file_name_id", 0), ""), location.get("line", 0))
    return SourceTables(places, text[first:last].strip()), last


def _fields(row: str) -> dict[str, int]:
    return {key: int(value) for key, value in _FIELD.findall(row)}


def source_of(metadata: str, tables: SourceTables) -> Source:
    """Returns the place that an instruction's `metadata={…}` states."""
    match = _OP_NAME.search(metadata)
    op_name = unescape(match.group(1)[1:-1]) if match else ""
    match = _STACK_FRAME.search(metadata)
    if match:
        file, line = tables.places.get(int(match.group(1)), ("", 0))
        if file:
            return Source(op_name, file, line)
    match = _SOURCE_FILE.search(metadata)
    if match is None:
        return Source(op_name)
    line_match = _SOURCE_LINE.search(metadata)
    return Source(op_name, unescape(match.group(1)[1:-1]), int(line_match.group(1)) if line_match else 0)
