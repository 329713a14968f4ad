"""What the command writes to the terminal: results to standard output, everything else to standard error."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from memplan.cli.exit_status import ReaderGoneError

# Wide enough for every table; rich would take 80 columns where there is no terminal.
_WIDTH = 140

# Seconds after which a person wants to know that something is happening.
_PATIENCE = 2.0


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise ReaderGoneError


def write(text: str) -> None:
    """Writes a result to standard output, with a newline."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise ReaderGoneError from None


def show(print_to: Callable[[Console], None]) -> None:
    """Prints a result: in color and fitting on a terminal, as plain text of a fixed width elsewhere."""
    if sys.stdout.isatty():
        print_to(_Console(highlight=False))
        return
    buffer = io.StringIO()
    print_to(Console(file=buffer, highlight=False, width=_WIDTH, color_system=None))
    write("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()))


def note(message: str) -> None:
    """Tells the person something about what is being done."""
    print(f"memplan: {message}", file=sys.stderr)


class Stages:
    """Shows the stages of a command as a progress bar on standard error, once it has taken two seconds.

    Args:
      total: how many stages there will be.
      quiet: show nothing, as where standard error is no terminal.
    """

    def __init__(self, total: int, quiet: bool = False):
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total)
        self._quiet = quiet or not console.is_terminal
        self._timer = threading.Timer(_PATIENCE, self._progress.start)
        self._timer.daemon = True

    def __enter__(self) -> Stages:
        if not self._quiet:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if not self._quiet:
            self._timer.join()
            self._progress.stop()

    @contextmanager
    def stage(self, description: str) -> Iterator[None]:
        """Names what happens in the block."""
        self._progress.update(self._task, description=description)
        yield
        self._progress.advance(self._task)
