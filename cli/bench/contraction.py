"""`memplan bench contraction`: orders of contraction of drawn tensor networks, beside those of opt_einsum."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from memplan.cli.arguments import EffortName, JsonFile, Markdown
from memplan.cli.bench.results import Row, write_bench
from memplan.cli.bench.rows import chosen_names, print_rows
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.report.units import print_bytes, print_count
from memplan.planners.contraction.problem import ContractionProblem, Quantity

# Those of opt_einsum that take no exponential time, and its best for few tensors.
OTHERS = ("greedy", "random-greedy-128", "auto-hq", "dp")
_MOST_FOR_DP = 20

_COLUMNS = ("network", "tensors", "minimized", "memplan", "÷ bound", "CPU seconds", *OTHERS)
_TEXT = ("network", "minimized")


def command(
    networks: Annotated[
        str | None,
        typer.Option("--networks", metavar="N,N,…", show_default=False, help="Names of networks; by default all."),
    ] = None,
    effort: EffortName = Effort.NORMAL,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """Flops and peaks of orders of contraction, beside those of opt_einsum.

    The networks are drawn from a fixed seed.
    """
    check_file(json_file)
    names = chosen_names(networks, "--networks", NETWORKS)
    rows: list[Row] = []
    with Stages(total=2 * len(names)) as stages:
        for name in names:
            for quantity in ("flops", "peak"):
                with stages.stage(f"{name}, {quantity}"):
                    rows.append(row_of(name, quantity, effort))
    lines = [_cells(row) for row in rows]
    print_rows(_COLUMNS, lines, _TEXT, markdown=markdown)
    write_bench(json_file, "contraction", rows, summarize(rows))


def summarize(rows: list[Row]) -> Row:
    """Returns how many are proven, and in how many one of opt_einsum's is better."""
    return {
        "proven": sum(row["gap"] <= 1e-9 for row in rows),
        "beaten": sum(any(row[name] is not None and row[name] < row["least"] for name in OTHERS) for row in rows),
    }


def row_of(name: str, minimize: Quantity, effort: Effort) -> Row:
    """Orders one network, by memplan and by opt_einsum, whose trees are executed in our order of least peak."""
    from memplan.planners.contraction.solve import solve_contraction
    from memplan.planners.contraction.verifier import verify_contraction

    problem = NETWORKS[name](minimize)
    start = time.process_time()
    plan = solve_contraction(problem, effort)
    seconds = time.process_time() - start
    if violations := verify_contraction(problem, plan):
        raise MemplanError(f"{name}: {violations[0]}")
    row: dict[str, Any] = {"network": name, "tensors": len(problem.operands), "minimize": minimize}
    row |= {"least": plan.minimized, "bound": plan.bound, "gap": plan.gap, "seconds": seconds}
    for other in OTHERS:
        start = time.process_time()
        row[other] = others_least(problem, other)
        row[f"{other} seconds"] = time.process_time() - start
    return row


def others_least(problem: ContractionProblem, method: str) -> int | None:
    """Returns what an order of opt_einsum comes to by our count; None if there are too many tensors for it.

    Where the peak is minimized, it is asked for the least largest intermediate, if it can be.
    """
    import opt_einsum

    from memplan.planners.contraction.baselines import plan_of_path

    if method == "dp" and len(problem.operands) > _MOST_FOR_DP:
        return None
    size = problem.minimize == "peak"
    optimize: Any = method
    if method == "random-greedy-128":
        optimize = opt_einsum.RandomGreedy(max_repeats=128, minimize="size" if size else "flops")
    elif method == "dp":
        optimize = opt_einsum.DynamicProgramming(minimize="size" if size else "flops")
    shapes = [tuple(problem.sizes[index] for index in indices) for indices in problem.operands]
    path, _ = opt_einsum.contract_path(problem.expression, *shapes, shapes=True, optimize=optimize)
    return plan_of_path(problem, opt_einsum.paths.linear_to_ssa(path), method).minimized


def _cells(row: Row) -> list[str]:
    amount = print_count if row["minimize"] == "flops" else print_bytes
    over = "optimal" if row["gap"] <= 1e-9 else print_ratio(row["least"] / row["bound"])
    others = ["" if row[name] is None else print_ratio(row[name] / row["least"]) for name in OTHERS]
    return [
        row["network"],
        str(row["tensors"]),
        row["minimize"],
        amount(row["least"]),
        over,
        f"{row['seconds']:.1f}",
        *others,
    ]


def print_ratio(value: float) -> str:
    """Returns a ratio, with three digits if it is large."""
    return f"{value:.2f}" if value < 1_000 else f"{value:.2e}"


def _network(edges: Iterator[tuple[Any, Any, int]], minimize: Quantity) -> ContractionProblem:
    """Returns the network of edges, `(tensor, tensor, size)` each; a tensor None is the output."""
    operands: dict[Any, list[str]] = {}
    output, sizes = [], {}
    for number, (first, second, size) in enumerate(edges):
        index = chr(ord("a") + number) if number < 26 else chr(192 + number)
        sizes[index] = size
        for tensor in (first, second):
            if tensor is None:
                output.append(index)
            else:
                operands.setdefault(tensor, []).append(index)
    return ContractionProblem(tuple(map(tuple, operands.values())), tuple(output), sizes, 4, minimize)


def _grid(side: int, size: int) -> Iterator[tuple[Any, Any, int]]:
    for row in range(side):
        for column in range(side):
            if row + 1 < side:
                yield (row, column), (row + 1, column), size
            if column + 1 < side:
                yield (row, column), (row, column + 1), size


def _chain(matrices: int) -> Iterator[tuple[Any, Any, int]]:
    """A product of matrices of drawn sizes."""
    draw = random.Random(0)
    for number in range(matrices + 1):
        ends = (number - 1 if number else None, number if number < matrices else None)
        yield *ends, draw.randint(8, 512)


def _overlap(sites: int, bond: int) -> Iterator[tuple[Any, Any, int]]:
    """Two tensor trains, multiplied site by site."""
    for site in range(sites):
        yield ("upper", site), ("lower", site), 2
        if site + 1 < sites:
            yield ("upper", site), ("upper", site + 1), bond
            yield ("lower", site), ("lower", site + 1), bond


def _drawn(tensors: int, degree: float) -> Iterator[tuple[Any, Any, int]]:
    """A tree of indices and more of them at random, of sizes 2 to 8; some lead to the output."""
    draw = random.Random(tensors)
    for number in range(1, int(tensors * degree / 2)):
        first = number if number < tensors else draw.randrange(1, tensors)
        yield first, draw.randrange(first), draw.randint(2, 8)
    for number in range(0, tensors, 8):
        yield number, None, 4


# Networks by name, and what makes each.
NETWORKS: dict[str, Callable[[Quantity], ContractionProblem]] = {
    "chain-20": lambda minimize: _network(_chain(20), minimize),
    "overlap-10": lambda minimize: _network(_overlap(10, 16), minimize),
    "overlap-50": lambda minimize: _network(_overlap(50, 16), minimize),
    "grid-4": lambda minimize: _network(_grid(4, 4), minimize),
    "grid-6": lambda minimize: _network(_grid(6, 4), minimize),
    "grid-10": lambda minimize: _network(_grid(10, 4), minimize),
    "drawn-12": lambda minimize: _network(_drawn(12, 3), minimize),
    "drawn-20": lambda minimize: _network(_drawn(20, 3), minimize),
    "drawn-60": lambda minimize: _network(_drawn(60, 3), minimize),
    "drawn-200": lambda minimize: _network(_drawn(200, 2.5), minimize),
}
