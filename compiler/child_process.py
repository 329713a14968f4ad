"""Other processes of memplan: how each is started, and what runs in it first.

A child is a module of memplan with a function `main(arguments)`. Every child

- imports what is installed and what PYTHONPATH names, and nothing from the current folder (`python -P`), and so do the
  processes that it starts;
- is in a session of its own: Ctrl-C reaches all processes of a terminal's group, and only the caller is to act on it;
- ends when its parent ends, however the parent ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

# The option of Linux's prctl(2) by which a process asks for a signal when the thread that started it ends.
_PR_SET_PDEATHSIG = 1

# How a child learns that its parent has ended: from the kernel, or by looking every second.
_TOLD, _LOOKS = "told", "looks"
_SECONDS_BETWEEN_LOOKS = 1.0


def start(
    module: str,
    *arguments: str,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a module of memplan in a process of its own, with a pipe to its standard input.

    Args:
      module: its name, such as `memplan.planners.auto.member`.
      arguments: for its function `main`.
      stdout, stderr, pass_fds: as for `subprocess.Popen`.
      environment: variables that are set besides those of this process.

    Raises:
      OSError: no process can be started.
    """
    # The kernel watches the thread that starts a child. Only the main thread is certain to live as long as the process.
    watched = _TOLD if threading.current_thread() is threading.main_thread() else _LOOKS
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(os.getpid()), watched, module, *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,
        env={**os.environ, **(environment or {}), "PYTHONSAFEPATH": "1"},
    )


def run(
    module: str, *arguments: str, input: bytes = b"", timeout: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs a module of memplan in a process of its own, and returns its output; the process has ended then.

    Raises:
      OSError: no process can be started.
      subprocess.TimeoutExpired: it took more than `timeout` seconds.
    """
    with start(module, *arguments, stderr=subprocess.PIPE) as process:
        try:
            output, errors = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _end_with(parent: int, watched: str) -> None:
    """Makes this process end when its parent does."""
    before = os.getppid()
    if watched == _LOOKS or not _ask_for_signal():
        threading.Thread(target=_look, args=(before,), daemon=True).start()
    # The parent may have ended before the signal was asked for. Where `sys.executable` is a script that starts the
    # interpreter, the parent is not the process that asked for this one, but that one must live too.
    if before != parent and not _is_alive(parent):
        os._exit(1)


def _ask_for_signal() -> bool:
    """Asks Linux for SIGKILL when the parent ends, which also stops native code; returns whether that is possible."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError, AttributeError):
        return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0
    return False


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def main() -> None:
    """Runs the child that the command line names."""
    parent, watched, module, *arguments = sys.argv[1:]
    _end_with(int(parent), watched)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(importlib.import_module(module).main(arguments))


if __name__ == "__main__":
    main()
