"""`memplan pipeline`: a chain of layers split over devices that train it as a pipeline."""

from __future__ import annotations

import json as json_module
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from memplan.cli import console
from memplan.cli.arguments import AsJson, EffortName
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.cli.programs import find_program, prepare_jax
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.report.units import print_bytes, print_seconds

if TYPE_CHECKING:
    from memplan.planners.pipeline import PipelineLayer, PipelinePlan, PipelineProblem
    from memplan.planners.pipeline.costs import SplitCosts

_BANDWIDTH = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?([kMGT]?)B/s")
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(s|ms|us|ns)")
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

# Columns of the timeline.
_WIDTH = 120


class ScheduleName(StrEnum):
    """As `Schedule` of planners/pipeline/problem.py."""

    ONE_F_ONE_B = "1f1b"
    GPIPE = "gpipe"


def command(
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM|FILE.json",
            show_default=False,
            help="A workload, or module:function, which takes nothing and returns (fun, args): a forward pass or a "
            "loss of one microbatch, whose first argument holds the parameters. Or a file of layers.",
        ),
    ],
    stages: Annotated[int, typer.Option(metavar="P", show_default=False, help="Devices.", min=1)],
    microbatches: Annotated[int, typer.Option(metavar="M", show_default=False, help="Of a step.", min=1)],
    interleave: Annotated[int, typer.Option(metavar="V", help="Pieces of the chain on each device.", min=1)] = 1,
    schedule: Annotated[
        ScheduleName,
        typer.Option(help="One forward and one backward pass in turn, or all forward passes before all backward ones."),
    ] = ScheduleName.ONE_F_ONE_B,
    limit: Annotated[
        str | None,
        typer.Option("--limit", metavar="SIZE", show_default=False, help="Bytes of each device, such as 16GiB."),
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Let pieces that do not fit otherwise run their forward pass again.")
    ] = False,
    bandwidth: Annotated[
        str, typer.Option(metavar="RATE", help="Of a send from device to device: an assumption.")
    ] = "100GB/s",
    latency: Annotated[str, typer.Option(metavar="TIME", help="Of a send: an assumption.")] = "1us",
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="T", help="Device that a program's layers are timed for.")
    ] = "tpu-v5e",
    layers_out: Annotated[
        Path | None,
        typer.Option("--layers-out", metavar="FILE", show_default=False, help="Write the layers to this JSON file."),
    ] = None,
    effort: EffortName = Effort.NORMAL,
    json: AsJson = False,
) -> None:
    """Split a chain of layers over devices that train it as a pipeline.

    The split has the least time of a step within the limit of memory, in the schedule that is named. Layers of a JAX
    program are found, timed by the cost model and weighed; its training state is that of Adam.
    """
    check_file(layers_out)
    most = None if limit is None else _bytes(limit)
    rate, seconds = _quantity(bandwidth, _BANDWIDTH, "--bandwidth", "100GB/s"), _seconds(latency)
    from memplan.compiler.files import write_atomically
    from memplan.planners.pipeline import PipelineProblem, solve_pipeline, verify_pipeline
    from memplan.planners.pipeline.layers_file import layers_text

    with Stages(total=2, quiet=json) as progress:
        with progress.stage(f"reading {program}"):
            layers, first = _layers(program, target)
        problem = PipelineProblem(
            layers, stages, microbatches, interleave, schedule.value, most, rate, seconds, recompute, first
        )
        with progress.stage("splitting"):
            plan = solve_pipeline(problem, effort)
    if violations := verify_pipeline(problem, plan):
        raise AssertionError(violations[0])
    if layers_out is not None:
        write_atomically(layers_out, layers_text(layers, first))
    if json:
        console.write(json_module.dumps(plan_json(problem, plan), indent=2))
        return
    console.write(summary(problem, plan))
    console.show(lambda terminal: terminal.print(pieces_table(problem, plan)))
    console.write("\n" + timeline_picture(problem, plan))


def _layers(program: str, target: str) -> tuple[tuple[PipelineLayer, ...], int]:
    from memplan.planners.pipeline.layers_file import read_layers

    if program.endswith(".json"):
        return read_layers(Path(program))
    prepare_jax()
    found = find_program(program)
    from memplan.compiler.hardware.target import load_target
    from memplan.passes.pipeline import pipeline_layers

    return pipeline_layers(found.fun, *found.args, target=load_target(target)), 0


def _bytes(text: str) -> int:
    from memplan.backends.fit.limit import limit_of

    return limit_of(text)


