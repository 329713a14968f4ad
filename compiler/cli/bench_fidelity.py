"""`memplan bench fidelity`: how well the cost model foretells the compiler's own estimates.

The dumps hold every program twice, with and without a fast memory: the same instructions in other placements, each with
the compiler's estimate. The model is made to agree with one module and must foretell the other, instruction by
instruction, and summed up over the module. What instructions wait for copies is no matter of the cost model, and left
out on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from memplan.compiler.backends.tpu.decisions import Placement
from memplan.compiler.backends.tpu.steering import sites
from memplan.compiler.cli.bench_rows import write_bench
from memplan.compiler.cli.console import Stages, show, write
from memplan.compiler.cli.outputs import check_file
from memplan.compiler.emulator.score import score
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.fidelity import Observation, fidelity, observe, pairs_of
from memplan.compiler.hardware.target import Target, load_target
from memplan.compiler.ir import Graph
from memplan.compiler.mapping.build import build

VARIANTS = ("default", "slow")

Pairs = list[tuple[Observation, Observation]]
Row = dict[str, Any]


def command(targets: str | None, markdown: bool, json_file: Path | None) -> None:
    """Reads all pairs of dumps, prints the table, writes the rows."""
    check_file(json_file)
    programs = _programs(targets)
    rows: list[Row] = []
    pairs: dict[str, Pairs] = {}
    with Stages(total=len(programs)) as stages:
        for name, target_name, files in programs:
            with stages.stage(f"{name} for {target_name}"):
                target = load_target(target_name)
                first, second = (read(file) for file in files)
                seen = observe(first, target), observe(second, target)
                pairs.setdefault(target_name, []).extend(pairs_of(*seen) + pairs_of(*seen[::-1]))
                rows.extend(module_rows(name, target, (first, second)))
    summary = {
        target: summarize([row for row in rows if row["target"] == target], pairs[target], load_target(target))
        for target in pairs
    }
    if markdown:
        write(_markdown(summary))
    else:
        show(lambda terminal: terminal.print(_table(summary)))
    write_bench(json_file, "fidelity", rows, summary)


def _programs(targets: str | None) -> list[tuple[str, str, tuple[Path, Path]]]:
    """Returns program, target and files of all pairs of dumps, for the targets asked for."""
    from memplan import workloads

    folder = workloads.dumps_folder()
    wanted = None if targets is None else [load_target(name.strip()).name for name in targets.split(",")]
    found = []
    for file in sorted(folder.glob(f"*.{VARIANTS[0]}.hlo.txt.gz")):
        name, target, *_ = file.name.split(".")
        other = folder / file.name.replace(f".{VARIANTS[0]}.", f".{VARIANTS[1]}.")
        if other.exists() and (wanted is None or target in wanted):
            found.append((name, target, (file, other)))
    if not found:
        raise MemplanError(f"no pair of dumps is shipped for {targets}")
    return found


def module_rows(name: str, target: Target, modules: tuple[Graph, Graph]) -> Iterator[Row]:
    """Yields, in both directions, what one module's model foretells for the placement of the other, in seconds."""
    for number, graph in enumerate(modules):
        other = modules[1 - number]
        stated = score(other, target).busy
        yield {
            "program": name,
            "target": target.name,
            "from": VARIANTS[number],
            "to": VARIANTS[1 - number],
            "stated": stated,
            "foretold": foretold_busy(graph, other, target),
        }


def foretold_busy(graph: Graph, other: Graph, target: Target) -> float:
    """Returns the seconds that instructions take by a module's model, in the placement of another of its program.

    An access that the other module has not stays where it is.
    """
    built = build(graph, target)
    problem, given = built.problem, built.problem.given
    assert given is not None
    placement = Placement(other, target)
    spaces = []
    for site, residency in zip(sites(built), given.served, strict=True):
        found = placement.of(site)
        spaces.append(found.space if found and found.space >= 0 else given.residencies[residency].space)
    starts = problem.access_start
    return sum(
        operation.duration(spaces[starts[t] : starts[t + 1]]) * problem.runs_at(t)
        for t, operation in enumerate(problem.operations)
    )


def summarize(rows: Sequence[Row], pairs: Pairs, target: Target) -> Row:
    """Returns what `fidelity.Fidelity` has of the instructions, and the errors of modules."""
    errors = sorted(abs(row["foretold"] / row["stated"] - 1.0) for row in rows)
    return {
        **asdict(fidelity(pairs, target)),
        "modules": len(errors),
        "median_of_modules": errors[len(errors) // 2],
        "worst_of_modules": errors[-1],
    }


_COLUMNS = ("instructions", "median", "95 %", "total", "rank correlation", "modules", "median", "worst")


def _cells(values: Row) -> tuple[str, ...]:
    return (
        f"{values['count']:,}",
        f"{values['median'] * 100:.1f} %",
        f"{values['high'] * 100:.0f} %",
        f"{values['total']:.3f}",
        f"{values['rank_correlation']:.3f}",
        str(values["modules"]),
        f"{values['median_of_modules'] * 100:.1f} %",
        f"{values['worst_of_modules'] * 100:.1f} %",
    )


def _table(summary: dict[str, Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("target", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for target, values in summary.items():
        table.add_row(target, *_cells(values))
    return table


def _markdown(summary: dict[str, Row]) -> str:
    lines = [f"| target | {' | '.join(_COLUMNS)} |", f"|---|{'---:|' * len(_COLUMNS)}"]
    lines += [f"| {target} | {' | '.join(_cells(values))} |" for target, values in summary.items()]
    return "\n".join(lines)
