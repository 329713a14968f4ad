"""`memplan bench game`: how many moves of the mallocGame are made in a second.

A batch of games of one problem is played at random, legal moves only, all within one compiled loop. Moves that a backup
repeats count like all others. Where there are several devices, each plays a part of the batch; of the CPU's cores, each
is made a device.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from memplan import pipeline
from memplan.cli.arguments import JsonFile
from memplan.cli.bench.results import write_bench
from memplan.cli.console import Stages, show
from memplan.cli.outputs import check_file
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.guess import guessed_target
from memplan.rl_agent.devices import use_all_devices

DEFAULT_DUMP = "mlp_mixer.tpu-v5e.default.hlo.txt.gz"  # 585 moves


def command(
    dump: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="Play this dump. By default a shipped one.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Games that are played at once.")] = 256,
    steps: Annotated[int, typer.Option(metavar="N", help="Moves that each of them makes.")] = 500,
    rounds: Annotated[int, typer.Option(metavar="N", help="How often that is timed; the best counts.")] = 3,
    json_file: JsonFile = None,
) -> None:
    """Moves of the mallocGame in a second.

    Random legal play of a batch of games, compiled by JAX, on all cores of the CPU.
    """
    check_file(json_file)
    for name, value in (("--batch", batch), ("--steps", steps), ("--rounds", rounds)):
        if value < 1:
            raise MemplanError(f"{name} {value}: must be at least 1")
    use_all_devices()
    with Stages(total=1) as stages, stages.stage("playing"):
        row = measure(dump or _shipped(), batch, steps, rounds)
    write_bench(json_file, "game", [row], {"steps_per_second": row["steps_per_second"]})
    show(lambda terminal: terminal.print(_table(row)))


def _shipped() -> Path:
    from memplan import workloads

    return workloads.dumps_folder() / DEFAULT_DUMP


def measure(dump: Path, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    """Returns the row of a dump; raises MemplanError if the devices cannot share the batch."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, PartitionSpec

    from memplan.rl_agent.game.arrays import make_arrays
    from memplan.rl_agent.game.environment import init, step
    from memplan.rl_agent.game.game import Game
    from memplan.rl_agent.game.moves import NUM_ACTIONS
    from memplan.rl_agent.game.state import State

    graph = read(dump)
    game = Game(pipeline.problem(graph, guessed_target(graph)))
    arrays = jax.tree.map(jnp.asarray, make_arrays(game))
    devices = jax.devices()
    if batch % len(devices):
        raise MemplanError(f"--batch {batch}: must be a multiple of the {len(devices)} devices")

    def play(states: State, key: Any) -> State:
        def move(states: State, key: Any) -> tuple[State, None]:
            taste = jax.random.uniform(key, (*states.move.shape, NUM_ACTIONS))
            actions = jnp.argmax(jnp.where(states.legal, taste, -1.0), axis=-1)
            return jax.vmap(step, (None, 0, 0))(arrays, states, actions), None

        states, _ = jax.lax.scan(move, states, jax.random.split(key[0], steps))
        return states

    part = PartitionSpec("batch")
    mesh = Mesh(devices, ("batch",))
    shared = jax.shard_map(play, mesh=mesh, in_specs=(part, part), out_specs=part, check_vma=False)
    compiled = jax.jit(shared, donate_argnums=0)

    def start() -> State:
        return jax.jit(lambda: jax.vmap(lambda _: init(arrays))(jnp.arange(batch)))()

    seconds = []
    for seed in range(rounds + 1):  # the first one compiles
        states, keys = jax.block_until_ready((start(), jax.random.split(jax.random.key(seed), len(devices))))
        began = time.perf_counter()
        states = jax.block_until_ready(compiled(states, keys))
        seconds.append(time.perf_counter() - began)
    best = min(seconds[1:])
    return {
        "dump": dump.name,
        "moves": len(game.moves),
        "batch": batch,
        "devices": len(devices),
        "steps": steps,
        "steps_per_second": batch * steps / best,
        "bytes_per_game": sum(part.nbytes for part in jax.tree.leaves(states)) / batch,
        "backups_per_game": float(states.backups.mean()),
        "seconds": best,
    }


def _table(row: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("dump", no_wrap=True)
    for column in ("moves", "games", "devices", "steps each", "backups each", "bytes each", "steps/s"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(
        row["dump"].removesuffix(".hlo.txt.gz"), f"{row['moves']:,}", f"{row['batch']:,}", f"{row['devices']}",
        f"{row['steps']:,}", f"{row['backups_per_game']:.1f}", f"{row['bytes_per_game']:,.0f}",
        f"{row['steps_per_second']:,.0f}",
    )  # fmt: skip
    return table
