"""`memplan bench fidelity`: pairs of dumps, in both directions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan import workloads
from memplan.compiler.cli.bench_fidelity import foretold_busy
from memplan.compiler.emulator.score import score
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.target import load_target

Run = Callable[..., Any]


@pytest.fixture
def few_dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dumps"
    folder.mkdir()
    for name in ("lstm.tpu-v5e", "neural_ode.tpu-v5e", "lstm.tpu-v4"):
        for variant in ("default", "slow"):
            shutil.copy(workloads.dumps_folder() / f"{name}.{variant}.hlo.txt.gz", folder)
    shutil.copy(workloads.dumps_folder() / "moe.tpu-v5e.default.hlo.txt.gz", folder)  # without its pair
    monkeypatch.setattr(workloads, "dumps_folder", lambda: folder)
    return folder


def test_rows_and_summary(run: Run, few_dumps: Path, tmp_path: Path) -> None:
    done = run("bench", "fidelity", "--json", tmp_path / "f.json")
    assert done.status == 0
    data = json.loads((tmp_path / "f.json").read_text())
    assert [(row["program"], row["target"], row["from"]) for row in data["rows"]] == [
        ("lstm", "tpu-v4", "default"), ("lstm", "tpu-v4", "slow"),
        ("lstm", "tpu-v5e", "default"), ("lstm", "tpu-v5e", "slow"),
        ("neural_ode", "tpu-v5e", "default"), ("neural_ode", "tpu-v5e", "slow"),
    ]  # fmt: skip
    assert set(data["summary"]) == {"tpu-v4", "tpu-v5e"}
    assert data["summary"]["tpu-v5e"]["modules"] == 4
    assert data["summary"]["tpu-v5e"]["count"] > 50
    for row in data["rows"]:
        assert row["foretold"] == pytest.approx(row["stated"], rel=0.5)
    for line in done.out.splitlines()[1:]:
        assert line.startswith("tpu-v")


def test_a_choice_of_targets_and_markdown(run: Run, few_dumps: Path) -> None:
    lines = run("bench", "fidelity", "--targets", "tpu-v4", "--markdown").out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| tpu-v4 | ")


def test_a_module_foretells_itself() -> None:
    target = load_target("tpu-v5e")
    for variant in ("default", "slow"):
        graph = read(workloads.dumps_folder() / f"mlp_mixer.tpu-v5e.{variant}.hlo.txt.gz")
        assert foretold_busy(graph, graph, target) == pytest.approx(score(graph, target).busy, rel=1e-3)


def test_mistakes(run: Run, few_dumps: Path) -> None:
    assert "no pair of dumps is shipped for h200" in run("bench", "fidelity", "--targets", "h200").errors[0]
    assert run("bench", "fidelity", "--targets", "tpu-v9").status == 2
