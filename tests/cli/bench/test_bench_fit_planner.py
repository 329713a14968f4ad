"""`memplan bench fit-planner`, on the smallest decoders: what it prints and writes, never how long anything takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli.bench import fit_planner

Run = Callable[..., Any]


def row(cost: float | None, bound: float | None, nodes: int = 10, **more: Any) -> dict[str, Any]:
    gap = None if cost is None or bound is None else fit_planner.gap_of(cost, bound)
    return {
        "step": "s", "size": "tiny", "equations": 20, "nodes": nodes, "limit": 50, "limit_bytes": 1024, "seconds": 2.0,
        "cost": cost, "bound": bound, "gap": gap, "cpu_seconds": 1.5, "violations": 0,
    } | more  # fmt: skip


IMPOSSIBLE = row(None, None, proven_peak=2048, found_peak=3072, is_impossible=True)
NOT_FOUND = row(None, None, proven_peak=512, found_peak=3072, is_impossible=False)


def test_rows_are_checked_and_are_not_made_again(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "planner.json"
    arguments = (
        "bench", "fit-planner", "--steps", "lstm", "--sizes", "tiny", "--decoders", "", "--limits", "90,10",
        "--effort", "fast", "--json", file,
    )  # fmt: skip
    done = run(*arguments)
    assert done.status == 0, done.err
    data = json.loads(file.read_text())
    assert data["made_with"]["target"] == "tpu-v5e"
    assert [row["limit"] for row in data["rows"]] == [90, 10]
    for row in data["rows"]:
        assert row["equations"] >= row["nodes"] > 10
        assert row["violations"] == 0
        if row["cost"] is None:
            assert row["found_peak"] > row["limit_bytes"]
        else:
            assert row["peak"] <= row["limit_bytes"]
            assert 0.0 <= row["bound"] <= row["cost"]
    assert data["rows"][1]["cost"] is None, "a tenth of the temporaries is too little"
    again = run(*arguments, "--resume", "--markdown")
    assert json.loads(file.read_text()) == data
    assert "| lstm | tiny |" in again.out


def test_decoders_have_the_layers_that_are_asked_for() -> None:
    from memplan.compiler.hardware.target import load_target

    found = fit_planner.traceables(steps="", sizes="tiny", decoders="1,2")
    assert [(step.name, step.size) for step in found] == [
        ("decoder-adam", "1 layers"), ("decoder-sgd", "1 layers"),
        ("decoder-adam", "2 layers"), ("decoder-sgd", "2 layers"),
    ]  # fmt: skip
    one, two = (fit_planner.program_of_step(found[k], load_target("tpu-v5e"), False).problem for k in (1, 3))
    assert one.host is None
    assert len(one.nodes) < len(two.nodes) <= fit_planner.SMALL


def test_gaps() -> None:
    assert fit_planner.gap_of(1.02, 1.0) == pytest.approx(0.02)
    assert fit_planner.gap_of(0.0, 0.0) == 0.0
    assert fit_planner.gap_of(1.0, 0.0) is None


def test_the_summary_counts_what_is_within_two_percent() -> None:
    rows = [row(1.0, 1.0), row(1.5, 1.0), row(1.0, 0.0), row(1.01, 1.0, nodes=1000), IMPOSSIBLE, NOT_FOUND]
    summary = fit_planner.summarize(rows)
    assert (summary["problems"], summary["planned"], summary["impossible"], summary["not_found"]) == (6, 4, 1, 1)
    assert (summary["small"], summary["small_within"], summary["within"]) == (3, 1, 2)
    assert summary["most_cpu_seconds"] == 1.5


def test_lines() -> None:
    lines = fit_planner.lines_of([row(0.2, 0.1), row(0.2, 0.0, violations=1), IMPOSSIBLE, NOT_FOUND])
    assert lines[0] == (
        "s", "tiny", "20", "10", "50 %", "1.00 KiB", "10.000 %", "5.000 %", "100.00 %", "1.5", "yes",
    )  # fmt: skip
    assert lines[1][8:] == ("none proven", "1.5", "no")
    assert lines[2][6:] == ("needs 2.00 KiB", "", "", "1.5", "")
    assert lines[3][6:] == ("not found; 3.00 KiB is", "", "", "1.5", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sizes", "huge"), "must be of tiny, small, real"),
        (("--steps", "lstn"), "no training step is called 'lstn'"),
        (("--limits", "120"), "120 is more than 100 percent"),
        (("--decoders", "two"), "'two' is not a number"),
        (("--target", "tpu-v1"), "tpu-v1"),
    ],
)
def test_mistakes(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("bench", "fit-planner", *arguments)
    assert done.status == 2
    assert len(done.errors) == 1
    assert message in done.errors[0]
