"""Programs with dimensions of unknown size, and the sizes that the user states for them.

jaxlib finds the sizes of all values that follow from those of the arguments, in a process of its own
(`dimensions_worker`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec

from memplan.compiler import child_process
from memplan.compiler.errors import ParseError
from memplan.compiler.frontends.dimensions_worker import REFUSED
from memplan.compiler.ir.graph import Graph

_TIME_LIMIT = 600  # seconds


def bound(content: bytes, kind: str, sizes: Mapping[str, int], file: str) -> Graph:
    """Returns the Graph of a program whose dimensions of unknown size have these sizes.

    Args:
      content: what a file holds.
      kind: of the content: `stablehlo` (MLIR as text or bytecode), `text` (of HLO) or `proto` (a HloModuleProto).
      sizes: name of a dimension to its size: a dimension variable of jax.export, or `argN.D`, dimension D of argument
        N.

    Raises:
      ParseError: a name is none of the program's, a size is missing, or the sizes do not fit the program.
    """
    from memplan.compiler.frontends import hlo_proto

    return hlo_proto.parse(_bound(content, kind, sizes, file), file)


def refusal(content: bytes, kind: str, file: str) -> ParseError | None:
    """Returns the error that names the dimensions whose size has to be stated; None if there are none."""
    try:
        _bound(content, kind, {}, file)
    except ParseError as error:
        return error if "unknown size" in str(error) else None
    return None


def _bound(content: bytes, kind: str, sizes: Mapping[str, int], file: str) -> bytes:
    if find_spec("jax") is None:
        raise ParseError("has dimensions of unknown size, which only JAX can bind: pip install jax", file)
    module = "memplan.compiler.frontends.dimensions_worker"
    try:
        done = child_process.run(module, kind, json.dumps(dict(sizes)), input=content, timeout=_TIME_LIMIT)
    except subprocess.TimeoutExpired:
        raise ParseError(f"jaxlib did not bind its dimensions in {_TIME_LIMIT} s", file) from None
    if done.returncode == 0:
        return done.stdout
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    if done.returncode == REFUSED and lines:
        raise ParseError(lines[-1], file)
    detail = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "jaxlib crashed")
    raise ParseError(f"its dimensions cannot be bound: {detail.strip()[:300]}", file)
