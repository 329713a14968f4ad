"""Reads a saved program of any kind, told apart by its content, never by its name.

gzip            1f 8b …                     unpacked first
HLO text        text, not MLIR              hlo_text
HLO proto       HloModuleProto, HloProto    hlo_proto
StableHLO       MLIR text or bytecode       stablehlo
jax.export      a flatbuffer around it      stablehlo
"""

from __future__ import annotations

import gc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memplan.compiler.errors import ParseError
from memplan.compiler.ir.graph import Graph
from memplan.compiler.ir.memory_order import scheduled

MAX_BYTES = 2 << 30  # of a program, unpacked: a module of a million instructions takes a tenth of it
_GZIP = b"\x1f\x8b"


def read(path: str | Path) -> Graph:
    """Returns the program in a file, every computation in order of execution.

    A module that the compiler scheduled keeps its order; any other gets one that keeps little memory alive.

    Raises ParseError, naming the file and, in a text, the line and column, if it cannot be read.
    """
    file = str(path)
    content = unpacked(_content(Path(path), file), file)
    with _collection_paused():
        graph = parse_bytes(content, file)
        return graph if graph.is_scheduled else scheduled(graph)


def parse_bytes(content: bytes, file: str = "<bytes>") -> Graph:
    """Returns the program that unpacked bytes hold, as its frontend leaves it; raises ParseError."""
    from memplan.compiler.frontends import hlo_proto, hlo_text, stablehlo

    if not content.strip():
        raise ParseError("the file is empty", file)
    if stablehlo.is_stablehlo(content):
        return stablehlo.parse(content, file)
    if hlo_proto.is_hlo_proto(content):
        return hlo_proto.parse(content, file)
    return hlo_text.parse(_text(content, file), file)


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Keeps the garbage collector from walking, again and again, the many objects of a Graph that all stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _content(path: Path, file: str) -> bytes:
    try:
        if path.is_dir():
            raise ParseError("is a directory; name a file with a program", file)
        with path.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise ParseError(f"cannot be read: {error.strerror}", file) from None
    except ValueError as error:  # such as a NUL in the name
        raise ParseError(f"cannot be read: {error}", file) from None
    if len(content) > MAX_BYTES:
        raise ParseError(f"holds more than the {MAX_BYTES >> 30} GiB that memplan reads", file)
    return content


def unpacked(content: bytes, file: str) -> bytes:
    """Undoes gzip, of one or several members, up to `MAX_BYTES`; raises ParseError if it is broken."""
    if not content.startswith(_GZIP):
        return content
    parts: list[bytes] = []
    total = 0
    while content:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(content, MAX_BYTES + 1 - total)
        except zlib.error as error:
            raise ParseError(f"broken gzip: {error}", file) from None
        total += len(part)
        parts.append(part)
        if total > MAX_BYTES:
            raise ParseError(f"unpacks to more than the {MAX_BYTES >> 30} GiB that memplan reads", file)
        if not member.eof:
            raise ParseError("gzip ends before its content does: is the file truncated?", file)
        content = member.unused_data.lstrip(b"\0")
        if content and not content.startswith(_GZIP):
            raise ParseError("something follows the gzip's content", file)
    return b"".join(parts)


def _text(content: bytes, file: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"HloModule" not in content[:4096]:
            raise ParseError(
                f"is no HLO text, HLO proto, StableHLO or jax.export artifact{_looks_like(content)}", file
            ) from None
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ParseError(f"byte {content[error.start]:#04x} is not UTF-8 text", file, line, column) from None
    nul = text.find("\0")
    if nul >= 0:
        if "HloModule" not in text[:4096]:
            raise ParseError(f"is no HLO text, HLO proto, StableHLO or jax.export artifact{_looks_like(content)}", file)
        line = text.count("\n", 0, nul) + 1
        raise ParseError(
            "a NUL byte stands in the text: is the file damaged?", file, line, nul - text.rfind("\n", 0, nul)
        )
    return text


_FORMATS = (
    (b"\x89PNG", "a PNG picture"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "an ELF binary"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"BC\xc0\xde", "LLVM bitcode"),
)


def _looks_like(content: bytes) -> str:
    for magic, name in _FORMATS:
        if content.startswith(magic):
            return f": it looks like {name}"
    return ""
