"""`memplan diff`: what differs, and the exit status for CI."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memplan.cli.main import main

MODULE = """HloModule f, is_scheduled=true
ENTRY e {
  x = f32[256] parameter(0), metadata={op_name="x"}
  a = f32[1024] custom-call(x), custom_call_target="a", metadata={op_name="jit(f)/a"}
  ROOT out = f32[] custom-call(a), custom_call_target="sum", metadata={op_name="jit(f)/sum"}
}
"""


@pytest.fixture
def run(run_unprepared: Callable[..., Any]) -> Callable[..., Any]:
    return partial(run_unprepared, "diff")


@pytest.fixture
def before(tmp_path: Path) -> Path:
    path = tmp_path / "before.hlo.txt"
    path.write_text(MODULE)
    return path


@pytest.fixture
def after(tmp_path: Path) -> Path:
    """4 KiB more of 5 KiB."""
    path = tmp_path / "after.hlo.txt"
    path.write_text(MODULE.replace("f32[1024]", "f32[2048]"))
    return path


def test_two_dumps(before: Path, after: Path, run: Callable[..., Any]) -> None:
    found = json.loads(run(before, after, "--json").out)
    assert (found["peak_growth"], found["before"]["peaks"]["slow"]) == (4096, 5124)
    # `sum` reads more, so it takes longer.
    assert [(group["group"], group["what"]) for group in found["groups"]] == [("jit(f)/a", "grew"), ("jit(f)/sum", "")]
    done = run(before, after)
    assert done.status == 0
    assert "grew" in done.out
    assert "No group of buffers differs." in run(before, before).out


@pytest.mark.parametrize(
    ("allowed", "status"), [("2%", 1), ("79.9%", 1), ("80%", 0), ("100%", 0), ("4095", 1), ("4KiB", 0)]
)
def test_a_peak_that_grows_too_much(
    allowed: str, status: int, before: Path, after: Path, run: Callable[..., Any]
) -> None:
    done = run(before, after, "--fail-if-peak-grows", allowed)
    assert done.status == status
    assert (f"the peak grew by more than {allowed}" in done.err) == bool(status)
    assert run(after, before, "--fail-if-peak-grows", allowed).status == 0


def test_plans_need_their_program(before: Path, run: Callable[..., Any], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert main(["plan", str(before), "--planner", "slow", "--out", str(plan)]) == 0
    assert run(plan, plan).status == 2
    done = run(plan, plan, "--dump", before)
    assert done.status == 0
    assert "No group of buffers differs." in done.out
    same = json.loads(run(before, plan, "--dump", before, "--json").out)
    assert same["peak_growth"] == 0


def test_mistakes_are_one_line(before: Path, after: Path, run: Callable[..., Any], tmp_path: Path) -> None:
    for arguments in (
        [before, after, "--fail-if-peak-grows", "much"],
        [before, after, "--fail-if-peak-grows", "2 % of it"],
        [before, tmp_path / "none.hlo.txt"],
        [before, tmp_path / "none.json", "--dump", before],
    ):
        done = run(*arguments)
        assert done.status == 2, arguments
        assert len(done.errors) == 1
