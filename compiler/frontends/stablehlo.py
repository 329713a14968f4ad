"""StableHLO to Graph: MLIR text, MLIR bytecode, portable artifacts, and what `jax.export` serializes.

jaxlib translates StableHLO to HLO without compiling it. Damaged bytecode can crash its C++ code, so it runs in a
process of its own (`stablehlo_worker`), and a crash becomes an error message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends import dimensions, jaxlib_process
from memplan.compiler.ir.graph import Graph
from memplan.compiler.ir.partitions import sharding_devices

_BYTECODE = b"ML\xefR"
_TEXT = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?://[^\n]*+\n\s*+)*"
    rb"(?:module\b|builtin\.module\b|func\.func\b|\"builtin\.module\"|#[\w$.\-]+\s*=|![\w$.\-]+\s*=)"
)
# "-:3:7: error: expected …": where MLIR reads from a string, it calls it "-".
_ERROR = re.compile(r"(?:-|within split at .*?):(\d+):(\d+): error: (.*)")


def is_stablehlo(content: bytes) -> bool:
    """Tells whether bytes are MLIR, or a jax.export artifact with MLIR in it; they may be damaged all the same."""
    return content.startswith(_BYTECODE) or _TEXT.match(content) is not None or _exported(content) is not None


def parse(content: bytes, file: str = "<bytes>", dims: Mapping[str, int] | None = None) -> Graph:
    """Returns the Graph of a StableHLO program in any of its forms.

    Args:
      dims: sizes of dimensions that the program leaves open, see `dimensions.bound`.

    Raises:
      ParseError: jaxlib cannot read it, its sizes are those of several devices together, or a size is unknown.
    """
    from memplan.compiler.frontends import hlo_proto

    mlir = mlir_of(content)
    graph = (
        dimensions.bound(mlir, "stablehlo", dims, file) if dims else hlo_proto.parse(_to_hlo_proto(mlir, file), file)
    )
    if (devices := sharding_devices(graph)) > 1:
        raise ParseError(
            f"the program is for {devices:,} devices, and no compiler has divided it yet, so its sizes are those of "
            "all of them together: memplan plans the program of one device, such as the HLO that XLA compiled it to",
            file,
        )
    if any(instruction.shape.has_unknown_size for _, instruction in graph.instructions()):
        raise dimensions.refusal(mlir, "stablehlo", file) or ParseError("a value has a dimension of unknown size", file)
    return graph


def mlir_of(content: bytes) -> bytes:
    """Returns the MLIR, text or bytecode, of a StableHLO program in any of its forms."""
    if content.startswith(_BYTECODE) or _TEXT.match(content) is not None:
        return content
    return _exported(content) or content


def _exported(content: bytes) -> bytes | None:
    """Returns the bytecode inside the flatbuffer that `jax.export` serializes, None if there is none.

    A flatbuffer stores an array of bytes after its length, a little-endian number of 32 bits.
    """
    at = content.find(_BYTECODE, 4)
    while at >= 0:
        length = int.from_bytes(content[at - 4 : at], "little")
        if len(_BYTECODE) < length <= len(content) - at:
            return content[at : at + length]
        at = content.find(_BYTECODE, at + 1)
    return None


def _to_hlo_proto(content: bytes, file: str) -> bytes:
    done = jaxlib_process.ask("stablehlo_worker", content=content, purpose="translate the StableHLO", file=file)
    if done.returncode == 0:
        return done.stdout
    messages = done.stderr.decode(errors="replace")
    # Not every operation on values of unknown size can be translated, and jaxlib's messages are about the operation.
    if done.returncode > 0 and ("tensor<?" in messages or "x?" in messages):
        refused = dimensions.refusal(content, "stablehlo", file)
        if refused is not None:
            raise refused
    located = _ERROR.search(messages)
    if located:
        line, column, message = located.groups()
        raise ParseError(f"not StableHLO that jaxlib can read: {message}", file, int(line), int(column))
    if done.returncode < 0:
        raise ParseError("damaged StableHLO: jaxlib crashed reading it", file)
    why = jaxlib_process.reason(messages, "no reason given")
    raise ParseError(f"not StableHLO that jaxlib can read: {why}", file)
