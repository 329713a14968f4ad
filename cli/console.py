"""What the command writes to the terminal: results to standard output, everything else to standard error."""

from __future__ import annotations

import codecs
import io
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from memplan.compiler.cache import CacheWarning
from memplan.compiler.errors import MemplanError, ReaderGoneError
from memplan.compiler.printable import printable
from memplan.compiler.report.terminal import PlainConsole

# Wide enough for every table; rich would take 80 columns where there is no terminal.
_WIDTH = 140

# Seconds after which a person wants to know that something is happening.
_PATIENCE = 2.0

# What our own words have beyond ASCII, for a terminal that has no more.
_ASCII = str.maketrans(
    {"→": "->", "×": "x", "÷": "/", "…": "...", "·": "|", "µ": "u", "≤": "<=", "≥": ">=", "–": "-", "±": "+-"}
)
_ENCODING_ERRORS = "memplan.ascii"


# Whether standard output is for a file that the user wants there, and results go to standard error.
_is_taken = False


class _Output(io.TextIOWrapper):
    """Standard output, whose errors are those of memplan: typer and rich would take some for their own.

    Where the encoding is ASCII, this writes nothing else but says that it is UTF-8: typer takes a stream of ASCII for
    one that was set up wrongly, and goes round it.
    """

    only_ascii = False

    def write(self, text: str, /) -> int:
        if self.only_ascii:
            text = text.encode("ascii", _ENCODING_ERRORS).decode("ascii")
        with _output_errors():
            return super().write(text)

    def flush(self) -> None:
        with _output_errors():
            super().flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None
    except OSError as error:
        raise MemplanError(f"cannot write to standard output: {error.strerror}") from None


@contextmanager
def standard_streams() -> Iterator[None]:
    """Makes the standard streams fit for the command while it runs.

    Those that are closed lead to nowhere, so that no file of ours gets their number. What the encoding of a stream does
    not have is escaped. Standard output raises `ReaderGoneError` if it is a pipe that nobody reads any more, and
    `MemplanError` if it cannot be written to.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    leave_standard_output(False)
    codecs.register_error(_ENCODING_ERRORS, _in_ascii)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_ENCODING_ERRORS)
    before = sys.stdout
    if not isinstance(before, io.TextIOWrapper):
        yield
        return
    only_ascii = codecs.lookup(before.encoding).name == "ascii"
    encoding = "utf-8" if only_ascii else before.encoding
    output = _Output(before.buffer, encoding, _ENCODING_ERRORS, line_buffering=before.line_buffering)
    output.only_ascii = only_ascii
    sys.stdout = output
    try:
        yield
    finally:
        sys.stdout = before
        try:
            output.detach()
            before.flush()
        except (MemplanError, OSError):
            forget_output()


def forget_output(number: int = 1) -> None:
    """Lets the interpreter flush what is still buffered for a standard stream to nowhere when it exits.

    It would exit with a status of its own otherwise.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", errors="backslashreplace").decode(), error.end


def leave_standard_output(is_taken: bool = True) -> None:
    """Makes results go to standard error, since a file goes to standard output."""
    global _is_taken
    _is_taken = is_taken


def write(text: str) -> None:
    """Writes a result to standard output, with a newline; it may have several lines."""
    print(printable(text, keep="\n"), file=sys.stderr if _is_taken else sys.stdout, flush=True)


def write_line(text: str) -> None:
    """Writes a result of one line: a line feed in a name of it is escaped."""
    write(printable(text))


def show(print_to: Callable[[Console], None]) -> None:
    """Prints a result: in color and fitting on a terminal, as plain text of a fixed width elsewhere."""
    if (sys.stderr if _is_taken else sys.stdout).isatty():
        print_to(PlainConsole(stderr=_is_taken))
        return
    buffer = io.StringIO()
    print_to(PlainConsole(file=buffer, width=_WIDTH, color_system=None))
    write("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()))


def note(message: str) -> None:
    """Tells the person something about what is being done, in one line; it is lost if standard error is broken."""
    try:
        print(f"memplan: {printable(message)}", file=sys.stderr, flush=True)
    except OSError:
        forget_output(2)


@contextmanager
def cache_notes() -> Iterator[None]:
    """Tells warnings of caches within the block in the way of `note`."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CacheWarning)
        show_other = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: TextIO | str | None
        ) -> None:
            if issubclass(category, CacheWarning):
                note(f"warning: {message}")
            else:
                show_other(message, category, filename, lineno, *rest)  # type: ignore[arg-type]

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def on_standard_error() -> Console:
    """Returns the console for what is shown while the command works."""
    return PlainConsole(stderr=True)


class Stages:
    """Shows the stages of a command as a progress bar on standard error, once it has taken two seconds.

    Args:
      total: how many stages there will be.
      quiet: show nothing, as where standard error is no terminal.
    """

    def __init__(self, total: int, quiet: bool = False):
        console = on_standard_error()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
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
        self._progress.update(self._task, description=printable(description))
        yield
        self._progress.advance(self._task)
