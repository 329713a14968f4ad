"""The peaks of a program as tables on a terminal of any width."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memplan.compiler.printable import from_here, printable
from memplan.compiler.report.grouping import argument_of
from memplan.compiler.report.peak import Peak
from memplan.compiler.report.relief_tables import relief_columns, relief_rows
from memplan.compiler.report.standing_tables import LONGEST, MOST_GROUPS, WIDE, print_memory
from memplan.compiler.report.units import print_bytes

# Rows of the table of a memory that is not the main one, and arguments that are named.
_MOST_OTHERS, _MOST_NAMED = 6, 4


def print_peak(peak: Peak, console: Console) -> None:
    """Prints what stands at each memory's peak, what would lower the main one, and what a compiler states."""
    console.print(
        Text.assemble((printable(peak.program, limit=LONGEST), "bold"), f" on {printable(peak.target)}"),
    )
    for note in peak.notes:
        console.print(Text(f"Note: {printable(note)}"))
    for memory in peak.memories:
        if memory.capacity is not None:
            console.print()
            is_main = memory is peak.main
            capacity, most = (peak.limit, MOST_GROUPS) if is_main else (memory.capacity, _MOST_OTHERS)
            print_memory(memory, peak.by, capacity, console, most)
    others = [memory for memory in peak.memories if memory.capacity is None and memory.bytes]
    if others:
        console.print()
        listed = ", ".join(f"{print_bytes(memory.bytes)} in {memory.name}" for memory in others)
        console.print(Text(f"Other memories at their peaks: {listed}"))
    if peak.reliefs:
        console.print()
        console.print(_reliefs(peak, console.width))
    console.print()
    for remark in remarks(peak):
        console.print(Text(printable(remark)))


def _reliefs(peak: Peak, width: int) -> Table:
    """Returns the table of what being rid of the largest groups is worth."""
    with_all = width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in relief_columns(peak.reliefs, peak.main.bytes, with_all).items():
        if side == "right":
            table.add_column(title, justify="right", no_wrap=True)
        else:
            table.add_column(title, overflow="fold", ratio=3)
    for label, *cells in relief_rows(peak.reliefs, peak.main.groups, peak.main.bytes, with_all):
        table.add_row(printable(from_here(label), limit=LONGEST), *cells)
    return table


def remarks(peak: Peak) -> list[str]:
    """Returns what else is to say about a peak, a sentence or two each."""
    found = []
    main = peak.main
    if peak.donations:
        donated = Counter(argument_of(name) for name, _ in peak.donations)
        names = ", ".join(
            f"{name} ({count:,} array{'s' if count > 1 else ''})" for name, count in donated.most_common(_MOST_NAMED)
        )
        if len(donated) > _MOST_NAMED:
            names += f" and {len(donated) - _MOST_NAMED:,} more"
        size = print_bytes(sum(donation.size for _, donation in peak.donations))
        found.append(
            f"Could be donated, if the caller needs them no more: {size} of {names}. The program would need "
            f"{print_bytes(peak.donated)} then."
        )
    if peak.reordered is not None and peak.reordered < main.bytes:
        found.append(f"In the best order of execution that was found, the peak would be {print_bytes(peak.reordered)}.")
    if 1000 * main.to_come > main.bytes and peak.statement is None:
        found.append(
            f"Results of {print_bytes(main.to_come)} are not made yet at the peak: a runtime that allocates results "
            f"beforehand needs {print_bytes(main.bytes + main.to_come)}."
        )
    if peak.statement is not None:
        found += _statement(peak)
    if peak.limit is not None:
        over = peak.needed - peak.limit
        verdict = f"it does not fit, by {print_bytes(over)}" if over > 0 else "it fits"
        found.append(f"The program needs {print_bytes(peak.needed)} of {print_bytes(peak.limit)}: {verdict}.")
    return found


def _statement(peak: Peak) -> list[str]:
    statement = peak.statement
    assert statement is not None
    parts = ", ".join(f"{print_bytes(part.bytes)} {part.kind}" for part in statement.parts)
    found = [f"{statement.by} states {print_bytes(statement.total)}: {parts}."]
    if statement.idle is None:
        difference = statement.total - peak.main.bytes
        side = "above" if difference >= 0 else "below"
        found.append(f"That is {print_bytes(abs(difference))} {side} our peak: results to come, and gaps.")
        return found
    idle = ", ".join(f"{print_bytes(part.idle)} of the {part.kind}" for part in statement.parts if part.idle)
    found.append(
        f"At the peak, {print_bytes(statement.idle)} of that hold nothing{f' ({idle})' if idle else ''}; our peak is "
        f"the rest, {print_bytes(peak.main.bytes)}."
    )
    if statement.uncounted:
        found.append(f"{print_bytes(statement.uncounted)} of our peak lie in no block that it lists.")
    return found
