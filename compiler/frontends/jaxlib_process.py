"""What jaxlib is asked about a program, in a process of its own: damaged programs can crash its C++ code."""

from __future__ import annotations

import subprocess

from memplan.compiler import child_process
from memplan.compiler.errors import ParseError

_TIME_LIMIT = 600  # seconds; the largest modules take a few


def ask(worker: str, *arguments: str, content: bytes, purpose: str, file: str) -> subprocess.CompletedProcess[bytes]:
    """Returns how a worker ended that was given a program.

    Args:
      worker: module of this package.
      arguments: for it.
      content: for its standard input.
      purpose: what it does, for the message.
      file: that the program comes from.

    Raises:
      ParseError: it took too long.
    """
    try:
        return child_process.run(f"{__package__}.{worker}", *arguments, input=content, timeout=_TIME_LIMIT)
    except subprocess.TimeoutExpired:
        raise ParseError(f"jaxlib did not {purpose} in {_TIME_LIMIT} s", file) from None


def reason(messages: str, otherwise: str) -> str:
    """Returns the line of jaxlib's messages that says what was wrong, or `otherwise` if there are none."""
    lines = [line for line in messages.splitlines() if line.strip()]
    detail = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else otherwise)
    return detail.strip()[:300]
