"""`memplan generate`: problems of random programs, for what learns or is tuned on many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.cli.arguments import AsJson

if TYPE_CHECKING:
    from rich.table import Table


def command(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", show_default=False, help="Write the problems and their manifest here."
        ),
    ],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many problems the folder is to hold.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of all random numbers.")] = 0,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=1024, show_default=False, help="How many work at once; by default one for each core."),
    ] = None,
    room: Annotated[
        bool,
        typer.Option(
            "--room",
            help="Measure by what part greedy's plan takes longer than that of search at effort normal. "
            "It takes about ten times as long as all else.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Generate problems of random programs.

    The programs are networks drawn from a grammar, traced and fused without a compiler. Each has a target of its own,
    whose fast memory is over-subscribed. A folder that holds some of the problems is completed.
    """
    import json as json_module

    from memplan.cli.console import Stages, note, show, write
    from memplan.cli.outputs import check_folder
    from memplan.cli.preparation import prepare_with
    from memplan.cli.programs import prepare_jax

    check_folder(out)
    prepare_jax()
    from memplan.planners import planner as planners
    from memplan.problem_folder import ROOM_PLANNER, fill, summarize

    with Stages(total=count + room, quiet=json) as stages:
        if room:
            prepare_with(planners.get(ROOM_PLANNER).prepare, stages)

        def tell(row: dict[str, Any]) -> None:
            with stages.stage(row["name"]):
                pass

        rows = fill(out, count, seed, processes or planners.num_cores(), room, tell)
    summary = summarize(rows)
    if json:
        write(json_module.dumps(summary, indent=2))
    else:
        show(lambda terminal: terminal.print(table_of_families(summary)))
        note(f"{len(rows):,} problems are in {out}")


def table_of_families(summary: dict[str, Any]) -> Table:
    """Returns the table of what `summarize` returns."""
    from memplan.cli.bench.rows import table_of

    has_room = any("with_room" in figures for figures in summary.values())
    columns = ["family", "split", "problems", "rejected", "operations", "buffers", "over-subscribed", "CPU s"]
    lines = []
    for family, found in summary.items():
        line = [
            family,
            found["split"],
            *(f"{found[key]:,.0f}" for key in ("problems", "rejected", "operations", "buffers")),
        ]
        line += [f"{found[key]:.1f}" for key in ("oversubscription", "cpu_seconds")]
        if has_room:
            line += [f"{100 * ratio:.1f} %" for ratio in (found["with_room"], *found["room_quartiles"])]
            line.append(f"{found['room_cpu_seconds']:.1f}")
        lines.append(line)
    columns += ["over 1 %", "room, a quarter", "half", "three quarters", "CPU s"] if has_room else []
    return table_of(columns, lines, ("family", "split"))
