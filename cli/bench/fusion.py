"""`memplan bench fusion`: what layer fusion saves, beside the same program without it and as XLA:TPU fuses it.

Each workload is traced, cleaned, and planned with and without the pass `fusion`. XLA's own fusion is that of the
shipped dump for the target, without the compiler's estimates, so that all three are costed by the same roofline.
Traffic is what instructions read and write in slow memory, loops counted as often as they run: with nothing planned,
and under a plan, copies between memories included.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan import pipeline
from memplan.cli.arguments import EffortName, JsonFile, Markdown, PlannerName, TimeLimit, WorkloadNames
from memplan.cli.bench.results import Row, write_bench
from memplan.cli.bench.rows import print_rows
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.cli.programs import prepare_jax
from memplan.compiler.effort import Effort
from memplan.compiler.emulator.timing import Timeline, emulate
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.target import Target, load_target
from memplan.compiler.ir import Graph
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.compiler.report.units import ratio

if TYPE_CHECKING:
    from memplan.workloads import Workload

_COLUMNS = (
    "workload", "groups", "GB", "fused", "less", "XLA", "GB planned", "fused", "XLA", "ms planned", "fused", "less",
    "XLA", "seconds",
)  # fmt: skip


def command(
    workloads: WorkloadNames = None,
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="What to fuse and plan for.")] = "tpu-v5e",
    planner: PlannerName = "greedy",
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """Traffic and latency of programs with layer fusion, and without.

    Beside them stands the same program as XLA:TPU fuses it, where a dump of it is shipped.
    """
    check_file(json_file)
    prepare_jax()
    from memplan import workloads as registry
    from memplan.planners import planner as planner_registry

    described = load_target(target)
    planner_registry.get(planner)
    names = registry.dumped_names() if workloads is None else [name.strip() for name in workloads.split(",")]
    chosen = [registry.get(name) for name in names]
    rows: list[Row] = []
    with Stages(total=len(chosen)) as stages:
        for workload in chosen:
            with stages.stage(workload.name):
                rows.append(fusion_row(workload, described, planner, effort, time_limit))
    lines = [_cells(row) for row in rows]
    print_rows(_COLUMNS, lines, ("workload",), markdown=markdown)
    write_bench(json_file, "fusion", rows, summarize(rows))


def fusion_row(
    workload: Workload, target: Target, planner: str, effort: Effort = Effort.NORMAL, time_limit: float | None = None
) -> Row:
    """Returns the figures of a workload: bytes and seconds.

    Raises:
      MemplanError: the workload does not trace, or a plan is not valid.
    """
    from memplan import workloads as registry
    from memplan.compiler.frontends.jaxpr import trace
    from memplan.passes.base import GraphContext
    from memplan.passes.graph_manager import CLEAN_UPS, chosen_graph_passes, run_graph_passes

    fun, args = workload.build()
    traced = trace(fun, *args, donate_argnums=workload.donate_argnums)
    clean = run_graph_passes(traced, chosen_graph_passes(CLEAN_UPS)).graph
    started = time.perf_counter()
    outcome = run_graph_passes(clean, chosen_graph_passes("fusion,dead_code"), GraphContext(target))
    seconds = time.perf_counter() - started
    dump = registry.dumps_folder() / f"{workload.name}.{target.name}.default.hlo.txt.gz"
    graphs = {"unfused": scheduled(clean), "fused": scheduled(outcome.graph)}
    if dump.exists():
        graphs["xla"] = without_estimates(read(dump))
    row: dict[str, Any] = {"workload": workload.name, "target": target.name, "planner": planner}
    for name, graph in graphs.items():
        row[name] = figures(build_problem(graph, target), planner, effort, time_limit)
    return {**row, "groups": len(outcome.reports[0].changed), "seconds": seconds}


def figures(
    problem: MappingProblem, planner: str, effort: Effort = Effort.NORMAL, time_limit: float | None = None
) -> dict[str, float]:
    """Returns operations, bytes of slow memory with nothing planned and under a plan, and the plan's latency.

    Raises:
      MemplanError: the plan is not valid.
    """
    plan = pipeline.plan(problem, planner=planner, effort=effort, time_limit=time_limit)
    violations = verify(problem, plan)
    if violations:
        raise MemplanError(f"{planner}'s plan of {problem.name} is not valid: {violations[0].message}")
    timeline = emulate(problem, plan)
    slow = pipeline.plan(problem, planner="slow")
    return {
        "operations": problem.end,
        "traffic": slow_traffic(problem, slow, None),
        "planned_traffic": slow_traffic(problem, plan, timeline),
        "unplanned_latency": emulate(problem, slow).latency,
        "latency": timeline.latency,
    }


def slow_traffic(problem: MappingProblem, plan: Plan, timeline: Timeline | None) -> float:
    """Returns the bytes that operations, and the copies of a timeline, read and write in memory 0."""
    total = sum(
        access.bytes * problem.runs_at(at)
        for (at, access), residency in zip(problem.accesses, plan.served, strict=True)
        if plan.residencies[residency].space == 0
    )
    if timeline is not None:
        for link, moved in zip(problem.links, timeline.bytes_moved, strict=True):
            total += float(moved) * (0 in (link.source, link.destination))
    return total


def without_estimates(graph: Graph) -> Graph:
    """Returns a compiled module without what its compiler says of durations and of scoped memory."""
    computations = {}
    for name, computation in graph.computations.items():
        instructions = tuple(
            replace(i, attributes=tuple(pair for pair in i.attributes if pair[0] != "backend_config"))
            for i in computation.instructions
        )
        computations[name] = replace(computation, instructions=instructions)
    return replace(graph, computations=computations)


def summarize(rows: Sequence[Row]) -> dict[str, float]:
    """Returns the least factors by which traffic and planned latency fall."""
    return {
        f"least_{key}_factor": min(ratio(row["unfused"][key], row["fused"][key]) for row in rows)
        for key in ("traffic", "latency")
    }


def _cells(row: Row) -> list[str]:
    unfused, fused, xla = row["unfused"], row["fused"], row.get("xla")

    def of_xla(key: str, unit: float) -> str:
        return "" if xla is None else f"{xla[key] / unit:.2f}"

    return [
        row["workload"],
        f"{row['groups']:,}",
        f"{unfused['traffic'] / 1e9:.2f}",
        f"{fused['traffic'] / 1e9:.2f}",
        f"{ratio(unfused['traffic'], fused['traffic']):.1f}x",
        of_xla("traffic", 1e9),
        f"{unfused['planned_traffic'] / 1e9:.2f}",
        f"{fused['planned_traffic'] / 1e9:.2f}",
        of_xla("planned_traffic", 1e9),
        f"{unfused['latency'] * 1e3:.2f}",
        f"{fused['latency'] * 1e3:.2f}",
        f"{ratio(unfused['latency'], fused['latency']):.1f}x",
        of_xla("latency", 1e-3),
        f"{row['seconds']:.1f}",
    ]
