"""`memplan bench packing`, on the smallest inputs: what it prints and writes, never how long it takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memplan import pipeline
from memplan.cli.bench import packing as bench_packing
from memplan.cli.bench.packing import (
    capacity_of,
    markdown_table,
    residencies,
    slow_buffers,
    summarize,
    synthetic,
)  # fmt: skip
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.guess import guess_target

Run = Callable[..., Any]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    file = tmp_path / "example.12.csv"
    file.write_text("id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n")
    return file


def row(kind: str, name: str, height: int, status: str) -> dict[str, Any]:
    return {
        "kind": kind, "name": name, "blocks": 1234, "capacity": 200 if kind == "instance" else None,
        "maximum_load": 100, "lower_bound": 100, "greedy_height": 150, "height": height,
        "ratio_to_load": height / 100, "status": status, "method": "CP-SAT", "seconds": 0.5,
    }  # fmt: skip


ROWS = [row("instance", "a", 200, "fits"), row("live ranges", "b", 100, "optimal"), row("live ranges", "c", 110, "not decided")]  # fmt: skip


def test_summary() -> None:
    summary = summarize(ROWS)
    assert list(summary) == ["instance", "live ranges"]
    assert summary["live ranges"] == {
        "rows": 2, "answered": 1, "share_at_load": 0.5, "worst_ratio_to_load": 1.1, "seconds": 1.0, "most_seconds": 0.5,
    }  # fmt: skip


def test_markdown() -> None:
    assert markdown_table(ROWS, summarize(ROWS)).splitlines() == [
        "| blocks of | blocks | load | greedy by size | height | result | seconds | method |",
        "|---|---:|---:|---:|---:|---|---:|---|",
        "| a | 1,234 | 0.500 | 0.750 | 1.000 | fits | 0.50 | CP-SAT |",
        "| b | 1,234 | 1.000 | 1.500 | 1.000 | optimal | 0.50 | CP-SAT |",
        "| c | 1,234 | 1.000 | 1.500 | 1.100 | not decided | 0.50 | CP-SAT |",
        "| 1 instance | | | | 2.000 | 1 answered | 0.50 | at the load: 0.0% |",
        "| 2 live ranges | | | | 1.100 | 1 answered | 1.00 | at the load: 50.0% |",
    ]


def test_the_capacity_is_in_the_name() -> None:
    assert capacity_of(Path("x/A.1048576.csv")) == 1048576
    assert capacity_of(Path("A.csv")) is None
    assert capacity_of(Path("1048576.csv")) is None


def test_made_up_live_ranges_are_always_the_same() -> None:
    instance = synthetic(500)
    assert len(instance) == 500
    assert (instance.size % 512 == 0).all()
    assert np.array_equal(instance.size, synthetic(500).size)


def test_live_ranges_of_a_dump(module: Path) -> None:
    graph = read(module)
    problem = pipeline.problem(graph, guess_target(graph).name)
    slow = slow_buffers(problem)
    assert sorted(slow.lower.tolist()) == sorted(buffer.start for buffer in problem.buffers if 0 in buffer.spaces)
    assert (slow.size % problem.spaces[0].alignment == 0).all()
    plan = pipeline.plan(problem, planner="xla")
    fast = residencies(problem, "xla", 1)
    assert len(fast) == sum(residency.space == 1 for residency in plan.residencies) > 0


def test_named_instances_alone(run: Run, example: Path, tmp_path: Path) -> None:
    file = tmp_path / "packing.json"
    done = run("bench", "packing", "--instances", example, "--json", file)
    assert done.status == 0
    assert "example.12.csv" in done.out
    data = json.loads(file.read_text())
    assert data["bench"] == "packing"
    (only,) = data["rows"]
    assert (only["kind"], only["blocks"], only["capacity"], only["height"]) == ("instance", 5, 12, 12)
    assert only["status"] == "fits"
    assert data["summary"]["instance"]["answered"] == 1


def test_resumed_rows_are_kept(run: Run, example: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "packing.json", tmp_path / "other.csv"
    other.write_text("id,lower,upper,size\nb1,0,3,4\n")
    command = ["bench", "packing", "--json", file, "--instances", example]
    assert run(*command).status == 0
    (before,) = json.loads(file.read_text())["rows"]
    assert run(*command, "--instances", other, "--resume").status == 0
    rows = json.loads(file.read_text())["rows"]
    assert rows[0] == before
    assert [row["name"] for row in rows] == ["example.12.csv", "other.csv"]
    assert run(*command, "--resume", "--effort", "fast").status == 2


def test_all_kinds_of_rows(
    run: Run, example: Path, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_packing, "_shipped", lambda: [example])
    monkeypatch.setattr(bench_packing, "_dumps", lambda: [module])
    monkeypatch.setattr(bench_packing, "_TRAINING", (60,))
    monkeypatch.setattr(bench_packing, "_SYNTHETIC", (50,))
    done = run("bench", "packing", "--markdown", "--effort", "fast")
    assert done.status == 0
    names = [line.split(" | ")[0].removeprefix("| ") for line in done.out.splitlines()]
    assert names[2:7] == ["example.12.csv", "step slow", "step fast", "training step, 60 blocks", "50 blocks"]


def test_the_shipped_instances() -> None:
    files = bench_packing._shipped()
    assert [file.name[0] for file in files] == list("ABCDEFGHIJK")
    assert {capacity_of(file) for file in files} == {1048576}
