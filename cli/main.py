"""The command `memplan`: the list of its commands, and what all of them have in common, errors and exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from memplan.cli.bench.main import bench_group
from memplan.cli.commands import add_commands
from memplan.cli.console import cache_notes, forget_output, note, standard_streams
from memplan.cli.crash import lacks_memory, write_crash
from memplan.cli.exit_status import ExitStatus, print_statuses
from memplan.cli.signals import end_interrupted, interrupts, status_of_signal
from memplan.compiler.cache import cache_folder
from memplan.compiler.errors import MemplanError, ReaderGoneError
from memplan.compiler.printable import printable

# The command `plan` is in the file plan.py beside this one, and so on.
COMMANDS = {
    "plan": "Plan a program's memory, and report.",
    "fleet": "Plan many programs, each once, on many processes.",
    "verify": "Check a plan against its program.",
    "show": "Report on an existing plan.",
    "compile": "Compile a JAX program for a TPU, by XLA's default and with our plan.",
    "peak": "Show what stands at the peak of each memory, and what being rid of it is worth.",
    "diff": "Show what differs between two dumps, plans or compiles of one program.",
    "fit": "Fit a JAX program into a memory limit: keep, recompute, move to the host, or reorder.",
    "export-c": "Write a JAX program as C99 with one static arena.",
    "levels": "Compress weights, or keys and values, of a JAX program, each to a level of its own, and run it.",
    "contraction": "Order the contraction of several tensors, pair by pair.",
    "pipeline": "Split a chain of layers over devices that train it as a pipeline.",
    "pack": "Give offsets to blocks whose times are fixed.",
    "offline-plan": "Plan the arena of TensorFlow Lite for Microcontrollers, and write the plan into the model.",
    "train": "Train an agent that plays the mallocGame.",
    "targets": "List the targets that are known.",
    "planners": "List the planners that are known.",
    "generate": "Generate problems of random programs.",
    "workloads": "List the workloads that are known: programs to plan.",
}

# Characters of an error that quotes what a file holds.
_LONGEST_MESSAGE = 2000


def application(arguments: Sequence[str]) -> typer.Typer:
    """Returns the command line; of its commands, those that are among the arguments of this run can run."""
    app = typer.Typer(
        name="memplan",
        help="Plans where every tensor of a machine-learning program lives, in a hierarchy of memories.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    # The first line keeps typer from joining the others.
    app.callback(invoke_without_command=True, epilog=f"\b\nExit status:\n{print_statuses()}")(_options)
    app.add_typer(bench_group(arguments), name="bench")
    add_commands(app, "memplan.cli", COMMANDS, arguments)
    return app


def main(arguments: Sequence[str] | None = None, build: Callable[[Sequence[str]], typer.Typer] | None = None) -> int:
    """Runs a command line and returns its exit status.

    Args:
      arguments: by default those of the process.
      build: makes the command line from them, by default `application`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Matplotlib keeps a list of fonts; it belongs with all else that is kept.
    if (folder := cache_folder()) is not None:
        os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    with standard_streams(), cache_notes(), interrupts():
        try:
            status = _run(given, build or application)
            sys.stdout.flush()
            return status_of_signal() if status == ExitStatus.INTERRUPTED else status
        except ReaderGoneError:
            forget_output()
            return ExitStatus.READER_GONE
        except MemplanError as error:
            return _fail(str(error))
        except (KeyboardInterrupt, typer.Abort):
            return end_interrupted()
        except Exception as error:
            # A mistake in the command line. Typer's class for it is public in no version, but this is what it can do.
            describe = getattr(error, "format_message", None)
            if describe is not None:
                return _fail(f"{describe()} (see memplan --help)")
            if lacks_memory(error):
                return _fail("memory ran out")
            note(f"bug: {write_crash(error, given)}")
            return ExitStatus.CRASHED


def _run(given: list[str], build: Callable[[Sequence[str]], typer.Typer]) -> int:
    """Runs the command line; `main` of typer would take some exceptions for Ctrl-C and others for its own."""
    command = typer.main.get_command(build(given))
    try:
        with command.make_context(command.name or "memplan", list(given)) as context:
            status = command.invoke(context)
    except typer.Exit as end:
        status = end.exit_code
    return status if isinstance(status, int) else ExitStatus.DONE


def _version(wanted: bool) -> None:
    if wanted:
        from memplan import __version__

        typer.echo(f"memplan {__version__}")
        raise typer.Exit


def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _fail(message: str) -> int:
    note(f"error: {printable(' '.join(message.splitlines()), limit=_LONGEST_MESSAGE)}")
    return ExitStatus.FAILED
