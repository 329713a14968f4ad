"""`memplan bench …`: the figures that this project is judged by. Declares the commands; the other files measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(help="Measure, print a table, and write it as JSON.")


@bench.callback(invoke_without_command=True)
def _options(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", show_default=False, help="Write the rows to this file as JSON.")
]


@bench.command()
def parse(
    sizes: Annotated[
        str, typer.Option(metavar="N,N,…", help="Instructions in the modules, which are made for the purpose.")
    ] = "1000,10000,100000",
    json: JsonFile = None,
) -> None:
    """Seconds from text to a scored plan.

    Each size is measured in a process of its own, start-up included.
    """
    from memplan.cli.bench import parse as bench_parse

    bench_parse.command(sizes, json)


@bench.command()
def mapping(
    dumps: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", show_default=False, help="Plan this dump (repeatable). By default all shipped."),
    ] = None,
    planners: Annotated[
        str, typer.Option(metavar="P,P,…", help="Planners to compare; see `memplan planners`.")
    ] = "slow,xla,greedy,auto",
    time_limit: Annotated[float, typer.Option(metavar="S", help="Seconds that each planner may search.")] = 60.0,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    json: JsonFile = None,
) -> None:
    """Latency of each planner on each dump.

    All plans are scored by the same emulator, beside XLA's own and the bound, and checked.
    """
    from memplan.cli.bench import mapping as bench_mapping

    bench_mapping.command(dumps, planners, time_limit, markdown, json)


@bench.command()
def jit(
    rounds: Annotated[int, typer.Option(metavar="N", help="How often each function is timed.")] = 301,
    json: JsonFile = None,
) -> None:
    """Time of a warm call under memplan.jit, beside jax.jit.

    Both are called in turn: a function of about 1 ms, and two that show the bare dispatch.
    """
    from memplan.cli.bench import jit as bench_jit

    bench_jit.command(rounds, json)


@bench.command()
def tpu(
    targets: Annotated[str, typer.Option(metavar="T,T,…", help="TPUs to compile for.")] = (
        "tpu-v4,tpu-v5e,tpu-v5p,tpu-v6e,tpu-7x"
    ),
    workloads: Annotated[
        str | None, typer.Option(metavar="W,W,…", show_default=False, help="Workloads. By default all.")
    ] = None,
    planner: Annotated[
        str, typer.Option("--planner", "-p", metavar="P", help="What makes the plans; see `memplan planners`.")
    ] = "auto",
    compile_budget: Annotated[int, typer.Option(metavar="N", help="How many compiles may be made of each.")] = 8,
    time_limit: Annotated[
        float, typer.Option(metavar="S", help="Seconds that the planner may search, of each.")
    ] = 60.0,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    json: JsonFile = None,
) -> None:
    """Latency of what XLA:TPU compiles with our plans, beside its default.

    Needs libtpu, no TPU. All of it takes hours; what was compiled once is kept.
    """
    from memplan.cli.bench import tpu as bench_tpu

    bench_tpu.command(targets, workloads, planner, compile_budget, time_limit, markdown, json)


@bench.command()
def fidelity(
    targets: Annotated[
        str | None, typer.Option(metavar="T,T,…", show_default=False, help="TPUs. By default all with dumps.")
    ] = None,
    compiles: Annotated[
        bool, typer.Option("--compile", help="Compile more variants of the programs that compile fast; needs libtpu.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    json: JsonFile = None,
) -> None:
    """How well the cost model foretells the compiler's estimates.

    Made to agree with one of several modules of a program, it must foretell the others, in other placements.
    """
    from memplan.cli.bench import fidelity as bench_fidelity

    bench_fidelity.command(targets, compiles, markdown, json)


@bench.command()
def game(
    dump: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="Play this dump. By default a shipped one.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Games that are played at once.")] = 256,
    steps: Annotated[int, typer.Option(metavar="N", help="Moves that each of them makes.")] = 500,
    rounds: Annotated[int, typer.Option(metavar="N", help="How often that is timed; the best counts.")] = 3,
    json: JsonFile = None,
) -> None:
    """Moves of the mallocGame in a second.

    Random legal play of a batch of games, compiled by JAX, on all cores of the CPU.
    """
    from memplan.cli.bench import game as bench_game

    bench_game.command(dump, batch, steps, rounds, json)


@bench.command()
def agent(
    dumps: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", show_default=False, help="Play this dump (repeatable). By default ten shipped."),
    ] = None,
    minutes: Annotated[float, typer.Option(metavar="M", help="For each program and method.")] = 10.0,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Compare variants of the agent that lack a part each.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Of all that is random.")] = 0,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", show_default=False, help="Draw the curves: PNG or SVG.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Latency against time: the agent from scratch, beside the planners.

    Takes four hours with ten minutes for each program and method.
    """
    from memplan.cli.bench import agent as bench_agent

    bench_agent.command(dumps, minutes, ablations, seed, markdown, picture, json)


