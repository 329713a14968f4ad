"""`memplan bench mapping`: what each planner makes of each dump, beside XLA's own plan and the bound.

All plans are scored by the same emulator, and checked by `verify`. The bound is the best that any of the planners
proved. The row's `seconds` and `cpu_seconds` are those of the planner alone; the latter count its processes as well.

`--contended` adds problems whose fast memory is over-subscribed several times. Their bound is their optimum, which is
known by their construction.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from memplan import pipeline
from memplan.cli.arguments import EffortName, JsonFile, Markdown, Resume, TimeLimit
from memplan.cli.bench.results import Results
from memplan.cli.bench.rows import positive_integers
from memplan.cli.console import Stages, note, show, write
from memplan.cli.outputs import check_file
from memplan.cli.references import reference_planners
from memplan.compiler.cpu_time import cpu_seconds
from memplan.compiler.effort import Effort
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.guess import guessed_target
from memplan.compiler.mapping.contended import placement_problem, prefetch_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.compiler.report.units import print_percent, print_seconds, ratio
from memplan.fleet import dump_name
from memplan.planners import planner as planner_registry

# The planner that states what the dump's own compiler did.
OWN = "xla"

# A plan with no larger gap to the bound counts as proven to be the best.
OPTIMAL = 1e-4

# The kinds of contended problems: what makes them, and whether with loops.
_CONTENDED = tuple((make, in_loops) for make in (placement_problem, prefetch_problem) for in_loops in (False, True))


def command(
    dumps: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", show_default=False, help="Plan this dump (repeatable). By default all shipped."),
    ] = None,
    contended: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…",
            show_default=False,
            help="Plan contended problems of so many operations, whose optimum is known. Dumps are planned only if "
            "they are named.",
        ),
    ] = None,
    ratio: Annotated[
        int,
        typer.Option(min=1, max=64, help="How often the buffers of a contended problem would fill its fast memory."),
    ] = 4,
    planners: Annotated[
        str, typer.Option(metavar="P,P,…", help="Planners to compare; see `memplan planners`.")
    ] = "slow,xla,greedy,auto",
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
    markdown: Markdown = False,
    json_file: JsonFile = None,
    resume: Resume = False,
) -> None:
    """Latency of each planner on each dump.

    All plans are scored by the same emulator, beside XLA's own and the bound, and checked.
    """
    check_file(json_file)
    names = list(dict.fromkeys(name.strip() for name in planners.split(",")))
    for name in names:
        planner_registry.get(name)
    sizes = positive_integers(contended, "--contended") if contended is not None else []
    files = dumps or ([] if sizes else _shipped())
    setting = {"planners": names, "effort": effort.value, "time_limit": time_limit}
    results = Results("mapping", json_file, setting, summarize, resume)
    with Stages(total=len(files) + len(sizes) * len(_CONTENDED)) as stages:
        for file in files:
            with stages.stage(dump_name(file)):
                if not results.has(dump=dump_name(file)):
                    results.add(_rows(file, names, effort, time_limit))
        for size in sizes:
            for make, in_loops in _CONTENDED:
                with stages.stage(f"a contended problem of {size:,} operations"):
                    made = make(size, ratio, in_loops)
                    if not results.has(dump=made.problem.name):
                        results.add(_rows_of(made.problem, made.problem.name, names, effort, time_limit, made.optimum))
    if markdown:
        write(markdown_table(results.rows))
    else:
        show(lambda terminal: terminal.print(_table(results.rows, summarize(results.rows))))


def _shipped() -> list[Path]:
    from memplan import workloads

    files = sorted(workloads.dumps_folder().glob("*.gz"))
    if not files:
        raise MemplanError(f"no dump is shipped in {workloads.dumps_folder()}: name some with --dumps")
    return files


@dataclass(frozen=True, slots=True)
class _Made:
    """What a planner made of a problem: its plan, in how many seconds and `cpu` seconds, and the plan's latency."""

    plan: Plan
    seconds: float
    cpu: float
    latency: float


def _make(emulator: TimingEmulator, planner: str, effort: Effort, time_limit: float | None) -> _Made:
    started, cpu = time.perf_counter(), cpu_seconds()
    plan = pipeline.plan(emulator.problem, planner=planner, effort=effort, time_limit=time_limit)
    return _Made(plan, time.perf_counter() - started, cpu_seconds() - cpu, emulator.latency(plan))


def _rows(
    file: Path, names: list[str], effort: Effort = Effort.NORMAL, time_limit: float | None = None
) -> Iterator[dict[str, Any]]:
    graph = read(file)
    return _rows_of(pipeline.problem(graph, guessed_target(graph)), dump_name(file), names, effort, time_limit)


