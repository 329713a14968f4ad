"""`memplan levels`: a level of compression for each part of a JAX program, within a budget."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from memplan.cli import console
from memplan.cli.arguments import AsJson, EffortName
from memplan.cli.console import Stages
from memplan.cli.level_costs import Cost, chosen, print_cost
from memplan.cli.programs import find_program, prepare_jax
from memplan.compiler.effort import Effort
from memplan.compiler.report.units import print_bytes

if TYPE_CHECKING:
    from memplan.passes.levels.network import CompressedProgram


def command(
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM",
            show_default=False,
            help="module:function, which takes nothing and returns (fun, args): a JAX function and its arguments, "
            "arrays of which the first holds the parameters.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="M",
            show_default=False,
            help="Of weights: low-rank, two factors; mixed-precision, 8, 4 or 2 bits; codebooks, by k-means; bonds, "
            "chains of cores. Of attention: matryoshka-kv, a rank for the keys and values of each head.",
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="SIZE",
            show_default=False,
            help="Of the cost: bytes such as 12MiB, a time such as 20us, or a share such as 30%.",
        ),
    ],
    cost: Annotated[
        Cost,
        typer.Option(
            help="What the budget limits: bytes of all parameters, or of all keys and values; or the peak of the main "
            "memory or the latency of the program, as memplan plans it."
        ),
    ] = Cost.BYTES,
    target: Annotated[
        str, typer.Option(metavar="T", help="What the peak or latency is planned for: a target, or a TOML file.")
    ] = "tpu-v5e",
    effort: EffortName = Effort.NORMAL,
    json: AsJson = False,
) -> None:
    """Compress weights, or keys and values, of a JAX program, each to a level of its own, and run it.

    The choice has the least error within the budget by the second-order model. The error of the compressed program is
    measured by running both, beside the best choice of one level for all, which is taken if it measures less.
    """
    prepare_jax()
    with Stages(total=2, quiet=json) as stages:
        with stages.stage(f"building {program}"):
            found = find_program(program)
        from memplan.passes.levels import levels_of

        with stages.stage("choosing levels"):
            levels = levels_of(found.fun, *found.args, method=method)
            result = chosen(levels, cost, budget, target, effort)
    if json:
        console.write(json_module.dumps(result_json(program, method, cost, result), indent=2))
        return
    console.write(_summary(program, cost, result))
    console.show(lambda terminal: terminal.print(levels_table(result)))


def _summary(program: str, cost: Cost, result: CompressedProgram) -> str:
    plan, uniform = result.plan, result.uniform
    proof = "proven best by the model" if plan.is_optimal else f"at most {plan.gap:.2%} above the best by the model"
    if plan.bound == 0 and plan.error > 0:
        proof = "the least that was found"
    lines = [
        f"{program}: {print_bytes(result.before)} of {result.what} become {print_bytes(result.after)}",
        f"error {plan.error:.3g} by the model ({proof}), {result.measured:.3g} measured",
    ]
    if result.planned is not None:
        after, before = (print_cost(cost, amount) for amount in result.planned)
        lines.insert(1, f"planned {cost} {after} of {before}")
    if uniform is None:
        lines.append("no level is within the budget for all\n")
    else:
        lines.append(
            f"{uniform.method}: {print_bytes(int(uniform.cost))}, error {uniform.error:.3g} by the model, "
            f"{result.uniform_measured:.3g} measured"
            + (", so this is taken: the model does not hold for errors as large\n" if result.is_uniform else "\n")
        )
    return "\n".join(lines)


def levels_table(result: CompressedProgram) -> Table:
    """Returns the chosen level of each part that has several."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "level", "bytes", "error by the model"):
        table.add_column(column, justify="left" if column in ("part", "level") else "right", overflow="fold")
    for layer, index in zip(result.problem.layers, result.taken.choice, strict=True):
        if len(layer.levels) > 1:
            level = layer.levels[index]
            table.add_row(layer.name, level.name, print_bytes(int(level.cost)), f"{level.error:.3g}")
    return table


def result_json(program: str, method: str, cost: Cost, result: CompressedProgram) -> dict[str, Any]:
    """Returns the result as JSON; sizes in bytes, times in seconds."""
    plan, uniform = result.plan, result.uniform
    chosen = zip(result.problem.layers, result.taken.choice, strict=True)
    return {
        "program": program,
        "method": method,
        "cost": cost,
        "budget": result.problem.budget,
        "planned": None if result.planned is None else result.planned[0],
        "planned_before": None if result.planned is None else result.planned[1],
        "before": result.before,
        "after": result.after,
        "error": plan.error,
        "bound": plan.bound,
        "measured": result.measured,
        "is_uniform": result.is_uniform,
        "levels": [
            {
                "part": layer.name,
                **{name: getattr(layer.levels[index], name) for name in ("name", "cost", "error")},
            }
            for layer, index in chosen
        ],
        "uniform": None
        if uniform is None
        else {
            "level": uniform.method.removeprefix("uniform "),
            "bytes": uniform.cost,
            "error": uniform.error,
            "measured": result.uniform_measured,
        },
    }
