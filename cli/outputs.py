"""The files that a command was asked to write, looked at before the work."""

from __future__ import annotations

import os
from pathlib import Path

from memplan.compiler.errors import MemplanError
from memplan.compiler.files import check_writable


def check_folder(path: Path | None) -> None:
    """Raises MemplanError at once for a folder, if one is wanted, that is something else already or cannot be made."""
    if path is None:
        return
    nearest = path
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise MemplanError(f"cannot write a report to {path}: {'it' if nearest == path else nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise MemplanError(f"cannot write a report to {path}: the folder {nearest} is read-only")


def check_file(path: Path | None) -> None:
    """Raises MemplanError at once for a file, if one is wanted, that could not be written at the end."""
    if path is not None:
        check_writable(path)
