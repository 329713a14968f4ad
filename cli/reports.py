"""What the commands print and write about a plan."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from memplan import pipeline
from memplan.cli import console
from memplan.cli.console import Stages, note
from memplan.cli.exit_status import ExitStatus
from memplan.cli.references import reference_planners
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import Violation
from memplan.compiler.report.files import FILES
from memplan.compiler.report.report import Report, make_report
from memplan.compiler.report.schema import report_json
from memplan.compiler.report.tables import print_report


def stop_if_violated(violations: list[Violation]) -> None:
    """Prints the rules that a plan breaks and ends the command, if there are any."""
    if not violations:
        return
    for violation in violations:
        console.write_line(f"{violation.rule}: {violation.message}")
    note(f"the plan breaks the rules in {len(violations):,} place{'s' if len(violations) > 1 else ''}")
    raise typer.Exit(ExitStatus.NO)


def checked_report(problem: MappingProblem, plan: Plan, stages: Stages) -> Report:
    """Verifies a plan, plans what it is compared with, and scores them all; ends the command if a rule is broken."""
    with stages.stage("verifying"):
        violations = pipeline.verify(problem, plan)
    stop_if_violated(violations)
    with stages.stage("planning what to compare with"):
        others = [
            (label, pipeline.plan(problem, planner=planner))
            for label, planner in reference_planners(problem)
            if planner != plan.planner
        ]
    with stages.stage("emulating"):
        return make_report(problem, plan, others)


def print_result(report: Report, folder: Path | None, as_json: bool) -> None:
    """Prints a report as tables or as JSON, and names the files in `folder`, if it was written there."""
    if as_json:
        console.write(json.dumps(report_json(report), indent=2))
        return
    console.show(lambda terminal: print_report(report, terminal))
    if folder is not None:
        console.write("")
        console.write_line(f"Report in {folder}: {', '.join(FILES)} (ui.perfetto.dev opens the trace)")
