"""Runs in folders: what they write, how they go on, and what is said of bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from learning_problems import SMALL, problem_of

from memplan.cli.main import main
from memplan.compiler.errors import MemplanError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.verify import verify
from memplan.rl_agent.learning import checkpoint, options
from memplan.rl_agent.learning.checkpoint import CheckpointError
from memplan.rl_agent.learning.training import Training, problem_name

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations."""
    out = tmp_path_factory.mktemp("runs") / "run"
    Training([problem_of(2)], SMALL, out).run(600.0, iterations=6)
    return out


def copy_of(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def test_what_a_run_writes(run: Path) -> None:
    problem = problem_of(2)
    plan = Plan.load(run / f"{problem_name(problem)}.plan.json")
    assert verify(problem, plan) == []
    points = json.loads((run / "history.json").read_text())
    assert points[0]["name"] == problem_name(problem)
    assert [point["latency"] for point in points] == sorted((point["latency"] for point in points), reverse=True)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["1.checkpoint", "6.checkpoint"]


def state_of(training: Training) -> bytes:
    """Returns everything that the next iterations depend on."""
    return checkpoint.content_of(training.trainer.state(), SMALL, {})


def test_it_goes_on_as_if_it_had_not_stopped(run: Path, tmp_path: Path) -> None:
    whole = Training([problem_of(2)], SMALL, tmp_path / "whole")
    whole.run(600.0, iterations=9)
    resumed = Training([problem_of(2)], out=copy_of(run, tmp_path), resume=True)
    assert resumed.trainer.iteration == 6
    resumed.run(600.0, iterations=3)
    assert state_of(whole) == state_of(resumed)


_KILLED = """
import sys
sys.path[:0] = [{tests!r}, {planners!r}]
from pathlib import Path
from learning_problems import SMALL, padding_of_games, problem_of
from memplan.rl_agent.game.arrays import Padding
from memplan.rl_agent.learning.training import Training
Padding.rounded = staticmethod(padding_of_games)
training = Training([problem_of(2)], SMALL, Path({out!r}))
"""
_SAVING = """
while True:
    training.run(600.0, iterations=1)
    print("saved", training.trainer.iteration, flush=True)
"""
_LEARNING = """
training.run(600.0, on_progress=lambda progress: print("did", progress.report.iteration, flush=True))
"""


def started(out: Path, then: str) -> subprocess.Popen[str]:
    """Returns a process that trains in a folder."""
    code = _KILLED.format(tests=str(TESTS), planners=str(TESTS.parent / "planners"), out=str(out))
    return subprocess.Popen([sys.executable, "-c", code + then], stdout=subprocess.PIPE, text=True)


def check_it_goes_on_exactly(out: Path, done: int) -> None:
    """Resumes the run in a folder and compares it with one that was never cut off."""
    resumed = Training([problem_of(2)], out=out, resume=True)
    assert resumed.trainer.iteration >= done
    done = resumed.trainer.iteration
    resumed.run(600.0, iterations=1)
    whole = Training([problem_of(2)], SMALL)
    whole.run(600.0, iterations=done + 1)
    assert state_of(whole) == state_of(resumed)


def test_killed_at_any_time_it_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    process = started(tmp_path / "run", _SAVING)
    assert process.stdout is not None
    assert process.stdout.readline() == "saved 1\n"
    time.sleep(0.05)  # Perhaps in the middle of the next one, perhaps while it is written.
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_it_goes_on_exactly(tmp_path / "run", 1)


@pytest.mark.slow
def test_interrupted_at_any_time_it_goes_on_after_the_last_iteration(tmp_path: Path) -> None:
    process = started(tmp_path / "run", _LEARNING)
    assert process.stdout is not None
    assert process.stdout.readline() == "did 0\n"
    time.sleep(0.05)  # Probably in the middle of an iteration.
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate()
    assert process.returncode == 0
    check_it_goes_on_exactly(tmp_path / "run", 1 + len(rest.splitlines()))


def test_the_time_begins_after_the_first_iteration(tmp_path: Path) -> None:
    """It may be over before the first checkpoint, which is the last one as well."""
    training = Training([problem_of(2)], SMALL, tmp_path / "run")
    training.run(1e-9)
    assert training.trainer.iteration == 1
    assert checkpoint.load(tmp_path / "run").iteration == 1
    resumed = Training([problem_of(2)], out=tmp_path / "run", resume=True)
    resumed.run(600.0, iterations=0)
    assert checkpoint.load(tmp_path / "run").iteration == 1


def test_a_checkpoint_that_nothing_went_on_from_is_replaced(run: Path, tmp_path: Path) -> None:
    out = copy_of(run, tmp_path)
    resumed = Training([problem_of(2)], out=out, resume=True)
    for later in (7, 8):
        shutil.copy(checkpoint.path_of(out / "checkpoints", 6), checkpoint.path_of(out / "checkpoints", later))
    resumed.run(600.0, iterations=1)
    assert checkpoint.load(out).iteration == 7
    assert not checkpoint.path_of(out / "checkpoints", 8).exists()


def test_other_problems_and_options_are_refused(run: Path) -> None:
    with pytest.raises(MemplanError, match="of other problems"):
        Training([problem_of(4)], out=run, resume=True)
    with pytest.raises(MemplanError, match="other options"):
        Training([problem_of(2)], replace(SMALL, heat=0.5), run, resume=True)
    with pytest.raises(MemplanError, match="there is a run already"):
        Training([problem_of(2)], SMALL, run)
    with pytest.raises(MemplanError, match="called"):
        Training([problem_of(2), problem_of(2)], SMALL)


def test_no_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(MemplanError, match="no run to resume"):
        Training([problem_of(2)], out=tmp_path / "nothing", resume=True)
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoint.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load(tmp_path / "empty")


def test_a_full_disk_leaves_the_last_checkpoint(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = copy_of(run, tmp_path)
    resumed = Training([problem_of(2)], out=out, resume=True)

    def full(*_: object) -> None:
        raise MemplanError("cannot write: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_atomically", full)
        with pytest.raises(CheckpointError, match="No space left"):
            resumed.run(600.0, iterations=1)
    assert checkpoint.load(out).iteration == 6


def test_an_interrupt_saves(run: Path, tmp_path: Path) -> None:
    out = copy_of(run, tmp_path)
    resumed = Training([problem_of(2)], out=out, resume=True)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    resumed.run(600.0, on_progress=interrupt)
    assert checkpoint.load(out).iteration == 7


def test_the_command_prints_its_table_however_short_the_time_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "TrainOptions", lambda seed: SMALL)
    problem_of(2).save(tmp_path / "problem.json")
    run = ["train", str(tmp_path / "problem.json"), "--out", str(tmp_path / "run"), "--minutes", "1e-9"]
    assert main(run) == 0
    shown = capsys.readouterr()
    assert problem_name(problem_of(2)) in shown.out
    assert "the 1e-09 minutes begin after it" in shown.err
    assert "compiled in" in shown.err
    assert checkpoint.load(tmp_path / "run").iteration == 1
    assert main([*run, "--resume"]) == 0
    assert problem_name(problem_of(2)) in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "run").iteration == 2
