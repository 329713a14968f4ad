"""The passes that `memplan plan` runs over a program before it plans: which, and what is printed of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memplan.cli import console
from memplan.cli.bench.rows import table_of
from memplan.cli.console import note
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import write_atomically
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir import Graph
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.printable import printable

if TYPE_CHECKING:
    from memplan.passes.base import GraphPass
    from memplan.passes.graph_manager import GraphOutcome

# Findings of a pass that are listed one by one.
_LISTED = 8

_COLUMNS = ("pass", "changed", "left", "instructions", "touched MB", "seconds")


@dataclass(frozen=True)
class PassOptions:
    """Which passes run over a program before it is planned, and what is printed of it.

    Attributes:
      passes: as in `graph_manager.chosen_graph_passes`.
      print_after: name of a pass, or "all", after which the program is printed; None for none.
      print_to: file that it is printed to; None for standard error.
    """

    passes: str = "none"
    print_after: str | None = None
    print_to: Path | None = None


def chosen_passes(options: PassOptions) -> tuple[GraphPass, ...]:
    """Returns the passes that are wanted; MemplanError if one is not known, or is to be printed after and not run."""
    from memplan.passes.graph_manager import chosen_graph_passes

    chosen = chosen_graph_passes(options.passes)
    names = [each.name for each in chosen]
    wanted = options.print_after
    if wanted is None and options.print_to is not None:
        raise MemplanError(f"--print-to {options.print_to}: --print-after says what to print")
    if wanted is not None and wanted != "all" and wanted not in names:
        ran = f"of --passes {options.passes}: {', '.join(names)}" if names else f"--passes {options.passes} runs none"
        raise MemplanError(f"--print-after {wanted}: no such pass is run; {ran}")
    if wanted == "all" and not names:
        raise MemplanError(f"--print-after all: --passes {options.passes} runs none")
    return chosen


def run_passes(graph: Graph, target: Target, chosen: Sequence[GraphPass], options: PassOptions) -> GraphOutcome:
    """Returns what passes make of a program, in an order that keeps little memory alive unless one is given.

    Of a module that a compiler scheduled, "auto" leaves everything as it is.
    """
    from memplan.passes.base import GraphContext
    from memplan.passes.graph_manager import GraphOutcome, run_graph_passes

    if options.passes == "auto" and graph.is_scheduled:
        note("the compiler scheduled this module, and it is that schedule that is planned: --passes auto runs none")
        chosen = ()
    printed: list[str] = []
    outcome = run_graph_passes(graph, chosen, GraphContext(target), _printer(options, printed))
    if options.print_to is not None:
        write_atomically(options.print_to, "\n".join(printed))
    if outcome.graph is graph or graph.is_scheduled:
        return outcome
    return GraphOutcome(scheduled(outcome.graph), outcome.reports)


def _printer(options: PassOptions, printed: list[str]) -> Callable[[GraphPass, Graph], None] | None:
    """Returns what prints the program after passes: to standard error, or for a file."""
    if options.print_after is None:
        return None

    def after(each: GraphPass, graph: Graph) -> None:
        if options.print_after not in (each.name, "all"):
            return
        text = print_graph(graph)
        if options.print_after == "all":
            text = f"// after {each.name}\n{text}"
        if options.print_to is None:
            print(printable(text, keep="\n\t"), file=sys.stderr)
            return
        if options.print_after != "all":
            printed.clear()  # of a pass that runs twice, the last program is the one that is planned
        printed.append(text)

    return after


def show_passes(outcome: GraphOutcome) -> None:
    """Prints a table of the passes, and the places that they changed or left."""
    lines = []
    places = []
    for report in outcome.reports:
        left = len(report.findings) - len(report.changed)
        lines.append(
            [
                report.name,
                f"{len(report.changed):,}",
                f"{left:,}",
                f"{report.before:,} → {report.after:,}",
                f"{report.bytes_before / 1e6:,.1f} → {report.bytes_after / 1e6:,.1f}",
                f"{report.seconds:.3f}",
            ]
        )
        for finding in report.findings[:_LISTED]:
            declined = f": left, since {finding.declined}" if finding.declined else ""
            places.append(f"{report.name}: {finding.what} at {finding.where}{declined}")
        if len(report.findings) > _LISTED:
            places.append(f"{report.name}: … and {len(report.findings) - _LISTED:,} more")
    console.show(lambda terminal: terminal.print(table_of(_COLUMNS, lines, ("pass",))))
    console.write("\n".join(["", *map(printable, places), ""]))
