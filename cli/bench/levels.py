"""`memplan bench levels`: seconds to the proof that a choice of levels is optimal, on problems that are drawn."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Annotated

import typer

from memplan.cli.arguments import JsonFile, Markdown
from memplan.cli.bench.level_methods import BUDGETS, method_cells, method_rows, trained_network
from memplan.cli.bench.level_methods import COLUMNS as METHOD_COLUMNS
from memplan.cli.bench.level_methods import TEXT as METHOD_TEXT
from memplan.cli.bench.results import Row, write_bench
from memplan.cli.bench.rows import positive_integers, print_rows
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.cli.programs import prepare_jax
from memplan.planners.levels.problem import LayerLevels, Level, LevelProblem

_COLUMNS = ("problem", "layers", "levels", "CPU seconds", "gap", "over optimum: 10,000 buckets", "uniform")
_TEXT = ("problem",)
KINDS = {
    "random": "costs and errors at random",
    "bits": "sizes of layers at random, errors that fall by 1.5 a level",
    "noisy": "the same, errors times 0.5 to 1.5",
    "subset": "error and cost of a level add up to the same: subset sums",
}


def command(
    sizes: Annotated[str, typer.Option(metavar="N,N,…", help="Layers of the problems.")] = "100,1000",
    levels: Annotated[int, typer.Option(metavar="N", help="Levels of each layer.", min=2)] = 16,
    methods: Annotated[
        bool, typer.Option("--methods", help="Compare mix and uniform choice of each method on a network trained here.")
    ] = False,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """Seconds to the proven choice of a level for each layer.

    The problems are drawn from a fixed seed.
    """
    check_file(json_file)
    if methods:
        _methods(markdown, json_file)
        return
    numbers = positive_integers(sizes, "--sizes")
    rows: list[Row] = []
    with Stages(total=len(KINDS) * len(numbers)) as stages:
        for size in numbers:
            for kind in KINDS:
                with stages.stage(f"{kind}, {size:,} layers"):
                    rows.append(row_of(kind, size, levels))
    lines = [_cells(row) for row in rows]
    print_rows(_COLUMNS, lines, _TEXT, markdown=markdown)
    write_bench(json_file, "levels", rows, {"slowest": max(row["seconds"] for row in rows)})


def _methods(markdown: bool, json_file: Path | None) -> None:
    prepare_jax()
    rows: list[Row] = []
    with Stages(total=1 + len(BUDGETS)) as stages:
        with stages.stage("training"):
            network = trained_network()
        for method in BUDGETS:
            with stages.stage(method):
                rows.extend(method_rows(method, network))
    lines = [method_cells(row) for row in rows]
    print_rows(METHOD_COLUMNS, lines, METHOD_TEXT, markdown=markdown)
    write_bench(json_file, "levels", rows, {"better": sum(row["measured"] < row["uniform_measured"] for row in rows)})


def drawn_problem(kind: str, layers: int, levels: int, seed: int = 0) -> LevelProblem:
    """Returns a problem of a kind in `KINDS`; the budget is 30 % of the way from the least cost to the most."""
    draw = random.Random(seed)
    rows = []
    for number in range(layers):
        size, scale = draw.randint(1_000, 1_000_000), draw.uniform(0.1, 10.0)
        row = []
        for level in range(levels):
            if kind == "random":
                cost, error = draw.randint(0, 1_000_000), draw.random()
            elif kind == "subset":
                cost = draw.randint(1, 1_000_000)
                error = float(1_000_000 - cost)
            else:
                noise = draw.uniform(0.5, 1.5) if kind == "noisy" else 1.0
                cost, error = size * (level + 1) // levels, scale * 1.5**-level * noise
            row.append(Level(f"level {level}", cost, error))
        rows.append(LayerLevels(f"layer {number}", tuple(row)))
    least, most = (sum(int(choose(level.cost for level in row.levels)) for row in rows) for choose in (min, max))
    return LevelProblem(tuple(rows), least + (most - least) * 3 // 10)


def row_of(kind: str, layers: int, levels: int) -> Row:
    """Solves one problem, and returns seconds, gap, and by which factor buckets and uniform choices are above it."""
    from memplan.planners.levels.baselines import bucket_choice, uniform_choice
    from memplan.planners.levels.solve import solve_levels

    problem = drawn_problem(kind, layers, levels)
    start = time.process_time()
    plan = solve_levels(problem)
    seconds = time.process_time() - start
    others = {"buckets": bucket_choice(problem), "uniform": uniform_choice(problem)}
    above = {
        name: None if other is None or plan.minimized == 0 else other.minimized / plan.minimized - 1.0
        for name, other in others.items()
    }
    return {"kind": kind, "layers": layers, "levels": levels, "seconds": seconds, "gap": plan.gap, **above}


def _cells(row: Row) -> list[str]:
    above = ["none" if row[name] is None else f"{row[name]:.2%}" for name in ("buckets", "uniform")]
    gap = "optimal" if row["gap"] <= 1e-9 else f"{row['gap']:.1e}"
    return [row["kind"], f"{row['layers']:,}", str(row["levels"]), f"{row['seconds']:.2f}", gap, *above]
