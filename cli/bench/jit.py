"""`memplan bench jit`: what a warm call under `memplan.jit` costs, beside the same call under `jax.jit`.

Both functions are called in turn, one call each or one small batch each, so that a machine that gets slower does so for
both; figures are medians. The compiled programs are the same, since these functions leave no choice of order: what
differs is the dispatch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import typer
from rich.table import Table

from memplan.cli.arguments import JsonFile
from memplan.cli.bench.results import write_bench
from memplan.cli.console import Stages, show
from memplan.cli.outputs import check_file
from memplan.compiler.errors import MemplanError

# Seconds that the measured function is made to take, and the overhead that is asked for.
WANTED_SECONDS = 1e-3
LIMIT = 0.05

_WIDTH = 128
_ARRAYS = 200


@dataclass(frozen=True)
class Case:
    """A function to call.

    Attributes:
      name: for the table.
      fun: the function, not jitted.
      args: its arguments.
      batch: calls that are timed together.
    """

    name: str
    fun: Callable[..., Any]
    args: tuple[Any, ...]
    batch: int


def command(
    rounds: Annotated[int, typer.Option(metavar="N", help="How often each function is timed.")] = 301,
    json_file: JsonFile = None,
) -> None:
    """Time of a warm call under memplan.jit, beside jax.jit.

    Both are called in turn: a function of about 1 ms, and two that show the bare dispatch.
    """
    check_file(json_file)
    if rounds < 1:
        raise MemplanError(f"--rounds {rounds}: must be at least 1")
    rows = []
    with Stages(total=4) as stages:
        with stages.stage("finding a function of a millisecond"):
            measured = cases()
        for case in measured:
            with stages.stage(case.name):
                rows.append(measure(case, rounds))
    show(lambda terminal: terminal.print(_table(rows)))
    write_bench(json_file, "jit", rows, {"rounds": rounds, "limit": LIMIT, "overhead": rows[0]["overhead"]})


def cases() -> list[Case]:
    """Returns the functions: the one that the limit is for, then two that do nothing but be called."""
    import jax
    import jax.numpy as jnp

    square = jnp.full((_WIDTH, _WIDTH), 1.0 / _WIDTH)

    def work(steps: int) -> Callable[..., Any]:
        return lambda x, w: jax.lax.fori_loop(0, steps, lambda _, x: jnp.tanh(x @ w), x)

    trial = 20
    timed = jax.jit(work(trial))
    seconds = median(_seconds(timed, (square, square), 1) for _ in range(20))
    steps = max(1, round(trial * WANTED_SECONDS / seconds))
    many = {f"w{number}": jnp.ones(4) for number in range(_ARRAYS)}
    return [
        Case("1 ms of work", work(steps), (square, square), 1),
        Case("x + 1", lambda x: x + 1, (jnp.ones(4),), 1000),
        Case(f"{_ARRAYS} arrays", lambda arrays: arrays["w0"] + 1, (many,), 100),
    ]


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Returns the row of a case: seconds of a call under each, and by how much ours is longer."""
    import jax

    import memplan

    functions = {"jax": jax.jit(case.fun), "memplan": memplan.jit(case.fun)}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        _seconds(function, case.args, 1)
    for number in range(rounds):
        # Each is first every other time: the one after the other finds its data in the caches.
        for name in sorted(functions, reverse=bool(number % 2)):
            seconds[name].append(_seconds(functions[name], case.args, case.batch))
    ours, theirs = median(seconds["memplan"]), median(seconds["jax"])
    return {"function": case.name, "jax": theirs, "memplan": ours, "overhead": ours / theirs - 1}


def _seconds(function: Callable[..., Any], args: tuple[Any, ...], batch: int) -> float:
    """Seconds of one call, the average of a batch, until the last result is there."""
    import jax

    result = None
    begin = time.perf_counter()
    for _ in range(batch):
        result = function(*args)
    jax.block_until_ready(result)
    return (time.perf_counter() - begin) / batch


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("function")
    for column in ("jax.jit", "memplan.jit", "overhead"):
        table.add_column(column, justify="right")
    for number, row in enumerate(rows):
        asked = f" (asked: under {LIMIT:.0%})" if number == 0 else ""
        table.add_row(
            row["function"],
            f"{row['jax'] * 1e6:.2f} us",
            f"{row['memplan'] * 1e6:.2f} us",
            f"{row['overhead']:+.2%}{asked}",
        )
    return table
