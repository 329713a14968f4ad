"""Reading and writing files: regular files are written whole or not at all, and nothing else is read.

Every file that memplan writes for its user passes through `write_files`, every file that it reads through `read_bytes`.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from memplan.compiler.errors import FileError, MemplanError, ParseError, ReaderGoneError
from memplan.compiler.limits import print_limit

# The path that stands for standard output, or for standard input.
STANDARD = "-"

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
_DESCRIPTORS = re.compile(r"/dev/fd|/proc/(\d+)(?:/task/\d+)?/fd")
_MAX_LINKS = 40

# What stands where a file is expected.
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


# ---- writing


@dataclass(frozen=True)
class _Destination:
    """Where content goes.

    Attributes:
      path: of the file, behind all links; of what is written to otherwise.
      before: what `os.stat` says of the regular file that is replaced; None for a new file.
      is_stream: whether this is no regular file, so that it is written to and never replaced.
      descriptor: the descriptor of this process that the path stands for; None for a path of its own.
    """

    path: str
    before: os.stat_result | None = None
    is_stream: bool = False
    descriptor: int | None = None


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes to what a path names: a regular file is replaced as a whole, anything else is written to.

    Links are followed: the file that they lead to is replaced, and they stay. A file that is replaced keeps its
    permissions. Devices, pipes, `/dev/stdout`, `/dev/fd/N` and `-`, which is standard output, are written to.

    Raises:
      ReaderGoneError: nobody reads standard output any more.
      MemplanError: the path names a folder or a socket, or cannot be written. A regular file is as it was then.
    """
    write_files({path: content})


