"""`memplan workloads`: the programs that are known, and how large they are."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.cli.arguments import AsJson

if TYPE_CHECKING:
    from memplan.workloads import Workload

# Flops and bytes are counted for this target: a program as it was written, not as a compiler fused it.
_TARGET = "generic"


class WorkloadKind(StrEnum):
    """As `memplan.workloads.registry.Kind`."""

    INFERENCE = "inference"
    TRAINING = "training"


class WorkloadSplit(StrEnum):
    """As `memplan.workloads.Workload.split`."""

    DEVELOPMENT = "development"
    HELD_OUT = "held-out"


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
    json: AsJson = False,
) -> None:
    """List the workloads that are known: programs to plan.

    Operations and bytes are those of the traced program before any compiler fused it: loops count as often as they
    run, a multiply-add counts two, and each operation reads its operands and writes its result.
    """
    import json as json_module

    from memplan.cli.console import Stages, show, write
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
    with Stages(total=len(chosen), quiet=json) as stages:
        rows = _rows(chosen, stages)
    if json:
        write(json_module.dumps(rows, indent=2))
    else:
        show(lambda terminal: terminal.print(_table(rows)))


def _rows(chosen: list[Workload], stages: Any) -> list[dict[str, Any]]:
    """Returns a row for each workload; the sizes of built-in ones are kept in the cache."""
    import json

    import jax

    from memplan.compiler.cache import Cache, sources_digest

    cache, entry = Cache(), "workloads.json"
    made_with = f"{sources_digest(('memplan.compiler', 'memplan.workloads'))} {jax.__version__}"
    kept = cache.load(entry, json.loads)
    known: dict[str, Any] = kept["sizes"] if kept and kept.get("made_with") == made_with else {}
    before = len(known)
    rows = []
    for each in chosen:
        with stages.stage(each.name):
            is_ours = each.build.__module__.startswith("memplan.")
            sizes = known.get(each.name) if is_ours else None
            sizes = sizes or sizes_of(each)
        if is_ours:
            known[each.name] = sizes
        told = ("name", "description", "family", "kind", "split", "source")
        rows.append({field: getattr(each, field) for field in told} | sizes)
    if len(known) > before:
        cache.store(entry, json.dumps({"made_with": made_with, "sizes": known}).encode())
    return rows


def sizes_of(workload: Workload) -> dict[str, float]:
    """Returns the numbers of parameters, of operations, and of bytes that operations read and write, of a workload."""
    import memplan
    from memplan.compiler.hardware.work import WorkCounter
    from memplan.workloads.registry import num_parameters

    fun, args = workload.build()
    graph = memplan.trace(fun, *args, donate_argnums=workload.donate_argnums)
    work = WorkCounter(graph).body(graph.entry)
    problem = memplan.problem(graph, _TARGET)
    moved = sum(
        access.bytes * problem.repetitions[operation.region]
        for operation in problem.operations
        for access in operation.accesses
    )
    return {
        "parameters": num_parameters((fun, args)),
        "flops": work.total_flops + work.transcendentals,
        "bytes": moved,
    }


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    from memplan.compiler.report.units import print_bytes, print_count

    table = Table(box=None, pad_edge=False)
    for column in ("workload", "family", "kind", "split", "parameters", "flops", "bytes", "source"):
        is_number = column in ("parameters", "flops", "bytes")
        table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in rows:
        numbers = (print_count(row["parameters"]), print_count(row["flops"]), print_bytes(row["bytes"]))
        table.add_row(row["name"], row["family"], row["kind"], row["split"], *numbers, row["source"])
    return table
