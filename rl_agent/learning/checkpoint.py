"""Checkpoints of an agent, by Orbax: no pickle, written beside the last one and moved into its place.

A checkpoint has three parts, of which an agent that only plays needs the first two:

    meta     version of the format, options, what is played
    params   of the networks
    rest     everything else that the next iterations depend on
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memplan.compiler.errors import MemplanError
from memplan.rl_agent.learning.network import NetworkSizes, Params
from memplan.rl_agent.learning.options import TrainOptions
from memplan.rl_agent.learning.tree_search import TreeSearchOptions
from memplan.rl_agent.learning.update import UpdateOptions

VERSION = 3

# So many are kept: if the last one is damaged, the one before is there.
_KEPT = 2

# Options that earlier versions had, and that no longer mean anything.
_RETIRED_OPTIONS = {"cycle"}


class CheckpointError(MemplanError):
    """A checkpoint that cannot be read, or written."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint says.

    Attributes:
      iteration: after how many it was written.
      options: of the training.
      meta: what else was written with it.
      params: of the networks.
      rest: of `Trainer.state`; None if it was not asked for.
    """

    iteration: int
    options: TrainOptions
    meta: dict[str, Any]
    params: Params
    rest: dict[str, Any] | None


def options_from(described: dict[str, Any]) -> TrainOptions:
    """Returns options from what `asdict` made of them; raises CheckpointError if this version has other options."""
    parts = {"sizes": NetworkSizes, "search": TreeSearchOptions, "update": UpdateOptions}
    known = {field.name for field in fields(TrainOptions)}
    described = {name: value for name, value in described.items() if name not in _RETIRED_OPTIONS}
    if set(described) != known:
        raise CheckpointError(f"options {', '.join(sorted(set(described) ^ known))} are not those of this version")
    try:
        made = {name: parts[name](**value) if name in parts else value for name, value in described.items()}
    except TypeError as error:
        raise CheckpointError(f"options are not those of this version: {error}") from None
    return TrainOptions(**made)


def is_there(folder: Path) -> bool:
    """Tells whether a folder has a checkpoint, be it a damaged one."""
    return folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


def save(folder: Path, state: dict[str, Any], options: TrainOptions, meta: dict[str, Any]) -> None:
    """Writes a checkpoint into a folder. Checkpoints of the same or a later iteration, from which nothing went on, go.

    Args:
      folder: of checkpoints; made if it is not there.
      state: of a trainer, or a part of it: `iteration` and `params` at least.
      options: of the training.
      meta: something that can be written as JSON.

    Raises:
      CheckpointError: it cannot be written; those that are there stay as they are.
    """
    import orbax.checkpoint as ocp

    arrays = jax.tree.map(np.asarray, jax.device_get(state))
    iteration, params = int(arrays.pop("iteration")), arrays.pop("params")
    described = {"version": VERSION, "options": asdict(options), **meta}
    parts = {"params": ocp.args.StandardSave(params), "meta": ocp.args.JsonSave(described)}
    if arrays:
        parts["rest"] = ocp.args.StandardSave(arrays)
    try:
        with _manager(folder, create=True) as manager:
            # The run goes on from an earlier one than these: they are damaged, or another run's.
            for later in [step for step in manager.all_steps() if step >= iteration]:
                manager.delete(later)
            manager.save(iteration, args=ocp.args.Composite(**parts), force=True)
            manager.wait_until_finished()
    except Exception as error:  # Orbax and TensorStore raise all kinds, a full disk among them.
        raise CheckpointError(f"cannot write a checkpoint into {folder}: {_said(error)}") from None


def load(folder: Path, everything: bool = False) -> Saved:
    """Reads the latest checkpoint of a folder, or of the folder `checkpoints` in it.

    Args:
      folder: that training wrote.
      everything: whether to read the `rest`, to go on.

    Raises:
      CheckpointError: there is none, it is of another version, or it is damaged.
    """
    import orbax.checkpoint as ocp

    inner = folder / "checkpoints"
    place = inner if inner.is_dir() else folder
    if not place.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    with _manager(place, create=False) as manager:
        iteration = manager.latest_step()
        if iteration is None:
            raise CheckpointError(f"{folder}: there is no checkpoint in it")
        where = place / str(iteration)
        try:
            meta = manager.restore(iteration, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        except Exception as error:
            raise CheckpointError(f"{where} is damaged: {_said(error)}") from None
        version = meta.pop("version", None) if isinstance(meta, dict) else None
        if version != VERSION:
            raise CheckpointError(f"{where} is of version {version}, but this is version {VERSION}: train again")
        options = options_from(meta.pop("options", {}))
        parts = ["params", "rest"] if everything else ["params"]
        try:
            wanted = ocp.args.Composite(**{name: ocp.args.StandardRestore() for name in parts})
            restored = manager.restore(iteration, args=wanted)
        except Exception as error:
            raise CheckpointError(f"{where} is damaged: {_said(error)}") from None
    rest = {**restored["rest"], "iteration": np.array(iteration)} if everything else None
    return Saved(iteration, options, meta, restored["params"], rest)


@contextlib.contextmanager
def _manager(folder: Path, create: bool) -> Iterator[Any]:
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT, create=create, read_only=not create)
    manager = ocp.CheckpointManager(folder.absolute(), options=options)
    try:
        yield manager
    finally:
        manager.close()


def _said(error: Exception) -> str:
    """Returns the first line of what an exception says, or its kind."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
