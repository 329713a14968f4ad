"""`memplan train`: an agent learns to plan one program, or many."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from memplan import pipeline
from memplan.cli.arguments import Dims, TargetName, TripCounts
from memplan.cli.bindings import Bindings
from memplan.cli.console import Stages, note, on_standard_error, show
from memplan.cli.dumps import read_program
from memplan.cli.outputs import check_folder
from memplan.cli.signals import forget_closed_terminals
from memplan.compiler import limits
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import read_text
from memplan.compiler.hardware.guess import guessed_target
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import SCHEMA, MappingProblem
from memplan.compiler.report.units import print_seconds, ratio
from memplan.planners.planner import Budget
from memplan.planners.planner import get as planner_called

# With what the agent is compared, where the program has it.
BASELINES = ("slow", "xla", "greedy")

# Seconds between lines where standard error is no terminal.
_QUIET_SECONDS = 30.0


def command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="PROBLEM_OR_DUMP…", show_default=False, help="What to play: programs, or problems as JSON."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", show_default=False, help="Plans and checkpoints.")],
    target: TargetName = None,
    trip_count: TripCounts = None,
    dim: Dims = None,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="M", help="How long to play and learn, once compiled.")
    ] = 10.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", show_default=False, help="Of all that is random; 0 by default.")
    ] = None,
) -> None:
    """Train an agent that plays the mallocGame.

    It plays each program better and better, and learns what all have in common: `memplan plan --planner agent
    --checkpoint DIR` goes on with one of them, or begins with another one. The best plan of each is kept.
    """
    if not minutes > 0:
        raise MemplanError(f"--minutes {minutes}: must be more than 0")
    if resume and seed is not None:
        raise MemplanError("--resume goes on with the seed that the run was started with: leave it out")
    bindings = Bindings.of(trip_count, dim)
    check_folder(out)
    from memplan.rl_agent.learning import pretrained
    from memplan.rl_agent.learning.options import TrainOptions
    from memplan.rl_agent.learning.training import Training

    with Stages(total=2) as stages:
        with stages.stage("reading"):
            problems = [read_problem(file, target, bindings) for file in files]
        with stages.stage("planning what to compare with"):
            compared = [
                {name: pipeline.emulate(problem, plan).latency for name, plan in baselines(problem)}
                for problem in problems
            ]
    training = Training(problems, None if resume else TrainOptions(seed=seed or 0), out, resume, pretrained.weights())
    try:
        _run(training, 60.0 * minutes, compared)
    finally:
        show(lambda terminal: terminal.print(_table(training, compared, None)))
    note(f"plans and checkpoints are in {out}")


def _run(training: Any, seconds: float, compared: Sequence[dict[str, float]]) -> None:
    """Trains, and shows on standard error how it goes."""
    console = on_standard_error()
    begin = told = time.monotonic()
    is_compiled = False
    note(f"compiling, in the first iteration; the {seconds / 60.0:g} minutes begin after it")

    def say_when_compiled() -> None:
        nonlocal is_compiled, told
        if not is_compiled:
            is_compiled, told = True, time.monotonic()
            note(f"compiled in {told - begin:.0f} s")

    def interrupted() -> None:
        forget_closed_terminals()
        note("interrupted: this iteration is the last one; interrupt again to lose it")

    def table(progress: Any) -> Table:
        return _table(training, compared, progress)

    if console.is_terminal:
        with Live(table(None), console=console, refresh_per_second=2, transient=True) as live:

            def update(progress: Any) -> None:
                say_when_compiled()
                live.update(table(progress))

            training.run(seconds, on_progress=update, on_interrupt=interrupted)
    else:

        def tell(progress: Any) -> None:
            nonlocal told
            say_when_compiled()
            if time.monotonic() - told >= _QUIET_SECONDS:
                told = time.monotonic()
                best = ", ".join(print_seconds(contest.latency) for contest in training.trainer.contests)
                note(f"{progress.seconds:.0f} s, iteration {progress.report.iteration}: {best}")

        training.run(seconds, on_progress=tell, on_interrupt=interrupted)


def read_problem(file: Path, target: str | None, bindings: Bindings) -> MappingProblem:
    """Returns the problem of a file: a problem as JSON, or any program that `memplan plan` reads.

    The bindings are for programs; a problem has its trip counts and sizes already.
    """
    if file.suffix == ".json" and f'"{SCHEMA}"' in read_text(file, limits.PROBLEM):
        problem = MappingProblem.load(file)
        if target is not None and problem.target != target:
            raise MemplanError(f"{file} is a problem for {problem.target}, not for {target}")
        return problem
    graph = read_program(file, bindings)
    return pipeline.problem(graph, target or guessed_target(graph))


def baselines(problem: MappingProblem, seed: int = 0) -> Iterator[tuple[str, Plan]]:
    """Yields the planners that the agent is compared with, where they can plan the problem, and their plans."""
    for name in BASELINES:
        if name != "xla" or problem.given is not None:
            yield name, planner_called(name).plan(problem, Budget(seed=seed))


def _table(training: Any, compared: Sequence[dict[str, float]], progress: Any) -> Table:
    title = None
    if progress is not None:
        report = progress.report
        title = f"iteration {report.iteration}, {progress.seconds:.0f} s, {report.games:,} games in it"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("program")
    for name in (*BASELINES, "agent", "÷ greedy"):
        table.add_column(name, justify="right")
    for game, (name, latencies) in enumerate(zip(training.names, compared, strict=True)):
        best = training.trainer.contests[game].latency
        cells = [print_seconds(latencies[b]) if b in latencies else "" for b in BASELINES]
        table.add_row(name, *cells, print_seconds(best), f"{ratio(best, latencies['greedy']):.4f}")
    return table
