"""`memplan diff`: what moved, appeared and grew between two programs or plans, and whether the peak grew too much."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memplan.cli.arguments import AsJson, Dims, TargetName, TripCounts
from memplan.cli.peak import Grouping
from memplan.compiler.errors import MemplanError

if TYPE_CHECKING:
    from memplan.cli.bindings import Bindings
    from memplan.cli.console import Stages
    from memplan.compiler.report.diff import Side

_PERCENT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?%")

_Side = Annotated[
    str,
    typer.Argument(
        show_default=False,
        help="A dump, a plan that `memplan plan --out` wrote (with --dump), a workload or module:function.",
    ),
]
_Growth = Annotated[
    str | None,
    typer.Option(
        "--fail-if-peak-grows",
        metavar="P%|SIZE",
        show_default=False,
        help="Exit with 1 if the peak of the main memory grows by more than this, such as 2% or 100MiB.",
    ),
]


def command(
    before: _Side,
    after: _Side,
    target: TargetName = None,
    dump: Annotated[
        Path | None,
        typer.Option("--dump", metavar="DUMP", show_default=False, help="The program that the plans are for."),
    ] = None,
    by: Annotated[Grouping, typer.Option("--by", help="What the buffers of a row have in common.")] = Grouping.OP,
    fail_if_peak_grows: _Growth = None,
    json: AsJson = False,
    trip_count: TripCounts = None,
    dim: Dims = None,
) -> None:
    """Show what differs between two dumps, plans or compiles of one program.

    Peak, latency, and what moved, appeared and grew, by group.
    """
    import json as json_module

    from memplan.cli import console
    from memplan.cli.bindings import Bindings
    from memplan.cli.console import Stages, note
    from memplan.cli.exit_status import ExitStatus
    from memplan.compiler.report.buffers import GroupBy
    from memplan.compiler.report.diff import compare
    from memplan.compiler.report.diff_tables import difference_json, print_difference

    if fail_if_peak_grows is not None:
        allowed_growth(fail_if_peak_grows, 0)  # before the work
    bindings = Bindings.of(trip_count, dim)
    with Stages(total=6, quiet=json) as stages:
        sides = [_side(name, target, dump, bindings, stages) for name in (before, after)]
        difference = compare(sides[0], sides[1], GroupBy(by.value))
    if json:
        console.write(json_module.dumps(difference_json(difference), indent=2))
    else:
        console.show(lambda terminal: print_difference(difference, terminal))
    if fail_if_peak_grows is None:
        return
    if difference.growth > allowed_growth(fail_if_peak_grows, difference.before.peak):
        note(f"the peak grew by more than {fail_if_peak_grows}")
        raise typer.Exit(ExitStatus.NO)


def allowed_growth(given: str, peak: int) -> float:
    """Returns the bytes by which a peak may grow, given a percentage of it or a size.

    >>> allowed_growth("2%", 1000), allowed_growth("1KiB", 1000)
    (20.0, 1024)

    Raises:
      MemplanError: it is neither.
    """
    from memplan.backends.fit.limit import limit_of

    if (match := _PERCENT.fullmatch(given.strip())) is not None:
        return peak * float(match[1]) / 100
    try:
        return limit_of(given)
    except MemplanError:
        raise MemplanError(
            f'--fail-if-peak-grows takes a percentage like "2%" or bytes like "100MiB", not {given!r:.60}'
        ) from None


def _side(name: str, target: str | None, dump: Path | None, bindings: Bindings, stages: Stages) -> Side:
    from memplan.cli.dumps import built_of
    from memplan.cli.peak import module_of
    from memplan.cli.reports import stop_if_violated
    from memplan.compiler.mapping.build import build
    from memplan.compiler.mapping.plan import Plan
    from memplan.compiler.mapping.verify import verify
    from memplan.compiler.report.diff import side_of_plan, side_of_program
    from memplan.planners import planner as planners
    from memplan.planners.planner import Budget

    if Path(name).suffix == ".json":
        if dump is None:
            raise MemplanError(f"{name} is a plan: --dump says which program it is for")
        plan = Plan.load(name)
        built = built_of(plan, Path(name), dump, target, bindings, stages)
        with stages.stage(f"verifying {name}"):
            stop_if_violated(verify(built.problem, plan))
        return side_of_plan(name, built, plan)
    graph, described, *_ = module_of(name, target, None, bindings, stages)
    with stages.stage(f"building the problem of {name}"):
        built = build(graph, described)
        slow = planners.get("slow").plan(built.problem, Budget())
    return side_of_program(name, built, described, slow)
