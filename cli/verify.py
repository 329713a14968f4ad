"""`memplan verify`: every rule that a saved plan breaks."""

from __future__ import annotations

from memplan.cli.arguments import Dims, Dump, PlanFile, TargetName, TripCounts


def command(
    plan_file: PlanFile, dump: Dump, target: TargetName = None, trip_count: TripCounts = None, dim: Dims = None
) -> None:
    """Check a plan against its program.

    The exit status is 0 if it is valid, and 1 if it breaks rules: every violation is listed.
    """
    from memplan import pipeline
    from memplan.cli.bindings import Bindings
    from memplan.cli.console import Stages, write_line
    from memplan.cli.dumps import built_of
    from memplan.cli.reports import stop_if_violated
    from memplan.compiler.mapping.plan import Plan

    bindings = Bindings.of(trip_count, dim)
    plan = Plan.load(plan_file)
    with Stages(total=3) as stages:
        problem = built_of(plan, plan_file, dump, target, bindings, stages).problem
        with stages.stage("verifying"):
            violations = pipeline.verify(problem, plan)
    stop_if_violated(violations)
    write_line(
        f"{plan_file} is valid for {problem.name} on {problem.target}: {len(plan.residencies):,} residencies, "
        f"{len(plan.copies):,} copies."
    )
