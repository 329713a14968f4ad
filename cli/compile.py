"""`memplan compile`: a JAX program compiled for a TPU by the real compiler, by its default and with our plan."""

from __future__ import annotations

import gzip
import json as json_module
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from memplan.backends.tpu import optimize as optimizer
from memplan.backends.tpu.outcome import BufferDecision, Candidate, Outcome
from memplan.cli import console
from memplan.cli.arguments import (
    DEFAULT_PLANNER,
    AsJson,
    EffortName,
    PlannerName,
    ProgramName,
    ReportFolder,
    TimeLimit,
)
from memplan.cli.console import Stages, note
from memplan.cli.outputs import check_file, check_folder
from memplan.cli.programs import find_program, parse_mesh, prepare_jax, tpu_program
from memplan.cli.signals import interrupted
from memplan.compiler.effort import Effort
from memplan.compiler.files import write_atomically
from memplan.compiler.hardware.target import load_target
from memplan.compiler.printable import printable
from memplan.compiler.report.files import FILES, write_report
from memplan.compiler.report.units import print_bytes, ratio

# What `--report` writes besides the report on the plan.
MODULES = ("default.hlo.txt.gz", "planned.hlo.txt.gz")
DECISIONS = ("decisions.txt", "decisions.json")

_SHOWN = 20

# Characters of an error that a table has room for.
_SHORT = 50


