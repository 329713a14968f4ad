"""`memplan bench packing`: how low, and how fast, `planners/offsets` packs.

Three kinds of rows: the shipped instances, which are to fit a capacity; what the shipped dumps give, whose height is
minimized (all buffers of the slow memory by their live ranges, and what a plan keeps in the fast memory); and made-up
training steps and live ranges in large numbers. Sizes from dumps are rounded up to the alignment of their memory.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from memplan import pipeline
from memplan.cli.arguments import EffortName, JsonFile, Markdown, Resume, TimeLimit
from memplan.cli.bench.results import Results
from memplan.cli.bench.rows import markdown_of, table_of
from memplan.cli.console import Stages, show, write
from memplan.cli.outputs import check_file
from memplan.cli.references import reference_planners
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.guess import guessed_target
from memplan.compiler.mapping.problem import MappingProblem
from memplan.fleet import dump_name
from memplan.planners.offsets.csv_file import read_instance
from memplan.planners.offsets.heuristics import greedy_by_size
from memplan.planners.offsets.instance import Instance, Integers
from memplan.planners.offsets.pack import Packing, pack
from memplan.planners.offsets.preparation import prepare
from memplan.planners.offsets.training_steps import training_step

# Blocks of the made-up training steps and of the made-up live ranges.
_TRAINING, _SYNTHETIC = (800, 5_000, 20_000, 62_000, 100_000), (5_000, 100_000)

# First fit by size takes minutes for more blocks, and is left out.
_MOST_GREEDY = 20_000

# The effort, and a time limit in seconds.
Limits = tuple[Effort, float | None]

# A height that is this much above the maximum load is printed as 1.000 and counts as such.
_TOLERANCE = 0.0005


def command(
    instances: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Pack only this instance (repeatable); a name like x.1024.csv says its capacity.",
        ),
    ] = None,
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
    markdown: Markdown = False,
    json_file: JsonFile = None,
    resume: Resume = False,
) -> None:
    """Heights and seconds of offset allocation.

    By default the shipped instances, the live ranges of all shipped dumps, and made-up ones in large numbers.
    """
    check_file(json_file)
    setting = {"effort": effort.value, "time_limit": time_limit}
    results = Results("packing", json_file, setting, summarize, resume)
    _warm_up()
    parts = list(_parts(instances, (effort, time_limit)))
    with Stages(total=len(parts)) as stages:
        for name, rows in parts:
            with stages.stage(name):
                if not results.has(of=name):
                    results.add({"of": name, **row} for row in rows)
    summary = summarize(results.rows)
    if markdown:
        write(markdown_table(results.rows, summary))
    else:
        show(lambda terminal: terminal.print(_table(results.rows, summary)))


def _parts(instances: list[Path] | None, limits: Limits) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """Yields what the bench packs: the name of each file or made-up instance, and its rows when they are asked for."""
    for file in instances or _shipped():
        yield file.name, _instance_rows(file, limits)
    if instances:
        return
    for dump in _dumps():
        yield dump_name(dump), _dump_rows(dump, limits)
    for kind, name, make in _made():
        yield name, _made_rows(kind, name, make, limits)


def _warm_up() -> None:
    """Compiles what numba compiles, so that no row pays for it."""
    prepare()
    greedy_by_size(Instance.of([0], [1], [1]))


def _shipped() -> list[Path]:
    from memplan import workloads

    folder = workloads.dumps_folder().parent / "packing"
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise MemplanError(f"no instance is shipped in {folder}: name some with --instances")
    return files


def _dumps() -> list[Path]:
    from memplan import workloads

    return sorted(workloads.dumps_folder().glob("*.gz"))


def capacity_of(file: Path) -> int | None:
    """Returns the capacity in the name of a file, as in `A.1048576.csv`; None if there is none."""
    match = re.fullmatch(r".*\.([0-9]{1,18})\.csv", file.name)
    return int(match[1]) if match else None


def _instance_rows(file: Path, limits: Limits) -> Iterator[dict[str, Any]]:
    table = read_instance(file)
    capacity = capacity_of(file)
    if capacity is not None:
        table.check_capacity(capacity)
    yield _row("instance", file.name, table.instance, capacity, limits)


def _dump_rows(file: Path, limits: Limits) -> Iterator[dict[str, Any]]:
    graph = read(file)
    problem = pipeline.problem(graph, guessed_target(graph))
    yield _row("live ranges", f"{dump_name(file)} slow", slow_buffers(problem), None, limits)
    if len(problem.spaces) > 1:
        carried = any(planner == "xla" for _, planner in reference_planners(problem))
        residents = residencies(problem, "xla" if carried else "greedy", 1)
        if len(residents):
            yield _row("live ranges", f"{dump_name(file)} fast", residents, None, limits)


def slow_buffers(problem: MappingProblem) -> Instance:
    """Returns what the slow memory holds if every buffer lies there for all of its live range."""
    ranges = [(buffer.start, buffer.end, buffer.size) for buffer in problem.buffers if 0 in buffer.spaces]
    return _rounded(ranges, problem.spaces[0].alignment)


def residencies(problem: MappingProblem, planner: str, space: int) -> Instance:
    """Returns what a planner keeps in a memory space."""
    plan = pipeline.plan(problem, planner=planner)
    here = [residency for residency in plan.residencies if residency.space == space]
    ranges = [(residency.start, residency.end, problem.buffers[residency.buffer].size) for residency in here]
    return _rounded(ranges, problem.spaces[space].alignment)


def _rounded(ranges: list[tuple[int, int, int]], alignment: int) -> Instance:
    real = [(start, end, -(-size // alignment) * alignment) for start, end, size in ranges if start < end]
    lower, upper, size = np.array(real, np.int64).reshape(-1, 3).T
    return Instance.of(lower, upper, size, alignment=[alignment] * len(real))


def _made() -> Iterator[tuple[str, str, Callable[[], Instance]]]:
    """Yields kind, name and maker of each made-up instance."""
    for count in _TRAINING:
        yield "training step", f"training step, {count:,} blocks", partial(training_step, count)
    for count in _SYNTHETIC:
        yield "synthetic", f"{count:,} blocks", partial(synthetic, count)


def _made_rows(kind: str, name: str, make: Callable[[], Instance], limits: Limits) -> Iterator[dict[str, Any]]:
    yield _row(kind, name, make(), None, limits)


def synthetic(count: int) -> Instance:
    """Returns made-up live ranges: most are short, one in fifty spans any part of the time; sizes are log-normal."""
    draw = np.random.default_rng(0)
    lower: Integers = np.sort(draw.integers(0, 2 * count, count))
    short = np.maximum(1, draw.lognormal(3.0, 1.5, count).astype(np.int64))
    duration = np.where(draw.random(count) < 0.02, draw.integers(1, count, count), short)
    return Instance.of(lower, lower + duration, 512 * np.maximum(1, draw.lognormal(3.0, 2.0, count).astype(np.int64)))


def _row(kind: str, name: str, instance: Instance, capacity: int | None, limits: Limits) -> dict[str, Any]:
    greedy = greedy_by_size(instance) if len(instance) <= _MOST_GREEDY else None
    started = time.perf_counter()
    packing: Packing = pack(instance, capacity, *limits)
    seconds = time.perf_counter() - started
    load = max(packing.maximum_load, 1)
    return {
        "kind": kind,
        "name": name,
        "blocks": len(instance),
        "capacity": capacity,
        "maximum_load": packing.maximum_load,
        "lower_bound": packing.lower_bound,
        "greedy_height": greedy,
        "height": packing.height,
        "ratio_to_load": packing.height / load if len(instance) else 1.0,
        "status": packing.status.value,
        "method": packing.method,
        "seconds": seconds,
    }


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns for each kind of row how many there are, how many were answered, the share at the load, and seconds."""
    summary = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        summary[kind] = {
            "rows": len(own),
            "answered": sum(row["status"] != "not decided" for row in own),
            "share_at_load": sum(row["ratio_to_load"] < 1.0 + _TOLERANCE for row in own) / len(own),
            "worst_ratio_to_load": max(row["ratio_to_load"] for row in own),
            "seconds": sum(row["seconds"] for row in own),
            "most_seconds": max(row["seconds"] for row in own),
        }
    return summary


