"""`memplan bench pipeline`: seconds to the proven split of a chain over devices, beside even splits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from memplan.cli.arguments import EffortName, JsonFile, Markdown
from memplan.cli.bench.results import Row, write_bench
from memplan.cli.bench.rows import chosen_names, print_rows
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.cli.programs import find_program, prepare_jax
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.planners.pipeline.problem import PipelineLayer, PipelineProblem, Schedule

_COLUMNS = (
    *("layers of", "layers", "devices", "chunks", "microbatches", "schedule", "memory", "CPU seconds", "gap"),
    *("recomputing", "equal layers", "equal parameters"),
)
_TEXT = ("layers of", "schedule", "memory")

Layers = tuple[PipelineLayer, ...]


def command(
    problems: Annotated[
        str | None,
        typer.Option("--problems", metavar="N,N,…", show_default=False, help="Names of chains; by default all."),
    ] = None,
    effort: EffortName = Effort.NORMAL,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """Seconds to the proven split of a chain of layers over devices, beside even splits.

    One chain is that of a JAX program; the others are drawn from a fixed seed.
    """
    check_file(json_file)
    names = chosen_names(problems, "--problems", CHAINS)
    rows: list[Row] = []
    with Stages(total=len(names) * len(SETTINGS)) as stages:
        for name in names:
            layers = CHAINS[name]()
            for setting in SETTINGS:
                with stages.stage(name):
                    rows.append(row_of(name, layers, *setting, effort=effort))
    lines = [_cells(row) for row in rows]
    print_rows(_COLUMNS, lines, _TEXT, markdown=markdown)
    write_bench(json_file, "pipeline", rows, {"proven": sum(row["gap"] <= 1e-9 for row in rows)})


def row_of(
    name: str, layers: Layers, stages: int, chunks: int, microbatches: int, schedule: Schedule, share: float | None,
    effort: Effort,
) -> Row:  # fmt: skip
    """Splits one chain; with a share, within so much of what the fastest split without a limit needs."""
    from memplan.planners.pipeline.baselines import equal_layers, equal_parameters
    from memplan.planners.pipeline.solve import solve_pipeline
    from memplan.planners.pipeline.verifier import verify_pipeline

    problem = PipelineProblem(layers, stages, microbatches, chunks, schedule, bandwidth=100e9, latency=1e-6)
    if share is not None:
        limit = int(share * max(solve_pipeline(problem, Effort.FAST).memory))
        problem = PipelineProblem(
            layers, stages, microbatches, chunks, schedule, limit, bandwidth=100e9, latency=1e-6, recompute=True
        )
    start = time.process_time()
    plan = solve_pipeline(problem, effort)
    seconds = time.process_time() - start
    if violations := verify_pipeline(problem, plan):
        raise MemplanError(f"{name}: {violations[0]}")
    row: dict[str, Any] = {"name": name, "layers": len(layers), "devices": stages, "chunks": chunks}
    row |= {"microbatches": microbatches, "schedule": schedule, "limit": problem.limit, "share": share}
    row |= {"time": plan.time, "gap": plan.gap, "recomputing": sum(plan.recompute), "seconds": seconds}
    for other in (equal_layers(problem), equal_parameters(problem)):
        fits = problem.limit is None or max(other.memory) <= problem.limit
        row[other.method] = other.time / plan.time if fits else None
    return row


def _cells(row: Row) -> list[str]:
    others = ["does not fit" if row[name] is None else f"{row[name]:.3f}" for name in _COLUMNS[-2:]]
    return [
        row["name"],
        *(str(row[name]) for name in ("layers", "devices", "chunks", "microbatches", "schedule")),
        "any" if row["share"] is None else f"{row['share']:.0%}",
        f"{row['seconds']:.1f}",
        "optimal" if row["gap"] <= 1e-9 else f"{row['gap']:.2%}",
        str(row["recomputing"]),
        *others,
    ]


def _gpt2() -> Layers:
    """The layers of the workload `gpt2_infer`, of 4 × 1024 tokens a microbatch, on a TPU v5e."""
    prepare_jax()
    from memplan.compiler.hardware.target import load_target
    from memplan.passes.pipeline import pipeline_layers

    program = find_program("gpt2_infer")
    return pipeline_layers(program.fun, *program.args, target=load_target("tpu-v5e"))


def _blocks(count: int) -> Layers:
    """Equal blocks between an embedding of many parameters and a head that takes as long as two blocks."""
    block = PipelineLayer("block", 1e-3, 2e-3, 400 << 20, 160 << 20, 8 << 20)
    embedding = PipelineLayer("embedding", 1e-4, 3e-4, 1600 << 20, 1 << 20, 8 << 20)
    head = PipelineLayer("head", 2e-3, 4e-3, 1600 << 20, 320 << 20, 0)
    return (embedding, *(block,) * count, head)


def _drawn(count: int) -> Layers:
    draw = random.Random(count)
    return tuple(
        PipelineLayer(
            f"layer {number}", draw.uniform(5e-4, 2e-3), draw.uniform(1e-3, 4e-3), draw.randrange(100 << 20, 600 << 20),
            draw.randrange(40 << 20, 300 << 20), draw.randrange(4 << 20, 16 << 20),
        )
        for number in range(count)
    )  # fmt: skip


# Chains by name, and what makes each.
CHAINS: dict[str, Callable[[], Layers]] = {
    "gpt2_infer": _gpt2,
    "blocks-48": lambda: _blocks(48),
    "drawn-20": lambda: _drawn(20),
    "drawn-100": lambda: _drawn(100),
}

# Devices, chunks, microbatches, schedule, and the share of the memory that the fastest split without a limit needs.
SETTINGS: tuple[tuple[int, int, int, Schedule, float | None], ...] = (
    (4, 1, 8, "1f1b", None),
    (4, 1, 8, "1f1b", 0.6),
    (4, 1, 8, "gpipe", None),
    (4, 2, 8, "1f1b", None),
    (8, 1, 32, "1f1b", None),
    (8, 1, 32, "1f1b", 0.6),
)
