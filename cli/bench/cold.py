"""`memplan bench cold`: what is compiled after an installation, and what the first plan costs beside the second.

Everything runs in processes of their own with an empty cache: one compiles the kernels of one planner after another,
two others plan the same dump. CPU seconds are those of the process and its children; they depend less than seconds of
the clock on what else the machine does.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from memplan.cli.arguments import EffortName, JsonFile, Markdown
from memplan.cli.bench.results import write_bench
from memplan.cli.bench.rows import print_rows
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.compiler import child_process
from memplan.compiler.cpu_time import cpu_of_children
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.mapping.plan import Plan

# The planners whose kernels are compiled, each with what those before it did not need: together all that `auto` needs,
# and after it what `memplan fit` needs.
FIT = "fit"
FAMILIES = ("bestfit", "greedy", "search", "ilp", "auto", FIT)

_COLUMNS = ("what", "CPU s", "seconds", "functions", "signatures", "same plan")


def command(
    dump: Annotated[
        str, typer.Option(metavar="FILE", help="The dump that is planned twice.")
    ] = "mlp_mixer.tpu-v5p.default.hlo.txt.gz",
    effort: EffortName = Effort.FAST,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """What is compiled after an installation, and the first plan beside the second."""
    from memplan.workloads import dumps_folder

    check_file(json_file)
    path = Path(dump) if Path(dump).is_file() else dumps_folder() / dump
    rows: list[dict[str, Any]] = []
    with Stages(total=3) as stages, tempfile.TemporaryDirectory() as folder:
        caches = {"kernels": Path(folder) / "kernels", "plans": Path(folder) / "plans"}
        with stages.stage("compiling"):
            rows += _in_child(caches["kernels"], "compile")["families"]
        plans = []
        for name in ("first", "second"):
            with stages.stage(f"{name} plan"):
                row = _in_child(caches["plans"], "plan", str(path), effort.value)
            plans.append(Plan.from_json(row.pop("plan")))
            rows.append({"what": f"{name} plan", **row})
        rows[-1]["same_plan"] = plans[0].copies == plans[1].copies and plans[0].residencies == plans[1].residencies
    lines = [_line(row) for row in rows]
    print_rows(_COLUMNS, lines, ("what", "same plan"), markdown=markdown)
    compiled = sum(row["cpu_seconds"] for row in rows[:-2] if row["what"] != f"kernels of {FIT}")
    write_bench(json_file, "cold", rows, {"dump": path.name, "effort": effort.value, "compiling_cpu_seconds": compiled})


def _line(row: dict[str, Any]) -> list[str]:
    same = {True: "yes", False: "no", None: ""}[row.get("same_plan")]
    counts = [str(row.get(name, "")) for name in ("functions", "signatures")]
    return [row["what"], f"{row['cpu_seconds']:.1f}", f"{row['seconds']:.1f}", *counts, same]


def _in_child(cache: Path, *arguments: str) -> dict[str, Any]:
    """Returns what `main` prints in a process that has this cache; its CPU seconds and seconds include starting."""
    before, begin = cpu_of_children(), time.monotonic()
    with child_process.start(
        __name__, *arguments, stderr=sys.stderr.fileno(), environment={"MEMPLAN_CACHE": str(cache)}
    ) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise MemplanError(f"measuring failed with status {process.returncode}")
    told: dict[str, Any] = json.loads(output)
    return {**told, "cpu_seconds": cpu_of_children() - before, "seconds": time.monotonic() - begin}


def compile_families() -> list[dict[str, Any]]:
    """Compiles in this process what each of `FAMILIES` needs; returns a row for each."""
    from numba.core import event

    from memplan.planners import planner as planners
    from memplan.planners.fit.preparation import prepare as prepare_fit

    rows: list[dict[str, Any]] = []
    for name in FAMILIES:
        cpu, begin = time.process_time(), time.monotonic()
        with event.install_recorder("numba:compile") as recorder:
            (prepare_fit if name == FIT else planners.get(name).prepare)()
        compiled = [entry.data["dispatcher"] for _, entry in recorder.buffer if entry.is_start]
        rows.append(
            {
                "what": f"kernels of {name}",
                "cpu_seconds": time.process_time() - cpu,
                "seconds": time.monotonic() - begin,
                "functions": len({id(dispatcher) for dispatcher in compiled}),
                "signatures": len(compiled),
            }
        )
    return rows


def main(arguments: Sequence[str]) -> None:
    """Compiles, or plans a dump, and prints the result."""
    if arguments[0] == "compile":
        print(json.dumps({"families": compile_families()}))
        return
    from memplan import pipeline
    from memplan.compiler.frontends.reader import read

    plan = pipeline.plan(read(Path(arguments[1])), effort=arguments[2])
    print(json.dumps({"plan": plan.to_json()}))
