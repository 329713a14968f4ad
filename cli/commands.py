"""What each command does. `main.py` declares their arguments and imports this file only when one of them runs."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.table import Table

from memplan import pipeline
from memplan.cli import console
from memplan.cli.console import Stages, note
from memplan.cli.exit_status import VIOLATED
from memplan.cli.outputs import check_file, check_folder
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.target import load_target, target_names
from memplan.compiler.ir import Graph
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import Violation, check_belongs
from memplan.compiler.mapping.verify import verify as verify_plan
from memplan.compiler.report.files import FILES, write_report
from memplan.compiler.report.report import Report, make_report
from memplan.compiler.report.schema import report_json
from memplan.compiler.report.tables import print_report
from memplan.compiler.report.units import print_bytes
from memplan.planners import planner as planner_registry


@dataclass(frozen=True)
class _Loaded:
    graph: Graph
    problem: MappingProblem


def show(plan_file: Path, dump: Path, target: str | None, report: Path | None, json: bool) -> None:
    """`memplan show`."""
    _check_outputs(None, report)
    made = Plan.load(plan_file)
    with Stages(total=6, quiet=json) as stages:
        loaded = _load(dump, target, made, stages)
        _check_belongs(loaded.problem, made, plan_file)
        result = checked_report(loaded.problem, made, stages)
        with stages.stage("writing"):
            if report is not None:
                write_report(result, report)
    print_result(result, report, json)


def verify(plan_file: Path, dump: Path, target: str | None) -> None:
    """`memplan verify`."""
    made = Plan.load(plan_file)
    with Stages(total=3) as stages:
        loaded = _load(dump, target, made, stages)
        _check_belongs(loaded.problem, made, plan_file)
        with stages.stage("verifying"):
            violations = verify_plan(loaded.problem, made)
    if violations:
        _fail_with(violations)
    problem = loaded.problem
    console.write(
        f"{plan_file} is valid for {problem.name} on {problem.target}: {len(made.residencies):,} residencies, "
        f"{len(made.copies):,} copies."
    )


def targets() -> None:
    """`memplan targets`."""
    table = Table(box=None, pad_edge=False)
    for column in ("target", "memories", "description"):
        table.add_column(column, overflow="fold")
    for name in target_names():
        target = load_target(name)
        memories = ", ".join(f"{space.name} {print_bytes(space.capacity)}" for space in target.spaces)
        table.add_row(name, memories, target.description)
    console.show(lambda terminal: terminal.print(table))


def planners() -> None:
    """`memplan planners`."""
    table = Table(box=None, pad_edge=False)
    for column in ("planner", "description"):
        table.add_column(column, overflow="fold")
    for name in planner_registry.names():
        table.add_row(name, planner_registry.get(name).description)
    console.show(lambda terminal: terminal.print(table))


def _load(dump: Path, target: str | None, plan: Plan | None, stages: Stages) -> _Loaded:
    """Reads a program and states its problem; tells warnings, and the target if nobody named it."""
    with stages.stage(f"reading {dump.name}"):
        graph = read(dump)
    for warning in dict.fromkeys(graph.warnings):
        note(f"warning: {warning}")
    if target is None and plan is not None:
        target = plan.target
    if target is None:
        guess = pipeline.guess_target(graph)
        target = guess.name
        note(f"planning for {guess.name}, since {guess.reason} (--target chooses another)")
    described = load_target(target)
    with stages.stage("building the problem"):
        return _Loaded(graph, build_problem(graph, described))


def _check_belongs(problem: MappingProblem, plan: Plan, file: Path) -> None:
    try:
        check_belongs(problem, plan)
    except MemplanError as error:
        raise type(error)(f"{file}: {error}") from None


def checked_report(problem: MappingProblem, plan: Plan, stages: Stages) -> Report:
    """Verifies a plan, plans what it is compared with, and scores them all; ends the command if a rule is broken."""
    with stages.stage("verifying"):
        violations = verify_plan(problem, plan)
    if violations:
        _fail_with(violations)
    with stages.stage("planning what to compare with"):
        others = [
            (label, pipeline.plan(problem, planner=planner))
            for label, planner in pipeline.reference_planners(problem)
            if planner != plan.planner
        ]
    with stages.stage("emulating"):
        return make_report(problem, plan, others)


def _fail_with(violations: Iterable[Violation]) -> None:
    violations = list(violations)
    for violation in violations:
        console.write(f"{violation.rule}: {violation.message}")
    note(f"the plan breaks the rules in {len(violations):,} place{'s' if len(violations) > 1 else ''}")
    raise typer.Exit(VIOLATED)


def _check_outputs(out: Path | None, report: Path | None) -> None:
    """Raises MemplanError at once for outputs that could not be written at the end."""
    check_file(out)
    check_folder(report)


def print_result(report: Report, folder: Path | None, json: bool) -> None:
    if json:
        console.write(json_module.dumps(report_json(report), indent=2))
        return
    console.show(lambda terminal: print_report(report, terminal))
    if folder is not None:
        console.write(f"\nReport in {folder}: {', '.join(FILES)} (ui.perfetto.dev opens the trace)")