def write_files(contents: Mapping[str | Path, str | bytes]) -> None:
    """Writes several files as `write_atomically` does; if one of them has no room, none of them changes.

    Raises:
      ReaderGoneError, MemplanError: as `write_atomically`.
    """
    staged: list[tuple[str | Path, str, _Destination]] = []
    try:
        streams = []
        for path, content in contents.items():
            data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
            destination = _destination(path)
            if destination.is_stream:
                streams.append((path, destination, data))
            else:
                temporary = _new_temporary(path, destination)
                staged.append((path, temporary, destination))
                _fill(path, temporary, destination, data)
        for path, temporary, destination in staged:
            try:
                os.replace(temporary, destination.path)
            except OSError as error:
                raise _cannot_write(path, error) from None
        for path, destination, data in streams:
            _write_to(path, destination, data)
    finally:
        for _, temporary, _ in staged:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def check_writable(path: str | Path) -> None:
    """Raises MemplanError if `write_atomically` could not write to a path, as far as this can be told beforehand."""
    destination = _destination(path)
    if destination.is_stream:
        return
    folder = os.path.dirname(destination.path)
    if not os.path.isdir(folder):
        raise _no_folder(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MemplanError(f"cannot write {path}: the folder {folder} is read-only")


def is_standard_output(path: str | Path) -> bool:
    """Tells whether `write_atomically` writes to standard output: `-`, `/dev/stdout` and the like."""
    return _destination(path).descriptor == 1


def make_folder(path: str | Path, what: str = "files") -> None:
    """Makes a folder, and those above it, if it is not there.

    Args:
      path: of the folder.
      what: is to be written to it, for the message.

    Raises:
      MemplanError: that is not possible.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except (OSError, ValueError) as error:
        raise MemplanError(f"cannot write {what} to {path}: {reason_of(error)}") from None


def _destination(path: str | Path) -> _Destination:
    text = os.fspath(path)
    if text == STANDARD:
        return _Destination(text, is_stream=True, descriptor=1)
    try:
        if (descriptor := _own_descriptor(text)) is not None:
            os.fstat(descriptor)
            return _Destination(text, is_stream=True, descriptor=descriptor)
        try:
            found = os.stat(text)
        except (FileNotFoundError, NotADirectoryError):
            if not text:
                raise
            return _Destination(os.path.realpath(text))
        if stat.S_ISDIR(found.st_mode):
            raise MemplanError(f"cannot write {path}: it is a folder")
        if stat.S_ISSOCK(found.st_mode):
            raise MemplanError(f"cannot write {path}: it is a socket")
        if not stat.S_ISREG(found.st_mode):
            return _Destination(text, is_stream=True)
        if not os.access(text, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is read-only")
        return _Destination(os.path.realpath(text), found)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


def _own_descriptor(text: str) -> int | None:
    """Returns the number N if a path leads, over links, to `/dev/fd/N` of this process."""
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(text)
        folder = os.path.realpath(folder)
        match = _DESCRIPTORS.fullmatch(folder)
        if match is not None and match[1] in (None, str(os.getpid())) and name.isascii() and name.isdecimal():
            return int(name) if len(name) < 10 else None
        text = os.path.join(folder, name)
        if not os.path.islink(text):
            return None
        text = os.path.join(folder, os.readlink(text))
    return None


def _new_temporary(path: str | Path, destination: _Destination) -> str:
    try:
        folder = os.path.dirname(destination.path)
        handle, temporary = tempfile.mkstemp(prefix=".memplan-", dir=folder)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_folder(path) from None
    except OSError as error:
        raise _cannot_write(path, error) from None
    os.close(handle)
    return temporary


def _fill(path: str | Path, temporary: str, destination: _Destination, data: bytes) -> None:
    """Writes the content beside a file, with the permissions that the file has, or that a new one gets."""
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        if destination.before is not None:
            with suppress(PermissionError):
                os.chown(temporary, destination.before.st_uid, destination.before.st_gid)
            os.chmod(temporary, stat.S_IMODE(destination.before.st_mode))
        else:
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
    except OSError as error:
        raise _cannot_write(path, error) from None


def _write_to(path: str | Path, destination: _Destination, data: bytes) -> None:
    """Writes to a device, a pipe or an open descriptor."""
    number = destination.descriptor
    try:
        if number in (1, 2):
            (sys.stdout if number == 1 else sys.stderr).flush()
        handle = os.dup(number) if number is not None else os.open(destination.path, os.O_WRONLY | os.O_NOCTTY)
        with open(handle, "wb", buffering=0) as stream:
            rest = memoryview(data)
            while rest:
                rest = rest[stream.write(rest[:_CHUNK]) or 0 :]
    except BrokenPipeError as error:
        if number == 1:
            raise ReaderGoneError from None
        raise _cannot_write(path, error) from None
    except OSError as error:
        raise _cannot_write(path, error) from None


def _no_folder(path: str | Path) -> MemplanError:
    folder = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)
    return MemplanError(f"cannot write {path}: there is no folder {folder}")


def _cannot_write(path: str | Path, error: OSError | ValueError) -> MemplanError:
    return MemplanError(f"cannot write {path}: {reason_of(error)}")


def reason_of(error: OSError | ValueError) -> str:
    """Returns what the system says of an error, without the path."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # Python's versions have different words for it.
    return "a name cannot hold a null character" if "null" in str(error) else str(error)


# ---- reading


def read_bytes(path: str | Path, limit: int, standard_input: bool = False) -> bytes:
    """Returns the content of a regular file.

    Args:
      path: of the file. Links are followed.
      limit: the most bytes that are read, one of `compiler/limits.py`.
      standard_input: whether `-` stands for standard input, which may be anything.

    Raises:
      FileError: it is a folder, a device, a pipe or a socket, larger than the limit, or cannot be read.
    """
    if standard_input and os.fspath(path) == STANDARD:
        content = bytearray()
        try:
            source = cast("io.BufferedReader", sys.stdin.buffer)
            # One `read` of all would not hear a signal that comes between two of its parts.
            while len(content) <= limit and (part := source.read1(min(_CHUNK, limit + 1 - len(content)))):
                content += part
        except (OSError, AttributeError) as error:
            raise FileError(str(error), "standard input") from None
        return _within(bytes(content), limit, "standard input")
    try:
        _check_regular(path, os.stat(path))  # Opening a device may already do something.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            _check_regular(path, found)
            if found.st_size > limit:
                raise _too_large(path, limit)
            return _within(file.read(limit + 1), limit, path)
    except (OSError, ValueError) as error:
        raise FileError(reason_of(error), str(path)) from None


def read_text(path: str | Path, limit: int) -> str:
    """Returns the text of a regular file.

    Raises:
      FileError: as `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as error:
        raise FileError(f"byte {error.start} is not UTF-8 text", str(path)) from None


def unpacked(content: bytes, file: str, limit: int) -> bytes:
    """Undoes gzip, of one or several members; bytes that are not gzipped stay as they are.

    Raises:
      ParseError: it is broken, or unpacks to more than `limit` bytes.
    """
    if not content.startswith(_GZIP):
        return content
    parts: list[bytes] = []
    total = 0
    while content:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(content, limit + 1 - total)
        except zlib.error as error:
            raise ParseError(f"broken gzip: {error}", file) from None
        total += len(part)
        parts.append(part)
        if total > limit:
            raise ParseError(f"unpacks to more than the {print_limit(limit)} that memplan reads", file)
        if not member.eof:
            raise ParseError("gzip ends before its content does: is the file truncated?", file)
        content = member.unused_data.lstrip(b"\0")
        if content and not content.startswith(_GZIP):
            raise ParseError("something follows the gzip's content", file)
    return b"".join(parts)


def _check_regular(path: str | Path, found: os.stat_result) -> None:
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise FileError(f"it is {name}, not a regular file", str(path))


def _within(content: bytes, limit: int, name: str | Path) -> bytes:
    if len(content) > limit:
        raise _too_large(name, limit)
    return content


def _too_large(name: str | Path, limit: int) -> FileError:
    return FileError(f"it holds more than the {print_limit(limit)} that memplan reads", str(name))
