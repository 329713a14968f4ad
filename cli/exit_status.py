"""How the command ends: each status means one thing, and docs/command.md has the same table."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the command's exit status says.

    Attributes:
      meaning: in one sentence, for the help and the documentation.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitStatus:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    DONE = 0, "The command did what it was asked."
    NO = (
        1,
        "The answer is no: a plan breaks rules, blocks or a program do not fit, a peak grew, or a dump failed.",
    )
    FAILED = 2, "A mistake in the command line or a file, or no means to go on: one line on standard error says which."
    TIME_RAN_OUT = 3, "The time limit came before an answer: whether the blocks fit is not known."
    CRASHED = 70, "A bug in memplan: one line on standard error names the file with what to report."
    HUNG_UP = 129, "SIGHUP ended the command: its terminal was closed."
    INTERRUPTED = 130, "Ctrl-C ended the command."
    READER_GONE = 141, "Nobody read the rest of standard output."
    TERMINATED = 143, "SIGTERM ended the command."


def print_statuses() -> str:
    """Returns the table as lines of text."""
    return "\n".join(f"{status:>3}  {status.meaning}" for status in ExitStatus)
