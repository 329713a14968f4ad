"""`memplan bench …`: the figures that this project is judged by. Each bench is in the file of its name."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from memplan.cli.commands import add_commands

BENCHES = {
    "parse": "Seconds from text to a scored plan.",
    "cold": "What is compiled after an installation, and the first plan beside the second.",
    "mapping": "Latency of each planner on each dump.",
    "jit": "Time of a warm call under memplan.jit, beside jax.jit.",
    "tpu": "Latency of what XLA:TPU compiles with our plans, and with our passes and plans, beside its default.",
    "sharded": "Latency of programs of several TPU devices with our plans, beside XLA's default.",
    "fidelity": "How well the cost model predicts the compiler's estimates.",
    "game": "Moves of the mallocGame in a second.",
    "agent": "How much of what greedy leaves the agent and others find, by CPU minutes.",
    "memory": "Bytes of programs on the CPU, by XLA's assignment and by ours.",
    "packing": "Heights and seconds of offset allocation.",
    "fit": "Memory and time of training steps under limits, by memplan and by others.",
    "fit-planner": "Cost and proven bound of plans under memory limits, without a compiler.",
    "fft": "Cycles of long convolutions as matrix products.",
    "fusion": "Traffic and latency of programs with layer fusion, and without.",
    "passes": "Seconds of every pass.",
    "contraction": "Flops and peaks of orders of contraction, beside those of opt_einsum.",
    "pipeline": "Seconds to the proven split of a chain of layers over devices, beside even splits.",
    "mcu": "Training and inference of int8 networks in the memory of a microcontroller.",
    "export-c": "Code, flash and time of int8 networks as C, run here and on an emulated Cortex-M7.",
    "levels": "Seconds to the proven choice of a level for each layer.",
}


def bench_group(arguments: Sequence[str]) -> typer.Typer:
    """Returns the group of commands `bench`; of them, those that are among the arguments of this run can run."""
    bench = typer.Typer(help="Measure, print a table, and write it as JSON.")
    bench.callback(invoke_without_command=True)(_options)
    add_commands(bench, "memplan.cli.bench", BENCHES, arguments)
    return bench


def _options(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
