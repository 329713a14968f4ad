"""The files that a command was asked to write, looked at before the work."""

from __future__ import annotations

import os
from pathlib import Path

from memplan.cli.console import leave_standard_output
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import check_writable, is_standard_output, reason_of


def check_folder(path: Path | None) -> None:
    """Raises MemplanError at once for a folder, if one is wanted, that is something else already or cannot be made."""
    if path is None:
        return
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise MemplanError(f"cannot write a report to {path}: {reason_of(error)}") from None
    nearest = path
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise MemplanError(f"cannot write a report to {path}: {'it' if nearest == path else nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise MemplanError(f"cannot write a report to {path}: the folder {nearest} is read-only")


def check_file(path: Path | None) -> None:
    """Raises MemplanError at once for a file, if one is wanted, that could not be written at the end.

    If it is standard output, the results of the command go to standard error.
    """
    if path is None:
        return
    check_writable(path)
    if is_standard_output(path):
        leave_standard_output()
