"""`memplan fleet`: a plan for each of many dumps, by many processes or on a Ray cluster."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.cli.arguments import DEFAULT_PLANNER, AsJson, EffortName, PlannerName, TargetName, TimeLimit
from memplan.compiler.effort import Effort, check_time_limit

if TYPE_CHECKING:
    from rich.table import Table

    from memplan.fleet import Fleet


def command(
    dumps: Annotated[
        list[Path],
        typer.Argument(
            metavar="DUMP…",
            show_default=False,
            help="Programs as `memplan plan` reads them, or problems as `memplan generate` writes them.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            show_default=False,
            help="Write plans and a summary here. What the folder holds is not planned again.",
        ),
    ],
    target: TargetName = None,
    planner: PlannerName = DEFAULT_PLANNER,
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=1024, show_default=False, help="How many work at once; by default one for each core."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            show_default=False,
            help="Plan on a Ray cluster: `local` starts one here, `auto` finds the one that this machine belongs to, "
            "and ray://HOST:PORT names one. Needs the extra `ray`, and memplan on all machines of the cluster.",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Plan many programs, each once, on many processes.

    Each plan is the same as that of `memplan plan`. A program that cannot be planned is a row with its error, and the
    exit status is 1 then. An interrupted run leaves what it has planned, and the same command goes on with the rest.
    """
    check_time_limit(time_limit)
    from memplan.cli.console import Stages, note
    from memplan.cli.outputs import check_folder
    from memplan.cli.preparation import prepare_with
    from memplan.compiler.hardware.target import load_target
    from memplan.fleet import Fleet, FleetOptions
    from memplan.planners import planner as planners

    check_folder(out)
    described = None if target is None else load_target(target)
    maker = planners.get(planner)
    fleet = Fleet(dumps, out, FleetOptions(described, planner, effort, time_limit))
    with Stages(total=1 + fleet.num_left, quiet=json) as stages:
        if fleet.num_left:
            prepare_with(maker.prepare, stages)  # Workers find in the cache what this compiles.

        def tell(row: dict[str, Any]) -> None:
            with stages.stage(row["dump"]):
                if "error" in row:
                    note(_failure(row))

        def tell_lost(dump: str, reason: str) -> None:
            note(f"{dump}: {reason}; it is planned again")

        try:
            if fleet.num_left:
                with _workers(fleet, processes, ray) as workers:
                    fleet.run(workers, tell, tell_lost)
            else:
                fleet.write()
        except KeyboardInterrupt:
            note(f"{len(fleet.rows):,} dumps are done, {fleet.num_left:,} are left: the same command goes on")
            raise
    _print(fleet, json)


def _print(fleet: Fleet, as_json: bool) -> None:
    """Prints what became of the dumps; ends the command if one failed."""
    from memplan.cli.console import note, show, write, write_line
    from memplan.cli.exit_status import ExitStatus
    from memplan.fleet import summarize

    rows = fleet.ordered()
    summary = summarize(rows)
    if as_json:
        write(json_module.dumps({"rows": rows, "summary": summary}, indent=2))
    else:
        show(lambda terminal: terminal.print(table_of_fleet(rows, summary)))
        for row in rows:
            if "error" in row:
                write_line(_failure(row))
        note(f"plans and summary.json are in {fleet.out}")
    if summary["failed"]:
        raise typer.Exit(ExitStatus.NO)


def _workers(fleet: Fleet, processes: int | None, ray: str | None) -> AbstractContextManager[Any]:
    from memplan.fleet import WORK

    if ray is not None:
        from memplan.cell_cluster import ClusterWorkers

        return ClusterWorkers(WORK, ray, processes)
    from memplan.cell_processes import sharing_cores

    return sharing_cores(WORK, fleet.num_left, processes)


def _failure(row: dict[str, Any]) -> str:
    """Returns the line for a dump that failed; most errors name it."""
    return row["error"] if row["dump"] in row["error"] else f"{row['dump']}: {row['error']}"


def table_of_fleet(rows: Sequence[dict[str, Any]], summary: dict[str, Any]) -> Table:
    """Returns the table of the dumps that were planned."""
    from collections import Counter

    from memplan.cli.bench.rows import table_of
    from memplan.compiler.printable import printable
    from memplan.compiler.report.units import print_percent, print_seconds, ratio
    from memplan.fleet import dump_name

    columns = ["dump", "target", "operations", "latency", "to XLA's", "gap to bound", "CPU s"]
    labels = {row["dump"]: dump_name(Path(row["dump"])) for row in rows}
    count = Counter(labels.values())
    lines = [
        [
            printable(row["dump"] if count[labels[row["dump"]]] > 1 else labels[row["dump"]]),
            printable(row["target"]),
            f"{row['operations']:,}",
            print_seconds(row["latency"]),
            "" if row["xla"] is None else f"{ratio(row['latency'], row['xla']):.3f}",
            print_percent(row["gap"]),
            f"{row['cpu_seconds']:.1f}",
        ]
        for row in rows
        if "error" not in row
    ]
    mean = summary["mean_ratio_to_xla"]
    total = [f"{summary['planned']:,} planned, {summary['failed']:,} failed", "", "", ""]
    total += ["" if mean is None else f"{mean:.3f}", "", f"{summary['cpu_seconds']:.1f}"]
    return table_of(columns, [*lines, total], ("dump", "target"))
