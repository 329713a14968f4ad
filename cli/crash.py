"""What is left behind by a bug: a file with all that a report of it needs."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from memplan.compiler.cache import cache_folder
from memplan.compiler.printable import printable

# Packages that most bugs depend on.
_PACKAGES = ("memplan", "jax", "jaxlib", "libtpu", "numpy", "numba", "ortools")

# What the dynamic linker says where a library finds no room.
_NO_ROOM = ("failed to map segment", "cannot allocate memory", "Cannot allocate memory")


def write_crash(error: BaseException, arguments: Sequence[str]) -> str:
    """Writes the report of an exception that nothing expected, and returns one line that says where it is.

    The file goes into the cache folder, or into the folder of temporary files where that cannot be written.
    """
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    line = " ".join(printable(what, limit=300).split())
    text = "\n".join(_report(error, arguments)) + "\n"
    for find in (cache_folder, lambda: Path(tempfile.gettempdir())):
        try:
            folder = find()
            if folder is None:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(prefix="crash-", suffix=".txt", dir=folder)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except (OSError, ValueError):
            continue
        return f"{line} (please report it with {path})"
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" in {where[0].filename}, line {where[0].lineno}" if where else ""
    return f"{line}{place} (please report it; no file could be written)"


def lacks_memory(error: BaseException) -> bool:
    """Tells whether an exception comes from too little memory. Libraries that cannot be loaded say it otherwise."""
    seen: BaseException | None = error
    while seen is not None:
        is_refused = isinstance(seen, OSError) and seen.errno == errno.ENOMEM
        is_unloaded = isinstance(seen, OSError | ImportError) and any(said in str(seen) for said in _NO_ROOM)
        if isinstance(seen, MemoryError) or is_refused or is_unloaded:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _report(error: BaseException, arguments: Sequence[str]) -> Iterator[str]:
    yield printable(shlex.join(["memplan", *arguments]))
    yield f"Python {platform.python_version()}, {platform.platform()}, {sys.executable}"
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    yield ""
    yield printable("".join(traceback.format_exception(error)), keep="\n")
