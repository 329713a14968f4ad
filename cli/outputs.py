"""The files that a command was asked to write, looked at before the work."""

from __future__ import annotations

from pathlib import Path

from memplan.compiler.errors import MemplanError


def check_folder(path: Path | None) -> None:
    """Raises MemplanError at once for a folder, if one is wanted, that is something else already."""
    if path is not None and path.exists() and not path.is_dir():
        raise MemplanError(f"cannot write a report to {path}: it is not a folder")


def check_file(path: Path | None) -> None:
    """Raises MemplanError at once for a file, if one is wanted, that could not be written at the end."""
    if path is None:
        return
    if path.is_dir():
        raise MemplanError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise MemplanError(f"cannot write {path}: there is no folder {path.parent}")