def command(
    program: ProgramName,
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="A TPU.")] = "tpu-v5e",
    planner: PlannerName = DEFAULT_PLANNER,
    mesh: Annotated[
        str | None,
        typer.Option(
            "--mesh",
            metavar="AXES",
            show_default=False,
            help="Compile for several devices: sizes (2x2, for axes x and y) or names and sizes (data=2,model=4).",
        ),
    ] = None,
    compile_budget: Annotated[
        int, typer.Option("--compile-budget", metavar="N", help="How many compiles may be made.")
    ] = 8,
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
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

    The real compiler runs in a process of its own; no TPU is needed, libtpu is. A program of several devices has
    shardings, by a mesh of its own or by the one that --mesh gives: as the argument `mesh` of the function that builds
    it, or else as the mesh that its names of axes refer to. Its default is always among the
    candidates. What was decided, and whether the compiler obeyed, is listed.
    """
    check_file(out)
    check_folder(report)
    prepare_jax()
    described = load_target(target)
    optimizer.check(described, planner, compile_budget, time_limit)
    with Stages(total=4, quiet=json) as stages:
        with stages.stage(f"tracing {program}"):
            lowered = tpu_program(find_program(program, parse_mesh(mesh) if mesh else None), described)
        with stages.stage(f"compiling for {target}"):
            outcome = optimizer.optimize(
                lowered.module,
                described,
                on=lowered.slice,
                planner=planner,
                compile_budget=compile_budget,
                effort=effort,
                time_limit=time_limit,
                interrupted=interrupted,
            )
        if interrupted():
            note("interrupted: this is the best module so far")
        with stages.stage("writing"):
            if out is not None:
                write_atomically(out, _packed(out.name, outcome.best.text))
            if report is not None:
                _write_report(outcome, report)
    if json:
        console.write(json_module.dumps(outcome_json(program, outcome), indent=2))
        return
    where = "" if lowered.slice is None else f" (one partition, on {lowered.slice.topology})"
    console.show(lambda terminal: terminal.print(headline(program + where, outcome)))
    console.show(lambda terminal: terminal.print(candidates_table(outcome)))
    if outcome.decisions:
        console.write("\n" + decisions_line(outcome))
        largest = sorted(outcome.decisions, key=lambda decision: -decision.size)
        console.show(lambda terminal: terminal.print(decisions_table(largest[:_SHOWN])))
        if len(largest) > _SHOWN:
            more = len(largest) - _SHOWN
            console.write(f"and {more:,} smaller (--report DIR writes all)")
    if report is not None:
        console.write("")
        console.write_line(f"Report in {report}: {', '.join((*FILES, *MODULES, *DECISIONS))}")


def headline(program: str, outcome: Outcome) -> str:
    """Returns the result in one line."""
    default, ours = cycles_of(outcome.default), cycles_of(outcome.best)
    gained = f"{(1 - outcome.ratio) * 100:.2f} % faster" if outcome.best is not outcome.default else "nothing beat it"
    if outcome.is_at_bound:
        gained += ": it is at the bound of our model"
    return (
        f"{program} on {outcome.target}: XLA's default {default:,.0f} cycles, ours {ours:,.0f} "
        f"(× {outcome.ratio:.4f}, {gained})"
    )


def cycles_of(candidate: Candidate) -> float:
    """Returns the cycles of a candidate that was compiled."""
    assert candidate.score is not None
    return candidate.score.cycles


def in_short(error: str) -> str:
    """Returns as much of an error as a table has room for."""
    line = " ".join(error.split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"


def candidates_table(outcome: Outcome) -> Table:
    """Returns the table of all compiles."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", no_wrap=True)
    for column in ("cycles", "to default", "predicted", "waiting", "compiled in"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    base = cycles_of(outcome.default)
    for candidate in outcome.candidates:
        mark = "best" if candidate is outcome.best else ""
        if candidate.score is None:
            table.add_row(candidate.name, "", "", "", "", "", in_short(candidate.error))
            continue
        score = candidate.score
        predicted = "" if candidate.predicted is None else f"{ratio(candidate.predicted, score.latency):.3f}"
        table.add_row(
            candidate.name,
            f"{score.cycles:,.0f}",
            f"{ratio(score.cycles, base):.4f}",
            predicted,
            f"{score.stalled / score.latency * 100 if score.latency else 0.0:.1f} %",
            f"{candidate.seconds:.1f} s",
            mark,
        )
    return table


def decisions_line(outcome: Outcome) -> str:
    """Returns how many decisions were obeyed, ignored and dropped."""
    states = Counter(decision.state for decision in outcome.decisions)
    counts = ", ".join(f"{states[state]:,} {state}" for state in ("obeyed", "ignored", "dropped") if states[state])
    return f"{len(outcome.decisions):,} decisions of the plan differ from the default: {counts}"


def decisions_table(decisions: list[BufferDecision]) -> Table:
    """Returns the table of decisions, in the given order."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("state", "instruction", "operand", "value", "size", "wanted", "found", "reason"):
        table.add_column(column, justify="right" if column in ("operand", "size") else "left", overflow="fold")
    for decision in decisions:
        operand = "result" if decision.operand < 0 else str(decision.operand)
        table.add_row(
            decision.state, decision.instruction, operand, decision.value, print_bytes(decision.size),
            decision.wanted, decision.found, decision.reason,
        )  # fmt: skip
    return table


def outcome_json(program: str, outcome: Outcome) -> dict[str, Any]:
    """Returns the result as JSON: times in seconds, sizes in bytes; the modules themselves left out."""
    candidates = []
    for candidate in outcome.candidates:
        score = candidate.score
        candidates.append(
            {
                "name": candidate.name,
                "options": candidate.options,
                "latency": score and score.latency,
                "cycles": score and score.cycles,
                "stalled": score and score.stalled,
                "unestimated": [asdict(item) for item in score.unestimated] if score else [],
                "predicted": candidate.predicted,
                "compile_seconds": candidate.seconds,
                "error": candidate.error,
            }
        )
    return {
        "program": program,
        "target": outcome.target,
        "ratio": outcome.ratio,
        "best": outcome.best.name,
        "candidates": candidates,
        "decisions": [asdict(decision) for decision in outcome.decisions],
    }


def _write_report(outcome: Outcome, folder: Path) -> None:
    from memplan.backends.jit.planning import report_of

    write_report(report_of(outcome.problem, outcome.plan, outcome.description), folder)
    for name, candidate in zip(MODULES, (outcome.default, outcome.best), strict=True):
        write_atomically(folder / name, _packed(name, candidate.text))
    rows = [asdict(decision) for decision in outcome.decisions]
    write_atomically(folder / DECISIONS[1], json_module.dumps(rows, indent=2) + "\n")
    lines = [decisions_line(outcome), ""]
    for decision in outcome.decisions:
        place = "result" if decision.operand < 0 else f"operand {decision.operand}"
        why = f" ({decision.reason})" if decision.reason else ""
        lines.append(
            f"{decision.state}: {decision.instruction} {place}, {decision.value}, {print_bytes(decision.size)}: "
            f"wanted {decision.wanted}, found {decision.found}{why}"
        )
    write_atomically(folder / DECISIONS[0], "\n".join(map(printable, lines)) + "\n")


def _packed(name: str, text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode()
