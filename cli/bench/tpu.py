"""`memplan bench tpu`: what XLA:TPU makes of the workloads with our plans, and with everything on, beside its default.

Each workload is compiled as `jax.jit` does, with plans, and as `memplan.jit` does by default: rewritten by the passes
of "auto", and then planned. All are scored by the same emulator from the modules' own estimates. Rows are written as
they come: an interrupted run keeps what it has, and what was compiled once is found in the cache.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer
from rich.table import Table

from memplan.backends.jit.planning import TpuProgram
from memplan.backends.tpu import optimize as optimizer
from memplan.backends.tpu.compile import CompileError, TpuCompiler, compiler_versions
from memplan.backends.tpu.outcome import Outcome
from memplan.backends.tpu.sweep import sweep
from memplan.cli.arguments import EffortName, JsonFile, Markdown, PlannerName, Resume, TimeLimit, WorkloadNames
from memplan.cli.bench.results import Results
from memplan.cli.compile import in_short
from memplan.cli.console import Stages, note, show, write
from memplan.cli.outputs import check_file
from memplan.cli.programs import Program, find_program, lower_for_tpu, prepare_jax
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target, load_target
from memplan.compiler.report.units import ratio

Row = dict[str, Any]


def command(
    targets: Annotated[str, typer.Option(metavar="T,T,…", help="TPUs to compile for.")] = (
        "tpu-v4,tpu-v5e,tpu-v5p,tpu-v6e,tpu-7x"
    ),
    workloads: WorkloadNames = None,
    planner: PlannerName = "auto",
    compile_budget: Annotated[int, typer.Option(metavar="N", help="How many compiles may be made of each.")] = 8,
    effort: EffortName = Effort.NORMAL,
    time_limit: TimeLimit = None,
    with_sweep: Annotated[
        bool, typer.Option("--sweep", help="Compile single options as well, as many as the search compiled.")
    ] = False,
    markdown: Markdown = False,
    json_file: JsonFile = None,
    resume: Resume = False,
) -> None:
    """Latency of what XLA:TPU compiles with our plans, and with our passes and plans, beside its default.

    Needs libtpu, no TPU. All of it takes hours; what was compiled once is kept.
    """
    check_file(json_file)
    prepare_jax()
    from memplan import workloads as registry

    described = targets_in(targets, planner, compile_budget, time_limit)
    names = registry.dumped_names() if workloads is None else names_in(workloads, "--workloads")
    for name in names:
        registry.get(name)
    with TpuCompiler() as compiler, Stages(total=len(names) * len(described)) as stages:
        search = Search(planner, compile_budget, effort, time_limit, compiler)
        setting = search.setting | ({"sweep": True} if with_sweep else {})
        results = Results("tpu", json_file, setting, summarize, resume)
        for name in names:
            try:
                program = find_program(name)
                lowered: TpuProgram | MemplanError = TpuProgram(lower_for_tpu(program))
                passed, passes = after_passes(program)
            except MemplanError as error:
                lowered, passed, passes = error, None, ()
            for target in described:
                with stages.stage(f"{name} for {target.name}"):
                    if results.has(workload=name, target=target.name):
                        continue
                    started = time.perf_counter()
                    row = search.row(name, lowered, target)
                    if "error" not in row:
                        row |= search.everything(row, passed, passes, target)
                        if with_sweep and isinstance(lowered, TpuProgram):
                            latency = sweep(lowered.module, target, row["compiles"], compiler, lowered.slice)
                            row["sweep"] = ratio(latency, row["default"])
                    row["seconds"] = time.perf_counter() - started
                    results.add([row])
                told = row["error"] if "error" in row else _told(row)
                note(f"{name} for {target.name}: {told}, {row['seconds']:.0f} s")
    if markdown:
        write(markdown_table(results.rows))
    else:
        show(lambda terminal: terminal.print(_table(results.rows)))
        write("")
        show(lambda terminal: terminal.print(_summary_table(summarize(results.rows))))


def targets_in(text: str, planner: str, compile_budget: int, time_limit: float | None) -> list[Target]:
    """Returns the targets of a comma-separated list, for which programs can be planned on the compiler.

    Raises:
      MemplanError: one is not known or has no compiler, or the other arguments make no sense, see `optimizer.check`.
    """
    found = [load_target(name) for name in names_in(text, "--targets")]
    for target in found:
        optimizer.check(target, planner, compile_budget, time_limit)
    return found


def names_in(text: str, option: str) -> list[str]:
    """Returns the names of a comma-separated list; raises MemplanError if there are none."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise MemplanError(f"{option} {text}: it names nothing")
    return names


