"""What differs between two programs or plans: as a table, and as JSON of the schema `memplan.diff/1`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memplan.compiler.printable import from_here, printable
from memplan.compiler.report.diff import Difference, GroupDifference, GroupSide, Side
from memplan.compiler.report.units import print_bytes, print_percent, print_seconds, ratio

SCHEMA = "memplan.diff/1"
_MOST_GROUPS = 20
_LONGEST = 100


def print_difference(difference: Difference, console: Console) -> None:
    """Prints what the two sides need and take, and the groups that differ most."""
    before, after = difference.before, difference.after
    for side, sign in ((before, "-"), (after, "+")):
        name = printable(side.name, limit=_LONGEST)
        console.print(Text(f"{sign} {name}: {printable(side.program, limit=_LONGEST)} on {printable(side.target)}"))
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "before", "after", "change"):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    table.add_row(
        "latency", print_seconds(before.latency), print_seconds(after.latency), _change(before.latency, after.latency)
    )
    for memory in dict.fromkeys((*before.memories, *after.memories)):
        sizes = before.peaks.get(memory, 0), after.peaks.get(memory, 0)
        table.add_row(f"peak {printable(memory)}", print_bytes(sizes[0]), print_bytes(sizes[1]), _change(*sizes))
    console.print(table)
    console.print()
    if not difference.groups:
        console.print(Text("No group of buffers differs."))
        return
    console.print(_groups(difference))
    rest = len(difference.groups) - _MOST_GROUPS
    if rest > 0:
        console.print(Text(f"and {rest:,} more groups (--json lists all)"))


def _change(before: float, after: float) -> str:
    if before == after:
        return "="
    return "new" if before == 0 else print_percent(ratio(after, before) - 1)


def _groups(difference: Difference) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(str(difference.by), overflow="fold", ratio=3)
    table.add_column("", no_wrap=True)
    table.add_column("buffers", justify="right", no_wrap=True)
    table.add_column("at the peak", justify="right", overflow="fold")
    table.add_column("time", justify="right", overflow="fold")
    table.add_column("in", overflow="fold", ratio=1)
    for group in difference.groups[:_MOST_GROUPS]:
        table.add_row(
            printable(from_here(group.label), limit=_LONGEST),
            group.what,
            _pair(group.before.buffers, group.after.buffers, "{:,}".format),
            _pair(group.before.at_peak, group.after.at_peak, print_bytes),
            _pair(group.before.seconds, group.after.seconds, print_seconds),
            _pair(_places(group.before), _places(group.after), str),
        )
    return table


def _pair(before: Any, after: Any, printed: Any) -> str:
    return str(printed(before)) if before == after else f"{printed(before)} → {printed(after)}"


def _places(side: GroupSide) -> str:
    return printable(", ".join(side.places)) or "–"


def difference_json(difference: Difference) -> dict[str, Any]:
    """Returns the comparison as JSON values. Sizes are bytes, times seconds; fields are added within a version only."""
    return {
        "schema": SCHEMA,
        "by": difference.by.value,
        "before": _side(difference.before),
        "after": _side(difference.after),
        "peak_growth": difference.growth,
        "groups": [_group(group) for group in difference.groups],
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "program": side.program,
        "target": side.target,
        "latency": side.latency,
        "peaks": dict(side.peaks),
        "buffers": len(side.buffers),
    }


def _group(group: GroupDifference) -> dict[str, Any]:
    sides = {"before": group.before, "after": group.after}
    return {
        "group": group.label,
        "what": group.what,
        **{
            name: {
                "buffers": side.buffers,
                "bytes": side.bytes,
                "at_peak": side.at_peak,
                "seconds": side.seconds,
                "memories": list(side.places),
            }
            for name, side in sides.items()
        },
    }
