"""`memplan contraction`: the order in which an einsum is contracted, pair by pair."""

from __future__ import annotations

import json as json_module
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from memplan.cli import console
from memplan.cli.arguments import AsJson, EffortName
from memplan.cli.console import Stages
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.report.units import print_bytes, print_count

if TYPE_CHECKING:
    from memplan.planners.contraction import ContractionPlan, ContractionProblem

_FLOPS = re.compile(r"\d{1,30}(?:\.\d{1,6})?(?:[eE]\d{1,3})?")
_MOST_STEPS = 60


class Minimized(StrEnum):
    """As `Quantity` of planners/contraction/problem.py."""

    FLOPS = "flops"
    PEAK = "peak"


def command(
    expression: Annotated[
        str,
        typer.Argument(
            metavar="EXPRESSION", show_default=False, help='As of jnp.einsum, such as "ij,jk,kl->il"; no ellipsis.'
        ),
    ],
    sizes: Annotated[
        str,
        typer.Option(
            "--sizes",
            metavar="I=N,J=N,…",
            show_default=False,
            help="Of the indices; a number alone is the size of all others.",
        ),
    ],
    minimize: Annotated[
        Minimized,
        typer.Option(help="Flops, or peak: the most bytes of intermediates and result that stand at one time."),
    ] = Minimized.FLOPS,
    limit: Annotated[
        str | None,
        typer.Option(
            "--limit",
            metavar="SIZE|FLOPS",
            show_default=False,
            help="The most of the other: a peak such as 1GiB, or flops such as 2e9.",
        ),
    ] = None,
    itemsize: Annotated[int, typer.Option(metavar="BYTES", help="Of an element.", min=1)] = 4,
    effort: EffortName = Effort.NORMAL,
    json: AsJson = False,
) -> None:
    """Order the contraction of several tensors, pair by pair.

    The order is proven to be the best where the search comes to its end, as it does for some twenty tensors. Otherwise
    the bound says what no order is below.
    """
    from memplan.planners.contraction import contraction_problem, left_to_right, solve_contraction, verify_contraction

    most = None if limit is None else _limit(limit, minimize)
    known = _sizes(sizes, expression)
    problem = contraction_problem(expression, known, itemsize, minimize.value, most)
    with Stages(total=1, quiet=json) as stages, stages.stage("ordering"):
        plan = solve_contraction(problem, effort)
    if violations := verify_contraction(problem, plan):
        raise AssertionError(violations[0])
    if json:
        console.write(json_module.dumps(plan_json(problem, plan), indent=2))
        return
    console.write(summary(problem, plan, left_to_right(problem)))
    console.show(lambda terminal: terminal.print(steps_table(problem, plan)))


def _limit(text: str, minimize: Minimized) -> float:
    """Returns bytes where flops are minimized, and otherwise flops."""
    if minimize is Minimized.FLOPS:
        from memplan.backends.fit.limit import limit_of

        return limit_of(text)
    if _FLOPS.fullmatch(text.strip()):
        return float(text)
    raise MemplanError(f"--limit {text}: must be a number of flops, such as 2e9, where the peak is minimized")


def _sizes(text: str, expression: str) -> dict[str, int]:
    """Returns the sizes of indices; raises MemplanError if the text makes no sense."""
    found: dict[str, int] = {}
    others: list[int] = []
    indices = set(expression) - set(",-> ")
    for part in text.split(","):
        name, equals, size = part.strip().rpartition("=")
        if not size.strip().isdecimal() or len(size) > 18 or (equals and name not in indices):
            raise MemplanError(f"--sizes {text}: {part.strip()!r} is not INDEX=SIZE of an index of the expression")
        if name in found or (not name and others):
            raise MemplanError(f"--sizes {text}: {name or 'the size of all others'} is there twice")
        if name:
            found[name] = int(size)
        else:
            others.append(int(size))
    return found | {index: others[0] for index in indices - set(found) if others}


def summary(problem: ContractionProblem, plan: ContractionPlan, written: ContractionPlan) -> str:
    """Returns what is known of a plan, beside the order from left to right."""
    if plan.is_optimal:
        proof = f"proven: no order has less {plan.minimize if plan.minimize == 'flops' else 'peak'}"
    else:
        least = print_count(plan.bound) if plan.minimize == "flops" else print_bytes(plan.bound)
        proof = f"the least {plan.minimize} that was found; no order has less than {least}"
    limit = ""
    if problem.limit is not None:
        what = print_bytes(problem.limit) if problem.limited == "peak" else print_count(problem.limit)
        limit = f" within {problem.limited} of {what}"
    return (
        f"{len(problem.operands)} tensors: {print_count(plan.flops)} flops, a peak of {print_bytes(plan.peak)} beside "
        f"the tensors\n{proof}{limit}\n"
        f"from left to right: {print_count(written.flops)} flops, a peak of {print_bytes(written.peak)}\n"
    )


def steps_table(problem: ContractionProblem, plan: ContractionPlan) -> Table:
    """Returns the steps in their order; of very many, those at both ends."""
    from memplan.planners.contraction.steps import steps_of

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("step", "contraction", "flops", "result", "stands then"):
        table.add_column(column, justify="left" if column == "contraction" else "right", overflow="fold")
    steps = list(steps_of(problem, plan.path))
    for number, step in enumerate(steps):
        if _MOST_STEPS // 2 <= number < len(steps) - _MOST_STEPS // 2 and len(steps) > _MOST_STEPS:
            if number == _MOST_STEPS // 2:
                table.add_row("…", f"{len(steps) - _MOST_STEPS} more", "", "", "")
            continue
        sides = ",".join("".join(side) for side in step.sides)
        text = f"{sides}->{''.join(step.result)}"
        table.add_row(str(number), text, print_count(step.flops), print_bytes(step.bytes), print_bytes(step.standing))
    return table


def plan_json(problem: ContractionProblem, plan: ContractionPlan) -> dict[str, Any]:
    """Returns a plan as JSON; `path` is what `optimize` of `jnp.einsum` takes."""
    return {
        "expression": problem.expression,
        "sizes": dict(sorted(problem.sizes.items())),
        "itemsize": problem.itemsize,
        "minimize": plan.minimize,
        "limit": problem.limit,
        "flops": plan.flops,
        "peak": plan.peak,
        "bound": plan.bound,
        "is_optimal": plan.is_optimal,
        "method": plan.method,
        "path": plan.linear_path,
    }