@bench.command()
def memory(
    workloads: Annotated[
        str | None, typer.Option(metavar="W,W,…", show_default=False, help="Workloads. By default all.")
    ] = None,
    time_limit: Annotated[float, typer.Option(metavar="S", help="Seconds that packing may take, of each.")] = 30.0,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    json: JsonFile = None,
) -> None:
    """Bytes of programs on the CPU, by XLA's assignment and by ours.

    Each is compiled in XLA's order of execution and in ours, and packed by both.
    """
    from memplan.cli.bench import memory as bench_memory

    bench_memory.command(workloads, time_limit, markdown, json)


@bench.command()
def packing(
    instances: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Pack only this instance (repeatable); a name like x.1024.csv says its capacity.",
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option(metavar="S", help="Seconds that may be searched, for each row.")] = 60.0,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    json: JsonFile = None,
) -> None:
    """Heights and seconds of offset allocation.

    By default the shipped instances, the live ranges of all shipped dumps, and made-up ones in large numbers.
    """
    from memplan.cli.bench import packing as bench_packing

    bench_packing.command(instances, time_limit, markdown, json)


@bench.command()
def fft(
    lengths: Annotated[str, typer.Option(metavar="N,N,…", help="Samples of the signals.")] = "1024,4096,8192,32768",
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="A TPU, or cpu.")] = "tpu-v5e",
    batch: Annotated[int, typer.Option(metavar="N", help="Signals for each filter.")] = 4,
    channels: Annotated[int, typer.Option(metavar="N", help="Filters.")] = 128,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    json: JsonFile = None,
) -> None:
    """Cycles of long convolutions as matrix products.

    Beside those by XLA's own Fourier transforms, both compiled by the production compiler; needs libtpu, no TPU. On a
    CPU both run, and are timed.
    """
    from memplan.cli.bench import fft as bench_fft

    bench_fft.command(lengths, target, batch, channels, markdown, json)


@bench.command()
def fusion(
    workloads: Annotated[
        str | None, typer.Option(metavar="W,W,…", show_default=False, help="Workloads. By default all.")
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="What to fuse and plan for.")] = "tpu-v5e",
    planner: Annotated[
        str, typer.Option("--planner", "-p", metavar="P", help="What makes the plans; see `memplan planners`.")
    ] = "greedy",
    time_limit: Annotated[float, typer.Option(metavar="S", help="Seconds that the planner may search, each.")] = 60.0,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    json: JsonFile = None,
) -> None:
    """Traffic and latency of programs with layer fusion, and without.

    Beside them stands the same program as XLA:TPU fuses it, where a dump of it is shipped.
    """
    from memplan.cli.bench import fusion as bench_fusion

    bench_fusion.command(workloads, target, planner, time_limit, markdown, json)


@bench.command()
def passes(
    sizes: Annotated[str, typer.Option(metavar="N,N,…", help="Equations of the programs.")] = "1000,10000",
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="What layers are fused for.")] = "tpu-v5e",
    rounds: Annotated[int, typer.Option(metavar="N", help="How often that is timed; the best counts.")] = 3,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    json: JsonFile = None,
) -> None:
    """Seconds of every pass.

    The programs are made for the purpose, with things to clean in them.
    """
    from memplan.cli.bench import passes as bench_passes

    bench_passes.command(sizes, target, rounds, markdown, json)
