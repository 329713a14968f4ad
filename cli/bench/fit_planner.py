"""`memplan bench fit-planner`: the planner of fit by itself, on training steps that nothing compiles.

A step is traced and becomes a problem for a target, as in `memplan fit`. A limit is a percentage of the temporaries
that the step needs by the model in the order in which it is written. Costs are the model's, and every plan is checked
by `verify_fit`. The gap of a plan is its cost over the bound that no plan is below, minus one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.cli.arguments import EffortName, JsonFile, Markdown, Resume
from memplan.cli.bench.results import Results
from memplan.cli.bench.rows import positive_integers, print_rows
from memplan.cli.console import Stages, write
from memplan.cli.outputs import check_file
from memplan.cli.programs import prepare_jax
from memplan.compiler.cpu_time import cpu_seconds
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target, load_target
from memplan.compiler.report.units import print_bytes
from memplan.planners.fit.plan import FitError
from memplan.planners.fit.solve import solve_fit
from memplan.planners.fit.verifier import verify_fit
from memplan.planners.planner import Budget

if TYPE_CHECKING:
    from memplan.passes.fit.program import FitProgram

Row = dict[str, Any]

# The nodes of problems whose gaps the summary counts, and the gap that counts as small.
SMALL, SMALL_GAP = 300, 0.02

_OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True)
class Traceable:
    """A training step and its size.

    Attributes:
      name, size: as in the rows.
      build: returns `(fun, args)`.
      donate_argnums: as for `jax.jit`.
    """

    name: str
    size: str
    build: Callable[[], tuple[Any, tuple[Any, ...]]]
    donate_argnums: tuple[int, ...]


def command(
    steps: Annotated[
        str | None,
        typer.Option(metavar="S,S,…", show_default=False, help="Names of training steps; all by default."),
    ] = None,
    sizes: Annotated[
        str, typer.Option(metavar="SIZE,…", help="Sizes of these steps: tiny, small, real.")
    ] = "tiny,real",
    decoders: Annotated[
        str,
        typer.Option(
            metavar="N,N,…", help="Layers of decoders that are planned as well, trained by Adam and by descent."
        ),
    ] = "1,2,3,28",
    limits: Annotated[
        str, typer.Option(metavar="N,N,…", help="Limits, in percent of the temporaries of the step as written.")
    ] = "80,60,50,40,30",
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="Says how long everything takes.")] = (
        "tpu-v5e"
    ),
    offload: Annotated[bool, typer.Option("--offload", help="Values may be moved to the host.")] = False,
    effort: EffortName = Effort.NORMAL,
    markdown: Markdown = False,
    json_file: JsonFile = None,
    resume: Resume = False,
) -> None:
    """Cost and proven bound of plans under memory limits, without a compiler.

    The programs are training steps as they are traced. Every plan is checked by a verifier that shares no code with the
    planner.
    """
    from memplan.cli.preparation import prepare_with
    from memplan.planners.fit.preparation import prepare

    check_file(json_file)
    prepare_jax()
    percentages = positive_integers(limits, "--limits")
    if percentages[-1] > 100:
        raise MemplanError(f"--limits {limits}: {percentages[-1]} is more than 100 percent")
    found = traceables(steps, sizes, decoders)
    described = load_target(target)
    setting = {"limits": percentages, "target": described.name, "offload": offload, "effort": effort.value}
    results = Results("fit-planner", json_file, setting, summarize, resume)
    with Stages(total=len(found) + 1) as stages:
        prepare_with(prepare, stages)
        for step in found:
            with stages.stage(f"{step.name}, {step.size}"):
                if not results.has(step=step.name, size=step.size):
                    results.add(rows_of(step, described, offload, percentages, effort))
    print_rows(COLUMNS, lines_of(results.rows), TEXT_COLUMNS, markdown=markdown)
    write("")
    write(headline(summarize(results.rows)))


def traceables(steps: str | None, sizes: str, decoders: str) -> list[Traceable]:
    """Returns what the options name.

    Raises:
      MemplanError: there is no such step or size, or the layers of decoders are no numbers.
    """
    return [*_steps(steps, sizes), *_decoders(decoders)]


def _steps(names: str | None, sizes: str) -> list[Traceable]:
    from memplan.workloads import train_step

    chosen = train_step.names() if names is None else [name.strip() for name in names.split(",") if name.strip()]
    found = []
    for name in dict.fromkeys(chosen):
        step = train_step.get(name)
        for size in dict.fromkeys(size.strip() for size in sizes.split(",")):
            if size not in train_step.SIZES:
                raise MemplanError(f"--sizes {sizes}: must be of {', '.join(train_step.SIZES)}")
            found.append(Traceable(name, size, partial(step.build, size), step.donate_argnums))
    return found


def _decoders(layers: str) -> list[Traceable]:
    from memplan.workloads.train_transformer import decoder

    if not layers.strip():
        return []
    return [
        Traceable(f"decoder-{optimizer}", f"{number} layers", partial(decoder, number, optimizer), (0,))
        for number in positive_integers(layers, "--decoders")
        for optimizer in _OPTIMIZERS
    ]


def program_of_step(step: Traceable, target: Target, offload: bool) -> FitProgram:
    """Returns a training step as `memplan fit` plans it."""
    import jax

    from memplan.passes.fit.program import program_of

    fun, args = step.build()
    traced = jax.jit(fun, donate_argnums=step.donate_argnums).trace(*args)
    donated = tuple(info.donated for info in jax.tree.leaves(traced.args_info))
    return program_of(traced.jaxpr, target, donated, step.name, offload, "tpu")


def rows_of(step: Traceable, target: Target, offload: bool, limits: Sequence[int], effort: Effort) -> Iterator[Row]:
    """Yields a row for each limit, the largest limit first."""
    from memplan.backends.fit.prediction import interface_bytes

    program = program_of_step(step, target, offload)
    problem, equations = program.problem, len(program.closed.jaxpr.eqns)
    common = {"step": step.name, "size": step.size, "equations": equations, "nodes": len(problem.nodes)}
    seconds = program.seconds
    interface = interface_bytes(program)
    temporaries = max(program.as_written.peak - interface, 0)
    for percentage in sorted(limits, reverse=True):
        limit = interface + temporaries * percentage // 100
        row: Row = common | {"limit": percentage, "limit_bytes": limit, "seconds": seconds}
        began = cpu_seconds()
        try:
            plan = solve_fit(problem, limit, Budget(effort))
        except FitError as error:
            spent = cpu_seconds() - began
            least = {"proven_peak": error.proven, "found_peak": error.found, "is_impossible": error.is_impossible}
            yield row | {"cost": None, "bound": None, "gap": None, "cpu_seconds": spent, "violations": 0} | least
            continue
        spent = cpu_seconds() - began
        check = verify_fit(problem, plan, limit)
        yield row | {
            "peak": check.peak,
            "cost": check.added_seconds,
            "bound": plan.bound,
            "gap": gap_of(check.added_seconds, plan.bound),
            "cpu_seconds": spent,
            "violations": len(check.violations),
        }


def gap_of(cost: float, bound: float) -> float | None:
    """Returns a cost over its bound, minus one; None if nothing but 0 is proven of a cost above it."""
    if cost <= bound:
        return 0.0
    return cost / bound - 1.0 if bound > 0.0 else None


def summarize(rows: Sequence[Row]) -> Row:
    """Returns counts of plans, of those proven within 2 % of the optimum, and the most CPU seconds of one."""
    planned = [row for row in rows if row["cost"] is not None]
    small = [row for row in planned if row["nodes"] <= SMALL]
    gaps = [row["gap"] for row in planned if row["gap"] is not None]
    return {
        "problems": len(rows),
        "impossible": sum(row.get("is_impossible", False) for row in rows),
        "not_found": sum(row["cost"] is None and not row["is_impossible"] for row in rows),
        "planned": len(planned),
        "small": len(small),
        "small_within": sum(row["gap"] is not None and row["gap"] <= SMALL_GAP for row in small),
        "within": sum(gap <= SMALL_GAP for gap in gaps),
        "median_gap": statistics.median(gaps) if gaps else None,
        "violations": sum(row["violations"] for row in rows),
        "most_cpu_seconds": max((row["cpu_seconds"] for row in rows), default=None),
    }


def headline(summary: Row) -> str:
    """Returns the summary in a few lines."""
    return (
        f"{summary['problems']} problems: {summary['planned']} planned, {summary['impossible']} proven impossible, "
        f"{summary['not_found']} not found; {summary['violations']} violations\n"
        f"within 2 % of the proven optimum: {summary['within']} of {summary['planned']}; of at most {SMALL} nodes, "
        f"{summary['small_within']} of {summary['small']}"
    )


TEXT_COLUMNS = frozenset({"step", "size", "verified"})
COLUMNS = ("step", "size", "equations", "nodes", "limit", "bytes", "cost", "bound", "gap", "CPU s", "verified")


def lines_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Returns the lines of the table, for `rows.table_of`; costs are in percent of the step."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if row["cost"] is None:
            least = print_bytes(row["proven_peak"] if row["is_impossible"] else row["found_peak"])
            cost, bound, gap = f"needs {least}" if row["is_impossible"] else f"not found; {least} is", "", ""
        else:
            gap = "none proven" if row["gap"] is None else f"{row['gap'] * 100:.2f} %"
            cost, bound = (_percent(row[key], row["seconds"]) for key in ("cost", "bound"))
        lines.append(
            (
                row["step"], row["size"], f"{row['equations']:,}", f"{row['nodes']:,}", f"{row['limit']} %",
                print_bytes(row["limit_bytes"]), cost, bound, gap, f"{row['cpu_seconds']:.1f}",
                "" if row["cost"] is None else "yes" if row["violations"] == 0 else "no",
            )
        )  # fmt: skip
    return lines


def _percent(seconds: float, of: float) -> str:
    return f"{100 * seconds / of if of else 0.0:.3f} %"
