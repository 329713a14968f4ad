"""Files that could not be written are refused before the work."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli.outputs import check_file
from memplan.compiler.errors import MemplanError


def message_for(path: Path) -> str:
    with pytest.raises(MemplanError) as caught:
        check_file(path)
    return str(caught.value)


def test_what_can_be_written_passes(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    for path in (None, tmp_path / "new", tmp_path / "old", Path("here")):
        check_file(path)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_and_a_file_in_no_folder_are_refused(tmp_path: Path) -> None:
    assert message_for(tmp_path) == f"cannot write {tmp_path}: it is a folder"
    nowhere = tmp_path / "nowhere"
    assert message_for(nowhere / "x") == f"cannot write {nowhere / 'x'}: there is no folder {nowhere}"
    (tmp_path / "old").write_text("x")
    inside = tmp_path / "old" / "x"
    assert message_for(inside) == f"cannot write {inside}: there is no folder {inside.parent}"


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_a_plan_on_standard_output_is_alone_there(run: Callable[..., Any], module: Path, name: str) -> None:
    done = run("plan", module, "--planner", "slow", "--target", "tpu-v5e", "--out", name)
    assert done.status == 0
    assert json.loads(done.out)["planner"] == "slow"
    assert "bound that no plan beats" in done.err
    assert "bound that no plan beats" in run("plan", module, "--planner", "slow", "--target", "tpu-v5e").out


def test_a_program_from_standard_input(module: Path) -> None:
    command = [sys.executable, "-m", "memplan", "plan", "-", "--planner", "slow", "--target", "generic"]
    done = subprocess.run(command, input=module.read_bytes(), capture_output=True)
    assert (done.returncode, done.stdout.startswith(b"step on generic")) == (0, True)


@pytest.mark.parametrize("option", ["--out", pytest.param("--report", marks=pytest.mark.slow), "--print-to"])
def test_every_output_that_cannot_be_written_is_one_error(
    run: Callable[..., Any], module: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "x", tmp_path / ("x" * 300), tmp_path / "no" / "folder"):
        before = sorted(tmp_path.iterdir())
        done = run("plan", module, "--passes", "dead_code", "--print-after", "dead_code", option, path)
        if done.status == 0:  # A folder for a report is made, and those above it.
            assert option == "--report"
            continue
        assert (done.status, done.out, len(done.errors)) == (2, "", 1), (option, path)
        assert "cannot write" in done.err
        assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_link_to_a_plan_stays(run: Callable[..., Any], module: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").symlink_to("target.json")
    assert run("plan", module, "--planner", "slow", "--out", tmp_path / "plan.json").status == 0
    assert (tmp_path / "plan.json").is_symlink()
    assert json.loads((tmp_path / "target.json").read_text())["planner"] == "slow"
