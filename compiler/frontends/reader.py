"""Reads a saved program of any kind, told apart by its content, never by its name.

gzip            1f 8b …                     unpacked first
HLO text        text, not MLIR              hlo_text
HLO proto       HloModuleProto, HloProto    hlo_proto
StableHLO       MLIR text or bytecode       stablehlo
jax.export      a flatbuffer around it      stablehlo
.tflite         a flatbuffer, TFL3          tflite
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from memplan.compiler import limits
from memplan.compiler.collection import collection_paused
from memplan.compiler.errors import FileError, ParseError
from memplan.compiler.files import read_bytes, unpacked
from memplan.compiler.ir.graph import Graph
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.ir.sizes import check_sizes
from memplan.compiler.ir.trip_count import with_trip_counts


def read(
    path: str | Path, *, dims: Mapping[str, int] | None = None, trip_counts: Mapping[str, int] | None = None
) -> Graph:
    """Returns the program in a regular file, or in standard input for `-`, every computation in order of execution.

    A module that the compiler scheduled keeps its order; any other gets one that keeps little memory alive.

    Args:
      path: of the file.
      dims: name of a dimension that the program leaves open to its size: a dimension variable of `jax.export`, or
        `argN.D`, dimension D of argument N.
      trip_counts: name of a loop to how often it runs, where the program does not say it; `computation/name` tells
        loops of one name apart.

    Raises:
      ParseError: it cannot be read, or the sizes do not fit it. The message names the file and, in a text, the line and
        column.
      GraphError: a dimension has no size, or no loop has such a name; the message lists the dimensions or the loops.
    """
    file = str(path)
    try:
        packed = read_bytes(path, limits.PROGRAM, standard_input=True)
    except FileError as error:
        raise ParseError(f"cannot be read: {error.reason}", file) from None
    return read_packed(packed, file, dims, trip_counts)


def read_packed(
    packed: bytes,
    file: str = "<bytes>",
    dims: Mapping[str, int] | None = None,
    trip_counts: Mapping[str, int] | None = None,
) -> Graph:
    """Returns the program that the bytes of a file hold, gzipped or not; the rest is as for `read`."""
    content = unpacked(packed, file, limits.PROGRAM)
    with collection_paused():
        graph = parse_bytes(content, file) if not dims else _bound(content, file, dims)
        check_sizes(graph)
        graph = with_trip_counts(graph, trip_counts or {})
        return graph if graph.is_scheduled else scheduled(graph)


def parse_bytes(content: bytes, file: str = "<bytes>") -> Graph:
    """Returns the program that unpacked bytes hold, as its frontend leaves it; raises ParseError."""
    from memplan.compiler.frontends import hlo_proto, hlo_text, stablehlo, tflite, tflite_model

    if not content.strip():
        raise ParseError("the file is empty", file)
    if tflite_model.is_tflite(content):
        return tflite.parse(content, file)
    if stablehlo.is_stablehlo(content):
        return stablehlo.parse(content, file)
    if hlo_proto.is_hlo_proto(content):
        return hlo_proto.parse(content, file)
    return hlo_text.parse(_text(content, file), file)


def _bound(content: bytes, file: str, dims: Mapping[str, int]) -> Graph:
    """Returns the program that unpacked bytes hold, with sizes for the dimensions that it leaves open."""
    from memplan.compiler.frontends import dimensions, hlo_proto, stablehlo, tflite_model

    if tflite_model.is_tflite(content):
        raise ParseError("leaves no dimension open: TensorFlow Lite states the size of each", file)
    if stablehlo.is_stablehlo(content):
        return stablehlo.parse(content, file, dims)
    if hlo_proto.is_hlo_proto(content):
        return dimensions.bound(hlo_proto.module_bytes(content, file), "proto", dims, file)
    return dimensions.bound(_text(content, file).encode(), "text", dims, file)


_NOTHING_KNOWN = "is no HLO text, HLO proto, StableHLO, jax.export artifact or .tflite file"


def _text(content: bytes, file: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"HloModule" not in content[:4096]:
            raise ParseError(f"{_NOTHING_KNOWN}{_looks_like(content)}", file) from None
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ParseError(f"byte {content[error.start]:#04x} is not UTF-8 text", file, line, column) from None
    nul = text.find("\0")
    if nul >= 0:
        if "HloModule" not in text[:4096]:
            raise ParseError(f"{_NOTHING_KNOWN}{_looks_like(content)}", file)
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
