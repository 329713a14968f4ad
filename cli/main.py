"""The command `memplan`: the list of its commands, and what all of them have in common, errors and exit status.

The exit status is one of

    0    done
    1    the plan breaks rules (all of them are listed); the blocks of `pack` do not fit
    2    a mistake of the user: one line `memplan: error: …` on standard error, and no output file
    3    `pack` could not tell in time whether the blocks fit
    130  interrupted from the keyboard
    141  the reader of our output went away
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from memplan.cli.bench.main import bench_group
from memplan.cli.commands import add_commands
from memplan.cli.exit_status import DONE, FAILED, INTERRUPTED, READER_GONE, ReaderGoneError
from memplan.compiler.errors import MemplanError

# The command `plan` is in the file plan.py beside this one, and so on.
COMMANDS = {
    "plan": "Plan a program's memory, and report.",
    "verify": "Check a plan against its program.",
    "show": "Report on an existing plan.",
    "compile": "Compile a JAX program for a TPU, by XLA's default and with our plan.",
    "pack": "Give offsets to blocks whose times are fixed.",
    "train": "Train an agent that plays the mallocGame.",
    "targets": "List the targets that are known.",
    "planners": "List the planners that are known.",
}


def application(arguments: Sequence[str]) -> typer.Typer:
    """Returns the command line; of its commands, those that are among the arguments of this run can run."""
    app = typer.Typer(
        name="memplan",
        help="Plans where every tensor of a machine-learning program lives, in a hierarchy of memories.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(_options)
    app.add_typer(bench_group(arguments), name="bench")
    add_commands(app, "memplan.cli", COMMANDS, arguments)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status; `arguments` are those of the process by default."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = typer.main.get_command(application(given)).main(given, prog_name="memplan", standalone_mode=False)
        sys.stdout.flush()
        # Some versions of typer turn Ctrl-C into this status, others into an exception.
        return _interrupted() if status == INTERRUPTED else status if isinstance(status, int) else DONE
    except MemplanError as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except (ReaderGoneError, BrokenPipeError):
        # What is still buffered has no reader: let the interpreter flush it to nowhere when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except Exception as error:
        # A mistake in the command line. Typer's class for it is public in no version, but this is what it can do.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        return _fail(f"{describe()} (see memplan --help)")


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


def _interrupted() -> int:
    print("memplan: interrupted", file=sys.stderr)
    return INTERRUPTED


def _fail(message: str) -> int:
    print("memplan: error:", " ".join(message.split("\n")), file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