@dataclass(frozen=True)
class Search:
    """How programs are planned on the compiler.

    Attributes:
      planner, compile_budget, effort, time_limit: as for `optimize`.
      compiler: for all of them.
    """

    planner: str
    compile_budget: int
    effort: Effort
    time_limit: float | None
    compiler: TpuCompiler

    @property
    def setting(self) -> dict[str, Any]:
        """What rows depend on besides the program and its target."""
        return {
            "planner": self.planner,
            "compile_budget": self.compile_budget,
            "effort": self.effort.value,
            "time_limit": self.time_limit,
            "compiler": compiler_versions(),
        }

    def outcome(self, program: TpuProgram, target: Target) -> Outcome:
        """Returns the candidates of a program."""
        return optimizer.optimize(
            program.module,
            target,
            planner=self.planner,
            compile_budget=self.compile_budget,
            effort=self.effort,
            time_limit=self.time_limit,
            compiler=self.compiler,
            on=program.slice,
        )

    def row(self, name: str, program: TpuProgram | MemplanError, target: Target) -> Row:
        """Returns the row of a program, or of why it has none; raises CompileError where no row could be had."""
        try:
            if isinstance(program, MemplanError):
                raise program
            return row_of(name, self.outcome(program, target))
        except MemplanError as error:
            if isinstance(error, CompileError) and error.reason == "missing":
                raise
            return {"workload": name, "target": target.name, "error": str(error)}

    def everything(self, row: Row, program: TpuProgram | None, passes: Sequence[str], target: Target) -> Row:
        """Returns what to add to a row for the program with everything on.

        Args:
          row: of the program as it is given.
          program: after the passes; None if they left it as it is, and the row says it all.
          passes: names of those that changed it.
          target: that it is compiled for.
        """
        if program is None:
            return {"everything": row["ratio"], "everything_best": row["best"], "passes": []}
        try:
            outcome = self.outcome(program, target)
        except MemplanError as error:  # memplan.jit runs such a program as jax.jit does
            return {"everything": 1.0, "everything_best": str(error), "passes": list(passes)}
        assert outcome.best.score is not None
        return {
            "everything": ratio(outcome.best.score.latency, row["default"]),
            "everything_best": outcome.best.name,
            "passes": list(passes),
        }


def after_passes(program: Program) -> tuple[TpuProgram | None, tuple[str, ...]]:
    """Returns a program as `memplan.jit` rewrites it by default, and the passes that did; None if none did.

    Raises:
      MemplanError: it does not trace.
    """
    from memplan.passes.base import Context
    from memplan.passes.manager import CLEAN_UPS, PassOutcome, rewritten

    found: list[PassOutcome] = []
    made = replace(program, fun=rewritten(program.fun, "auto", Context("tpu"), found.append))
    module = lower_for_tpu(made)
    reports = found[-1].reports if found else ()
    names = [report.name for report in reports if report.changed and report.name not in CLEAN_UPS]
    return (TpuProgram(module), tuple(dict.fromkeys(names))) if names else (None, ())


def _told(row: Row) -> str:
    everything = f", {row['everything']:.4f} with {', '.join(row['passes'])}" if row["passes"] else ""
    return f"{row['ratio']:.4f} of the default, by {row['best']}{everything}"