_COLUMNS = ("blocks", "load", "greedy by size", "height", "result", "seconds", "method")


def _cells(row: dict[str, Any]) -> list[str]:
    # What is to fit a capacity is compared with it, other heights with the maximum load.
    whole = max(row["capacity"] or row["maximum_load"], 1)
    return [
        f"{row['blocks']:,}",
        f"{row['maximum_load'] / whole:.3f}",
        "" if row["greedy_height"] is None else f"{row['greedy_height'] / whole:.3f}",
        f"{row['height'] / whole:.3f}",
        row["status"],
        f"{row['seconds']:.2f}",
        row["method"],
    ]


_ALL_COLUMNS = ("blocks of", *_COLUMNS)
_TEXT = ("blocks of", "result", "method")


def _totals(summary: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, total in summary.items():
        yield f"{total['rows']} {kind}{'s' * (kind == 'instance' and total['rows'] != 1)}", total


def _table(rows: list[dict[str, Any]], summary: dict[str, Any]) -> Table:
    table = table_of(_ALL_COLUMNS, [(row["name"], *_cells(row)) for row in rows], _TEXT)
    table.add_section()
    for name, total in _totals(summary):
        table.add_row(
            name, "", "", "", f"{total['worst_ratio_to_load']:.3f}", f"{total['answered']} answered",
            f"{total['seconds']:.2f}", f"at the load: {total['share_at_load']:.1%}", style="bold",
        )  # fmt: skip
    return table


def markdown_table(rows: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """Returns the rows and their totals in Markdown."""
    lines = [markdown_of(_ALL_COLUMNS, [(row["name"], *_cells(row)) for row in rows], _TEXT)]
    for name, total in _totals(summary):
        share = f"at the load: {total['share_at_load']:.1%}"
        lines.append(
            f"| {name} | | | | {total['worst_ratio_to_load']:.3f} | {total['answered']} answered "
            f"| {total['seconds']:.2f} | {share} |"
        )
    return "\n".join(lines)
