"""`memplan fleet`: every dump is planned once, and its plan is the one that `memplan plan` makes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan import workloads
from memplan.cell_processes import ProcessWorkers
from memplan.cli.exit_status import ExitStatus
from memplan.cli.main import main
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.fleet import WORK, Fleet, FleetOptions, summarize

MODULE = """\
HloModule {name}, is_scheduled=true

ENTRY %main (x: f32[{n},256], w: f32[256,256]) -> f32[{n},256] {{
  %x = f32[{n},256]{{1,0:T(8,128)}} parameter(0)
  %w = f32[256,256]{{1,0:T(8,128)}} parameter(1)
  %y = f32[{n},256]{{1,0:T(8,128)S(1)}} exponential(%x)
  ROOT %dot = f32[{n},256]{{1,0:T(8,128)}} dot(%y, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""
FAST = FleetOptions(planner="greedy", effort=Effort.FAST)


class KilledOnce(ProcessWorkers):
    """Processes of which one is killed as it gets its first request."""

    is_killed = False

    def submit(self, request: Any) -> Future[tuple[Any, str]]:
        told = super().submit(request)
        if not self.is_killed:
            os.kill(self.pids[0], signal.SIGKILL)
            self.is_killed = True
        return told


def write(path: Path, name: str = "step", n: int = 256) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(MODULE.format(name=name, n=n))
    return path


def test_a_killed_worker_costs_nothing_but_time(prepared: None, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a" / "step.hlo.txt"), write(tmp_path / "b" / "step.hlo.txt", n=512)
    twin = write(tmp_path / "[red]\udcff\x1b[2J.hlo")
    problem = tmp_path / "problem.json"
    memplan.problem(memplan.read(write(tmp_path / "c.hlo", n=128)), "tpu-v5e").save(problem)
    dumps, out = [a, b, twin, problem, a], tmp_path / "out"
    rows: list[dict[str, Any]] = []
    lost: list[str] = []
    with KilledOnce(WORK, 1) as workers:
        Fleet(dumps, out, FAST).run(workers, rows.append, lambda dump, reason: lost.append(reason))
    assert lost == ["its process ended with SIGKILL"]
    assert {row["plan"]: row["attempts"] for row in rows} == {row["plan"]: 1 for row in rows} | {rows[0]["plan"]: 2}
    told = json.loads((out / "summary.json").read_text())
    assert [row["dump"] for row in told["rows"]] == [str(a), str(b), str(twin), str(problem)]
    assert told["summary"]["planned"] == 4
    assert len(list((out / "plans").iterdir())) == 3
    for row, dump in zip(told["rows"], dumps, strict=False):
        is_problem = dump == problem
        program = memplan.MappingProblem.load(problem) if is_problem else memplan.read(dump)
        own = memplan.plan(program, planner="greedy", effort="fast")
        assert (out / row["plan"]).read_text() == own.to_json()
        assert row["latency"] == memplan.emulate(program, own).latency

    # The next run has nothing to do but what is new, whatever it is called, and what has lost its plan.
    again = Fleet([twin, a], out, FAST)
    assert again.num_left == 0
    assert again.ordered()[0]["plan"] == told["rows"][0]["plan"]
    (out / told["rows"][1]["plan"]).unlink()
    assert Fleet(dumps, out, FAST).num_left == 1
    with pytest.raises(MemplanError, match="was made with other effort: name another folder"):
        Fleet(dumps, out, FleetOptions(planner="greedy"))


def test_command(
    prepared: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = write(tmp_path / "good.hlo"), tmp_path / "bad.hlo"
    bad.write_text("HloModule bad\n\x1b[2J")
    arguments = ["fleet", str(good), str(bad), "--out", str(tmp_path / "out"), "--planner", "slow", "--processes", "1"]
    assert main(arguments) == ExitStatus.NO
    out, err = capfd.readouterr()
    assert "1 planned, 1 failed" in out
    assert out.splitlines()[-1].startswith(f"{bad}:")
    assert "\x1b" not in out + err
    assert "error" not in err.replace(str(tmp_path), "")
    bad.unlink()
    assert main([*arguments, "--json"]) == ExitStatus.NO
    told = json.loads(capfd.readouterr().out)
    assert told["rows"][1]["error"] == f"cannot read {bad}: No such file or directory"
    assert told["rows"][0]["name"] == "step"
    # An interruption leaves the summary of what is done.
    monkeypatch.setattr("memplan.cells.wait", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    other = write(tmp_path / "other.hlo", n=64)
    assert main(["fleet", str(other), *arguments[1:]]) == ExitStatus.INTERRUPTED
    assert "2 dumps are done, 1 are left" in capfd.readouterr().err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["summary"]["planned"] == 1


def test_a_summary_without_plans() -> None:
    found = summarize([{"dump": "a", "error": "it is empty"}])
    assert (found["planned"], found["failed"], found["mean_ratio_to_xla"]) == (0, 1, None)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_two_hundred_dumps_and_a_worker_killed_in_the_middle(prepared: None, tmp_path: Path) -> None:
    from memplan.problem_folder import fill

    dumps = sorted(workloads.dumps_folder().glob("*.gz"))
    fill(tmp_path / "problems", 8)
    dumps += sorted((tmp_path / "problems").glob("0*.json"))
    small = [workloads.dumps_folder() / f"{name}.default.hlo.txt.gz" for name in ("lstm.tpu-v4", "neural_ode.tpu-v5e")]
    (tmp_path / "copies").mkdir()
    for number in range(200 - len(dumps)):
        text = gzip.decompress(small[number % 2].read_bytes()).decode()
        path = tmp_path / "copies" / f"{number}.hlo"
        path.write_text(text.replace("HloModule ", f"HloModule copy{number}_", 1))
        dumps.append(path)
    assert len(dumps) == 200
    out = tmp_path / "out"
    command = [sys.executable, "-P", "-m", "memplan", "fleet", *map(str, dumps), "--out", str(out), "--effort", "fast"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(list((out / "cells").glob("*"))) >= 100)
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        printed, err = process.communicate()
    assert process.returncode == 0, err
    assert "200 planned, 0 failed" in printed
    assert err.count("its process ended with SIGKILL; it is planned again") == 1
    rows = json.loads((out / "summary.json").read_text())["rows"]
    assert sorted(row["attempts"] for row in rows) == [1] * 199 + [2]
    assert len({row["plan"] for row in rows}) == len(list((out / "plans").iterdir())) == 200
    for row, dump in zip(rows, dumps, strict=True):
        program = memplan.MappingProblem.load(dump) if dump.suffix == ".json" else memplan.read(dump)
        assert (out / row["plan"]).read_text() == memplan.plan(program, effort="fast").to_json(), dump