def row_of(workload: str, outcome: Outcome) -> Row:
    """Returns the row of one program on one target: latencies in seconds, and in cycles."""
    assert outcome.default.score is not None
    assert outcome.best.score is not None
    states = Counter(decision.state for decision in outcome.decisions)
    return {
        "workload": workload,
        "target": outcome.target,
        "default": outcome.default.score.latency,
        "ours": outcome.best.score.latency,
        "default_cycles": outcome.default.score.cycles,
        "cycles": outcome.best.score.cycles,
        "ratio": outcome.ratio,
        "best": outcome.best.name,
        "compiles": len(outcome.candidates),
        "decisions": len(outcome.decisions),
        "obeyed": states["obeyed"],
        "dropped": states["dropped"],
        # Of each candidate that carries a plan, the latency that was predicted before it was compiled.
        "predictions": [
            [candidate.predicted, candidate.score.latency]
            for candidate in outcome.candidates
            if candidate.predicted is not None and candidate.score is not None
        ],
    }


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns, per target and for all, how many are better and by how much, and how well latencies were predicted."""
    done = [row for row in rows if "error" not in row]
    targets = [*dict.fromkeys(row["target"] for row in done), "all"]
    return {target: summarize_ratios([row for row in done if target in ("all", row["target"])]) for target in targets}


def summarize_ratios(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns how many of some rows without errors are better, by how much, and how well latencies were predicted."""
    ratios = [row["ratio"] for row in rows]
    errors = sorted(abs(ratio(predicted, latency) - 1) for row in rows for predicted, latency in row["predictions"])
    return {
        "programs": len(rows),
        "better": sum(value < 1 for value in ratios),
        "mean_ratio": _mean(ratios),
        "best_ratio": min(ratios, default=None),
        "worst_ratio": max(ratios, default=None),
        "mean_everything": _mean([row["everything"] for row in rows if "everything" in row]),
        "median_prediction_error": statistics.median(errors) if errors else None,
        "high_prediction_error": errors[math.ceil(0.95 * len(errors)) - 1] if errors else None,
    }


def _mean(ratios: Sequence[float]) -> float | None:
    return statistics.geometric_mean(ratios) if ratios else None


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("workload", "target"):
        table.add_column(column, no_wrap=True)
    swept = any("sweep" in row for row in rows)
    for column in ("default cycles", "our cycles", "plan alone", "everything on", *["sweep"] * swept):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("best candidate")
    for column in ("compiles", "obeyed", "predicted", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        seconds = f"{row['seconds']:.0f}"
        if "error" in row:
            error = in_short(row["error"])
            table.add_row(row["workload"], row["target"], "", "", "", "", *[""] * swept, error, "", "", "", seconds)
            continue
        table.add_row(
            row["workload"],
            row["target"],
            f"{row['default_cycles']:,.0f}",
            f"{row['cycles']:,.0f}",
            f"{row['ratio']:.4f}",
            f"{row['everything']:.4f}",
            *([f"{row['sweep']:.4f}" if "sweep" in row else ""] * swept),
            row["best"],
            str(row["compiles"]),
            f"{row['obeyed']} of {row['decisions']}",
            _prediction(row),
            seconds,
        )
    return table


def _prediction(row: Row) -> str:
    """Returns what was predicted of the best candidate with a plan over what its compiled module has."""
    if not row["predictions"]:
        return ""
    predicted, latency = min(row["predictions"], key=lambda pair: pair[1])
    return f"{ratio(predicted, latency):.3f}"


def _summary_table(summary: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("target", no_wrap=True)
    for column in (
        "better",
        "geometric mean",
        "everything on",
        "best",
        "worst",
        "prediction off by, median",
        "95th percentile",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for target, values in summary.items():
        if values["programs"]:
            table.add_row(
                target,
                f"{values['better']} of {values['programs']}",
                *(f"{values[key]:.4f}" for key in ("mean_ratio", "mean_everything", "best_ratio", "worst_ratio")),
                *(_percent(values[key]) for key in ("median_prediction_error", "high_prediction_error")),
            )
    return table


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part * 100:.1f} %"


def markdown_table(rows: Sequence[Row]) -> str:
    """Returns the ratios in Markdown: a row for each workload, and for each target its plan alone and everything on."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    found = {(row["workload"], row["target"]): row for row in rows}
    keys = [(target, key) for target in targets for key in ("ratio", "everything")]
    heads = [f"{target}, {'plan alone' if key == 'ratio' else 'everything on'}" for target, key in keys]
    lines = [f"| workload | {' | '.join(heads)} |", f"|---|{'---:|' * len(keys)}"]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        cells = [_cell(found.get((workload, target), {}).get(key)) for target, key in keys]
        lines.append(f"| {workload} | {' | '.join(cells)} |")
    summary = summarize(rows)
    means = [
        _cell(summary.get(target, {}).get("mean_ratio" if key == "ratio" else "mean_everything"))
        for target, key in keys
    ]
    lines.append(f"| geometric mean | {' | '.join(means)} |")
    return "\n".join(lines)


def _cell(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    return f"**{ratio:.3f}**" if ratio < 0.9995 else f"{ratio:.3f}"
