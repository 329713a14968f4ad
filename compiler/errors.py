"""The exceptions that memplan raises for a mistake that its user can mend.

Anything else that escapes is a bug in memplan. The command line prints the
message of a `MemplanError` alone, without a traceback, and exits with 2.
"""

from __future__ import annotations

from memplan.compiler.printable import printable


class MemplanError(Exception):
    """Base of all of them.

    The message says what was wrong, where, and what to do. Names and paths in it are escaped, since they come from
    files and may hold what controls a terminal.
    """

    def __init__(self, message: str = ""):
        super().__init__(printable(message, keep="\n"))


class FileError(MemplanError):
    """A file that cannot be read.

    Attributes:
      reason: why, without the file's name.
    """

    def __init__(self, reason: str, file: str):
        super().__init__(f"cannot read {file}: {reason}")
        self.reason, self.file = reason, file

    def __reduce__(self) -> tuple[type[FileError], tuple[str, str]]:
        return FileError, (self.reason, self.file)


class ReaderGoneError(MemplanError):
    """Nobody reads standard output any more."""

    def __init__(self) -> None:
        super().__init__("nobody reads standard output any more")


class ParseError(MemplanError):
    """A text or binary program that cannot be read.

    Attributes:
      file: name of the file, or of the string's origin.
      line, column: 1-based place in a text; 0 where the input is binary.
    """

    def __init__(self, message: str, file: str = "<string>", line: int = 0, column: int = 0):
        place = f"{file}:{line}:{column}" if line else file
        super().__init__(f"{place}: {message}")
        self.file, self.line, self.column = file, line, column


class GraphError(MemplanError):
    """A Graph that breaks a rule of the IR: a cycle, a missing operand, a wrong schedule."""


class TargetError(MemplanError):
    """A description of hardware that is missing, malformed or makes no sense."""


class PlanError(MemplanError):
    """A plan that is malformed, or was made for another module or target."""


class PlannerError(MemplanError):
    """A planner that cannot solve the problem given, or is not known."""


def one_line(error: BaseException) -> str:
    """Returns the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
