"""Programs with dimensions of unknown size, and the sizes that the user states for them.

jaxlib finds the sizes of all values that follow from those of the arguments, in a process of its own
(`dimensions_worker`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends import jaxlib_process
from memplan.compiler.frontends.dimensions_worker import REFUSED
from memplan.compiler.ir.graph import Graph


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
    stated = json.dumps(dict(sizes))
    done = jaxlib_process.ask(
        "dimensions_worker", kind, stated, content=content, purpose="bind its dimensions", file=file
    )
    if done.returncode == 0:
        return done.stdout
    messages = done.stderr.decode(errors="replace")
    if done.returncode == REFUSED and messages.strip():
        raise ParseError(messages.strip().splitlines()[-1], file)
    raise ParseError(f"its dimensions cannot be bound: {jaxlib_process.reason(messages, 'jaxlib crashed')}", file)
