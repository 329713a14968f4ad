"""The report as tables on a terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memplan.compiler.printable import from_here, printable
from memplan.compiler.report.report import Contender, Report
from memplan.compiler.report.terminal import PlainConsole
from memplan.compiler.report.units import print_bytes, print_cycles, print_frequency, print_percent, print_seconds

# Where there is no terminal that says how wide it is.
_WIDTH = 140
# What a name is cut to; the JSON has it whole.
_LONGEST = 120
# More loops than these are counted rather than listed; the JSON lists them all.
_MOST_ASSUMPTIONS = 20


def print_report(report: Report, console: Console) -> None:
    """Prints what the plan is worth, and the buffers that cost most with the reasons."""
    problem = report.problem
    clock = f", {print_frequency(problem.clock)}" if problem.clock else ""
    console.print(
        Text.assemble(
            (printable(problem.name), "bold"),
            f" on {printable(problem.target)}{clock}: {problem.end:,} operations, {len(problem.buffers):,} buffers",
        ),
        soft_wrap=True,
    )
    _print_assumptions(report, console)
    for note in problem.notes:
        console.print(Text(f"Note: {printable(note)}"), soft_wrap=True)
    console.print()
    console.print(_mappings(report))
    console.print(_remarks(report), soft_wrap=True)
    console.print()
    if not report.groups:
        console.print("No buffer would be faster elsewhere: this plan is as fast as if everything fitted.")
        return
    counted = f"{len(report.groups)} groups of buffers" if len(report.groups) > 1 else "buffers"
    console.print(Text(f"The {counted} that cost most, and why they are where they are", "bold"))
    console.print()
    _print_stories(report, console)


def _print_assumptions(report: Report, console: Console) -> None:
    assumptions = report.problem.assumptions
    if not assumptions:
        return
    console.print()
    console.print(Text("Assumed, because the program does not say it (--trip-count NAME=N does):"), soft_wrap=True)
    for assumption in assumptions[:_MOST_ASSUMPTIONS]:
        console.print(Text(f"  - {printable(str(assumption))}"), soft_wrap=True)
    if len(assumptions) > _MOST_ASSUMPTIONS:
        console.print(Text(f"  - and so do {len(assumptions) - _MOST_ASSUMPTIONS:,} more loops"), soft_wrap=True)


def report_text(report: Report) -> str:
    """Returns the tables as plain text."""
    buffer = io.StringIO()
    print_report(report, PlainConsole(file=buffer, width=_WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _mappings(report: Report) -> Table:
    problem = report.problem
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    columns = ["latency", *(["cycles"] if problem.clock else []), "gap to bound", "waiting", "copies", "copied"]
    for column in columns + [f"peak {space.name}" for space in problem.spaces]:
        table.add_column(column, justify="right", no_wrap=True)
    for contender in report.contenders:
        table.add_row(contender.label, *_cells(report, contender), style="green" if contender is report.subject else "")
    cycles = [print_cycles(report.bound, problem.clock)] if problem.clock else []
    table.add_row("bound that no plan beats", print_seconds(report.bound), *cycles, style="dim")
    return table


def _remarks(report: Report) -> Text:
    """Returns what the bound is, and whether a time limit cut the planner short."""
    remarks = [report.bound_origin]
    if report.stopped is not None:
        remarks.append(f"The planner was {report.stopped}.")
    return Text(printable(" ".join(remarks)), "dim")


def _cells(report: Report, contender: Contender) -> list[str]:
    problem = report.problem
    return [
        print_seconds(contender.latency),
        *([print_cycles(contender.latency, problem.clock)] if problem.clock else []),
        print_percent(contender.gap),
        print_seconds(contender.timeline.stalled),
        f"{contender.copies:,.0f}",
        print_bytes(contender.copied_bytes),
        *(print_bytes(used.peak) for used in contender.usage),
    ]


def _print_stories(report: Report, console: Console) -> None:
    share = max(report.subject.latency, 1e-30)
    places_of: dict[int, dict[str, None]] = {}
    for residency in sorted(report.subject.plan.residencies, key=lambda residency: residency.start):
        places_of.setdefault(residency.buffer, {})[report.problem.spaces[residency.space].name] = None
    for place, group in enumerate(report.groups, 1):
        cost = group.lost + group.waited
        described = report.buffers[group.story.buffer]
        places = dict.fromkeys(place for number in group.buffers for place in places_of[number])
        count = f" ×{len(group.buffers)}" if len(group.buffers) > 1 else ""
        console.print(
            Text.assemble(
                f"{place:2}. ",
                (printable(from_here(group.label), limit=_LONGEST), "bold"),
                "".join(
                    f"  {printable(part, limit=_LONGEST)}"
                    for part in (described.shape, from_here(described.source))
                    if part
                ),
            )
        )
        console.print(
            Text(
                f"    {print_bytes(group.story.size)} {group.story.kind}{count} in {printable(', '.join(places))}: "
                f"costs {print_seconds(cost)} ({100 * cost / share:.1f} % of the latency)"
                + (f", saves {print_seconds(group.saved)}" if group.saved > 0 else "")
            )
        )
        who = f"{group.story.name}: " if count else ""
        for reason in group.story.reasons:
            hanging = Table.grid(padding=0)
            hanging.add_row("     - ", Text(printable(f"{who}{reason}")))
            console.print(hanging)
