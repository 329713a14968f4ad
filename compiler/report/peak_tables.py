"""The peaks of a program as tables on a terminal of any width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memplan.compiler.printable import from_here, printable
from memplan.compiler.report.buffers import GroupBy
from memplan.compiler.report.grouping import argument_of
from memplan.compiler.report.peak import MemoryPeak, Peak, StandingGroup
from memplan.compiler.report.relief import Way
from memplan.compiler.report.units import print_bytes, print_seconds

# Rows of the main memory's table and of the others', and arguments that are named.
_MOST_GROUPS, _MOST_OTHERS, _MOST_NAMED = 16, 6, 4
# What a name is cut to; the JSON has it whole.
_LONGEST = 100
# Below these widths, columns are left out: why a buffer is alive; its line and shape.
_WIDE, _MEDIUM = 110, 80


def print_peak(peak: Peak, console: Console) -> None:
    """Prints what stands at each memory's peak, what would lower the main one, and what a compiler states."""
    console.print(
        Text.assemble((printable(peak.program, limit=_LONGEST), "bold"), f" on {printable(peak.target)}"),
    )
    for note in peak.notes:
        console.print(Text(f"Note: {printable(note)}"))
    for memory in peak.memories:
        if memory.capacity is not None:
            console.print()
            _print_memory(peak, memory, console)
    others = [memory for memory in peak.memories if memory.capacity is None and memory.bytes]
    if others:
        console.print()
        listed = ", ".join(f"{print_bytes(memory.bytes)} in {memory.name}" for memory in others)
        console.print(Text(f"Other memories at their peaks: {listed}"))
    if peak.reliefs:
        console.print()
        console.print(_reliefs(peak))
    console.print()
    for remark in remarks(peak):
        console.print(Text(printable(remark)))


def _print_memory(peak: Peak, memory: MemoryPeak, console: Console) -> None:
    where = memory.source.place or memory.source.op_name
    capacity = peak.limit if memory is peak.main else memory.capacity
    of = f" of {print_bytes(capacity)}" if capacity is not None else ""
    console.print(
        Text.assemble(
            (f"{printable(memory.name)}: {print_bytes(memory.bytes)}{of}", "bold"),
            f" at the peak, at {printable(memory.operation, limit=_LONGEST)} (step {memory.time:,} of "
            f"{peak.num_steps:,}{', ' if where else ''}{printable(from_here(where), limit=_LONGEST)})",
        ),
    )
    shown = memory.groups[: _MOST_GROUPS if memory is peak.main else _MOST_OTHERS]
    console.print(_standing(peak, memory, shown, console.width))


def _standing(peak: Peak, memory: MemoryPeak, shown: Sequence[StandingGroup], width: int) -> Table:
    """Returns the table of what stands at a peak, whose last row is the sum."""
    padded = any(100 * group.padding > memory.bytes for group in shown)
    lines = {group.label: _line_beside(group) for group in shown}
    with_line = width >= _MEDIUM and any(lines.values())
    with_shape = width >= _MEDIUM and peak.by is not GroupBy.SHAPE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("bytes", "share", *(["padding"] if padded else [])):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column(str(peak.by), overflow="fold", ratio=3)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for column, is_there in (("shape", with_shape), ("line", with_line), ("alive because", width >= _WIDE)):
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
            cells.append(printable(first.shape, limit=_LONGEST) + (", …" if len(shapes) > 1 else ""))
        if with_line:
            cells.append(lines[group.label])
        if width >= _WIDE:
            cells.append(printable(first.why_alive, limit=_LONGEST))
        count = f"×{len(group.buffers)}" if len(group.buffers) > 1 else ""
        add(group.bytes, group.padding, printable(from_here(group.label), limit=_LONGEST), count, cells)
    rest = memory.groups[len(shown) :]
    if rest:
        count = f"×{sum(len(group.buffers) for group in rest)}"
        sizes = (sum(group.bytes for group in rest), sum(group.padding for group in rest))
        add(*sizes, f"{len(rest):,} smaller (--json lists all)", count, style="dim")
    if memory.reserved:
        add(memory.reserved, 0, f"scoped memory of {printable(memory.operation, limit=_LONGEST)}", "", ["scoped"])
    table.add_section()
    add(memory.bytes, sum(group.padding for group in memory.groups), "in all", "", style="bold")
    return table


def _line_beside(group: StandingGroup) -> str:
    """Returns the line of a group's largest buffer, with one folder before the file; "" if it is the label."""
    first = group.buffers[0].description
    if not first.file or group.label == first.source:
        return ""
    return f"{printable('/'.join(first.file.split('/')[-2:]), limit=_LONGEST)}:{first.line}"


def _reliefs(peak: Peak) -> Table:
    """Returns the table of what being rid of the largest groups is worth."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"the peak of {print_bytes(peak.main.bytes)} would be", overflow="fold", ratio=3)
    table.add_column("without it", justify="right", no_wrap=True)
    table.add_column("if computed again", overflow="fold", ratio=3)
    with_host = any(relief.host.buffers for relief in peak.reliefs)
    if with_host:
        table.add_column("if on the host meanwhile", overflow="fold", ratio=3)
    for relief, group in zip(peak.reliefs, peak.main.groups, strict=False):
        count = len(group.buffers)
        again, host = relief.recompute, relief.host
        cells = [_way(again, count, peak.main.bytes, f"+{print_seconds(again.seconds)}")]
        if with_host:
            copies = f"{print_seconds(host.seconds)} of copies in {print_seconds(host.passing)}"
            cells.append(_way(host, count, peak.main.bytes, copies))
        table.add_row(printable(from_here(relief.label), limit=_LONGEST), print_bytes(relief.without), *cells)
    return table


def _way(way: Way, count: int, before: int, cost: str) -> str:
    if way.buffers == 0:
        return f"– {way.obstacle}"
    if way.peak >= before:
        return "no lower"
    some = "" if way.buffers == count else f" ({way.buffers} of {count}; others: {way.obstacle})"
    return f"{print_bytes(way.peak)}, {cost}{some}"


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
