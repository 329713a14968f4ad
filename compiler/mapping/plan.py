"""The Plan: for each buffer where it resides and when, and which copies move it.

    space 1 ┤        ┌────────────┐            residency 1: [2, 6), filled by copy 0
            │        │     b      │
    space 0 ┤ ┌──────┴────────────┴──────┐     residency 0: [0, 9)
            │ │            b             │
            └─┴──────┬─────┬──────┬──────┴──►  t
                  start  done   read, served by residency 1

A copy that starts at `t` is issued just before operation `t` begins; one that is done at `t` is awaited just before
operation `t` begins. Its destination is occupied from its start, and holds the value from its done.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memplan.compiler import limits
from memplan.compiler.collection import collection_paused
from memplan.compiler.errors import PlanError
from memplan.compiler.files import read_text, write_atomically
from memplan.compiler.html import html_table
from memplan.compiler.mapping.documents import check_fields, document_of, fields, integer, parse_json, row, rows, text

SCHEMA = "memplan.plan/1"

_STRINGS = ("problem", "name", "target", "planner")
_RESIDENCY = row(buffer=integer(), space=integer(), offset=integer(), start=integer(), end=integer())
_COPY = row(source=integer(), destination=integer(), start=integer(), done=integer())

# Of `Plan.info`, in a notebook.
_MOST_FACTS = 8

BEFORE = -1  # start of a copy that the program's previous run made


@dataclass(frozen=True, slots=True)
class Residency:
    """A buffer's place for a while.

    Attributes:
      buffer: index.
      space: index of the memory space.
      offset: bytes from the start of the space; -1 in a mapping whose offsets are not stated.
      start, end: half-open times.
    """

    buffer: int
    space: int
    offset: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A transfer of a buffer from one residency to another.

    A copy that starts at `BEFORE` (-1) and is done at 0 is a *cross-program prefetch*: programs run many times, and the
    previous run left the value there, so it costs nothing in this one. It is for arguments that stay the same from run
    to run, so never written; its destination starts at 0, and this run must leave the value behind for the next: a
    residency of the same buffer at the same place, perhaps filled again by another copy, lasts until `n + 1`.

    Attributes:
      source, destination: indices of residencies of the same buffer.
      start: it is issued before the operation of that time.
      done: it is awaited before the operation of that time; `start <= done`.
    """

    source: int
    destination: int
    start: int
    done: int


@dataclass(frozen=True)
class Plan:
    """An answer to a MappingProblem.

    Attributes:
      problem: fingerprint of the problem that it answers.
      name: of the program.
      target: name of the hardware.
      planner: name of what made it.
      residencies: in any order.
      copies: in order of their start.
      served: per access of the problem, in the problem's numbering, the index of the residency that serves it.
      info: what else the planner says of it, such as `seconds`, JSON values only.
    """

    problem: str
    name: str
    target: str
    planner: str
    residencies: tuple[Residency, ...]
    copies: tuple[Copy, ...]
    served: tuple[int, ...]
    info: dict[str, Any] = field(default_factory=dict, compare=False)

    def _repr_html_(self) -> str:
        buffers: dict[int, list[int]] = {}
        for residency in self.residencies:
            buffers.setdefault(residency.space, []).append(residency.buffer)
        facts = [(key, value) for key, value in self.info.items() if isinstance(value, str | int | float)]
        return html_table(
            f"{self.name} on {self.target}, planned by {self.planner}: {len(self.copies):,} copies",
            dict.fromkeys(("space", "buffers", "residencies"), "right"),
            [[str(space), f"{len(set(found)):,}", f"{len(found):,}"] for space, found in sorted(buffers.items())],
            [f"{key}: {value}" for key, value in facts[:_MOST_FACTS]],
        )

    def check_indices(self, num_buffers: int, num_spaces: int, num_accesses: int, file: str) -> None:
        """Raises PlanError, naming the place, if the plan names what a problem of these numbers does not have."""
        for i, r in enumerate(self.residencies):
            if not (0 <= r.buffer < num_buffers and 0 <= r.space < num_spaces):
                raise PlanError(f"{file}: residencies[{i}]: buffer {r.buffer} or space {r.space} does not exist")
        for i, c in enumerate(self.copies):
            if not (0 <= c.source < len(self.residencies) and 0 <= c.destination < len(self.residencies)):
                raise PlanError(f"{file}: copies[{i}]: residency {c.source} or {c.destination} does not exist")
        if len(self.served) != num_accesses:
            raise PlanError(f"{file}: served: {len(self.served)} entries for {num_accesses} accesses")
        for i, served in enumerate(self.served):
            if not 0 <= served < len(self.residencies):
                raise PlanError(f"{file}: served[{i}]: residency {served} does not exist")

    def to_json(self) -> str:
        """Returns the plan as JSON; `from_json` reads it back exactly."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON values; `from_dict` reads them back exactly."""
        return {
            "schema": SCHEMA,
            "problem": self.problem,
            "name": self.name,
            "target": self.target,
            "planner": self.planner,
            "residencies": [[r.buffer, r.space, r.offset, r.start, r.end] for r in self.residencies],
            "copies": [[c.source, c.destination, c.start, c.done] for c in self.copies],
            "served": list(self.served),
            "info": dict(self.info),
        }

    @staticmethod
    def from_json(text: str, file: str = "<string>") -> Plan:
        """Reads what `to_json` wrote; raises PlanError, naming the place, if it is malformed."""
        return Plan.from_dict(parse_json(text, file), file)

    @staticmethod
    @collection_paused()
    def from_dict(data: Any, file: str = "<dict>") -> Plan:
        """Reads what `to_dict` returned; raises PlanError, naming the file that it came from, if it is malformed."""
        data = document_of(data, "plan", SCHEMA, file)
        check_fields(
            data,
            file,
            **dict.fromkeys(_STRINGS, text),
            residencies=rows(_RESIDENCY),
            copies=rows(_COPY),
            served=rows(integer()),
        )
        info = data.get("info", {})
        check_fields({"info": info}, file, info=fields)
        return Plan(
            **{key: data[key] for key in _STRINGS},
            residencies=tuple(Residency(*entry) for entry in data["residencies"]),
            copies=tuple(Copy(*entry) for entry in data["copies"]),
            served=tuple(data["served"]),
            info=info,
        )

    def save(self, path: str | Path) -> None:
        """Writes the plan to a file, whole or not at all."""
        write_atomically(path, self.to_json())

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Reads a file that `save` wrote."""
        return Plan.from_json(read_text(path, limits.PLAN), str(path))
