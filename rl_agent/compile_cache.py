"""What JAX compiles for the agent, kept in memplan's cache.

JAX's own cache writes entries in place, reads them unchecked, and warns of each that is damaged in each run. Here JAX
asks `compiler.cache` for its entries instead. JAX has no public way to do so. Where it is not as expected, nothing is
kept, and only time is lost.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memplan.compiler.cache import Cache, opened, sealed

_FOLDER = "jax"


class _CheckedEntries:
    """JAX's interface of a cache; `_path` is what it shows in its log."""

    def __init__(self, cache: Cache, folder: Path):
        self._cache, self._path = cache, folder

    def get(self, key: str) -> bytes | None:
        """Returns the entry of a key; None if there is none that is intact."""
        return self._cache.load(f"{_FOLDER}/{key}", opened)

    def put(self, key: str, value: bytes) -> None:
        """Keeps an entry."""
        self._cache.store(f"{_FOLDER}/{key}", sealed(value))


@contextlib.contextmanager
def keeping_compiled() -> Iterator[None]:
    """Keeps what JAX compiles within the block, unless the user has chosen a cache of JAX's own."""
    import jax

    cache, implementation = Cache(), _implementation()
    if (
        jax.config.jax_compilation_cache_dir is not None
        or implementation is None
        or not cache.is_usable(_FOLDER)
        or cache.folder is None
    ):
        yield
        return
    folder, before = cache.folder / _FOLDER, implementation.get_file_cache
    implementation.get_file_cache = lambda path: (_CheckedEntries(cache, folder), path)
    implementation.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        implementation.get_file_cache = before
        implementation.reset_cache()  # Otherwise JAX goes on with it.


def _implementation() -> Any:
    """Returns JAX's module of its cache; None if it is not as expected."""
    with contextlib.suppress(ImportError):
        module = importlib.import_module("jax._src.compilation_cache")
        if all(callable(getattr(module, name, None)) for name in ("get_file_cache", "reset_cache")):
            return module
    return None