def _quantity(text: str, form: re.Pattern[str], option: str, example: str) -> float:
    match = form.fullmatch(text.strip())
    if match is None:
        raise MemplanError(f"{option} {text}: must be like {example}")
    return float(match[1]) * _UNITS[match[2]]


def _seconds(text: str) -> float:
    return _quantity(text, _SECONDS, "--latency", "1us")


def summary(problem: PipelineProblem, plan: PipelinePlan) -> str:
    """Returns what is known of a split, beside the even ones."""
    from memplan.planners.pipeline import equal_layers, equal_parameters

    costs = _split_costs(problem)
    bounds = (0, *plan.ends)
    busy = sum(
        costs.forward(start, end) + costs.backward(start, end, again)
        for start, end, again in zip(bounds, plan.ends, plan.recompute, strict=False)
    )
    waits = 1 - problem.microbatches * busy / problem.stages / plan.time if plan.time else 0.0
    proof = "proven: no split is faster" if plan.is_optimal else f"no split is faster than {print_seconds(plan.bound)}"
    size = f"{len(problem.layers)} layers on {problem.stages} devices, {problem.microbatches} microbatches"
    lines = [
        f"{size}: a step takes {print_seconds(plan.time)}, of which a device waits {waits:.1%} on average",
        f"{proof}; the fullest device needs {print_bytes(max(plan.memory))}",
    ]
    for other in (equal_layers(problem), equal_parameters(problem)):
        over = "" if problem.limit is None or max(other.memory) <= problem.limit else ", beyond the limit"
        lines.append(
            f"{other.method}: {print_seconds(other.time)}, the fullest device needs "
            f"{print_bytes(max(other.memory))}{over}"
        )
    return "\n".join(lines) + "\n"


def pieces_table(problem: PipelineProblem, plan: PipelinePlan) -> Table:
    """Returns the pieces in the order of the chain; the memory is that of the piece's device."""
    costs = _split_costs(problem)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("device", "layers", "forward", "backward", "recompute", "state", "kept", "device needs"):
        table.add_column(column, justify="left" if column == "layers" else "right", overflow="fold")
    bounds = (0, *plan.ends)
    for piece, (end, again) in enumerate(zip(plan.ends, plan.recompute, strict=True)):
        start, device = bounds[piece], piece % problem.stages
        names = dict.fromkeys((problem.layers[start].name, problem.layers[end - 1].name))
        table.add_row(
            str(device),
            " to ".join(names),
            print_seconds(costs.forward(start, end)),
            print_seconds(costs.backward(start, end, again)),
            "yes" if again else "no",
            print_bytes(costs.state(start, end)),
            print_bytes(costs.kept(start, end, again)),
            print_bytes(plan.memory[device]) if piece < problem.stages else "",
        )
    return table


def timeline_picture(problem: PipelineProblem, plan: PipelinePlan) -> str:
    """Returns a line for each device: microbatches forward as digits, backward as letters, dots where it waits."""
    width = _WIDTH - len(str(problem.stages)) - 1
    lines = []
    for device, taken in enumerate(_split_costs(problem).timeline(plan.ends, plan.recompute)):
        line = ["."] * width
        for step, start, end in taken:
            mark = chr(ord("0") + step.microbatch % 10) if step.forward else chr(ord("a") + step.microbatch % 26)
            places = range(round(start / plan.time * width), round(end / plan.time * width)) if plan.time else ()
            for place in places:
                line[place] = mark
        lines.append(f"{device:>{len(str(problem.stages))}} {''.join(line)}")
    lines.append(f"0 to {print_seconds(plan.time)}; microbatches forward are digits, backward letters")
    return "\n".join(lines)


def _split_costs(problem: PipelineProblem) -> SplitCosts:
    from memplan.planners.pipeline.costs import SplitCosts

    return SplitCosts(problem)


def plan_json(problem: PipelineProblem, plan: PipelinePlan) -> dict[str, Any]:
    """Returns a plan as JSON; times in seconds, memory in bytes."""
    bounds = (0, *plan.ends)
    return {
        "layers": len(problem.layers),
        "stages": problem.stages,
        "microbatches": problem.microbatches,
        "interleave": problem.chunks,
        "schedule": problem.schedule,
        "limit": problem.limit,
        "time": plan.time,
        "bound": plan.bound,
        "is_optimal": plan.is_optimal,
        "memory": list(plan.memory),
        "pieces": [
            {"device": piece % problem.stages, "start": bounds[piece], "end": end, "recompute": again}
            for piece, (end, again) in enumerate(zip(plan.ends, plan.recompute, strict=True))
        ],
    }
