"""The decorators of functions that numba compiles: one set of options, and one cache, for the whole project.

    @entry      called from Python, and perhaps from compiled functions; runs without Python's global lock
    @internal   called from compiled functions only, and compiled as a part of them (`linked_code.py`)
    @inlined    as `internal`, and copied into each caller: for what inner loops call at every step

The compiled code of entries is kept in the user's cache folder, never beside the sources: a file for each function and
signature, with a checksum. By itself, numba notices a change of the file that holds a function, but not of a function
that it calls, nor of a type that it takes. So all sources that matter share one fingerprint, and each fingerprint has a
folder of its own. Nor does numba notice that a file is damaged: it fails, or runs what it finds there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numba
from numba import njit, types
from numba.core import event, sigutils
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from memplan.compiler.cache import Cache, opened, sealed
from memplan.compiler.linked_code import LinkedCompiler

_IMPORT = re.compile(r"^from memplan\.([\w.]++) import ([^(\n]++|\([^)]*+\))", re.MULTILINE)

# Folders of earlier fingerprints that stay: switching between two versions compiles nothing.
_KEPT = 2

# Seconds for which a process waits for another one that compiles everything; most take a minute or two.
_SECONDS_TO_COMPILE = 600.0


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
    specs = {package: find_spec(f"memplan.{package}") for package in ("compiler", "passes", "planners", "rl_agent")}
    return {
        package: Path(spec.submodule_search_locations[0])
        for package, spec in specs.items()
        if spec is not None and spec.submodule_search_locations
    }


def _prepared() -> tuple[Cache, str]:
    """Returns the cache, and the folder in it, which exists then if it can."""
    folders = _folders()
    cache = Cache()
    installation = hashlib.sha256(str(folders["compiler"].resolve()).encode()).hexdigest()[:16]
    root = f"kernels/{installation}"
    name = f"{root}/{fingerprint(folders)}"
    is_new = cache.folder is not None and not (cache.folder / name).is_dir()
    if cache.is_usable(name) and is_new and cache.folder is not None:
        _forget_older(cache.folder / root)
    return cache, name


def _forget_older(root: Path) -> None:
    """Removes the folders of all but the newest fingerprints."""
    with contextlib.suppress(OSError):  # Another process removes them at the same time.
        newest_first = sorted(root.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in newest_first[1 + _KEPT :]:
            shutil.rmtree(old, ignore_errors=True)


_CACHE, FOLDER = _prepared()

# What else the code depends on.
_VERSIONS = (numba.__version__, sys.version)


class _KernelCache(NullCache):
    """What numba asks for the compiled code of one function, and gives it to."""

    def __init__(self, function: Callable[..., Any]):
        self._name = f"{function.__module__.removeprefix('memplan.')}.{function.__qualname__}"
        self._source = (_digest_of(inspect.getfile(function)), function.__code__.co_firstlineno)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Returns the code for a signature; None if there is none, or if it is damaged."""
        target_context.refresh()

        def decode(content: bytes) -> Any:
            return CompileResult._rebuild(target_context, *pickle.loads(opened(content)))

        return _CACHE.load(self._entry(sig, target_context.codegen()), decode)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keeps the code for a signature, unless it has addresses of this process in it."""
        # Those of internal functions, which had no place for them so far.
        for environment in data._find_referenced_environments():
            data.codegen.set_env(environment.env_name, environment)
        if not data.library.has_dynamic_globals and all(lifted.can_cache for lifted in data.lifted):
            _CACHE.store(self._entry(sig, data.codegen), sealed(dumps(data._reduce())))

    def _entry(self, signature: Any, codegen: Any) -> str:
        arguments, _ = sigutils.normalize_signature(signature)
        what = repr((self._name, self._source, arguments, codegen.magic_tuple(), _VERSIONS))
        return f"{FOLDER}/{self._name}-{hashlib.sha256(what.encode()).hexdigest()[:32]}"


@functools.cache
def _digest_of(file: str) -> str:
    with contextlib.suppress(OSError):
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return ""


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


def alone() -> contextlib.AbstractContextManager[None]:
    """Lets no other process compile within the block that asks for the same."""
    return _CACHE.locked(FOLDER.replace("/", "-"), _SECONDS_TO_COMPILE)


def _decorator(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        if not numba.config.DISABLE_JIT:
            if "pipeline_class" not in options:
                dispatcher._cache = _KernelCache(function)
            _ignore_literals(dispatcher)
        return dispatcher

    return decorate


def _ignore_literals(dispatcher: Any) -> None:
    """Lets calls from compiled functions with a literal take the signature of other values, not one of their own."""
    template = dispatcher.get_call_template

    def without_literals(args: Any, kws: dict[str, Any]) -> Any:
        plain = {name: types.unliteral(kind) for name, kind in kws.items()}
        return template(tuple(types.unliteral(kind) for kind in args), plain)

    dispatcher.get_call_template = without_literals


_INTERNAL = {"pipeline_class": LinkedCompiler, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

entry = _decorator(nogil=True)
internal = _decorator(**_INTERNAL)
inlined = _decorator(**_INTERNAL, forceinline=True)
