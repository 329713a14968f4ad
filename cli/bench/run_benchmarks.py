"""What `scripts/run_benchmarks` runs: makes the tables of the documentation (tables.py) from scratch, resumably."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from memplan.cell_cluster import ClusterWorkers
from memplan.cell_processes import sharing_cores
from memplan.cells import CellOutcome
from memplan.cli.bench.benchmarks import WORK, Benchmarks, Left
from memplan.cli.bench.pictures import draw_pictures
from memplan.cli.bench.rows import table_of
from memplan.cli.bench.tables import TABLES, BenchTable, table_named
from memplan.cli.console import note, show
from memplan.cli.exit_status import ExitStatus
from memplan.cli.main import main
from memplan.compiler.errors import MemplanError


def command(
    list_: Annotated[bool, typer.Option("--list", help="Say what there is to do, and do nothing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", show_default=False, help="Make this table (repeatable). By default those without *."
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(
            "--processes", min=1, max=1024, show_default=False, help="How many cells run at once; by default the cores."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", show_default=False, help="Run on a Ray cluster, as memplan fleet."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Keep the cells here.")] = Path("docs/results/cells"),
    docs: Annotated[Path, typer.Option(metavar="DIR", help="Write results, tables and pictures here.")] = Path("docs"),
    restart: Annotated[bool, typer.Option(help="Make again what another version made.")] = False,
) -> None:
    """Make the tables of the documentation: results in docs/results, tables in docs/*.md, and pictures.

    Cells of tables that measure seconds run last, one at a time, and never on the cluster.
    """
    benchmarks = Benchmarks([_table(name) for name in only] if only else _default(list_), out, restart)
    if list_:
        left = [benchmarks.left(table) for table in benchmarks.tables]
        show(
            lambda terminal: terminal.print(table_of(_COLUMNS, [_line(one, docs) for one in left], ("table", "bench")))
        )
        note("* only if --only names it; CPU seconds are estimated from what the last run took")
        return
    failed = 0

    def tell(name: str, outcome: CellOutcome) -> None:
        nonlocal failed
        failed += bool(outcome.error)
        note(f"{name}: " + (outcome.error or f"{outcome.result['cpu_seconds']:.0f} CPU s"))

    def workers(cells: int) -> AbstractContextManager[Any]:
        return sharing_cores(WORK, cells, number) if ray is None else ClusterWorkers(WORK, ray, number)

    try:
        benchmarks.run(workers, tell)
    finally:
        for path in [*benchmarks.write(docs), *draw_pictures(benchmarks.complete(), docs / "images")]:
            note(f"{path} is new")
    if failed:
        raise typer.Exit(ExitStatus.NO)


_COLUMNS = ("table", "cells", "done", "CPU s left", "bench")


def _default(everything: bool) -> list[BenchTable]:
    return [table for table in TABLES if everything or table.by_default]


def _table(name: str) -> BenchTable:
    table = table_named(name)
    if table is None:
        raise MemplanError(f"--only {name}: no such table; there are: {', '.join(table.name for table in TABLES)}")
    return table


def _line(left: Left, docs: Path) -> list[str]:
    table, seconds = left.table, left.estimate(docs)
    return [
        f"{table.name}{'' if table.by_default else ' *'}",
        f"{left.done + len(left.cells):,}",
        f"{left.done:,}",
        "?" if seconds is None else f"{seconds:,.0f}",
        " ".join(text for text in table.arguments if text != "--markdown"),
    ]


def application(arguments: Sequence[str]) -> typer.Typer:
    """Returns the command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("run_benchmarks")(command)
    return app


if __name__ == "__main__":
    sys.exit(main(build=application))
