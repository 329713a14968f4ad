"""`memplan bench fit`: training steps under memory limits, by memplan and by the methods that people use.

A limit is a percentage of the temporaries that the default needs, which is the step as it is written. A method that
knows nothing of limits is compiled once, and counts for every limit that it meets. Figures of memory are the
compiler's. Time is measured on the CPU in rounds, relative to the default in the same round; for a TPU it is that of
`score`, from the compiled module.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from memplan.backends.tpu.compile import TpuCompiler, compiler_versions
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
from memplan.cli.arguments import JsonFile, Markdown, Resume
from memplan.cli.bench.fit_methods import DEFAULT, METHODS, OURS, Method
from memplan.cli.bench.fit_programs import AheadOfTime, Compiled, Compiler, CpuCompiler, fitted, measure
from memplan.cli.bench.fit_summary import (
    CELL_COLUMNS,
    CHEAP,
    PROGRAM_COLUMNS,
    TEXT_COLUMNS,
    allowed,
    cell_lines,
    cells,
    program_lines,
    summarize,
)
from memplan.cli.bench.results import Results
from memplan.cli.bench.rows import positive_integers, print_rows
from memplan.cli.console import Stages, note, write
from memplan.cli.outputs import check_file
from memplan.cli.programs import Program, prepare_jax
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import load_target
from memplan.compiler.report.units import ratio

Row = dict[str, Any]

CPU = "cpu"


def command(
    steps: Annotated[
        str | None, typer.Option(metavar="S,S,…", show_default=False, help="Names of training steps; all by default.")
    ] = None,
    limits: Annotated[
        str, typer.Option(metavar="N,N,…", help="Limits, in percent of the temporaries that the default needs.")
    ] = "80,60,50,40,30",
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="M,M,…", show_default=False, help="Names of methods; by default all that the target can do."
        ),
    ] = None,
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="T", help="cpu, where time is measured, or a TPU, ahead of time.")
    ] = CPU,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", show_default=False, help="tiny, small (the default for cpu) or real (the default for TPUs)."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", help="How often each program is timed on the CPU.")] = 11,
    markdown: Markdown = False,
    json_file: JsonFile = None,
    resume: Resume = False,
) -> None:
    """Memory and time of training steps under limits, by memplan and by others.

    Others are jax.checkpoint around blocks, segments and the loss, its policies, and XLA's rematerialization.
    """
    from memplan.cli.preparation import prepare_with
    from memplan.planners.fit.preparation import prepare

    check_file(json_file)
    prepare_jax()
    if rounds < 1:
        raise MemplanError(f"--rounds {rounds}: must be at least 1")
    percentages = positive_integers(limits, "--limits")
    if percentages[-1] > 100:
        raise MemplanError(f"--limits {limits}: {percentages[-1]} is more than 100 percent")
    if target != CPU and target not in TOPOLOGY_OF_TARGET:
        known = ", ".join((CPU, *sorted(TOPOLOGY_OF_TARGET)))
        raise MemplanError(f"--target {target}: steps are compiled for one of {known}")
    chosen = chosen_methods(methods, target)
    size = size or ("small" if target == CPU else "real")
    names = _steps(steps, size)
    setting = {
        "target": target,
        "size": size,
        "limits": percentages,
        "methods": [method.name for method in chosen],
        "rounds": rounds if target == CPU else None,
        "compiler": compiler_versions()[: 1 if target == CPU else 2],
    }
    results = Results("fit", json_file, setting, partial(summarize, limits=percentages), resume)
    with Stages(total=len(names) + 1) as stages, TpuCompiler() as tpu:
        prepare_with(prepare, stages)
        compiler: Compiler = CpuCompiler() if target == CPU else AheadOfTime(load_target(target), tpu)
        for name in names:
            with stages.stage(name):
                if not results.has(step=name):
                    results.add(Bench(compiler, target, size, rounds).rows(name, chosen, percentages))
    _print_table(PROGRAM_COLUMNS, program_lines(results.rows), markdown)
    _print_table(CELL_COLUMNS, cell_lines(cells(results.rows, percentages)), markdown)
    write(headline(summarize(results.rows, percentages)))


def _print_table(columns: Sequence[str], lines: Sequence[Sequence[str]], markdown: bool) -> None:
    print_rows(columns, lines, TEXT_COLUMNS, markdown=markdown)
    write("")


def chosen_methods(names: str | None, target: str) -> list[Method]:
    """Returns the methods that are asked for, the default first: the others are compared with it.

    Raises:
      MemplanError: there is no such method, or the target cannot do it.
    """
    possible = {name: method for name, method in METHODS.items() if target != CPU or not method.tpu_only}
    if names is None:
        return list(possible.values())
    chosen = {DEFAULT: METHODS[DEFAULT]}
    for name in (name.strip() for name in names.split(",")):
        if name not in possible:
            raise MemplanError(f"--methods {names}: {target} has no method {name!r}, only {', '.join(possible)}")
        chosen[name] = possible[name]
    return list(chosen.values())


def _steps(names: str | None, size: str) -> list[str]:
    from memplan.workloads import train_step

    if size not in train_step.SIZES:
        raise MemplanError(f"--size {size}: must be one of {', '.join(train_step.SIZES)}")
    found = train_step.names() if names is None else list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in found:
        train_step.get(name)
    return found


class Bench:
    """Compiles a step by each method, and measures all of them together.

    Args:
      compiler: of the target.
      target: its name.
      size: of the steps.
      rounds: how often each program is timed, where it can run.
    """

    def __init__(self, compiler: Compiler, target: str, size: str, rounds: int):
        self._compiler, self._target, self._size, self._rounds = compiler, target, size, rounds

    def rows(self, step: str, methods: Sequence[Method], limits: Sequence[int]) -> list[Row]:
        """Returns a row for each method, for each limit where the method is told the limit."""
        rows: list[Row] = []
        programs: dict[int, Compiled] = {}
        default: Compiled | None = None
        for method, limit in _pairs(methods, limits):
            row: Row = {"step": step, "target": self._target, "size": self._size, "method": method.name, "limit": limit}
            began = time.perf_counter()
            try:
                compiled = self._compiled(step, method, row, None if limit is None else (default, limit))
            except MemplanError as error:
                rows.append(row | {"error": str(error)})
                place = "" if limit is None else f" at {limit} %"
                note(f"{step}, {method.name}{place}: {str(error).splitlines()[0]}")
                if default is None:
                    return rows
                continue
            default = default or compiled
            programs[len(rows)] = compiled
            rows.append(
                row
                | {
                    "temporaries": compiled.temporaries,
                    "peak": compiled.peak,
                    "host": compiled.host,
                    "flops": compiled.flops,
                    "cycles": compiled.cycles,
                    "compile_seconds": time.perf_counter() - began,
                }
                | dict(compiled.more)
            )
        self._time(step, rows, programs)
        return rows

    def _program(self, step: str, method: Method) -> Program:
        from memplan.workloads import train_step

        described = train_step.get(step)
        fun, args = described.build(self._size)

        def traced(*args: Any) -> Any:
            with method.tracing():
                return fun(*args)

        traced.__name__ = step
        return Program(step, traced, args, described.donate_argnums)

    def _compiled(self, step: str, method: Method, row: Row, limit: tuple[Compiled | None, int] | None) -> Compiled:
        program = self._program(step, method)
        if limit is None:
            return self._compiler.compile(program, {})
        default, percentage = limit
        assert default is not None
        room = default.interface + allowed(default.temporaries, percentage)
        if method.options is not None:
            return self._compiler.compile(program, method.options(room))
        return fitted(program, room, None if self._target == CPU else load_target(self._target), self._compiler)

    def _time(self, step: str, rows: Sequence[Row], programs: dict[int, Compiled]) -> None:
        """Adds to the rows of programs what their time is over that of the default, which comes first."""
        if self._target != CPU:
            for number, compiled in programs.items():
                assert compiled.cycles is not None
                rows[number]["ratio"] = ratio(compiled.cycles, programs[0].cycles or 0.0)
            return
        from memplan.workloads import train_step

        _, args = train_step.get(step).build(self._size)
        runs = {number: compiled.run for number, compiled in programs.items() if compiled.run is not None}
        for number, measured in measure(runs, 0, args, self._rounds).items():
            rows[number].update(asdict(measured))


def _pairs(methods: Sequence[Method], limits: Sequence[int]) -> Iterator[tuple[Method, int | None]]:
    for method in methods:
        if method.takes_limit:
            yield from ((method, limit) for limit in sorted(limits, reverse=True))
        else:
            yield method, None


def headline(summary: Row) -> str:
    """Returns the summary in a few lines."""
    text = f"{summary['cells']} cells (step and limit): a baseline fits {summary['baseline_fits']}, {OURS} fits "
    text += f"{summary['fits']}, of them {summary['fits_alone']} that no baseline fits; {len(summary['lost'])} are lost"
    lines = [text, f"programs of {OURS} above their limit: {summary['above']}"]
    if summary["mean_ratio"] is not None:
        lines.append(f"geometric mean of costs over the cheapest baseline's: {summary['mean_ratio']:.2f}")
    cheap = ", ".join(f"{count} at {limit} %" for limit, count in summary["cheap"].items())
    lines.append(f"of {summary['steps']} steps, {OURS} fits for less than {CHEAP * 100:.0f} % more time: {cheap}")
    cheap = ", ".join(f"{count} at {limit} %" for limit, count in summary["cheap_by_model"].items())
    lines.append(f"by its model of time: {cheap}")
    if summary["median_prediction_error"] is not None:
        error = f"{summary['median_prediction_error'] * 100:.1f} %"
        lines.append(f"median difference of the first prediction from what the compiler stated: {error}")
    if summary["same_program"] is not None:
        low, high = summary["same_program"]
        lines.append(
            f"measured time of baselines that need as much as the default, over its time: {low:.2f} to {high:.2f}"
        )
    return "\n".join(lines)
