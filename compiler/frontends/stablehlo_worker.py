"""Translates StableHLO on standard input to a HloModuleProto on standard output; run in a process of its own.

Exits with 1 and jaxlib's messages on standard error where that is not possible.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Answers one request, and returns the exit status."""
    from jaxlib import _jax

    content = sys.stdin.buffer.read()
    try:
        computation = _jax.mlir.mlir_module_to_xla_computation(content, use_tuple_args=False, return_tuple=False)
        proto = computation.as_serialized_hlo_module_proto()
    except Exception as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(proto)
    return 0
