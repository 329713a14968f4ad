"""`memplan bench parse`: seconds from text to a verified and scored plan, stage by stage, for modules of several sizes.

Each size is measured in a process of its own, so that start-up counts. Before that, the smallest module goes once
through all stages: numba compiles its loops at their first use on a machine and keeps them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from memplan.cli.arguments import JsonFile
from memplan.cli.bench.results import write_bench
from memplan.cli.bench.rows import positive_integers
from memplan.cli.console import Stages, note, show
from memplan.cli.outputs import check_file
from memplan.compiler import child_process
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.synthetic import synthetic_hlo
from memplan.compiler.report.units import print_bytes

TARGET = "tpu-v5e"

# Of a row: seconds of each stage, in the order in which they run; `build` contains `flatten`.
STAGES = ("start", "parse", "flatten", "build", "greedy", "verify", "emulate", "total")

_SLOW_BYTES = 2**41

T = TypeVar("T")


def command(
    sizes: Annotated[
        str, typer.Option(metavar="N,N,…", help="Instructions in the modules, which are made for the purpose.")
    ] = "1000,10000,100000",
    json_file: JsonFile = None,
) -> None:
    """Seconds from text to a scored plan.

    Each size is measured in a process of its own, start-up included.
    """
    check_file(json_file)
    numbers = positive_integers(sizes, "--sizes")
    rows = []
    with Stages(total=len(numbers) + 1) as stages, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "module.hlo.txt"
        with stages.stage("warming up"):
            file.write_text(synthetic_hlo(numbers[0]))
            warm_up = _measure(file)["total"]
        for number in numbers:
            with stages.stage(f"{number:,} instructions"):
                file.write_text(synthetic_hlo(number))
                rows.append({"instructions": number, "text_bytes": file.stat().st_size, **_measure(file)})
    powers = exponents(rows)
    summary = {"target": TARGET, "warm_up": warm_up, "exponents": powers}
    show(lambda terminal: terminal.print(_table(rows, powers)))
    note(f"the first run took {warm_up:.1f} s: numba compiles at its first use and keeps the result")
    write_bench(json_file, "parse", rows, summary)


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns per stage the power of the size with which its seconds grow, between the two largest sizes.

    >>> rows = [{"instructions": n, **dict.fromkeys(STAGES, n * 1e-3)} for n in (10, 100)]
    >>> round(exponents(rows)["parse"], 6)
    1.0
    """
    if len(rows) < 2:
        return {}
    smaller, larger = rows[-2], rows[-1]
    growth = math.log(larger["instructions"] / smaller["instructions"])
    return {
        stage: math.log(max(larger[stage], 1e-6) / max(smaller[stage], 1e-6)) / growth
        for stage in STAGES
        if stage != "start"
    }


def _table(rows: list[dict[str, Any]], powers: dict[str, float]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("instructions", "text", *(f"{stage} s" for stage in STAGES), "memory"):
        table.add_column(column, justify="right")
    for row in rows:
        seconds = [f"{row[stage]:.2f}" for stage in STAGES]
        table.add_row(
            f"{row['instructions']:,}", print_bytes(row["text_bytes"]), *seconds, print_bytes(row["peak_memory"])
        )
    if powers:
        cells = [f"n^{powers[stage]:.2f}" if stage in powers else "" for stage in STAGES]
        table.add_row("growth", "", *cells, "", style="dim")
    return table


def _measure(file: Path) -> dict[str, float]:
    """Returns seconds of each stage, and peak memory, of planning a file in a fresh process."""
    done = child_process.run(__name__, str(file), repr(time.monotonic()))
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise MemplanError(f"measuring failed: {last}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def worker(file: Path, started: float) -> dict[str, float]:
    """Goes through all stages in this process; `started` is when it was asked for, by `time.monotonic()`."""
    from memplan.compiler.analysis.flatten import flatten
    from memplan.compiler.emulator.timing import emulate
    from memplan.compiler.frontends.reader import read
    from memplan.compiler.hardware.target import load_target
    from memplan.compiler.mapping.build import build_problem
    from memplan.compiler.mapping.verify import verify
    from memplan.planners import planner as planners
    from memplan.planners.planner import Budget

    target, solve = load_target(TARGET), planners.get("greedy").solve
    # The training step that is measured saves more activations than any chip has memory for when it is this long.
    slow, *fast = target.spaces
    target = dataclasses.replace(target, spaces=(dataclasses.replace(slow, size=max(slow.size, _SLOW_BYTES)), *fast))
    seconds: dict[str, float] = {"start": time.monotonic() - started}

    def timed(stage: str, function: Callable[..., T], *arguments: Any) -> T:
        begin = time.perf_counter()
        result = function(*arguments)
        seconds[stage] = time.perf_counter() - begin
        return result

    graph = timed("parse", read, file)
    problem = timed("build", build_problem, graph, target)
    plan = timed("greedy", solve, problem, Budget())
    violations = timed("verify", verify, problem, plan)
    timed("emulate", emulate, problem, plan)
    seconds["total"] = time.monotonic() - started
    # Once more, alone: it is a part of `build` and not of the total.
    timed("flatten", flatten, graph)
    return {
        **{stage: seconds[stage] for stage in STAGES},
        "operations": problem.end,
        "buffers": len(problem.buffers),
        "violations": len(violations),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main(arguments: Sequence[str]) -> None:
    """Measures what the arguments name, and prints the result."""
    print(json.dumps(worker(Path(arguments[0]), float(arguments[1]))))
