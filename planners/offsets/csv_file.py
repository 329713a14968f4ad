"""Instances as CSV files, in the format of MiniMalloc.

    id,lower,upper,size[,alignment][,hint][,offset][,gaps]      in any order of columns
    b1,0,3,4

`upper` is exclusive. `begin` and `start` are synonyms of `lower`, and `buffer` and `buffer_id` of `id`. `end` is the
last time, inclusive, as in older files of MiniMalloc; the ends of gaps are inclusive then, too. Gaps are pairs
`lower-upper`, separated by spaces. A gap may have a window, as in `0-5@16:32`: the block takes its bytes from 16 to 32,
exclusive, meanwhile, and nothing in other gaps. An empty offset is not fixed. A hint is copied to the output and
otherwise ignored.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memplan.compiler import limits
from memplan.compiler.files import read_text
from memplan.planners.offsets.instance import FREE, Instance, InstanceError, Integers

_SYNONYMS = {"begin": "lower", "start": "lower", "buffer": "id", "buffer_id": "id", "end": "upper"}
_REQUIRED = ("id", "lower", "upper", "size")
_OPTIONAL = ("alignment", "hint", "offset", "gaps")
_NUMBER = re.compile(r"[+-]?[0-9]+")
_GAP = re.compile(r"([+-]?[0-9]+)-([+-]?[0-9]+)(?:@([+-]?[0-9]+):([+-]?[0-9]+))?")

# More digits than any number of 64 bits has; Python refuses to convert thousands of digits.
_MAX_DIGITS = 40


@dataclass(frozen=True, eq=False)
class InstanceFile:
    """An instance and the text that it came from.

    Attributes:
      instance: what is to be packed.
      path: of the file, for messages.
      header: names of the columns, as they stand in the file.
      records: `[num_blocks]` the fields of each row.
      rows: `[num_blocks]` number of each row in the file; the header is row 1.
    """

    instance: Instance
    path: str
    header: tuple[str, ...]
    records: tuple[tuple[str, ...], ...]
    rows: tuple[int, ...]

    def place(self, block: int) -> str:
        """Returns where a block comes from, for messages."""
        return f"{self.path}: row {self.rows[block]}"

    def check_capacity(self, capacity: int) -> None:
        """Raises InstanceError, with the row, if a block alone is too large for a capacity."""
        self.instance.check_capacity(capacity, self.place)

    def with_offsets(self, offsets: Sequence[int] | Integers) -> str:
        """Returns the text of the file with a column of offsets: its own, or a new one at the end."""
        header, records = list(self.header), [list(record) for record in self.records]
        if "offset" not in header:
            header.append("offset")
            records = [[*record, ""] for record in records]
        column = header.index("offset")
        for record, offset in zip(records, offsets, strict=True):
            record[column] = str(int(offset))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *records])
        return text.getvalue()


def read_instance(path: str | Path) -> InstanceFile:
    """Reads a CSV file; raises MemplanError, with file and row, if it cannot be read or makes no sense."""
    return parse_instance(read_text(path, limits.BLOCKS), str(path))


def parse_instance(text: str, path: str = "<string>") -> InstanceFile:
    """Reads the text of a CSV file; raises InstanceError, with file and row, if it makes no sense."""
    table: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        table.extend((reader.line_num, record) for record in reader if any(field.strip() for field in record))
    except csv.Error as error:
        raise InstanceError(f"{path}: row {reader.line_num}: {error}") from None
    if not table:
        raise InstanceError(f"{path}: the file is empty; its first row must name the columns {','.join(_REQUIRED)}")
    row, header = table[0][0], [name.strip() for name in table[0][1]]
    columns = _columns(header, f"{path}: row {row}")
    past = 1 if "end" in header else 0
    parsed: dict[str, list[int]] = {name: [] for name in ("lower", "upper", "size", "alignment", "offset")}
    gaps = []
    for row, record in table[1:]:
        where = f"{path}: row {row}"
        if len(record) != len(header):
            raise InstanceError(f"{where}: {len(record)} fields, but the header names {len(header)} columns")
        defaults = {"alignment": 1, "offset": FREE}
        for name, values in parsed.items():
            field = record[columns[name]].strip() if name in columns else ""
            if not field and name in defaults:
                values.append(defaults[name])
                continue
            values.append(_number(field, name, where) + (past if name == "upper" else 0))
            if name == "offset" and values[-1] < 0:
                raise InstanceError(f"{where}: offset {values[-1]} is negative")
        gaps.append(_gaps(record[columns["gaps"]], past, where) if "gaps" in columns else [])
    records, rows = tuple(tuple(record) for _, record in table[1:]), tuple(row for row, _ in table[1:])
    instance = Instance.of(
        **{name: parsed[name] for name in ("lower", "upper", "size", "alignment")},
        fixed=parsed["offset"],
        gaps=gaps,
        ids=[record[columns["id"]].strip() for record in records],
        place=lambda block: f"{path}: row {rows[block]}",
    )
    return InstanceFile(instance, path, tuple(header), records, rows)


def _columns(header: Sequence[str], where: str) -> dict[str, int]:
    """Returns the position of each column by its first name."""
    columns: dict[str, int] = {}
    for position, own_name in enumerate(header):
        name = _SYNONYMS.get(own_name, own_name)
        if name not in (*_REQUIRED, *_OPTIONAL):
            known = ", ".join((*_REQUIRED, *_OPTIONAL))
            raise InstanceError(f"{where}: no column is called {own_name!r:.60}; known: {known}")
        if name in columns:
            raise InstanceError(f"{where}: two columns for {name}, {header[columns[name]]!r} and {own_name!r}")
        columns[name] = position
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise InstanceError(f"{where}: no column {missing[0]!r}; needed are {', '.join(_REQUIRED)}")
    return columns


def _number(field: str, name: str, where: str) -> int:
    if not _NUMBER.fullmatch(field):
        raise InstanceError(f"{where}: {name} {field!r:.60} is not a whole number")
    if len(field) > _MAX_DIGITS or not -(2**63) <= int(field) < 2**63:
        raise InstanceError(f"{where}: {name} {field:.60} does not fit 64 bits")
    return int(field)


def _gaps(field: str, past: int, where: str) -> list[tuple[int, int] | tuple[int, int, int, int]]:
    gaps: list[tuple[int, int] | tuple[int, int, int, int]] = []
    for text in field.split():
        match = _GAP.fullmatch(text)
        if match is None:
            raise InstanceError(f"{where}: gap {text!r:.60} is not of the form lower-upper or lower-upper@low:high")
        times = _number(match[1], "gap", where), _number(match[2], "gap", where) + past
        if match[3] is None:
            gaps.append(times)
            continue
        low, high = _number(match[3], "window", where), _number(match[4], "window", where)
        if low >= high:
            raise InstanceError(f"{where}: window {low}:{high} of a gap is empty or reversed")
        gaps.append((*times, low, high))
    return gaps
