"""`memplan bench fidelity`: how well the cost model foretells the compiler's own estimates.

The dumps hold every program twice, with and without a fast memory: the same instructions in other placements, each with
the compiler's estimate. The model is made to agree with one module and must foretell the other, instruction by
instruction, and summed up over the module. What instructions wait for copies is no matter of the cost model, and left
out on both sides.

Of instructions each direction is told by itself: all that leaves a fast memory takes longer, all that enters one takes
less, so both at once would correlate well by their signs alone, and their errors in total would cancel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
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
from memplan.compiler.ir.opcodes import ASYNCHRONOUS_COPIES
from memplan.compiler.mapping.build import build

VARIANTS = ("default", "slow")

# Copies that go on beside instructions: `emulator/score.py` has them on their links, not among what is busy.
_LEFT_OUT = frozenset(f"{copy}-{end}" for copy in ASYNCHRONOUS_COPIES for end in ("start", "done"))

Pairs = list[tuple[Observation, Observation]]
Row = dict[str, Any]


def command(targets: str | None, markdown: bool, json_file: Path | None) -> None:
    """Reads all pairs of dumps, prints the table, writes the rows."""
    check_file(json_file)
    programs = _programs(targets)
    rows: list[Row] = []
    pairs: dict[str, tuple[Pairs, Pairs]] = {}
    with Stages(total=len(programs)) as stages:
        for name, target_name, files in programs:
            with stages.stage(f"{name} for {target_name}"):
                target = load_target(target_name)
                first, second = (read(file) for file in files)
                seen = observe(first, target), observe(second, target)
                directions = pairs.setdefault(target_name, ([], []))
                directions[0].extend(pairs_of(*seen))
                directions[1].extend(pairs_of(*seen[::-1]))
                rows.extend(module_rows(name, target, (first, second)))
    summary = {
        target: summarize([row for row in rows if row["target"] == target], pairs[target], load_target(target))
        for target in pairs
    }
    if markdown:
        write("\n\n".join(_markdown(columns, lines) for columns, lines in _tables(summary)))
    else:
        show(lambda terminal: terminal.print(Group(*_printed(summary))))
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

    An access that the other module has not stays where it is. Asynchronous copies that `build` could not take out of
    the program, such as a prefetch of a part of a buffer, are left out as `score` leaves them out: they are copies of
    the one module only.
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
        if operation.opcode not in _LEFT_OUT
    )


def summarize(rows: Sequence[Row], pairs: tuple[Pairs, Pairs], target: Target) -> Row:
    """Returns what `fidelity.Fidelity` has of the instructions in each direction, and the errors of modules.

    Args:
      rows: of one target, from `module_rows`.
      pairs: instructions of all its programs, by the variant that the model agrees with.
      target: itself.
    """
    errors = sorted((abs(row["foretold"] / row["stated"] - 1.0), row["program"], row["from"]) for row in rows)
    return {
        "instructions": {
            variant: asdict(fidelity(ordered, target)) for variant, ordered in zip(VARIANTS, pairs, strict=True)
        },
        "modules": {
            "pairs": len({row["program"] for row in rows}),
            "median": errors[len(errors) // 2][0],
            "worst": errors[-1][0],
            "worst_program": errors[-1][1],
            "worst_from": errors[-1][2],
        },
    }


Cells = tuple[str, ...]

_INSTRUCTIONS = ("target", "foretold", "instructions", "median", "95 %", "total", "rank correlation")
_MODULES = ("target", "pairs", "median", "worst", "which is")


def _tables(summary: dict[str, Row]) -> Iterator[tuple[Cells, list[Cells]]]:
    """Yields columns and lines of the table of instructions and of that of modules."""
    yield (
        _INSTRUCTIONS,
        [
            (
                target,
                _direction(variant),
                f"{found['count']:,}",
                f"{found['median'] * 100:.1f} %",
                f"{found['high'] * 100:.0f} %",
                f"{found['total']:.3f}",
                f"{found['rank_correlation']:.3f}",
            )
            for target, values in summary.items()
            for variant, found in values["instructions"].items()
        ],
    )
    yield (
        _MODULES,
        [
            (
                target,
                str(found["pairs"]),
                f"{found['median'] * 100:.1f} %",
                f"{found['worst'] * 100:.1f} %",
                f"{found['worst_program']}, {_direction(found['worst_from'])}",
            )
            for target, values in summary.items()
            for found in (values["modules"],)
        ],
    )


def _direction(variant: str) -> str:
    """Returns what is foretold from what.

    >>> _direction("slow")
    'slow to default'
    """
    return f"{variant} to {VARIANTS[1 - VARIANTS.index(variant)]}"


_TEXT_COLUMNS = frozenset({"target", "foretold", "which is"})


def _table(columns: Cells, lines: list[Cells]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in _TEXT_COLUMNS else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def _printed(summary: dict[str, Row]) -> Iterator[Table | str]:
    """Yields the tables, with an empty line between them."""
    for number, (columns, lines) in enumerate(_tables(summary)):
        if number:
            yield ""
        yield _table(columns, lines)


def _markdown(columns: Cells, lines: list[Cells]) -> str:
    rule = "".join("---|" if column in _TEXT_COLUMNS else "---:|" for column in columns)
    return "\n".join([f"| {' | '.join(columns)} |", f"|{rule}", *(f"| {' | '.join(line)} |" for line in lines)])
