"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memplan.compiler.effort import Effort

# The same value as in `planners/planner.py`, which is too slow to import for a help text.
DEFAULT_PLANNER = "auto"

Dump = Annotated[
    Path,
    typer.Argument(
        metavar="DUMP",
        show_default=False,
        help="A program: HLO as text or proto (also gzipped), StableHLO, an artifact of jax.export, or .tflite; - for "
        "standard input.",
    ),
]
TripCounts = Annotated[
    list[str] | None,
    typer.Option(
        "--trip-count",
        metavar="NAME=N",
        show_default=False,
        help="How often the loop NAME runs, where the program does not say it. May be repeated; the report names the "
        "loops whose counts are assumed.",
    ),
]
Dims = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        metavar="NAME=N",
        show_default=False,
        help="The size of the dimension NAME, which the program leaves open. May be repeated.",
    ),
]
ProgramName = Annotated[
    str,
    typer.Argument(
        metavar="PROGRAM",
        show_default=False,
        help="A workload, or module:function, which takes nothing and returns (fun, args), a JAX function and its "
        "arguments.",
    ),
]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", show_default=False, help="A plan that --out wrote.")]
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="T",
        show_default=False,
        help="Name of a target, or a TOML file that describes one. Left out, it is what the program was compiled for.",
    ),
]
PlannerName = Annotated[
    str, typer.Option("--planner", "-p", metavar="P", help="The planner to use; see `memplan planners`.")
]
EffortName = Annotated[
    Effort,
    typer.Option(
        "--effort",
        help="How much work to do. The work is counted, so the result does not depend on the machine: `fast` is meant "
        "for seconds, `normal` for a minute, `high` for ten minutes.",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        metavar="S",
        show_default=False,
        help="Seconds after which the best result so far is taken. A guard: a result that it cut short may differ "
        "from machine to machine. Left out, there is none.",
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="DIR",
        show_default=False,
        help="Write the report to this folder: an interactive page (HTML), picture (PNG, SVG), trace for "
        "ui.perfetto.dev, tables (text, JSON).",
    ),
]
OpenPage = Annotated[
    bool,
    typer.Option("--open", help="Open the page of the report in a browser; without --report, from a temporary folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")]

# Of the benches.
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", show_default=False, help="Write the rows to this file as JSON.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the rows in the file of --json.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")]
WorkloadNames = Annotated[
    str | None,
    typer.Option(
        "--workloads",
        metavar="W,W,…",
        show_default=False,
        help="Names of workloads; by default those with a shipped dump.",
    ),
]
