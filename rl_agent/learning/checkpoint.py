"""Checkpoints of a training run: one file each, of arrays without pickle under a checksum, moved into its place whole.

    checkpoints/120.checkpoint    after 120 iterations; the last two are kept

A checkpoint that does not agree with its checksum is passed over for the one before it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memplan.compiler import limits
from memplan.compiler.cache import opened, sealed
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import make_folder, read_bytes, write_atomically
from memplan.compiler.mapping.documents import boolean, check_fields, fields, integer, number, parse_json, record
from memplan.rl_agent.learning.options import TrainOptions

VERSION = 5

SUFFIX = ".checkpoint"

# So many are kept: if the last one is damaged, the one before is there.
_KEPT = 2

# The array that is no array of the state: a JSON document.
_META = "meta"


class CheckpointError(MemplanError):
    """A checkpoint that cannot be read, or written."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint whose file is not what was written, or does not agree with itself."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint says.

    Attributes:
      iteration: after how many it was written.
      options: of the training.
      meta: what else was written with it.
      state: of a `Trainer`.
    """

    iteration: int
    options: TrainOptions
    meta: dict[str, Any]
    state: dict[str, Any]


_log = logging.getLogger(__name__)

_OPTIONS = record(
    seed=integer(),
    budget=integer(1, 1 << 40),
    heat=number(at_least=0.0, at_most=1e3),
    learns=boolean,
)


def options_from(described: dict[str, Any], place: str = "options") -> TrainOptions:
    """Returns options from what `asdict` made of them.

    Args:
      described: values of JSON.
      place: that they come from, for messages.

    Raises:
      CheckpointError: this version has other options, or a value is not of its type or range.
    """
    if unknown := set(described) ^ set(asdict(TrainOptions())):
        raise CheckpointError(f"{place}: options {', '.join(sorted(unknown))} are not those of this version")
    try:
        check_fields({"options": described}, place, options=_OPTIONS)
    except MemplanError as error:
        raise CheckpointError(str(error)) from None
    return TrainOptions(**described)


def is_there(folder: Path) -> bool:
    """Tells whether a folder has a checkpoint, be it a damaged one."""
    return bool(_iterations(folder))


def path_of(folder: Path, iteration: int) -> Path:
    """Returns where in a folder the checkpoint of an iteration is."""
    return folder / f"{iteration}{SUFFIX}"


def _iterations(folder: Path) -> list[int]:
    """Returns the iterations of the checkpoints in a folder, the latest first."""
    names = [path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")] if folder.is_dir() else []
    numbers = (int(name) for name in names if name.isascii() and name.isdecimal() and len(name) < 19)
    return sorted((number for number in numbers if str(number) in names), reverse=True)


def save(folder: Path, state: dict[str, Any], options: TrainOptions, meta: dict[str, Any]) -> None:
    """Writes a checkpoint into a folder. Checkpoints of the same or a later iteration, from which nothing went on, go.

    Args:
      folder: of checkpoints; made if it is not there.
      state: of a trainer.
      options: of the training.
      meta: something that can be written as JSON.

    Raises:
      CheckpointError: it cannot be written; those that are there stay as they are.
    """
    iteration = int(state["iteration"])
    try:
        make_folder(folder)
        write_atomically(path_of(folder, iteration), content_of(state, options, meta))
    except MemplanError as error:
        raise CheckpointError(f"cannot write a checkpoint: {error}") from None
    # A run that goes on from an earlier one than some of these passed over them: they are damaged, or another run's.
    there = _iterations(folder)
    kept = [earlier for earlier in there if earlier <= iteration][:_KEPT]
    for old in set(there) - set(kept):
        with contextlib.suppress(OSError):
            os.remove(path_of(folder, old))


def content_of(state: dict[str, Any], options: TrainOptions, meta: dict[str, Any]) -> bytes:
    """Returns the content of a checkpoint's file."""
    described = json.dumps({"version": VERSION, "options": asdict(options), **meta})
    arrays = {_META: np.frombuffer(described.encode(), np.uint8), **_flattened(state)}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return sealed(content.getvalue())


def load(folder: Path) -> Saved:
    """Reads the latest intact checkpoint of a folder, or of the folder `checkpoints` in it.

    Later ones that are damaged are passed over with a warning in the log.

    Args:
      folder: that training wrote.

    Raises:
      CheckpointError: there is none, it is of another version, or all of them are damaged.
    """
    inner = folder / "checkpoints"
    place = inner if inner.is_dir() else folder
    if not place.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    iterations = _iterations(place)
    if not iterations:
        raise CheckpointError(f"{folder}: there is no checkpoint in it")
    reasons = []
    for iteration in iterations:
        path = path_of(place, iteration)
        try:
            saved = read(read_bytes(path, limits.CHECKPOINT), str(path))
        except DamagedCheckpointError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            _log.warning("memplan: warning: %s: the checkpoint of iteration %d is used", reason, iteration)
        return saved
    raise CheckpointError(reasons[0])


def read(content: bytes, place: str) -> Saved:
    """Returns what the content of a checkpoint's file says.

    Args:
      content: of the file.
      place: that it comes from, for messages.

    Raises:
      DamagedCheckpointError: it is not what was written.
      CheckpointError: it is of another version.
    """
    try:
        with np.load(io.BytesIO(opened(content)), allow_pickle=False) as arrays:
            flat = dict(arrays)
        meta = parse_json(flat.pop(_META).tobytes().decode(), place)
        check_fields({"meta": meta}, place, meta=fields)
        version = meta.pop("version", None)
    except Exception as error:  # zipfile, zlib and numpy raise all kinds.
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise DamagedCheckpointError(f"{place} is damaged: {said[0][:200]}") from None
    if version != VERSION:
        raise CheckpointError(f"{place} is of version {version!r:.20}, but this is version {VERSION}: train again")
    options = meta.pop("options", None)
    state = _nested(flat)
    iteration = state.get("iteration")
    if not isinstance(iteration, np.ndarray) or iteration.shape != () or iteration.dtype.kind != "i":
        raise DamagedCheckpointError(f"{place} is damaged: it does not say its iteration")
    return Saved(int(iteration), options_from(options if isinstance(options, dict) else {}, place), meta, state)


def _flattened(state: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Returns the arrays of a tree, by their paths."""
    found: dict[str, Any] = {}
    for name, part in state.items():
        found |= _flattened(part, f"{before}{name}/") if isinstance(part, dict) else {before + name: np.asarray(part)}
    return found


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Returns the tree of what `_flattened` returned."""
    found: dict[str, Any] = {}
    for path, part in flat.items():
        *folders, name = path.split("/")
        inner = found
        for folder in folders:
            inner = inner.setdefault(folder, {})
            if not isinstance(inner, dict):
                inner = {}
        inner[name] = part
    return found
