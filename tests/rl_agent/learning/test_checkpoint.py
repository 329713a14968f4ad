"""What is read of a checkpoint: nothing that was damaged, and the intact one before a damaged one."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from learning_problems import SMALL, problem_of

from memplan.compiler.errors import MemplanError
from memplan.rl_agent.learning import checkpoint
from memplan.rl_agent.learning.checkpoint import CheckpointError
from memplan.rl_agent.learning.checksums import FILE, write_checksums
from memplan.rl_agent.learning.training import Training


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of its first and second iteration."""
    out = tmp_path_factory.mktemp("kept") / "run"
    training = Training([problem_of(2)], SMALL, out)
    training.run(600.0, iterations=1)
    training.run(600.0, iterations=1)
    return out


@pytest.fixture
def out(kept: Path, tmp_path: Path) -> Path:
    shutil.copytree(kept, tmp_path / "run")
    return tmp_path / "run"


def files_of(step: Path) -> list[Path]:
    return sorted(path for path in step.rglob("*") if path.is_file())


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def flip(name: str) -> Callable[[Path], None]:
    def change(step: Path) -> None:
        path = max((path for path in files_of(step / name)), key=lambda path: path.stat().st_size)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)

    return change


DAMAGES: dict[str, Callable[[Path], None]] = {
    "an empty folder": empty,
    "a flipped bit of the parameters": flip("params"),
    "a flipped bit of the rest": flip("rest"),
    "a flipped bit of the description": flip("meta"),
    "no checksums": lambda step: (step / FILE).unlink(),
    "a part that is missing": lambda step: shutil.rmtree(step / "params"),
    "an empty description": lambda step: (step / "meta" / "metadata").write_text(""),
    "a description that is no object": lambda step: (step / "meta" / "metadata").write_text("[]"),
    "a description that nests": lambda step: (step / "meta" / "metadata").write_text("[" * 100_000),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_the_intact_checkpoint_before_a_damaged_one_is_used(
    out: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = checkpoint.load(out)
    assert before.iteration == 2
    DAMAGES[what](out / "checkpoints" / "2")
    with caplog.at_level(logging.WARNING, "memplan"):
        saved = checkpoint.load(out, everything=True)
    assert saved.iteration == 1
    said = [record.getMessage() for record in caplog.records if record.name.startswith("memplan")]
    assert len(said) == 1
    assert f"{out / 'checkpoints' / '2'} is damaged: " in said[0]
    assert said[0].endswith(": the checkpoint of iteration 1 is used")
    DAMAGES[what](out / "checkpoints" / "1")
    with pytest.raises(CheckpointError, match=r"checkpoints/2 is damaged: "):
        checkpoint.load(out)


def test_training_goes_on_from_the_intact_one_and_replaces_the_damaged(out: Path) -> None:
    empty(out / "checkpoints" / "2")
    resumed = Training([problem_of(2)], out=out, resume=True)
    assert resumed.trainer.iteration == 1
    resumed.run(600.0, iterations=1)
    assert checkpoint.load(out, everything=True).iteration == 2


def test_every_file_is_covered(out: Path) -> None:
    step = out / "checkpoints" / "2"
    shutil.rmtree(out / "checkpoints" / "1")
    for path in files_of(step):
        if path.name == "commit_success.txt":  # it says when, and nothing reads it
            continue
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=r"checkpoints/2 is damaged: "):
            checkpoint.described_in(step)
        path.write_bytes(content)
    checkpoint.described_in(step)


def changed(step: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes what a checkpoint says of itself, and its checksums."""
    path = step / "meta" / "metadata"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))
    write_checksums(step)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.pop("problems"), "the field 'problems' is missing"),
        (lambda meta: meta.update(seconds="long"), 'seconds: expected a finite number of at least 0, found "long"'),
        (lambda meta: meta.update(points=[{}]), r"points\[0\]: expected an object of the fields"),
        (lambda meta: meta.pop("options"), "are not those of this version"),
        (lambda meta: meta["options"].update(windows=0), r"options\.windows: expected an integer from 1 to"),
        (lambda meta: meta["options"].update(windows=10**12), r"options\.windows: expected an integer from 1 to"),
        (lambda meta: meta["options"].update(learns=1), r"options\.learns: expected true or false, found 1"),
        (lambda meta: meta["options"].update(sizes=3), r"options\.sizes: expected an object of the fields hidden"),
        (lambda meta: meta["options"]["search"].update(method="luck"), r"options\.search\.method: expected one of"),
        (lambda meta: meta["options"]["update"].update(batch=None), r"options\.update\.batch: expected an integer"),
        (lambda meta: meta["options"]["sizes"].update(trunk=16), r"parameters .* are float32\(32,\), not"),
        (lambda meta: meta["options"]["sizes"].update(blocks=2), "the parameters are not those of these networks"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    out: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    shutil.rmtree(out / "checkpoints" / "1")
    changed(out / "checkpoints" / "2", change)
    with pytest.raises(MemplanError, match=message):
        Training([problem_of(2)], out=out, resume=True)


def test_parameters_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    params = Training([problem_of(2)], SMALL).trainer.params
    broken = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), jax.device_get(params))
    checkpoint.save(tmp_path, {"iteration": np.array(3), "params": broken}, SMALL, {})
    with pytest.raises(CheckpointError, match=r"has no finite numbers"):
        checkpoint.load(tmp_path)


def test_options_read_back() -> None:
    assert checkpoint.options_from(json.loads(json.dumps(asdict(SMALL)))) == SMALL