def _rows_of(
    problem: MappingProblem,
    name_of_problem: str,
    names: list[str],
    effort: Effort,
    time_limit: float | None,
    known_bound: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Yields the rows of a problem; `known_bound` in seconds is a bound on its latency."""
    emulator = TimingEmulator(problem)
    carried = {planner for _, planner in reference_planners(problem)}
    own = _make(emulator, OWN, effort, time_limit) if OWN in carried else None
    found = {name: own if name == OWN else _make(emulator, name, effort, time_limit) for name in names}
    least = [emulator.lower_bound(), known_bound]
    bound, checked = (
        max([*least, *(made.plan.info.get(key, 0.0) for made in found.values() if made)])
        for key in ("bound", "bound_checked")
    )
    for name, made in found.items():
        if made is None:
            continue
        failed = made.plan.info.get("failed", {})
        for member, error in failed.items():
            note(f"{name_of_problem}: {name} did without {member}: {error}")
        yield {
            "dump": name_of_problem,
            "target": problem.target,
            "operations": problem.end,
            "buffers": len(problem.buffers),
            "planner": name,
            "latency": made.latency,
            "ratio_to_xla": None if own is None else ratio(made.latency, own.latency),
            "bound": bound,
            "bound_checked": checked,
            "gap": made.latency / bound - 1 if bound > 0 else 0.0,
            "violations": len(verify(problem, made.plan)),
            "seconds": made.seconds,
            "cpu_seconds": made.cpu,
            "failed": failed,
        }


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns per planner the geometric mean and the worst of its latency over that of XLA's own plan, and more."""
    summary = {}
    for planner in dict.fromkeys(row["planner"] for row in rows):
        own = [row for row in rows if row["planner"] == planner]
        ratios = [row["ratio_to_xla"] for row in own if row["ratio_to_xla"] is not None]
        summary[planner] = {
            "dumps": len(own),
            "mean_ratio_to_xla": statistics.geometric_mean(ratios) if ratios else None,
            "worst_ratio_to_xla": max(ratios, default=None),
            "mean_gap": sum(row["gap"] for row in own) / len(own),
            "median_gap": statistics.median(row["gap"] for row in own),
            "optimal": sum(row["gap"] <= OPTIMAL for row in own),
            "violations": sum(row["violations"] for row in own),
            # Plans that were made without some of the planner's members.
            "without_members": sum(bool(row["failed"]) for row in own),
            "worst_gap": max(row["gap"] for row in own),
            # By how much the bound is above what was checked exactly, and not only stated by an integer solver.
            "bounds_unchecked": sum(row["bound"] > row["bound_checked"] for row in own),
            "most_unchecked": max(row["bound"] / row["bound_checked"] - 1 if row["bound"] else 0.0 for row in own),
            "seconds": sum(row["seconds"] for row in own),
            "most_cpu_seconds": max(row["cpu_seconds"] for row in own),
        }
    return summary


def _table(rows: list[dict[str, Any]], summary: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("dump", "planner"):
        table.add_column(column, no_wrap=True)
    for column in ("operations", "latency", "to XLA's", "gap to bound", "violations", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    previous = ""
    for row in rows:
        table.add_row(
            row["dump"] if row["dump"] != previous else "",
            row["planner"],
            f"{row['operations']:,}",
            print_seconds(row["latency"]),
            _ratio(row["ratio_to_xla"]),
            print_percent(row["gap"]),
            f"{row['violations']:,}",
            f"{row['seconds']:.2f}",
        )
        previous = row["dump"]
    table.add_section()
    for planner, total in summary.items():
        dumps = f"{total['dumps']} dump{'s' * (total['dumps'] != 1)}"
        table.add_row(
            f"mean of {dumps}", planner, "", "", _ratio(total["mean_ratio_to_xla"]),
            f"{print_percent(total['median_gap'])} median", f"{total['violations']:,}", f"{total['seconds']:.2f}",
            style="bold",
        )  # fmt: skip
    return table


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Returns a table with one row per dump and one column of latencies per planner, in Markdown.

    Latencies that beat XLA's own plan for the same dump are bold. The gap to the bound is that of the last planner.
    """
    planners = list(dict.fromkeys(row["planner"] for row in rows))
    lines = [
        "| dump | operations | " + " | ".join(planners) + " | bound | gap |",
        "|---|---:|" + "---:|" * (len(planners) + 2),
    ]
    for dump in dict.fromkeys(row["dump"] for row in rows):
        found = {row["planner"]: row for row in rows if row["dump"] == dump}
        any_row = next(iter(found.values()))
        cells = [_markdown_cell(found[planner]) if planner in found else "–" for planner in planners]
        lines.append(
            f"| {dump} | {any_row['operations']:,} | {' | '.join(cells)} | {print_seconds(any_row['bound'])} "
            f"| {print_percent(found[planners[-1]]['gap']) if planners[-1] in found else '–'} |"
        )
    summaries = summarize(rows)
    means = [summary["mean_ratio_to_xla"] for summary in summaries.values()]
    cells = ["–" if mean is None else f"{mean:.3f}" for mean in means]
    median = print_percent(summaries[planners[-1]]["median_gap"])
    label = "median gap" if set(means) == {None} else "geometric mean, relative to XLA; median gap"
    lines.append(f"| {label} | | {' | '.join(cells)} | | {median} |")
    return "\n".join(lines)


def _markdown_cell(row: dict[str, Any]) -> str:
    text = print_seconds(row["latency"])
    if row["ratio_to_xla"] is not None and row["planner"] != OWN:
        text += f" ({row['ratio_to_xla']:.2f})"
        if row["ratio_to_xla"] < 1:
            text = f"**{text}**"
    return text
