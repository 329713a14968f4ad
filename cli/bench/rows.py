"""What all benches share: their tables, and numbers from the command line."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.table import Table

from memplan.cli.console import show, write
from memplan.compiler.errors import MemplanError
from memplan.compiler.printable import printable


def positive_integers(text: str, option: str) -> list[int]:
    """Returns the numbers of a comma-separated list, ascending; raises MemplanError if there is anything else in it."""
    numbers = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not 0 < int(part) <= 10**7:
            raise MemplanError(f"{option} {text}: {part.strip()!r} is not a number from 1 to 10000000")
        numbers.append(int(part))
    return sorted(set(numbers))


def chosen_names(text: str | None, option: str, known: Collection[str]) -> list[str]:
    """Returns the names of a comma-separated list, each once, or all known; raises MemplanError if one is unknown."""
    names = list(known) if text is None else list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in known:
            raise MemplanError(f"{option}: there is no {name!r}; there are: {', '.join(known)}")
    return names


def print_rows(
    columns: Sequence[str], lines: Sequence[Sequence[str]], text: Collection[str] = (), *, markdown: bool
) -> None:
    """Prints a table, in Markdown if asked for."""
    if markdown:
        write(markdown_of(columns, lines, text))
    else:
        show(lambda terminal: terminal.print(table_of(columns, lines, text)))


def table_of(columns: Sequence[str], lines: Sequence[Sequence[str]], text: Collection[str] = ()) -> Table:
    """Returns a table for the terminal; columns are of numbers, flush right, but for those named in `text`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in text else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def markdown_of(columns: Sequence[str], lines: Sequence[Sequence[str]], text: Collection[str] = ()) -> str:
    """Returns the same table in Markdown."""
    rule = "".join("---|" if column in text else "---:|" for column in columns)
    return "\n".join(
        [f"| {' | '.join(columns)} |", f"|{rule}", *(f"| {' | '.join(map(_cell, line))} |" for line in lines)]
    )


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
