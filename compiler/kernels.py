"""The decorators of functions that numba compiles: one set of options, and one cache, for the whole project.

    @entry      called from Python and from compiled functions; runs without Python's global lock
    @internal   called from compiled functions only: an entry from Python would be most of what compiling takes
    @inlined    as `internal`, and copied into each caller: for what inner loops call at every step

Compiled code is kept in the user's cache folder, never beside the sources. By itself, numba notices a change of the
file that holds a function, but not of a function that it calls, nor of a type that it takes. So all sources that matter
share one fingerprint, and each fingerprint has a folder of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core import event

from memplan.compiler.files import cache_folder

_IMPORT = re.compile(r"^from memplan\.([\w.]++) import ([^(\n]++|\([^)]*+\))", re.MULTILINE)

# Folders of earlier fingerprints that stay: switching between two versions compiles nothing.
_KEPT = 2


def fingerprint(folders: dict[str, Path]) -> str:
    """Returns a name for the contents of all kernels and of the modules that they import.

    Args:
      folders: of the subpackages of `memplan`, by name. Files called `*_kernel.py` are kernels.
    """
    sources = {path for folder in folders.values() for path in folder.rglob("*_kernel.py")}
    for path in sorted(sources):
        for module, names in _IMPORT.findall(path.read_text(encoding="utf-8")):
            # What is imported from a package may be a module itself.
            for name in (module, *(f"{module}.{part}" for part in re.findall(r"\w++", names))):
                package, _, rest = name.partition(".")
                if package in folders:
                    sources.add(folders[package] / (rest.replace(".", "/") + ".py"))
    named = {
        f"{package}/{path.relative_to(folder)}": path
        for package, folder in folders.items()
        for path in sources
        if path.is_relative_to(folder) and path.is_file()
    }
    digest = hashlib.sha256()
    for name, path in sorted(named.items()):
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _folders() -> dict[str, Path]:
    specs = {package: find_spec(f"memplan.{package}") for package in ("compiler", "planners", "rl_agent")}
    return {
        package: Path(spec.submodule_search_locations[0])
        for package, spec in specs.items()
        if spec is not None and spec.submodule_search_locations
    }


def _prepared() -> str:
    """Returns the cache's folder, which exists then; "" if there can be none."""
    folders = _folders()
    installation = hashlib.sha256(str(folders["compiler"].resolve()).encode()).hexdigest()[:16]
    root = cache_folder() / "kernels" / installation
    folder = root / fingerprint(folders)
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            _forget_older(root)
    except OSError as error:
        warnings.warn(f"kernels are compiled in every process: no cache in {root}: {error.strerror}", stacklevel=2)
        return ""
    return str(folder)


def _forget_older(root: Path) -> None:
    """Removes the folders of all but the newest fingerprints."""
    with contextlib.suppress(OSError):  # Another process removes them at the same time.
        newest_first = sorted(root.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in newest_first[1 + _KEPT :]:
            shutil.rmtree(old, ignore_errors=True)


_CACHE = _prepared()


@contextlib.contextmanager
def _cache() -> Iterator[None]:
    """Lets numba use our cache for what is decorated here, and leaves the functions of others alone."""
    before = config.CACHE_DIR
    config.CACHE_DIR = _CACHE
    try:
        yield
    finally:
        config.CACHE_DIR = before


class _FirstCompile(event.Listener):
    def __init__(self, tell: Callable[[], None]):
        self._tell, self._told = tell, False

    def on_start(self, event: event.Event) -> None:
        if not self._told:
            self._told = True
            self._tell()

    def on_end(self, event: event.Event) -> None:
        pass


def telling_of_compiles(tell: Callable[[], None]) -> contextlib.AbstractContextManager[Any]:
    """Calls `tell` within a block when the first function is compiled; what is loaded from the cache does not count."""
    listening: contextlib.AbstractContextManager[Any] = event.install_listener("numba:compile", _FirstCompile(tell))
    return listening


def _decorator(**options: bool) -> Callable[[Callable[..., Any]], Any]:
    def decorate(function: Callable[..., Any]) -> Any:
        with _cache():
            return njit(cache=bool(_CACHE), **options)(function)

    return decorate


_INTERNAL = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

entry = _decorator(nogil=True)
internal = _decorator(**_INTERNAL)
inlined = _decorator(**_INTERNAL, forceinline=True)
