"""Checksums of a folder's files, kept in a file beside them: nothing that a disk has changed is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from memplan.compiler import limits
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import read_text, reason_of, write_atomically
from memplan.compiler.mapping.documents import check_fields, document_of, mapping, parse_json, text

SCHEMA = "memplan.checksums/1"
FILE = "checksums.json"

# Orbax leaves it where a file system cannot rename folders. It says when and where, and nothing reads it.
_NOT_LISTED = "commit_success.txt"


def write_checksums(folder: Path) -> None:
    """Writes the SHA-256 of every file in a folder; it must be complete."""
    files = {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    listed = {name: digest for name, digest in files.items() if Path(name).name not in (FILE, _NOT_LISTED)}
    write_atomically(folder / FILE, json.dumps({"schema": SCHEMA, "files": listed}, indent=1) + "\n")


def check_checksums(folder: Path) -> None:
    """Raises MemplanError, naming the file, unless every file that was listed is as it was."""
    path = folder / FILE
    data = document_of(
        parse_json(read_text(path, limits.CHECKPOINT), str(path)), "list of checksums", SCHEMA, str(path)
    )
    check_fields(data, str(path), files=mapping(text))
    for name, digest in data["files"].items():
        file = folder / name
        is_inside = ".." not in file.parts and file.is_relative_to(folder)
        if not is_inside or not os.path.isfile(file):  # no name is too long for it
            raise MemplanError(f"its file {name!r:.200} is missing")
        if _digest(file) != digest:
            raise MemplanError(f"its file {name!r:.200} is not as it was written")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MemplanError(f"cannot read {path}: {reason_of(error)}") from None
