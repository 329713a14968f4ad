"""A child that becomes another program, such as a C compiler, so that it too ends with its parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

# The exit status where there is no such program, as a shell has it.
NOT_FOUND = 127


def main(arguments: Sequence[str]) -> int:
    """Runs the program of the first argument in this process, with the other arguments."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        os.execvp(arguments[0], list(arguments))
    except OSError:
        return NOT_FOUND
