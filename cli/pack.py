"""`memplan pack`: offsets for blocks of given times and sizes, from a CSV file in the format of MiniMalloc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from memplan.cli.arguments import EffortName, TimeLimit
from memplan.cli.console import Stages, note, show
from memplan.cli.exit_status import ExitStatus
from memplan.cli.outputs import check_file
from memplan.cli.preparation import prepare_with
from memplan.compiler.effort import Effort, Guard
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import write_files
from memplan.planners.offsets.c_header import c_header
from memplan.planners.offsets.csv_file import InstanceFile, read_instance
from memplan.planners.offsets.infeasible import irreducible_infeasible_subset
from memplan.planners.offsets.pack import Packing, Status, pack
from memplan.planners.offsets.preparation import prepare

# Ids of a subset that does not fit that are printed; more are counted.
_MAX_IDS = 40


def command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.csv", show_default=False, help="Blocks: id,lower,upper,size and more columns."),
    ],
    capacity: Annotated[
        int | None,
        typer.Option(
            "--capacity", "-c", metavar="B", show_default=False, help="Bytes. Left out, the height is minimized."
        ),
    ] = None,
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="OUT.csv", show_default=False, help="Write the file with offsets here."),
    ] = None,
    header: Annotated[
        Path | None,
        typer.Option("--c-header", metavar="OUT.h", show_default=False, help="Write offsets and sizes as a C header."),
    ] = None,
) -> None:
    """Give offsets to blocks whose times are fixed.

    The exit status is 0 if they fit, 1 if it is proven that they do not, and 3 if neither could be told.
    """
    _check_outputs(out, header)
    table = read_instance(file)
    if capacity is not None:
        table.check_capacity(capacity)
    with Stages(total=3) as stages:
        prepare_with(prepare, stages)
        with stages.stage("packing"):
            packing = pack(table.instance, capacity, effort, time_limit)
        subset = ""
        if packing.status == Status.INFEASIBLE and capacity is not None and not packing.interrupted:
            with stages.stage("reducing what does not fit"):
                subset = _reduced(table, packing, capacity, effort, Guard(time_limit and time_limit - packing.seconds))
    show(lambda terminal: terminal.print(_summary(table, packing, capacity)))
    if subset:
        show(lambda terminal: terminal.print(subset, soft_wrap=True))
    if packing.status != Status.INFEASIBLE and not _is_too_high(packing, capacity):
        contents: dict[str | Path, str | bytes] = {}
        if out is not None:
            contents[out] = table.with_offsets(packing.offsets)
        if header is not None:
            contents[header] = c_header(table.instance, packing.offsets, capacity, header.name)
        write_files(contents)
    if packing.interrupted:
        note("interrupted: this is the best packing so far")
        raise typer.Exit(ExitStatus.INTERRUPTED)
    if packing.status == Status.INFEASIBLE:
        raise typer.Exit(ExitStatus.NO)
    if packing.status == Status.UNDECIDED and capacity is not None:
        raise typer.Exit(ExitStatus.TIME_RAN_OUT)


def _check_outputs(*paths: Path | None) -> None:
    """Raises MemplanError if a file could not be written, or if two are the same."""
    named = [path for path in paths if path is not None]
    for path in named:
        check_file(path)
    if len({os.path.realpath(path) for path in named}) < len(named):
        raise MemplanError(f"cannot write {named[-1]}: it is to hold another output as well")


def _is_too_high(packing: Packing, capacity: int | None) -> bool:
    return capacity is not None and packing.height > capacity


def _summary(table: InstanceFile, packing: Packing, capacity: int | None) -> Table:
    count = len(table.instance)
    lines = Table(box=None, pad_edge=False, show_header=False)
    lines.add_column(no_wrap=True)
    lines.add_column(no_wrap=True)
    lines.add_row("blocks", f"{count:,}")
    if capacity is not None:
        lines.add_row("capacity", f"{capacity:,}")
    lines.add_row("height", f"{packing.height:,}")
    lines.add_row("maximum load", f"{packing.maximum_load:,}")
    lines.add_row("lower bound", f"{packing.lower_bound:,}")
    lines.add_row("result", _result(packing, capacity))
    lines.add_row("method", packing.method)
    lines.add_row("seconds", f"{packing.seconds:.2f}")
    return lines


def _result(packing: Packing, capacity: int | None) -> str:
    if packing.status == Status.FITS:
        return "fits the capacity"
    if packing.status == Status.INFEASIBLE:
        return "does not fit the capacity: proven"
    if packing.status == Status.OPTIMAL:
        return "proven: no packing is lower"
    over = packing.height / packing.lower_bound - 1 if packing.lower_bound else 0.0
    ran_out = "the time ran out" if packing.stopped else "the effort ran out"
    why = "interrupted" if packing.interrupted else ran_out
    if capacity is not None:
        return f"not decided: {why}; the height is the best one found"
    return f"not proven to be the lowest: {why}, {over:.2%} above the lower bound"


def _reduced(table: InstanceFile, packing: Packing, capacity: int, effort: Effort, guard: Guard) -> str:
    """Returns the sentence that names the blocks that do not fit together."""
    subset = irreducible_infeasible_subset(table.instance, capacity, effort, guard, within=packing.conflict)
    if subset is None:
        raise AssertionError("what was proven not to fit was not recognized")
    ids = [table.instance.ids[block] for block in subset.blocks.tolist()]
    listed = ", ".join(ids[:_MAX_IDS]) + (f" and {len(ids) - _MAX_IDS} more" if len(ids) > _MAX_IDS else "")
    if subset.irreducible:
        return f"These {len(ids)} blocks do not fit, and would without any one of them: {listed}"
    return f"These {len(ids)} blocks do not fit; it was not decided whether fewer would not either: {listed}"
