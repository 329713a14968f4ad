"""`memplan export-c`: a JAX program as portable C99 with one static arena."""

from __future__ import annotations

import json as json_module
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.backends.fit.limit import limit_of
from memplan.cli import console
from memplan.cli.arguments import AsJson, EffortName, ProgramName
from memplan.cli.console import Stages
from memplan.cli.exit_status import ExitStatus
from memplan.cli.outputs import check_folder
from memplan.cli.programs import find_program, prepare_jax
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.report.units import print_bytes

if TYPE_CHECKING:
    from memplan.backends.c.export import CExport
    from memplan.backends.c.toolchain import CodeSizes


def command(
    program: ProgramName,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", show_default=False, help="The folder to write the C files to.")
    ],
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="SIZE",
            show_default=False,
            help="Bytes that the arena may have, such as 256KiB. If it needs more, nothing is written.",
        ),
    ] = None,
    state: Annotated[
        list[int] | None,
        typer.Option(
            "--state",
            metavar="N",
            show_default=False,
            help="Argument N, counted from 0, is kept from run to run and updated in place; the function returns new "
            "states first. May be repeated; by default what the program donates.",
        ),
    ] = None,
    constant: Annotated[
        list[int] | None,
        typer.Option(
            "--constant",
            metavar="N",
            show_default=False,
            help="Argument N, counted from 0, never changes and lies in flash. May be repeated.",
        ),
    ] = None,
    effort: EffortName = Effort.NORMAL,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of all that is drawn at random.")] = 0,
    json: AsJson = False,
) -> None:
    """Write a JAX program as C99 with one static arena.

    A test program that compares a run with JAX is written beside it. Where arm-none-eabi-gcc is installed, the sizes
    for a Cortex-M7 are printed. The exit status is 1 if the arena does not fit into the budget.
    """
    limit = None if budget is None else limit_of(budget)
    check_folder(out)
    prepare_jax()
    from memplan.backends.c.export import ArenaTooSmallError, export_c

    with Stages(total=3, quiet=json) as stages:
        with stages.stage(f"building {program}"):
            found = find_program(program)
        try:
            with stages.stage("planning the arena"):
                made = export_c(
                    found.fun,
                    *found.args,
                    state_argnums=found.donate_argnums if state is None else state,
                    constant_argnums=constant or (),
                    budget=limit,
                    effort=effort,
                    seed=seed,
                    name=found.name,
                )
        except ArenaTooSmallError as error:
            _show_failure(program, error, json)
            raise typer.Exit(ExitStatus.NO) from None
        made.write(out)
        with stages.stage("compiling for a Cortex-M7"):
            sizes = _sizes(out)
    if json:
        console.write(json_module.dumps(result_json(program, made, sizes), indent=2))
    else:
        console.write(_summary(program, made, sizes, out))


def _sizes(folder: Path) -> CodeSizes | None:
    from memplan.backends.c.toolchain import cortex_m7_sizes, is_installed

    if not (is_installed("arm-none-eabi-gcc") and is_installed("arm-none-eabi-size")):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        return cortex_m7_sizes(folder, Path(scratch))


def _show_failure(program: str, error: MemplanError, json: bool) -> None:
    fields = {name: getattr(error, name) for name in ("budget", "arena", "bound")}
    console.write(json_module.dumps({"program": program, "fits": False, **fields}, indent=2) if json else str(error))


def _summary(program: str, made: CExport, sizes: CodeSizes | None, folder: Path) -> str:
    plan = made.plan
    lines = [f"{program}: {len(plan.order)} steps in an arena of {print_bytes(plan.arena)} ({plan.arena:,} bytes)"]
    if plan.is_proven:
        lines.append("no order and no layout of these steps needs less (proven)")
    else:
        layout = (
            "the least for this order (proven)"
            if plan.arena == plan.arena_bound
            else (f"at most {plan.arena - plan.arena_bound:,} bytes above the least for this order")
        )
        lines.append(f"{layout}; any order needs at least {plan.bound:,} bytes (proven)")
    lines.append(f"constants and first values of states: {plan.program.flash:,} bytes")
    if sizes is not None:
        lines.append(
            f"Cortex-M7, -O2: text {sizes.text:,} ({sizes.code:,} code), data {sizes.data:,}, bss {sizes.bss:,}"
        )
    else:
        lines.append("arm-none-eabi-gcc is not installed: no sizes for a Cortex-M7")
    lines.append(f"written to {folder}")
    return "\n".join(lines)


def result_json(program: str, made: CExport, sizes: CodeSizes | None) -> dict[str, Any]:
    """Returns the result as JSON; sizes in bytes."""
    plan = made.plan
    return {
        "program": program,
        "fits": True,
        "steps": len(plan.order),
        "peak": plan.peak,
        "arena": plan.arena,
        "arena_bound": plan.arena_bound,
        "bound": plan.bound,
        "method": plan.method,
        "constants": plan.program.flash,
        "files": sorted(made.files),
        "cortex_m7": None
        if sizes is None
        else {"text": sizes.text, "code": sizes.code, "data": sizes.data, "bss": sizes.bss},
    }
