"""What stands at the peak of a memory as a table on a terminal of any width, or in a message."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memplan.compiler.printable import from_here, printable
from memplan.compiler.report.buffers import GroupBy
from memplan.compiler.report.standing import MemoryPeak, StandingGroup
from memplan.compiler.report.terminal import PlainConsole
from memplan.compiler.report.units import print_bytes

# Rows of the table of the main memory.
MOST_GROUPS = 16
# What a name is cut to; the JSON has it whole.
LONGEST = 100
# Below these widths, columns are left out: why a buffer is alive; its line and shape.
WIDE, _MEDIUM = 110, 80
# Width of a message, and its rows.
_MESSAGE, _MOST_IN_MESSAGE = 140, 8


def memory_text(memory: MemoryPeak, by: GroupBy) -> str:
    """Returns what `print_memory` prints, as text for a message."""
    text = StringIO()
    console = PlainConsole(file=text, width=_MESSAGE, color_system=None)
    print_memory(memory, by, None, console, _MOST_IN_MESSAGE)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def print_memory(
    memory: MemoryPeak, by: GroupBy, capacity: int | None, console: Console, most: int = MOST_GROUPS
) -> None:
    """Prints what stands at the peak of a memory, as many columns of it as the console has room for.

    Args:
      memory: its peak.
      by: what the buffers of a group have in common.
      capacity: bytes of the memory; None if nothing says so.
      console: to print on.
      most: rows; the rest is one more.
    """
    of = f" of {print_bytes(capacity)}" if capacity is not None else ""
    when = ""
    if memory.operation:
        where = memory.source.place or memory.source.op_name
        place = f", {printable(from_here(where), limit=LONGEST)}" if where else ""
        operation = printable(memory.operation, limit=LONGEST)
        when = f" at the peak, at {operation} (step {memory.time:,} of {memory.num_steps:,}{place})"
    console.print(Text.assemble((f"{printable(memory.name)}: {print_bytes(memory.bytes)}{of}", "bold"), when))
    console.print(_standing(memory, by, memory.groups[:most], console.width))


def _standing(memory: MemoryPeak, by: GroupBy, shown: Sequence[StandingGroup], width: int) -> Table:
    """Returns the table of what stands at a peak, whose last row is the sum."""
    padded = any(100 * group.padding > memory.bytes for group in shown)
    lines = {group.label: _line_beside(group) for group in shown}
    with_line = width >= _MEDIUM and any(lines.values())
    with_shape = width >= _MEDIUM and by is not GroupBy.SHAPE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("bytes", "share", *(["padding"] if padded else [])):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column(str(by), overflow="fold", ratio=3)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for column, is_there in (("shape", with_shape), ("line", with_line), ("alive because", width >= WIDE)):
        if is_there:
            table.add_column(column, overflow="fold", ratio=2)

    def add(bytes_: int, padding: int, label: str, count: str, cells: Sequence[str] = (), style: str = "") -> None:
        share = f"{100 * bytes_ / max(memory.bytes, 1):.1f} %"
        row = [print_bytes(bytes_), share, *([print_bytes(padding)] if padded else []), label, count, *cells]
        table.add_row(*row, style=style)

    for group in shown:
        first = group.buffers[0].description
        kinds = dict.fromkeys(buffer.description.kind.value for buffer in group.buffers)
        cells = [first.kind.value + (", …" if len(kinds) > 1 else "")]
        if with_shape:
            shapes = {buffer.description.shape for buffer in group.buffers}
            cells.append(printable(first.shape, limit=LONGEST) + (", …" if len(shapes) > 1 else ""))
        if with_line:
            cells.append(lines[group.label])
        if width >= WIDE:
            cells.append(printable(first.why_alive, limit=LONGEST))
        count = f"×{len(group.buffers)}" if len(group.buffers) > 1 else ""
        add(group.bytes, group.padding, printable(from_here(group.label), limit=LONGEST), count, cells)
    rest = memory.groups[len(shown) :]
    if rest:
        count = f"×{sum(len(group.buffers) for group in rest)}"
        sizes = (sum(group.bytes for group in rest), sum(group.padding for group in rest))
        add(*sizes, f"{len(rest):,} smaller (--json lists all)", count, style="dim")
    if memory.reserved:
        add(memory.reserved, 0, f"scoped memory of {printable(memory.operation, limit=LONGEST)}", "", ["scoped"])
    table.add_section()
    add(memory.bytes, sum(group.padding for group in memory.groups), "in all", "", style="bold")
    return table


def _line_beside(group: StandingGroup) -> str:
    """Returns the line of a group's largest buffer, with one folder before the file; "" if it is the label."""
    first = group.buffers[0].description
    if not first.file or group.label == first.source:
        return ""
    return f"{printable('/'.join(first.file.split('/')[-2:]), limit=LONGEST)}:{first.line}"
