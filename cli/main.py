"""The commands of `memplan`, and what every one of them has in common: messages and exit status.

The exit status is one of

    0    done
    1    the plan breaks rules (all of them are listed); the blocks of `pack` do not fit
    2    a mistake of the user: one line `memplan: error: …` on standard error, and no output file
    3    `pack` could not tell in time whether the blocks fit
    130  interrupted from the keyboard
    141  whoever read our output went away
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from memplan.cli.bench.main import bench
from memplan.cli.exit_status import DONE, FAILED, INTERRUPTED, READER_GONE, ReaderGoneError
from memplan.compiler.errors import MemplanError

# As in `planners/planner.py` and `api/pipeline.py`, which are not imported before they are needed.
DEFAULT_PLANNER, DEFAULT_TIME_LIMIT = "auto", 10.0

app = typer.Typer(
    name="memplan",
    help="Plans where every tensor of a machine-learning program lives, in a hierarchy of memories.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(bench, name="bench")

Dump = Annotated[
    Path,
    typer.Argument(
        metavar="DUMP",
        show_default=False,
        help="A program: HLO as text or proto (also gzipped), StableHLO, or an artifact of jax.export.",
    ),
]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", show_default=False, help="A plan that --out wrote.")]
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="T",
        show_default=False,
        help="Name of a target, or a TOML file that describes one. Left out, it is what the program was compiled for.",
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="DIR",
        show_default=False,
        help="Write the report to this folder: picture (PNG, SVG), trace for ui.perfetto.dev, tables (text, JSON).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")]


def _version(wanted: bool) -> None:
    if wanted:
        from memplan import __version__

        typer.echo(f"memplan {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def plan(
    dump: Dump,
    target: TargetName = None,
    planner: Annotated[
        str, typer.Option("--planner", "-p", metavar="P", help="What makes the plan; see `memplan planners`.")
    ] = DEFAULT_PLANNER,
    time_limit: Annotated[
        float, typer.Option("--time-limit", metavar="S", help="Seconds that the planner may search.")
    ] = DEFAULT_TIME_LIMIT,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="PLAN.json", show_default=False, help="Write the plan here.")
    ] = None,
    report: ReportFolder = None,
    json: AsJson = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="What `memplan train` wrote, for the planners agent and hybrid. Left out, they take the agent that "
            "comes with the package.",
        ),
    ] = None,
    passes: Annotated[
        str,
        typer.Option(
            metavar="P,P,…",
            help="Passes that rewrite the program before: names, `auto`, or `none`. Of a module that a compiler "
            "scheduled, it is that schedule that is planned: `auto` leaves it as it is.",
        ),
    ] = "none",
    print_after: Annotated[
        str | None,
        typer.Option(metavar="P", show_default=False, help="Print the program after this pass, or `all`."),
    ] = None,
    print_to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Print it there, and not to standard error."),
    ] = None,
) -> None:
    """Plan a program's memory, and report.

    The plan is checked, emulated, and compared with everything in slow memory, with what the program's compiler
    decided, and with the bound that no plan beats.
    """
    from memplan.cli import plan as planning

    options = planning.PassOptions(passes, print_after, print_to)
    planning.command(dump, target, planner, checkpoint, time_limit, out, report, json, options)


@app.command()
def verify(plan_file: PlanFile, dump: Dump, target: TargetName = None) -> None:
    """Check a plan against its program.

    The exit status is 0 if it is valid, and 1 if it breaks rules: every violation is listed.
    """
    from memplan.cli import commands

    commands.verify(plan_file, dump, target)


@app.command()
def show(
    plan_file: PlanFile, dump: Dump, target: TargetName = None, report: ReportFolder = None, json: AsJson = False
) -> None:
    """Report on an existing plan.

    The report is that of `memplan plan`.
    """
    from memplan.cli import commands

    commands.show(plan_file, dump, target, report, json)


@app.command(name="compile")
def compile_program(
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM",
            show_default=False,
            help="A workload, or module:function, which takes nothing and returns (fun, args), a JAX function and its "
            "arguments.",
        ),
    ],
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="A TPU.")] = "tpu-v5e",
    planner: Annotated[
        str, typer.Option("--planner", "-p", metavar="P", help="What makes the plans; see `memplan planners`.")
    ] = DEFAULT_PLANNER,
    compile_budget: Annotated[
        int, typer.Option("--compile-budget", metavar="N", help="How many compiles may be made.")
    ] = 8,
    time_limit: Annotated[
        float, typer.Option("--time-limit", metavar="S", help="Seconds that the planner may search, over all plans.")
    ] = 60.0,
    report: ReportFolder = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="MODULE",
            show_default=False,
            help="Write our module here, gzipped if it ends in .gz.",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Compile a JAX program for a TPU, by XLA's default and with our plan.

    The real compiler runs in a process of its own; no TPU is needed, libtpu is. Its default is always among the
    candidates. What was decided, and whether the compiler obeyed, is listed.
    """
    from memplan.cli import compile_program as compiling

    compiling.command(program, target, planner, compile_budget, time_limit, report, out, json)


@app.command()
def pack(
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
    time_limit: Annotated[
        float, typer.Option("--time-limit", metavar="S", help="Seconds that may be searched.")
    ] = 60.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="OUT.csv", show_default=False, help="Write the file with offsets here."),
    ] = None,
) -> None:
    """Give offsets to blocks whose times are fixed.

    The exit status is 0 if they fit, 1 if it is proven that they do not, and 3 if neither could be told in time.
    """
    from memplan.cli import pack as packing

    packing.command(file, capacity, time_limit, out)


@app.command()
def train(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="PROBLEM_OR_DUMP…", show_default=False, help="What to play: programs, or problems as JSON."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", show_default=False, help="Plans, checkpoints and metrics.")
    ],
    target: TargetName = None,
    minutes: Annotated[float, typer.Option("--minutes", metavar="M", help="How long to play and learn.")] = 10.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", show_default=False, help="Of all that is random; 0 by default.")
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", metavar="S", show_default=False, help="How moves are chosen: gumbel (default), muzero or none."
        ),
    ] = None,
    simulations: Annotated[
        int | None,
        typer.Option("--simulations", metavar="N", show_default=False, help="Of each search; 8 by default."),
    ] = None,
) -> None:
    """Train an agent that plays the mallocGame.

    One program: it plays it better and better. Several: it learns what they have in common, and `memplan plan --planner
    agent --checkpoint DIR` plans programs that it never saw. The best plan of each is kept.
    """
    from memplan.cli import train as training

    training.command(files, target, minutes, out, resume, seed, search, simulations)


@app.command()
def targets() -> None:
    """List the targets that are known."""
    from memplan.cli import commands

    commands.targets()


@app.command()
def planners() -> None:
    """List the planners that are known."""
    from memplan.cli import commands

    commands.planners()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status; `arguments` are those of the process by default."""
    command = typer.main.get_command(app)
    try:
        status = command.main(
            list(arguments) if arguments is not None else None, prog_name="memplan", standalone_mode=False
        )
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


def _interrupted() -> int:
    print("memplan: interrupted", file=sys.stderr)
    return INTERRUPTED


def _fail(message: str) -> int:
    print("memplan: error:", " ".join(message.split("\n")), file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
