"""`memplan bench sharded`: programs of 2, 4 and 8 devices with our plans, beside the default of XLA:TPU.

The module of one partition is planned, and collectives are costed alike for all candidates (docs/tpu.md). Rows are
written as they come, as those of `memplan bench tpu`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from memplan.backends.jit.planning import TpuProgram
from memplan.backends.tpu.compile import TpuCompiler
from memplan.cli.arguments import EffortName, JsonFile, Markdown, PlannerName, Resume, TimeLimit
from memplan.cli.bench.results import Results
from memplan.cli.bench.rows import chosen_names, markdown_of, print_rows
from memplan.cli.bench.tpu import Search, summarize_ratios, targets_in
from memplan.cli.compile import in_short
from memplan.cli.console import Stages, note, write
from memplan.cli.outputs import check_file
from memplan.cli.programs import Program, prepare_jax, tpu_program
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target

Row = dict[str, Any]

_COLUMNS = ("program", "divided", "devices", "target", "default cycles", "our cycles", "ratio", "best", "compiles")
_TEXT = ("program", "divided", "target", "best")


def command(
    targets: Annotated[str, typer.Option(metavar="T,T,…", help="TPUs to compile for.")] = "tpu-v5e",
    programs: Annotated[
        str | None,
        typer.Option(
            metavar="P,P,…", show_default=False, help="Programs of memplan.workloads.sharded; all by default."
        ),
    ] = None,
    planner: PlannerName = "auto",
    compile_budget: Annotated[int, typer.Option(metavar="N", help="How many compiles may be made of each.")] = 4,
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
    markdown: Markdown = False,
    json_file: JsonFile = None,
    resume: Resume = False,
) -> None:
    """Latency of programs of several TPU devices with our plans, beside XLA's default.

    Needs libtpu, no TPU. What was compiled once is kept.
    """
    check_file(json_file)
    prepare_jax()
    from memplan.workloads import sharded

    described = targets_in(targets, planner, compile_budget, time_limit)
    names = chosen_names(programs, "--programs", [each.name for each in sharded.PROGRAMS])
    with TpuCompiler() as compiler, Stages(total=len(names) * len(described)) as stages:
        search = Search(planner, compile_budget, effort, time_limit, compiler)
        results = Results("sharded", json_file, search.setting, summarize, resume)
        for name in names:
            made = sharded.program(name)
            assert made is not None
            for target in described:
                with stages.stage(f"{name} for {target.name}"):
                    if results.has(workload=name, target=target.name):
                        continue
                    started = time.perf_counter()
                    row = search.row(name, _lowered(made, target), target)
                    row |= {"divided": made.parallelism, "devices": made.devices}
                    row["seconds"] = time.perf_counter() - started
                    results.add([row])
                told = row["error"] if "error" in row else f"{row['ratio']:.4f} of the default, by {row['best']}"
                note(f"{name} for {target.name}: {told}, {row['seconds']:.0f} s")
    if markdown:
        write(markdown_table(results.rows))
    else:
        print_rows(_COLUMNS, _lines(results.rows), _TEXT, markdown=False)
        write("")
        write(_means(results.rows))


def _lowered(made: Any, target: Target) -> TpuProgram | MemplanError:
    mesh = made.mesh()
    fun, args = made.build(mesh)
    try:
        return tpu_program(Program(made.name, fun, args, made.donate_argnums, mesh), target)
    except MemplanError as error:
        return error


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns how many are better and by how much: by the number of devices, and for all."""
    done = [row for row in rows if "error" not in row]
    groups: dict[str, list[Row]] = {}
    for row in done:
        groups.setdefault(f"{row['devices']} devices", []).append(row)
    return {name: summarize_ratios(group) for name, group in [*sorted(groups.items()), ("all", done)]}


def markdown_table(rows: Sequence[Row]) -> str:
    """Returns the rows as a table in Markdown, and the means below it."""
    return f"{markdown_of(_COLUMNS, _lines(rows), _TEXT)}\n\n{_means(rows)}"


def _means(rows: Sequence[Row]) -> str:
    found = summarize(rows)
    parts = [
        f"{name} {part['mean_ratio']:.3f} ({part['better']} of {part['programs']} better)"
        for name, part in found.items()
        if part["programs"]
    ]
    return f"Geometric means of the ratios: {', '.join(parts)}; the worst is {found['all']['worst_ratio'] or 1.0:.3f}."


def _lines(rows: Sequence[Row]) -> list[list[str]]:
    lines = []
    for row in rows:
        first = [row["workload"], row["divided"], str(row["devices"]), row["target"]]
        if "error" in row:
            lines.append([*first, "", "", "", in_short(row["error"]), ""])
            continue
        cycles = [f"{row[key]:,.0f}" for key in ("default_cycles", "cycles")]
        lines.append([*first, *cycles, f"{row['ratio']:.3f}", row["best"], str(row["compiles"])])
    return lines
