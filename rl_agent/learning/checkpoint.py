"""Checkpoints of an agent, by Orbax: no pickle, written beside the last one and moved into its place.

A checkpoint has three parts, of which an agent that only plays needs the first two:

    meta     version of the format, options, what is played
    params   of the networks
    rest     everything else that the next iterations depend on

A file of checksums is written last. A checkpoint that does not agree with its own is passed over for the one before it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memplan.compiler import limits
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import read_text
from memplan.compiler.mapping.documents import (
    boolean,
    check_fields,
    fields,
    integer,
    number,
    one_of,
    parse_json,
    record,
)
from memplan.rl_agent.learning.checksums import check_checksums, write_checksums
from memplan.rl_agent.learning.network import NetworkSizes, Params
from memplan.rl_agent.learning.options import TrainOptions
from memplan.rl_agent.learning.tree_search import MODELS, SEARCHES, TreeSearchOptions
from memplan.rl_agent.learning.update import UpdateOptions

VERSION = 4

# So many are kept: if the last one is damaged, the one before is there.
_KEPT = 2

# Options that earlier versions had, and that no longer mean anything.
_RETIRED_OPTIONS = {"cycle"}


class CheckpointError(MemplanError):
    """A checkpoint that cannot be read, or written."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint whose files are not those that were written, or do not agree with each other."""


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


_log = logging.getLogger(__name__)

_COUNT, _WEIGHT = integer(0, 1 << 31), number(at_least=0.0, at_most=1e9)
_SOME, _WIDTH = integer(1, 1 << 20), integer(1, 1 << 13)
_OPTIONS = record(
    seed=integer(),
    windows=_SOME,
    lanes=_SOME,
    window=_SOME,
    capacity=integer(1, 1 << 31),
    updates=_COUNT,
    reanalysed=_COUNT,
    loyalty=_WEIGHT,
    scouts=_COUNT,
    scouted=_COUNT,
    heat=_WEIGHT,
    learns=boolean,
    sizes=record(hidden=_WIDTH, trunk=_WIDTH, blocks=integer(0, 65)),
    search=record(method=one_of(SEARCHES), simulations=_SOME, model=one_of(MODELS), patience=_COUNT),
    update=record(
        batch=_SOME,
        unroll=_SOME,
        td_steps=_SOME,
        learning_rate=_WEIGHT,
        weight_decay=_WEIGHT,
        value_weight=_WEIGHT,
        imitation=_WEIGHT,
    ),
)


def options_from(described: dict[str, Any], place: str = "options") -> TrainOptions:
    """Returns options from what `asdict` made of them.

    Args:
      described: values of JSON.
      place: that they come from, for messages.

    Raises:
      CheckpointError: this version has other options, or a value is not of its type or range.
    """
    parts = {"sizes": NetworkSizes, "search": TreeSearchOptions, "update": UpdateOptions}
    described = {name: value for name, value in described.items() if name not in _RETIRED_OPTIONS}
    if unknown := set(described) ^ set(asdict(TrainOptions())):
        raise CheckpointError(f"{place}: options {', '.join(sorted(unknown))} are not those of this version")
    try:
        check_fields({"options": described}, place, options=_OPTIONS)
    except MemplanError as error:
        raise CheckpointError(str(error)) from None
    return TrainOptions(**{name: parts[name](**value) if name in parts else value for name, value in described.items()})


def is_there(folder: Path) -> bool:
    """Tells whether a folder has a checkpoint, be it a damaged one."""
    return bool(_steps(folder))


def _steps(folder: Path) -> list[int]:
    """Returns the iterations of the checkpoints in a folder, the latest first."""
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    numbers = (int(name) for name in names if name.isascii() and name.isdecimal() and len(name) < 19)
    return sorted((number for number in numbers if str(number) in names), reverse=True)


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
        write_checksums(folder / str(iteration))
    except Exception as error:  # Orbax and TensorStore raise all kinds, a full disk among them.
        raise CheckpointError(f"cannot write a checkpoint into {folder}: {_said(error)}") from None


def load(folder: Path, everything: bool = False) -> Saved:
    """Reads the latest intact checkpoint of a folder, or of the folder `checkpoints` in it.

    Later ones that are damaged are passed over with a warning in the log.

    Args:
      folder: that training wrote.
      everything: whether to read the `rest`, to go on.

    Raises:
      CheckpointError: there is none, it is of another version, or all of them are damaged.
    """
    inner = folder / "checkpoints"
    place = inner if inner.is_dir() else folder
    if not place.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    steps = _steps(place)
    if not steps:
        raise CheckpointError(f"{folder}: there is no checkpoint in it")
    reasons = []
    for step in steps:
        try:
            saved = _loaded(place, step, everything)
        except DamagedCheckpointError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            _log.warning("memplan: warning: %s: the checkpoint of iteration %d is used", reason, step)
        return saved
    raise CheckpointError(reasons[0])


def described_in(step: Path) -> tuple[dict[str, Any], TrainOptions]:
    """Returns what a checkpoint says of itself, and its options, after a look at all of its checksums.

    Raises:
      DamagedCheckpointError: its files are not those that were written.
      CheckpointError: it is of another version.
    """
    path = step / "meta" / "metadata"
    version = None
    try:
        meta = parse_json(read_text(path, limits.CHECKPOINT), str(path))
        check_fields({"meta": meta}, str(path), meta=fields)
        version = meta.pop("version", None)
        if version == VERSION:
            check_checksums(step)
    except MemplanError as error:
        raise DamagedCheckpointError(f"{step} is damaged: {error}") from None
    if version != VERSION:
        raise CheckpointError(f"{step} is of version {version!r:.20}, but this is version {VERSION}: train again")
    options = meta.pop("options", None)
    return meta, options_from(options if isinstance(options, dict) else {}, str(path))


def _loaded(place: Path, step: int, everything: bool) -> Saved:
    import orbax.checkpoint as ocp

    where = place / str(step)
    meta, options = described_in(where)
    parts = ["params", "rest"] if everything else ["params"]
    try:
        with _manager(place, create=False) as manager:
            wanted = ocp.args.Composite(**{name: ocp.args.StandardRestore() for name in parts})
            restored = manager.restore(step, args=wanted)
    except Exception as error:
        raise DamagedCheckpointError(f"{where} is damaged: {_said(error)}") from None
    _check_finite(restored["params"], where)
    rest = {**restored["rest"], "iteration": np.array(step)} if everything else None
    return Saved(step, options, meta, restored["params"], rest)


def _check_finite(params: Params, where: Path) -> None:
    """Raises DamagedCheckpointError unless parameters are finite numbers; their shapes are up to who uses them."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not np.issubdtype(np.asarray(leaf).dtype, np.floating) or not np.isfinite(leaf).all():
            raise DamagedCheckpointError(f"{where} is damaged: {jax.tree_util.keystr(path)} has no finite numbers")


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
