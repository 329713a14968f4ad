"""What the commands print and write about a plan."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from memplan import pipeline
from memplan.cli import console
from memplan.cli.console import Stages, note
from memplan.cli.exit_status import ExitStatus
from memplan.cli.references import reference_planners
from memplan.compiler.mapping.build import BuiltProblem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import Violation
from memplan.compiler.report.description import describe
from memplan.compiler.report.files import FILES
from memplan.compiler.report.report import Report, make_report
from memplan.compiler.report.schema import report_json
from memplan.compiler.report.tables import print_report
from memplan.planners import planner as planners
from memplan.planners.planner import Budget, Verifier


def stop_if_violated(violations: list[Violation]) -> None:
    """Prints the rules that a plan breaks and ends the command, if there are any."""
    if not violations:
        return
    for violation in violations:
        console.write_line(f"{violation.rule}: {violation.message}")
    note(f"the plan breaks the rules in {len(violations):,} place{'s' if len(violations) > 1 else ''}")
    raise typer.Exit(ExitStatus.NO)


@dataclass(frozen=True)
class References:
    """What a plan is compared with.

    Attributes:
      plans: `(label, plan)`, verified.
      verifier: that verified them.
      seconds: that it takes to verify and score a plan, as these took; 0 if that was not measured.
    """

    plans: tuple[tuple[str, Plan], ...]
    verifier: Verifier
    seconds: float

    def offered_to(self, budget: Budget) -> Budget:
        """Returns a budget of a planner that need not make or verify these plans again."""
        return replace(budget, offered=tuple(plan for _, plan in self.plans), verifier=self.verifier)


def make_references(problem: MappingProblem, stages: Stages, is_timed: bool = False) -> References:
    """Plans what a plan is compared with; scores it only if the seconds that this takes are asked for."""
    verifier = Verifier()
    with stages.stage("planning what to compare with"):
        plans = tuple(
            (label, planners.get(planner).plan(problem, Budget(verifier=verifier)))
            for label, planner in reference_planners(problem)
        )
    if not is_timed:
        return References(plans, verifier, 0.0)
    with stages.stage("emulating what to compare with"):
        started = time.monotonic()
        make_report(problem, plans[-1][1], plans[:-1])
        seconds = time.monotonic() - started
    return References(plans, verifier, 2.0 * seconds + verifier.seconds)


def scored_report(built: BuiltProblem, plan: Plan, references: References, stages: Stages) -> Report:
    """Scores a plan that is valid beside what it is compared with."""
    others = [(label, other) for label, other in references.plans if other.planner != plan.planner]
    with stages.stage("emulating"):
        return make_report(built.problem, plan, others, describe(built))


def checked_report(built: BuiltProblem, plan: Plan, stages: Stages) -> Report:
    """Verifies a plan, and scores it beside what it is compared with; ends the command if a rule is broken."""
    with stages.stage("verifying"):
        violations = pipeline.verify(built.problem, plan)
    stop_if_violated(violations)
    return scored_report(built, plan, make_references(built.problem, stages), stages)


def print_result(report: Report, folder: Path | None, as_json: bool) -> None:
    """Prints a report as tables or as JSON, and names the files in `folder`, if it was written there."""
    if as_json:
        console.write(json.dumps(report_json(report), indent=2))
        return
    console.show(lambda terminal: print_report(report, terminal))
    if folder is not None:
        console.write("")
        console.write_line(f"Report in {folder}: {', '.join(FILES)} (ui.perfetto.dev opens the trace)")
