"""Reading and writing the files of this project: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from memplan.compiler.errors import MemplanError


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes `content` to `path` by way of a temporary file beside it; raises MemplanError if that is not possible."""
    path = Path(path)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise MemplanError(f"cannot write {path}: {error.strerror}") from None


def read_text(path: str | Path) -> str:
    """Returns the text of a file; raises MemplanError if it cannot be read or is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MemplanError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise MemplanError(f"cannot read {path}: byte {error.start} is not UTF-8 text") from None


def cache_folder() -> Path:
    """Returns where what is slow to make is kept: `$MEMPLAN_CACHE`, or `memplan` in the user's cache folder."""
    return Path(os.environ.get("MEMPLAN_CACHE") or user_cache_path("memplan"))
