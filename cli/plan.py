"""`memplan plan`: passes over the program, if any are wanted, then a plan for it, checked and reported on."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memplan.cli.arguments import (
    DEFAULT_PLANNER,
    AsJson,
    Dims,
    Dump,
    EffortName,
    OpenPage,
    PlannerName,
    ReportFolder,
    TargetName,
    TimeLimit,
    TripCounts,
)
from memplan.compiler.effort import Effort, Guard, check_time_limit
from memplan.compiler.errors import MemplanError

if TYPE_CHECKING:
    from memplan.cli.reports import References
    from memplan.compiler.mapping.plan import Plan
    from memplan.compiler.mapping.problem import MappingProblem
    from memplan.planners.planner import Budget, Planner

_Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default=False,
        help="What `memplan train` wrote, for the planners agent and hybrid. Left out, they take the agent that "
        "comes with the package.",
    ),
]
_PrintTo = Annotated[
    Path | None, typer.Option(metavar="FILE", show_default=False, help="Print it there, and not to standard error.")
]


def command(
    dump: Dump,
    target: TargetName = None,
    planner: PlannerName = DEFAULT_PLANNER,
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="PLAN.json", show_default=False, help="Write the plan here.")
    ] = None,
    report: ReportFolder = None,
    open_: OpenPage = False,
    json: AsJson = False,
    trip_count: TripCounts = None,
    dim: Dims = None,
    checkpoint: _Checkpoint = None,
    passes: Annotated[
        str,
        typer.Option(
            metavar="P,P,…",
            help="Passes that rewrite the program first: names, `auto`, or `none`. `auto` leaves a module that a "
            "compiler scheduled as it is, and plans that schedule.",
        ),
    ] = "none",
    print_after: Annotated[
        str | None,
        typer.Option(metavar="P", show_default=False, help="Print the program after this pass, or `all`."),
    ] = None,
    print_to: _PrintTo = None,
) -> None:
    """Plan a program's memory, and report.

    The plan is checked, emulated, and compared with everything in slow memory, with what the program's compiler
    decided, and with the bound that no plan beats.
    """
    check_time_limit(time_limit)
    guard = Guard(time_limit)  # Importing what follows takes time as well.
    from memplan.cli.bindings import Bindings
    from memplan.cli.console import Stages
    from memplan.cli.dumps import read_dump, target_for
    from memplan.cli.outputs import check_file, check_folder
    from memplan.cli.page import open_page
    from memplan.cli.passes import PassOptions, chosen_passes, run_passes, show_passes
    from memplan.cli.preparation import prepare_with
    from memplan.cli.reports import make_references, print_result, scored_report
    from memplan.compiler.mapping.build import build
    from memplan.compiler.report.files import write_report

    check_file(out)
    check_folder(report)
    check_file(print_to)
    maker = planner_with(planner, checkpoint)
    options = PassOptions(passes, print_after, print_to)
    chosen = chosen_passes(options)
    bindings = Bindings.of(trip_count, dim)
    with Stages(total=8 + guard.is_limited, quiet=json) as stages:
        graph = read_dump(dump, stages, bindings)
        described = target_for(graph, target)
        with stages.stage("running passes"):
            outcome = run_passes(graph, described, chosen, options)
        with stages.stage("building the problem"):
            problem = (built := build(outcome.graph, described)).problem
        guard.extend(prepare_with(maker.prepare, stages))
        references = make_references(problem, stages, guard.is_limited)
        with stages.stage(f"planning with {planner}"):
            plan = _planned(problem, maker, _budget(effort, time_limit, guard, references))
        result = scored_report(built, plan, references, stages)
        with stages.stage("writing"):
            if out is not None:
                plan.save(out)
            if report is not None:
                write_report(result, report)
    if chosen and not json:
        show_passes(outcome)
    print_result(result, report, json)
    if open_:
        open_page(result, report)


def _budget(effort: Effort, time_limit: float | None, guard: Guard, references: References) -> Budget:
    """Returns the budget of a planner: the limit without the seconds that are gone, and those that the report takes."""
    from memplan.cli.console import note
    from memplan.planners.planner import Budget

    gc.freeze()  # What was made so far stays, and collections need not walk it.
    left = guard.left() - references.seconds
    if left <= 0.0:
        note(f"the time limit of {time_limit:g} s is over before planning: the plan is one that needs no search")
    limit = None if time_limit is None else max(left, 0.0)
    return references.offered_to(Budget(effort, time_limit=limit))


def _planned(problem: MappingProblem, planner: Planner, budget: Budget) -> Plan:
    """Returns the plan of a planner; ends the command if it breaks rules."""
    from memplan.cli.reports import stop_if_violated
    from memplan.planners.planner import InvalidPlanError

    try:
        return planner.plan(problem, budget)
    except InvalidPlanError as error:
        stop_if_violated(error.violations)
        raise


def planner_with(name: str, checkpoint: Path | None) -> Planner:
    """Returns a planner; its agent is that of the checkpoint, if one is given.

    Raises:
      MemplanError: no planner has this name, or it takes no checkpoint.
    """
    from memplan.planners import planner as registry

    known = registry.get(name)
    if checkpoint is None:
        return known
    if name == "agent":
        from memplan.rl_agent.planner import AgentOptions, solve_with

        return replace(known, solve=lambda problem, budget: solve_with(problem, budget, AgentOptions(checkpoint)))
    if name == "hybrid":
        from memplan.rl_agent.hybrid import solve_with as hybrid_with

        return replace(known, solve=lambda problem, budget: hybrid_with(problem, budget, checkpoint))
    raise MemplanError(f"--checkpoint {checkpoint}: is for --planner agent and hybrid, not for {name}")
