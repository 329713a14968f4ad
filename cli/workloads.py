"""`memplan workloads`: the programs that are known, and how large they are."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.cli.arguments import AsJson

if TYPE_CHECKING:
    from memplan.workloads import Workload


class WorkloadKind(StrEnum):
    """As `memplan.workloads.registry.Kind`."""

    INFERENCE = "inference"
    TRAINING = "training"


class WorkloadSplit(StrEnum):
    """As `memplan.workloads.Workload.split`."""

    DEVELOPMENT = "development"
    HELD_OUT = "held-out"


# What is known of a workload without tracing it.
_FIELDS = ("name", "description", "family", "kind", "split", "source")

_Family = Annotated[
    str | None, typer.Option("--family", metavar="F", show_default=False, help="Only those of a family.")
]


def command(
    family: _Family = None,
    kind: Annotated[
        WorkloadKind | None, typer.Option("--kind", show_default=False, help="Only those of a kind.")
    ] = None,
    split: Annotated[
        WorkloadSplit | None,
        typer.Option("--split", show_default=False, help="Only those that methods are tuned on, or judged on."),
    ] = None,
    sizes: Annotated[
        bool,
        typer.Option(
            "--sizes", help="Parameters, operations and bytes too; the first time traces each program, a second or so."
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """List the workloads that are known: programs to plan.

    With --sizes, operations and bytes are those of the traced program before any compiler fused it: loops count as
    often as they run, a multiply-add counts two, and each operation reads its operands and writes its result.
    """
    import json as json_module

    from memplan.cli.console import Stages, note, show, write
    from memplan.cli.programs import prepare_jax
    from memplan.compiler.errors import MemplanError

    prepare_jax()
    from memplan import workloads

    every = [workloads.get(name) for name in workloads.names()]
    if family is not None and family not in (families := sorted({each.family for each in every})):
        raise MemplanError(f"no workload is of family {family!r}; families: {', '.join(families)}")
    chosen = [
        each
        for each in every
        if family in (None, each.family) and kind in (None, each.kind) and split in (None, each.split)
    ]
    rows = [{field: getattr(each, field) for field in _FIELDS} for each in chosen]
    if sizes:
        with Stages(total=len(chosen), quiet=json) as stages:
            rows = [row | counted for row, counted in zip(rows, _sizes(chosen, stages), strict=True)]
    if json:
        write(json_module.dumps(rows, indent=2))
    else:
        show(lambda terminal: terminal.print(_table(rows, sizes)))
    if missing := workloads.left_out():
        note(f"{len(missing)} workloads are left out, made with other libraries: pip install 'memplan[zoo]'")


def _sizes(chosen: list[Workload], stages: Any) -> list[dict[str, float]]:
    """Returns the sizes of each workload; those of built-in ones are kept in the cache."""
    import json

    import jax

    from memplan.compiler.cache import Cache, sources_digest

    cache, entry = Cache(), "workloads.json"
    made_with = f"{sources_digest(('memplan.compiler', 'memplan.workloads'))} {jax.__version__}"
    kept = cache.load(entry, json.loads)
    known: dict[str, Any] = kept["sizes"] if kept and kept.get("made_with") == made_with else {}
    before = len(known)
    counted = []
    try:
        for each in chosen:
            with stages.stage(each.name):
                is_ours = each.build.__module__.startswith("memplan.")
                sizes = known.get(each.name) if is_ours else None
                sizes = sizes or sizes_of(each)
            if is_ours:
                known[each.name] = sizes
            counted.append(sizes)
    finally:  # Ctrl-C loses nothing that was counted.
        if len(known) > before:
            cache.store(entry, json.dumps({"made_with": made_with, "sizes": known}).encode())
    return counted


def sizes_of(workload: Workload) -> dict[str, float]:
    """Returns the numbers of parameters, of operations, and of bytes that operations read and write, of a workload."""
    import memplan
    from memplan.compiler.analysis.traffic import moved_bytes
    from memplan.compiler.hardware.work import WorkCounter
    from memplan.workloads.registry import num_parameters

    fun, args = workload.build()
    graph = memplan.trace(fun, *args, donate_argnums=workload.donate_argnums)
    work = WorkCounter(graph).body(graph.entry)
    return {
        "parameters": num_parameters((fun, args)),
        "flops": work.total_flops + work.transcendentals,
        "bytes": moved_bytes(graph),
    }


def _table(rows: list[dict[str, Any]], sizes: bool) -> Any:
    from rich.table import Table

    from memplan.compiler.report.units import print_bytes, print_count

    table = Table(box=None, pad_edge=False)
    printers = {"parameters": print_count, "flops": print_count, "bytes": print_bytes} if sizes else {}
    for column in ("workload", "family", "kind", "split", *printers, "source"):
        is_number = column in printers
        table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in rows:
        numbers = (printer(row[column]) for column, printer in printers.items())
        table.add_row(row["name"], row["family"], row["kind"], row["split"], *numbers, row["source"])
    return table
