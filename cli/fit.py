"""`memplan fit`: a JAX program within a memory limit, by the word of its compiler."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from memplan.backends.fit.limit import LARGEST_BATCH, limit_of
from memplan.cli import console
from memplan.cli.arguments import AsJson, EffortName, ProgramName
from memplan.cli.console import Stages
from memplan.cli.exit_status import ExitStatus
from memplan.cli.outputs import check_file
from memplan.cli.programs import find_program, find_program_of_batches, prepare_jax
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.printable import from_here
from memplan.compiler.report.units import print_bytes, print_seconds

if TYPE_CHECKING:
    from memplan.backends.fit.result import CannotFitError, FitAttempt, FitResult, TensorDecision

_SHOWN = 20

_Found = TypeVar("_Found")


def command(
    program: ProgramName,
    limit: Annotated[
        str | None,
        typer.Option(
            "--limit",
            metavar="SIZE",
            show_default=False,
            help="Bytes for arguments, results and temporaries together, such as 12GiB.",
        ),
    ] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="In place of one limit, show what falling limits cost.")
    ] = False,
    points: Annotated[int, typer.Option("--points", metavar="N", help="How many limits --curve tries.")] = 4,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", show_default=False, help="Draw the curve: PNG or SVG."),
    ] = None,
    max_batch: Annotated[
        bool,
        typer.Option("--max-batch", help="Find the largest batch that fits; PROGRAM takes the batch by that name."),
    ] = False,
    multiple_of: Annotated[
        int, typer.Option("--multiple-of", metavar="N", help="--max-batch tries multiples of N only.")
    ] = 1,
    at_least: Annotated[int, typer.Option("--at-least", metavar="N", help="The smallest batch of --max-batch.")] = 1,
    at_most: Annotated[
        int, typer.Option("--at-most", metavar="N", help="The largest batch of --max-batch.")
    ] = LARGEST_BATCH,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="T",
            show_default=False,
            help="A TPU, or the GPU h200, to compile for ahead of time. Left out, it is the CPU of this machine.",
        ),
    ] = None,
    compile_budget: Annotated[
        int | None,
        typer.Option(
            "--compile-budget",
            metavar="N",
            show_default=False,
            help="How many compiles may be made. Left out, it is 8 for a limit, and 16 for --max-batch.",
        ),
    ] = None,
    effort: EffortName = Effort.NORMAL,
    json: AsJson = False,
) -> None:
    """Fit a JAX program into a memory limit: keep, recompute, move to the host, or reorder.

    The compiler says whether a program fits. Every tensor that is not kept is listed with the line that makes it.
    """
    if (limit is None) != curve:
        raise MemplanError("say either --limit SIZE or --curve")
    bounds = {"multiple_of": multiple_of, "at_least": at_least, "at_most": at_most}
    if max_batch and curve:
        raise MemplanError("--max-batch takes a --limit, and no --curve")
    if not max_batch and tuple(bounds.values()) != (1, 1, LARGEST_BATCH):
        raise MemplanError("--multiple-of, --at-least and --at-most are for --max-batch: add it")
    if picture is not None and not curve:
        raise MemplanError("--picture draws what --curve finds: add --curve")
    check_file(picture)
    prepare_jax()
    options: dict[str, Any] = {"target": target, "effort": effort}
    if compile_budget is not None:
        options["compile_budget"] = compile_budget
    if limit is None:
        _show_curve(program, points, options, picture, json)
    elif max_batch:
        _show_batch(program, limit_of(limit), {**options, **bounds}, json)
    else:
        _show_fit(program, limit_of(limit), options, json)


def _found(find: Callable[[str], _Found], program: str, stages: Stages) -> _Found:
    """Finds a program by its name, and has the kernels ready that plan it."""
    from memplan.cli.preparation import prepare_with
    from memplan.planners.fit.preparation import prepare

    with stages.stage(f"tracing {program}"):
        found = find(program)
    prepare_with(prepare, stages)
    return found


def _show_fit(program: str, limit: int, options: Mapping[str, Any], json: bool) -> None:
    """Fits a program into a limit and prints the result; exits with 1 if nothing fits."""
    from memplan.backends.fit.fit import fit
    from memplan.backends.fit.result import CannotFitError

    cannot: CannotFitError | None = None
    with Stages(total=3, quiet=json) as stages:
        found = _found(find_program, program, stages)
        with stages.stage(f"fitting into {print_bytes(limit)}"):
            try:
                result = fit(found.fun, *found.args, limit=limit, donate_argnums=found.donate_argnums, **options)
            except CannotFitError as error:
                cannot = error
    if cannot is not None:
        _show_failure(program, cannot, json)
        raise typer.Exit(ExitStatus.NO)
    if json:
        console.write(json_module.dumps(result_json(program, result), indent=2))
        return
    console.write(f"{program} on {result.target} {result.summary()}\n")
    console.show(lambda terminal: terminal.print(attempts_table(result.attempts)))
    changed = [decision for decision in result.decisions if decision.decision != "kept"]
    if changed:
        console.write("")
        console.show(lambda terminal: terminal.print(decisions_table(changed[:_SHOWN])))
        if len(changed) > _SHOWN:
            console.write(f"and {len(changed) - _SHOWN:,} smaller (--json lists all)")


def _show_curve(program: str, points: int, options: Mapping[str, Any], picture: Path | None, json: bool) -> None:
    """Fits a program into falling limits, prints what they cost, and draws it."""
    from memplan.backends.fit.curve import fit_curve
    from memplan.cli.fit_curve import curve_json, curve_table, draw_curve

    with Stages(total=3, quiet=json) as stages:
        found = _found(find_program, program, stages)
        with stages.stage("fitting into falling limits"):
            curve = fit_curve(found.fun, *found.args, points=points, donate_argnums=found.donate_argnums, **options)
    if picture is not None:
        draw_curve(program, curve, picture)
    if json:
        console.write(json_module.dumps(curve_json(program, curve), indent=2))
        return
    console.write(f"{program} on {curve.target}: {print_bytes(curve.interface)} are arguments and results\n")
    console.show(lambda terminal: terminal.print(curve_table(curve)))
    if curve.cannot is not None:
        console.write(f"\n{str(curve.cannot).splitlines()[0]}")


def _show_batch(program: str, limit: int, options: Mapping[str, Any], json: bool) -> None:
    """Finds the largest batch that fits and prints it; exits with 1 if none fits."""
    from memplan.backends.fit.batch import NoBatchFitsError, max_batch
    from memplan.cli.fit_batch import batch_json, batches_table

    cannot: NoBatchFitsError | None = None
    with Stages(total=3, quiet=json) as stages:
        build, donate_argnums = _found(find_program_of_batches, program, stages)
        with stages.stage(f"looking for the largest batch within {print_bytes(limit)}"):
            try:
                result = max_batch(build, limit=limit, donate_argnums=donate_argnums, **options)
            except NoBatchFitsError as error:
                cannot = error
    if cannot is not None:
        _show_failure(program, cannot, json)
        raise typer.Exit(ExitStatus.NO)
    if json:
        console.write(json_module.dumps(batch_json(result_json(program, result.fit), result), indent=2))
        return
    console.write(f"{program} on {result.fit.target}: {result.summary()}\n")
    console.show(lambda terminal: terminal.print(batches_table(result)))


def _show_failure(program: str, error: CannotFitError, json: bool) -> None:
    if json:
        console.write(json_module.dumps(failure_json(program, error), indent=2))
        return
    if error.attempts:
        console.show(lambda terminal: terminal.print(attempts_table(error.attempts)))
        console.write("")
    from memplan.backends.fit.standing import BY
    from memplan.compiler.report.standing_tables import print_memory

    console.write(error.summary)
    standing = error.standing
    if standing is not None:
        console.show(lambda terminal: print_memory(standing, BY, None, terminal))


def attempts_table(attempts: tuple[FitAttempt, ...]) -> Table:
    """Returns the table of all compiles."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("compile", no_wrap=True)
    for column in ("predicted", "stated", "added time"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for attempt in attempts:
        table.add_row(
            attempt.name,
            "" if attempt.predicted is None else print_bytes(attempt.predicted),
            "" if attempt.stated is None else print_bytes(attempt.stated),
            print_seconds(attempt.added_seconds),
            "out of memory" if attempt.refused else "",
        )
    return table


def decisions_table(decisions: list[TensorDecision]) -> Table:
    """Returns the table of decisions, in the given order."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("decision", "size", "shape", "tensor", "line", "reason"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for each in decisions:
        table.add_row(each.decision, print_bytes(each.size), each.shape, each.name, from_here(each.origin), each.reason)
    return table


def result_json(program: str, result: FitResult) -> dict[str, Any]:
    """Returns the result as JSON: times in seconds, sizes in bytes."""
    return {
        "program": program,
        "target": result.target,
        "limit": result.limit,
        "fits": True,
        "needed": result.memory.total,
        "memory": asdict(result.memory),
        "default": None if result.default is None else {**asdict(result.default), "total": result.default.total},
        "predicted": result.predicted,
        "seconds": result.seconds,
        "added_seconds": result.added_seconds,
        "bound_seconds": result.bound_seconds,
        "attempts": [asdict(attempt) for attempt in result.attempts],
        "decisions": [asdict(decision) for decision in result.decisions],
    }


def failure_json(program: str, error: CannotFitError) -> dict[str, Any]:
    """Returns why nothing fits, as JSON; sizes in bytes."""
    from memplan.compiler.report.peak_schema import memory_json

    batch = getattr(error, "batch", None)  # of --max-batch: the smallest one
    return {
        "program": program,
        "limit": error.limit,
        "fits": False,
        **({} if batch is None else {"batch": batch}),
        "least": error.least,
        "proven": error.proven,
        "is_interface": error.is_interface,
        "attempts": [asdict(attempt) for attempt in error.attempts],
        "standing": None if error.standing is None else memory_json(error.standing),
    }
