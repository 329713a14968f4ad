"""`memplan bench levels`, on problems that take no time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.main import main


def test_every_kind_has_a_row_and_is_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "levels.json"
    assert main(["bench", "levels", "--sizes", "20", "--levels", "4", "--json", str(file)]) == 0
    assert capsys.readouterr().out.count("optimal") >= 4
    rows = json.loads(file.read_text())["rows"]
    assert [row["kind"] for row in rows] == ["random", "bits", "noisy", "subset"]
    assert all(row["gap"] <= 1e-9 for row in rows)
    assert all(row["uniform"] is None or row["uniform"] >= 0 for row in rows)
