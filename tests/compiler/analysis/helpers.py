"""What the tests of this folder share."""

from __future__ import annotations

import gzip
from pathlib import Path

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.program import FlatProgram, Storage
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir import Graph

_ROOT = Path(__file__).parents[3]
DUMPS = sorted((_ROOT / "workloads" / "dumps").glob("*.hlo.txt.gz"))
DATA = _ROOT / "tests" / "data" / "hlo"


def flat(text: str, pointer_bytes: int = 0) -> FlatProgram:
    return flatten(parse_hlo(text), pointer_bytes)


def read_dump(path: Path) -> Graph:
    return parse_hlo(gzip.decompress(path.read_bytes()).decode(), path.name)


def storage(program: FlatProgram, value: str) -> Storage:
    """Returns the storage that holds a value."""
    (found,) = [storage for storage in program.storages if value in storage.values]
    return found


def lifetimes(program: FlatProgram) -> dict[str, tuple[int, int]]:
    """Returns the live range of every storage, by its name."""
    return {storage.name: (storage.start, storage.end) for storage in program.storages}


def accesses(program: FlatProgram, step: str) -> list[tuple[str, str, int]]:
    """Returns `(kind, storage, bytes)` of all accesses of the step of that name."""
    return [
        (access.kind.value, program.storages[access.storage].name, access.bytes)
        for access in program.accesses
        if access.time < len(program.steps) and program.steps[access.time].instruction.name == step
    ]


def copies(program: FlatProgram) -> list[tuple[str, str, str]]:
    """Returns `(step after which it is made, source, what is filled)` of all implicit copies."""
    return [
        (program.steps[copy.time].instruction.name, program.storages[copy.source].name, copy.reason)
        for copy in program.copies
    ]
