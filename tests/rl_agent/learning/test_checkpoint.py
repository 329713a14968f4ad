"""What is read of a checkpoint: nothing that was damaged, and the intact one before a damaged one."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learning_problems import SMALL, problem_of

from memplan.compiler.cache import sealed
from memplan.compiler.errors import MemplanError
from memplan.rl_agent.learning import checkpoint
from memplan.rl_agent.learning.checkpoint import CheckpointError
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


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda content: b"",
    "a flipped bit": flipped,
    "half of it": lambda content: content[: len(content) // 2],
    "no archive": lambda content: sealed(b"no archive"),
    "another checksum": lambda content: bytes(32) + content[32:],
}


@pytest.mark.parametrize("what", DAMAGES)
def test_the_intact_checkpoint_before_a_damaged_one_is_used(
    out: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert checkpoint.load(out).iteration == 2
    first, second = (checkpoint.path_of(out / "checkpoints", number) for number in (1, 2))
    second.write_bytes(DAMAGES[what](second.read_bytes()))
    with caplog.at_level(logging.WARNING, "memplan"):
        assert checkpoint.load(out).iteration == 1
    said = [record.getMessage() for record in caplog.records if record.name.startswith("memplan")]
    assert len(said) == 1
    assert f"{second} is damaged: " in said[0]
    assert said[0].endswith(": the checkpoint of iteration 1 is used")
    first.write_bytes(DAMAGES[what](first.read_bytes()))
    with pytest.raises(CheckpointError, match=r"checkpoints/2\.checkpoint is damaged: "):
        checkpoint.load(out)


def test_training_goes_on_from_the_intact_one_and_replaces_the_damaged(out: Path) -> None:
    checkpoint.path_of(out / "checkpoints", 2).write_bytes(b"")
    resumed = Training([problem_of(2)], out=out, resume=True)
    assert resumed.trainer.iteration == 1
    resumed.run(600.0, iterations=1)
    assert checkpoint.load(out).iteration == 2


def test_the_last_two_are_kept(out: Path) -> None:
    resumed = Training([problem_of(2)], out=out, resume=True)
    resumed.run(600.0, iterations=1)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["2.checkpoint", "3.checkpoint"]


def rewritten(out: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Changes what the latest checkpoint says, and its checksum; there is no other one then."""
    saved = checkpoint.load(out)
    described, state = asdict(saved.options), dict(saved.state)
    meta = {**saved.meta, "options": described}
    change(meta, state)
    checkpoint.path_of(out / "checkpoints", 1).unlink(missing_ok=True)
    content = checkpoint.content_of(state, SMALL, meta)
    checkpoint.path_of(out / "checkpoints", 2).write_bytes(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta, state: meta.pop("problems"), "the field 'problems' is missing"),
        (lambda meta, state: meta.update(seconds="long"), 'seconds: expected a finite number of at least 0, found "'),
        (lambda meta, state: meta.update(points=[{}]), r"points\[0\]: expected an object of the fields"),
        (lambda meta, state: meta.update(version=99), "of version 99"),
        (lambda meta, state: meta.update(options=3), "are not those of this version"),
        (lambda meta, state: meta["options"].update(budget=0), r"options\.budget: expected an integer from 1 to"),
        (lambda meta, state: meta["options"].update(learns=1), r"options\.learns: expected true or false, found 1"),
        (lambda meta, state: meta["options"].update(bicycle=1), "options bicycle are not those of this version"),
        (lambda meta, state: state.update(weights=np.zeros((2, 2))), "the weights are of other features"),
        (lambda meta, state: state.pop("weights"), "iteration 2 is not one of this run"),
        (lambda meta, state: state.pop("contests"), "iteration 2 is not one of this run"),
        (lambda meta, state: state.update(iteration=np.zeros(2)), "does not say its iteration"),
    ],
)
def test_what_makes_no_sense_is_refused(
    out: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any], message: str
) -> None:
    rewritten(out, change)
    with pytest.raises(MemplanError, match=message):
        Training([problem_of(2)], out=out, resume=True)


def test_values_that_are_no_numbers_are_refused(out: Path) -> None:
    rewritten(out, lambda meta, state: state["contests"]["0"]["champion"]["items"].fill(np.nan))
    with pytest.raises(MemplanError, match="items are not finite numbers"):
        Training([problem_of(2)], out=out, resume=True)


def test_options_read_back() -> None:
    assert checkpoint.options_from(json.loads(json.dumps(asdict(SMALL)))) == SMALL
