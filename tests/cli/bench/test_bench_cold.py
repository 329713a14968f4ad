"""The bench of the first run after an installation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memplan.cli.bench import cold
from memplan.cli.bench.main import bench_group
from memplan.planners.planner import Budget
from memplan.planners.slow import solve
from memplan.planners.stays.small_problem import small_problem


@pytest.fixture
def row() -> dict[str, object]:
    return {"what": "kernels of greedy", "cpu_seconds": 1.25, "seconds": 2.0, "functions": 3, "signatures": 4}


def test_a_row_says_what_was_compiled(row: dict[str, object]) -> None:
    assert cold._line(row) == ["kernels of greedy", "1.2", "2.0", "3", "4", ""]
    plan = {"what": "second plan", "cpu_seconds": 1.0, "seconds": 1.0, "same_plan": False}
    assert cold._line(plan) == ["second plan", "1.0", "1.0", "", "", "no"]


def test_the_second_plan_is_compared_with_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = solve(small_problem(), Budget())
    told: list[tuple[str, ...]] = []

    def child(cache: Path, *arguments: str) -> dict[str, object]:
        told.append((cache.name, *arguments[::2]))
        made = {"cpu_seconds": 4.0 / len(told), "seconds": 1.0}
        if arguments[0] == "compile":
            return {**made, "families": [{"what": "kernels of greedy", **made, "functions": 1, "signatures": 2}]}
        return {**made, "plan": plan.to_json()}

    monkeypatch.setattr(cold, "_in_child", child)
    file = tmp_path / "cold.json"
    done = CliRunner().invoke(bench_group(["cold"]), ["cold", "--effort", "fast", "--json", str(file)])
    assert done.exit_code == 0, done.output
    assert told == [("kernels", "compile"), ("plans", "plan", "fast"), ("plans", "plan", "fast")]
    result = json.loads(file.read_text())
    assert [row["what"] for row in result["rows"]] == ["kernels of greedy", "first plan", "second plan"]
    assert result["rows"][-1]["same_plan"] is True
    assert result["summary"]["compiling_cpu_seconds"] == 4.0


def test_a_family_counts_what_it_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cold, "FAMILIES", ("slow", "bestfit"))
    rows = cold.compile_families()
    assert [row["what"] for row in rows] == ["kernels of slow", "kernels of bestfit"]
    assert rows[0]["signatures"] == 0
    assert rows[1]["functions"] <= rows[1]["signatures"]
