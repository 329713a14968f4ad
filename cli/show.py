"""`memplan show`: the report on a saved plan."""

from __future__ import annotations

from memplan.cli.arguments import AsJson, Dims, Dump, OpenPage, PlanFile, ReportFolder, TargetName, TripCounts


def command(
    plan_file: PlanFile,
    dump: Dump,
    target: TargetName = None,
    report: ReportFolder = None,
    open_: OpenPage = False,
    json: AsJson = False,
    trip_count: TripCounts = None,
    dim: Dims = None,
) -> None:
    """Report on an existing plan.

    The report is that of `memplan plan`.
    """
    from memplan.cli.bindings import Bindings
    from memplan.cli.console import Stages
    from memplan.cli.dumps import built_of
    from memplan.cli.outputs import check_folder
    from memplan.cli.page import open_page
    from memplan.cli.reports import checked_report, print_result
    from memplan.compiler.mapping.plan import Plan
    from memplan.compiler.report.files import write_report

    check_folder(report)
    bindings = Bindings.of(trip_count, dim)
    plan = Plan.load(plan_file)
    with Stages(total=7, quiet=json) as stages:
        built = built_of(plan, plan_file, dump, target, bindings, stages)
        result = checked_report(built, plan, stages)
        with stages.stage("writing"):
            if report is not None:
                write_report(result, report)
    print_result(result, report, json)
    if open_:
        open_page(result, report)
