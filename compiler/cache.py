"""What takes long to make, kept as files in the user's cache folder: never trusted, and never fatal.

An entry that is damaged is removed, and made again. Where no entry can be read or written, such as without a home
folder or on a full disk, everything works, and what is made is kept in a temporary folder until the process ends, for
it and for its children. Each of the two is said once, by a `CacheWarning`.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from platformdirs import user_cache_path

from memplan.compiler import limits
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import make_folder, read_bytes, write_atomically

# The temporary folder of this process or of its parent, in the environment so that children find it.
_SPARE = "MEMPLAN_SPARE_CACHE"

_CHECKSUM = hashlib.sha256

T = TypeVar("T")


class CacheWarning(UserWarning):
    """A cache cannot be used, or held something damaged; results are the same, and take longer."""


def cache_folder() -> Path | None:
    """Returns where what is slow to make is kept: `$MEMPLAN_CACHE`, or `memplan` in the user's cache folder.

    None if the user has no such folder: a name such as `~/.cache` without a home stands for no place.
    """
    if named := os.environ.get("MEMPLAN_CACHE"):
        return Path(named).absolute()
    try:
        folder = user_cache_path("memplan")
    except RuntimeError:  # Older versions return a path that begins with "~".
        return None
    return folder if folder.is_absolute() else None


def sources_digest(names: Iterable[str]) -> str:
    """Returns a digest of modules, and of the Python and TOML files of packages, for what follows from them."""
    digest = hashlib.sha256()
    for name in names:
        spec = find_spec(name)
        if spec is None:
            continue
        if spec.submodule_search_locations is None and spec.origin is not None:
            digest.update(f"{name}\0".encode() + Path(spec.origin).read_bytes() + b"\0")
        for folder in spec.submodule_search_locations or ():
            for path in sorted(path for path in Path(folder).rglob("*") if path.suffix in (".py", ".toml")):
                digest.update(f"{name}/{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


class Cache:
    """A folder of entries.

    Args:
      folder: where they are; None for `cache_folder()`.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder or cache_folder()

    def is_usable(self, name: str = "") -> bool:
        """Makes a folder within the cache; returns whether it is there, and says why if it is not."""
        try:
            make_folder(self._folder() / name, "the cache")
        except MemplanError as error:
            _cannot_use(self.folder, error)
            return False
        return True

    def load(self, name: str, decode: Callable[[bytes], T]) -> T | None:
        """Returns what an entry holds; None if there is none, or none that is intact.

        Args:
          name: of the entry, a path within the folder.
          decode: turns its bytes into what they stand for; it may raise anything if they are damaged.
        """
        for folder in (self.folder, _spare()):
            path = folder and folder / name
            if path is None or not os.path.lexists(path):
                continue
            try:
                return decode(read_bytes(path, limits.CACHED))
            except Exception as error:
                _forget(path, error)
        return None

    def store(self, name: str, content: bytes) -> None:
        """Keeps an entry, in the temporary folder if it cannot be kept in this one."""
        try:
            _write(self._folder() / name, content)
        except MemplanError as error:
            _cannot_use(self.folder, error)
            with contextlib.suppress(MemplanError, OSError):
                _write(_made_spare() / name, content)

    @contextlib.contextmanager
    def locked(self, name: str, seconds: float) -> Iterator[None]:
        """Keeps other processes out of the block that ask for the same name, so that one makes an entry for all.

        A lock that cannot be had in time, or at all, is done without: entries are written as a whole.
        """
        lock: FileLock | None = None
        with contextlib.suppress(MemplanError, OSError, NotImplementedError):
            locks = self._folder() / "locks"
            make_folder(locks)
            lock = FileLock(locks / name)
            lock.acquire(timeout=seconds)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _folder(self) -> Path:
        if self.folder is None:
            raise MemplanError("there is no home folder, and MEMPLAN_CACHE is not set")
        return self.folder


def sealed(content: bytes) -> bytes:
    """Returns content with its checksum before it."""
    return _CHECKSUM(content).digest() + content


def opened(content: bytes) -> bytes:
    """Returns the content that `sealed` was given; raises ValueError if it is not intact."""
    size = _CHECKSUM().digest_size
    if _CHECKSUM(content[size:]).digest() != content[:size]:
        raise ValueError("the checksum is not that of the content")
    return content[size:]


def _write(path: Path, content: bytes) -> None:
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            _remove(path)  # Otherwise a device or a pipe would be written to.
    make_folder(path.parent)
    write_atomically(path, content)


def _forget(path: Path, error: Exception) -> None:
    _remove(path)
    _say("damaged", f"the cache had a damaged entry, {path} ({error}): it is made again, as all that are like it")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _cannot_use(folder: Path | None, error: MemplanError) -> None:
    where = f" in {folder}" if folder is not None else ""
    _say("unusable", f"there is no cache{where} ({error}): what takes long to make is made again in every run")


_said: set[str] = set()


def _say(kind: str, message: str) -> None:
    if kind not in _said:
        _said.add(kind)
        warnings.warn(message, CacheWarning, stacklevel=4)


def _spare() -> Path | None:
    """Returns the temporary folder, if there is one."""
    named = os.environ.get(_SPARE)
    return Path(named) if named and os.path.isdir(named) else None


def _made_spare() -> Path:
    """Returns the temporary folder, which is removed when the process ends that made it."""
    if (folder := _spare()) is not None:
        return folder
    made, owner = tempfile.mkdtemp(prefix="memplan-"), os.getpid()
    os.environ[_SPARE] = made

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(made, ignore_errors=True)

    atexit.register(remove)
    return Path(made)
