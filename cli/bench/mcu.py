"""`memplan bench mcu`: int8 networks in the memory of a microcontroller, beside what is published.

Three tables in one: the ladder from float32 to a planned sparse update, the published update schemes, and inference.
Peak, arena, bound and flash are those of our planned programs; the arena is what an exported program declares. The
bound is proven for the steps as they are. Published figures are those of the authors of the networks, for their own
engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.cli.arguments import EffortName, JsonFile, Markdown
from memplan.cli.bench.results import write_bench
from memplan.cli.bench.rows import chosen_names, markdown_of, print_rows
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.cli.programs import prepare_jax
from memplan.compiler.effort import Effort

if TYPE_CHECKING:
    from memplan.cli.bench.mcu_programs import McuProgram

NETWORKS = ("mbv2", "proxyless", "mcunet")
KINDS = ("ladder", "scheme", "inference")
COLUMNS = ("network", "program", "peak", "arena", "proven bound", "flash", "paper's model", "published peak")
_TEXT = COLUMNS[:2]

Row = dict[str, Any]


ALL = ",".join(NETWORKS)
Networks = Annotated[str, typer.Option(metavar="N,N,…", help=f"Of {', '.join(NETWORKS)}.")]
Stripes = Annotated[int, typer.Option(metavar="N", help="Stripes of the first blocks.", min=1, max=32)]


def command(
    networks: Networks = ALL,
    kinds: Annotated[str, typer.Option(metavar="K,K,…", help=f"Tables: of {', '.join(KINDS)}.")] = ",".join(KINDS),
    stripes: Stripes = 32,
    effort: EffortName = Effort.NORMAL,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """Training and inference of int8 networks in the memory of a microcontroller.

    What is published stands beside.
    """
    check_file(json_file)
    names, wanted = chosen_names(networks, "--networks", NETWORKS), chosen_names(kinds, "--kinds", KINDS)
    prepare_jax()
    from memplan.cli.bench.mcu_programs import programs

    rows = rows_of(names, lambda name: programs(name, stripes, frozenset(wanted)), row_of, effort)
    print_rows(COLUMNS, [_cells(row) for row in rows], _TEXT, markdown=markdown)
    write_bench(json_file, "mcu", rows, summarize(rows))


def rows_of(
    names: Sequence[str],
    programs: Callable[[str], Iterable[McuProgram]],
    row_of: Callable[[McuProgram, Effort], Row],
    effort: Effort,
) -> list[Row]:
    """Returns the row of each program of each network, and shows which network is at work."""
    rows: list[Row] = []
    with Stages(total=len(names)) as stages:
        for name in names:
            with stages.stage(name):
                rows += [row_of(program, effort) for program in programs(name)]
    return rows


def row_of(program: McuProgram, effort: Effort) -> Row:
    """Plans a program, and returns bytes of peak, arena and flash beside what is published."""
    from memplan.passes.embedded.entry import embedded

    options = {"in_place": program.in_place, "reorder": program.reorder}
    plan = program.given_to(embedded, effort=effort, name=program.name, **options)
    return {
        "network": program.network,
        "kind": program.kind,
        "program": program.name,
        "peak": plan.peak,
        "arena": plan.arena,
        "bound": plan.bound,
        "flash": plan.program.flash,
        "steps": len(plan.order),
        "order": plan.method,
        "model": program.model_bytes,
        "published": program.published,
    }


def _cells(row: Row) -> list[str]:
    numbers = [row[name] for name in ("peak", "arena", "bound", "flash", "model", "published")]
    return [row["network"], row["program"], *("" if number is None else _kib(number) for number in numbers)]


def _kib(number: int) -> str:
    return f"{number / 1024:,.1f} KiB"


def markdown_table(rows: Sequence[Row]) -> str:
    """Returns the table of all rows in Markdown."""
    return markdown_of(COLUMNS, [_cells(row) for row in rows], _TEXT)


def summarize(rows: Sequence[Row]) -> Row:
    """Returns the largest arena of the planned training steps, and how many peaks are at most the published ones."""
    planned = [row["arena"] for row in rows if row["kind"] == "scheme"]
    published = [row for row in rows if row["published"] is not None]
    return {
        "largest_scheme_arena": max(planned, default=None),
        "published": len(published),
        "at_most_published": sum(row["peak"] <= row["published"] for row in published),
    }
