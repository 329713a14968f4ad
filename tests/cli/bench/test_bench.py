"""The benches, on the smallest inputs: what they print and write, never how long it takes."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan import pipeline
from memplan.cli.bench.mapping import markdown_table, summarize
from memplan.cli.bench.parse import STAGES, exponents
from memplan.cli.bench.rows import positive_integers
from memplan.compiler.errors import MemplanError
from memplan.fleet import dump_name

Run = Callable[..., Any]


def row(dump: str, planner: str, latency: float, own: float | None) -> dict[str, Any]:
    return {
        "dump": dump, "target": "tpu-v5e", "operations": 1234, "buffers": 5, "planner": planner, "latency": latency,
        "ratio_to_xla": None if own is None else latency / own, "bound": 0.001, "bound_checked": 0.0008, "gap": latency / 0.001 - 1,
        "violations": 0, "seconds": 0.5, "cpu_seconds": 0.75, "failed": {},
    }  # fmt: skip


ROWS = [
    row("a", "xla", 0.004, 0.004),
    row("a", "greedy", 0.002, 0.004),
    row("b", "xla", 0.002, 0.002),
    row("b", "greedy", 0.004, 0.002),
    row("c", "greedy", 0.003, None),
]


def test_summary_takes_the_geometric_mean() -> None:
    summary = summarize(ROWS)
    assert summary["xla"]["mean_ratio_to_xla"] == pytest.approx(1.0)
    # Half on a, twice on b, nothing to compare with on c.
    assert summary["greedy"]["mean_ratio_to_xla"] == pytest.approx(1.0)
    assert summary["greedy"]["worst_ratio_to_xla"] == pytest.approx(2.0)
    assert summary["greedy"]["dumps"] == 3
    assert summary["greedy"]["mean_gap"] == pytest.approx(2.0)
    assert summary["greedy"]["median_gap"] == pytest.approx(2.0)
    assert summary["greedy"]["optimal"] == 0
    assert summary["greedy"]["worst_gap"] == pytest.approx(3.0)
    assert summary["greedy"]["bounds_unchecked"] == 3
    assert summary["greedy"]["most_unchecked"] == pytest.approx(0.25)


def test_markdown() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| dump | operations | xla | greedy | bound | gap |",
        "|---|---:|---:|---:|---:|---:|",
        "| a | 1,234 | 4.00 ms | **2.00 ms (0.50)** | 1.00 ms | +100.0 % |",
        "| b | 1,234 | 2.00 ms | 4.00 ms (2.00) | 1.00 ms | +300.0 % |",
        "| c | 1,234 | – | 3.00 ms | 1.00 ms | +200.0 % |",
        "| geometric mean, relative to XLA; median gap | | 1.000 | 1.000 | | +200.0 % |",
    ]


def test_exponents_are_those_of_the_growth() -> None:
    rows = [{"instructions": n, **dict.fromkeys(STAGES, 1e-6 * n**1.5)} for n in (10, 1000, 100_000)]
    found = exponents(rows)
    assert set(found) == set(STAGES) - {"start"}
    assert all(math.isclose(power, 1.5) for power in found.values())
    assert exponents(rows[:1]) == {}


def test_numbers_of_an_option() -> None:
    assert positive_integers("1000, 10,1000", "--sizes") == [10, 1000]
    for wrong in ("", "1,,2", "-1", "1.5", "9" * 30, "²"):
        with pytest.raises(MemplanError, match="--sizes"):
            positive_integers(wrong, "--sizes")


def test_names_of_dumps() -> None:
    assert dump_name(Path("x/lstm.tpu-v5e.default.hlo.txt.gz")) == "lstm.tpu-v5e.default"
    assert dump_name(Path("module.txt")) == "module"


def test_mapping(run: Run, dump: Path, module: Path, tmp_path: Path) -> None:
    file = tmp_path / "mapping.json"
    arguments = ("bench", "mapping", "--dumps", dump, "--dumps", module, "--planners", "slow,xla", "--json", file)
    done = run(*arguments)
    assert (done.status, done.err) == (0, "")
    data = json.loads(file.read_text())
    assert data["bench"] == "mapping"
    assert [(r["dump"], r["planner"]) for r in data["rows"]] == [
        ("lstm.tpu-v5e.default", "slow"), ("lstm.tpu-v5e.default", "xla"), ("step", "slow"), ("step", "xla"),
    ]  # fmt: skip
    for found in data["rows"]:
        assert found["violations"] == 0
        assert found["latency"] >= found["bound"] >= found["bound_checked"] > 0
        assert (found["ratio_to_xla"] == 1) == (found["planner"] == "xla")
    assert set(data["summary"]) == {"slow", "xla"}
    assert "lstm.tpu-v5e.default" in done.out


def test_xlas_own_plan_is_made_once(run: Run, module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the measure of all rows, and one of them if it is asked for."""
    made = []
    plan = pipeline.plan

    def counted(*args: Any, planner: str, **options: Any) -> Any:
        made.append(planner)
        return plan(*args, planner=planner, **options)

    monkeypatch.setattr(pipeline, "plan", counted)
    assert run("bench", "mapping", "--dumps", module, "--planners", "slow,xla").status == 0
    assert sorted(made) == ["slow", "xla"]
    made.clear()
    assert run("bench", "mapping", "--dumps", module, "--planners", "slow").status == 0
    assert sorted(made) == ["slow", "xla"]


def test_a_row_says_which_members_failed(
    run: Run, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A portfolio goes on without a member that fails: such a row is not what the planner can do."""
    plan = pipeline.plan

    def without_ilp(*args: Any, **options: Any) -> Any:
        made = plan(*args, **options)
        return replace(made, info={**made.info, "failed": {"ilp": "no solver"}})

    monkeypatch.setattr(pipeline, "plan", without_ilp)
    file = tmp_path / "mapping.json"
    done = run("bench", "mapping", "--dumps", module, "--planners", "slow", "--json", file)
    assert done.status == 0
    assert "step: slow did without ilp: no solver" in done.err
    data = json.loads(file.read_text())
    assert data["rows"][0]["failed"] == {"ilp": "no solver"}
    assert data["summary"]["slow"]["without_members"] == 1


def test_mapping_of_contended_problems(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mapping.json"
    done = run("bench", "mapping", "--contended", "40", "--ratio", "2", "--planners", "slow,greedy", "--json", file)
    assert done.status == 0, done.err
    rows = json.loads(file.read_text())["rows"]
    names = ["placement.40.x2", "placement.40.x2.loops", "prefetch.40.x2", "prefetch.40.x2.loops"]
    assert [row["dump"] for row in rows] == [name for name in names for _ in range(2)]
    assert all(row["violations"] == 0 and row["gap"] >= -1e-9 for row in rows)
    assert rows[0]["gap"] > rows[1]["gap"]
    assert run("bench", "mapping", "--contended", "none").status == 2


def test_mapping_in_markdown(run: Run, module: Path) -> None:
    done = run("bench", "mapping", "--dumps", module, "--planners", "slow,xla", "--markdown")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("| dump | operations | slow | xla | bound | gap |\n")


@pytest.mark.slow
def test_parse(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "parse.json"
    done = run("bench", "parse", "--sizes", "200", "--json", file)
    assert done.status == 0
    data = json.loads(file.read_text())
    assert data["bench"] == "parse"
    (found,) = data["rows"]
    assert found["instructions"] == 200
    assert found["violations"] == 0
    assert found["text_bytes"] > 1000
    assert all(found[stage] > 0 for stage in STAGES)
    assert found["total"] >= found["start"] + found["parse"] + found["build"] + found["greedy"]
    assert "total s" in done.out
