"""`memplan bench passes`: seconds of every pass, over made-up programs with things to clean in them.

The program is a chain of small layers, each with something dead, something computed twice, constants, a transpose of a
transpose, a reshape of a reshape, and some with a call of a jitted function. It is traced once as a jaxpr and once as a
Graph, and goes through what `auto` runs for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.cli.arguments import JsonFile, Markdown
from memplan.cli.bench.results import Row, write_bench
from memplan.cli.bench.rows import positive_integers, print_rows
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.cli.programs import prepare_jax

if TYPE_CHECKING:
    from memplan.passes.base import PassReport

_COLUMNS = ("program", "pass", "before", "after", "found", "seconds")
_TEXT = ("program", "pass")


def command(
    sizes: Annotated[str, typer.Option(metavar="N,N,…", help="Equations of the programs.")] = "1000,10000",
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="What layers are fused for.")] = "tpu-v5e",
    rounds: Annotated[int, typer.Option(metavar="N", help="How often that is timed; the best counts.")] = 3,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """Seconds of every pass.

    The programs are made for the purpose, with things to clean in them.
    """
    check_file(json_file)
    numbers = positive_integers(sizes, "--sizes")
    prepare_jax()
    from memplan.compiler.hardware.target import load_target

    described = load_target(target)
    rows: list[Row] = []
    with Stages(total=2 * len(numbers)) as stages:
        for size in numbers:
            for measure in (jaxpr_rows, graph_rows):
                with stages.stage(f"{size:,} equations"):
                    tries = [measure(size, described) for _ in range(rounds)]
                    fastest: list[Row] = min(tries, key=_seconds)
                    rows += fastest
    summary = {"slowest": max(row["seconds"] for row in rows)}
    lines = [_cells(row) for row in rows]
    print_rows(_COLUMNS, lines, _TEXT, markdown=markdown)
    write_bench(json_file, "passes", rows, summary)


def untidy(size: int) -> Callable[..., Any]:
    """Returns a function of `x` and `w`, `[64, 64] float32` each, that JAX traces to at least `size` equations."""
    import jax
    import jax.numpy as jnp

    gate = jax.jit(lambda x: jnp.where(x > 0.0, x, 0.1 * x))

    def fun(x: Any, w: Any) -> Any:
        for layer in range(-(-size // 16)):
            y = jnp.transpose(jnp.transpose(x)).reshape(64 * 64).reshape(64, 64)
            jnp.sin(y)
            scale = jnp.float32(2.0) * jnp.float32(0.25)
            z = gate(y @ w) if layer % 8 == 0 else y * (layer % 7 * 0.125)
            x = jnp.tanh(z * scale) + jnp.tanh(z * scale) + x.astype(jnp.bfloat16).astype(jnp.float32) * 1.0
        return x

    return fun


def jaxpr_rows(size: int, target: Any) -> list[Row]:
    """Returns one row for each pass over the jaxpr, and one for all."""
    import jax

    from memplan.passes.base import Context
    from memplan.passes.manager import chosen, run

    del target
    closed = jax.make_jaxpr(untidy(size))(*_arguments())
    outcome = run(closed, chosen("auto"), Context("tpu"))
    return _rows("jaxpr", size, outcome.reports)


def graph_rows(size: int, target: Any) -> list[Row]:
    """Returns one row for each pass over the Graph, and one for all."""
    from memplan.compiler.frontends.jaxpr import trace
    from memplan.passes.base import GraphContext
    from memplan.passes.graph_manager import chosen_graph_passes, run_graph_passes

    graph = trace(untidy(size), *_arguments())
    outcome = run_graph_passes(graph, chosen_graph_passes("auto"), GraphContext(target))
    return _rows("graph", size, outcome.reports)


def _arguments() -> tuple[Any, Any]:
    import jax

    return (jax.ShapeDtypeStruct((64, 64), "float32"),) * 2


def _rows(kind: str, size: int, reports: Sequence[PassReport]) -> list[Row]:
    rows: list[Row] = [
        {
            "kind": kind,
            "size": size,
            "pass": report.name,
            "before": report.before,
            "after": report.after,
            "found": len(report.changed),
            "seconds": report.seconds,
        }
        for report in reports
    ]
    whole = {"pass": "all", "before": rows[0]["before"], "after": rows[-1]["after"]}
    sums = {key: sum(row[key] for row in rows) for key in ("found", "seconds")}
    return [*rows, {"kind": kind, "size": size, **whole, **sums}]


def _seconds(rows: list[Row]) -> float:
    return float(rows[-1]["seconds"])


def _cells(row: Row) -> list[str]:
    name = f"{row['kind']} of {row['size']:,}"
    return [
        name,
        row["pass"],
        f"{row['before']:,}",
        f"{row['after']:,}",
        f"{row['found']:,}",
        f"{row['seconds']:.3f}",
    ]
