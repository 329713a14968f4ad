"""What a file says of its target is a name: only the user may name a file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan import pipeline
from memplan.compiler.errors import TargetError
from memplan.compiler.frontends import read
from memplan.compiler.hardware import targets
from memplan.compiler.hardware.guess import guessed_target
from memplan.compiler.hardware.target import known_target, read_target, register_target
from memplan.compiler.mapping.plan import Plan

Run = Callable[..., Any]

MODULE = """\
HloModule m, is_scheduled=true, frontend_attributes={memplan.target="%s"}

ENTRY %%e (x: f32[8]) -> f32[8] {
  %%x = f32[8]{0} parameter(0)
  ROOT %%y = f32[8]{0} add(%%x, %%x)
}
"""
SHIPPED = Path(targets.__file__).parent / "generic.toml"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A pipe that nobody writes to: who opens it hangs."""
    os.mkfifo(tmp_path / "pipe.toml")
    return tmp_path / "pipe.toml"


def dump_for(folder: Path, target: object) -> Path:
    file = folder / "dump.hlo"
    file.write_text(MODULE % target)
    return file


@pytest.mark.parametrize("name", ["/dev/zero", "nothing", "../x.toml", "-", "", str(SHIPPED), "x" * 10**6, "\x1b[2J"])
def test_a_dump_may_not_name_a_file(run: Run, tmp_path: Path, name: str) -> None:
    dump = dump_for(tmp_path, name)
    done = run("plan", dump, "--planner", "slow")
    if not name:
        assert done.status == 0  # it names none
        return
    assert (done.status, done.out, len(done.errors)) == (2, "", 1)
    assert f"{dump} names its target: no target is called" in done.err
    assert len(done.err) < 1000
    with pytest.raises(TargetError, match="no target is called"):
        pipeline.plan(read(dump), planner="slow")


def test_a_pipe_is_not_waited_for(run: Run, tmp_path: Path, pipe: Path) -> None:
    dump = dump_for(tmp_path, pipe)
    assert "no target is called" in run("plan", dump).err
    plain = tmp_path / "plain.hlo"
    plain.write_text(MODULE % "generic")
    done = run("plan", plain, "--target", pipe)
    assert (done.status, done.err) == (2, f"memplan: error: cannot read {pipe}: it is a pipe, not a regular file\n")


def test_a_plan_may_not_name_a_file(run: Run, tmp_path: Path, pipe: Path) -> None:
    dump, plan = dump_for(tmp_path, "generic"), tmp_path / "plan.json"
    assert run("plan", dump, "--planner", "slow", "--out", plan).status == 0
    for name in (str(pipe), str(SHIPPED), "/dev/zero"):
        plan.write_text(json.dumps({**json.loads(plan.read_text()), "target": name}))
        for command in ("verify", "show"):
            done = run(command, plan, dump)
            assert (done.status, done.out) == (2, "")
            assert "no target is called" in done.err
        with pytest.raises(TargetError):
            pipeline.verify(read(dump), Plan.load(plan))
        assert run("verify", plan, dump, "--target", "generic").status == 2  # it was made for another


def test_the_user_may_name_a_file_and_a_file_may_name_what_is_registered(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memplan.compiler.hardware.target._registered", {})
    dump = dump_for(tmp_path, "generic")
    own = tmp_path / "own.toml"
    own.write_text(SHIPPED.read_text().replace('name = "generic"', 'name = "own.toml"'))
    assert run("plan", dump, "--target", own, "--planner", "slow").status == 0
    target = register_target(read_target(own))
    assert known_target("own.toml") is target
    assert guessed_target(read(dump_for(tmp_path, "own.toml"))) is target


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_no_command_reads_what_is_no_file(run: Run, tmp_path: Path, pipe: Path, kind: str) -> None:
    path = {"pipe": pipe, "folder": tmp_path, "device": Path("/dev/zero")}[kind]
    dump, plan = dump_for(tmp_path, "generic"), tmp_path / "plan.json"
    assert run("plan", dump, "--planner", "slow", "--out", plan).status == 0
    for arguments in (
        ["plan", path], ["verify", path, dump], ["verify", plan, path], ["show", path, dump], ["pack", path],
        ["plan", dump, "--target", path], ["bench", "mapping", "--dumps", path], ["bench", "packing", "--instances", path],
    ):  # fmt: skip
        done = run(*arguments)
        assert (done.status, len(done.errors)) == (2, 1), arguments
        assert "not a regular file" in done.err
