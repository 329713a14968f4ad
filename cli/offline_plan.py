"""`memplan offline-plan`: a plan of the arena of TensorFlow Lite for Microcontrollers, written into the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memplan.cli.arguments import EffortName, TimeLimit
from memplan.compiler.effort import Effort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from memplan.backends.tflite.arena import ArenaTensor
    from memplan.compiler.frontends.tflite_model import TfliteModel
    from memplan.compiler.hardware.target import TargetSpace
    from memplan.planners.offsets.pack import Packing


def command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.tflite", show_default=False, help="A model, gzipped or not; - for standard input."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="PLANNED.tflite", show_default=False, help="Write the model with the plan here."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="T",
            show_default=False,
            help="Name of a target, or a TOML file that describes one: the arena has to fit its main memory.",
        ),
    ] = None,
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
) -> None:
    """Plan the arena of TensorFlow Lite for Microcontrollers, and write the plan into the model.

    The exit status is 1 if the arena does not fit the target's memory; nothing is written then.
    """
    from memplan.backends.tflite.arena import arena_size, arena_tensors, greedy_offsets
    from memplan.backends.tflite.offline_plan import VERSION, OfflinePlan, with_offline_plan
    from memplan.cli.console import Stages, note, show
    from memplan.cli.exit_status import ExitStatus
    from memplan.cli.outputs import check_file
    from memplan.cli.preparation import prepare_with
    from memplan.compiler.files import write_files
    from memplan.compiler.hardware.target import load_target
    from memplan.planners.offsets.preparation import prepare

    check_file(out)
    described = None if target is None else load_target(target)
    space = None if described is None else described.spaces[described.home]
    with Stages(total=3) as stages:
        with stages.stage(f"reading {file.name}"):
            model = _read(file)
            tensors = arena_tensors(model)
        prepare_with(prepare, stages)
        with stages.stage("planning"):
            packing = _packed(tensors, effort, time_limit)
        greedy = greedy_offsets(tensors)
        # A packing that is not proven to be the lowest may be higher than that.
        offsets = min(packing.offsets.tolist(), greedy, key=lambda chosen: arena_size(tensors, chosen))
    arena, by_itself = arena_size(tensors, offsets), arena_size(tensors, greedy)
    show(lambda terminal: terminal.print(_summary(model, tensors, packing, arena, by_itself, space)))
    if space is not None and arena > space.capacity:
        least = f"no plan needs less than {packing.lower_bound:,}"
        note(f"the arena of {arena:,} bytes does not fit {space.name}, which has {space.capacity:,}: {least}")
        raise typer.Exit(ExitStatus.NO)
    if out is not None:
        write_files({out: with_offline_plan(model, OfflinePlan(VERSION, 0, _all_offsets(model, tensors, offsets)))})
    if packing.interrupted:
        note("interrupted: this is the best plan so far")
        raise typer.Exit(ExitStatus.INTERRUPTED)


def _read(file: Path) -> TfliteModel:
    """Returns the model in a file, gzipped or not."""
    from memplan.compiler import limits
    from memplan.compiler.files import read_bytes, unpacked
    from memplan.compiler.frontends.tflite_model import read_model

    packed = read_bytes(file, limits.PROGRAM, standard_input=True)
    return read_model(unpacked(packed, str(file), limits.PROGRAM), str(file))


def _packed(tensors: Sequence[ArenaTensor], effort: Effort, time_limit: float | None) -> Packing:
    """Returns the lowest arena that is found for tensors."""
    from memplan.backends.tflite.arena import ALIGNMENT
    from memplan.planners.offsets.instance import Block
    from memplan.planners.offsets.pack import pack

    # Times of blocks are half-open and begin at 0, for tensors that nothing uses.
    return pack(
        [Block(tensor.size, tensor.first + 1, tensor.last + 2, ALIGNMENT) for tensor in tensors],
        effort=effort,
        time_limit=time_limit,
    )


def _all_offsets(model: TfliteModel, tensors: Sequence[ArenaTensor], offsets: Sequence[int]) -> tuple[int, ...]:
    """Returns an offset for each tensor of all subgraphs."""
    from memplan.backends.tflite.arena import UNPLANNED, num_tensors

    found = [UNPLANNED] * num_tensors(model)
    for tensor, offset in zip(tensors, offsets, strict=True):
        found[tensor.index] = offset
    return tuple(found)


def _summary(
    model: TfliteModel,
    tensors: Sequence[ArenaTensor],
    packing: Packing,
    arena: int,
    by_itself: int,
    space: TargetSpace | None,
) -> Table:
    from rich.table import Table

    from memplan.backends.tflite.arena import num_tensors
    from memplan.planners.offsets.pack import Status

    if packing.status == Status.OPTIMAL:
        result = "proven: no plan needs less"
    else:
        over = arena / packing.lower_bound - 1
        result = f"not proven to be the least: {over:.2%} above the lower bound"
    saved = f" ({1 - arena / by_itself:.1%} less with the plan)" if arena < by_itself else ""
    lines = Table(box=None, pad_edge=False, show_header=False)
    lines.add_column(no_wrap=True)
    lines.add_column(no_wrap=True)
    lines.add_row("tensors", f"{len(tensors):,} in the arena, of {num_tensors(model):,}")
    lines.add_row("arena", f"{arena:,}" + ("" if space is None else f" of {space.capacity:,} in {space.name}"))
    lines.add_row("lower bound", f"{packing.lower_bound:,}")
    lines.add_row("result", result)
    lines.add_row("TFLM by itself", f"{by_itself:,}{saved}")
    return lines
