"""`memplan bench pipeline`, on a chain that takes no time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.bench import pipeline as module
from memplan.cli.bench.pipeline import SETTINGS
from memplan.cli.main import main


def test_even_splits_are_not_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTINGS", SETTINGS[:3])
    file = tmp_path / "pipeline.json"
    assert main(["bench", "pipeline", "--problems", "drawn-20", "--effort", "fast", "--json", str(file)]) == 0
    assert "drawn-20" in capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    assert [row["schedule"] for row in rows] == ["1f1b", "1f1b", "gpipe"]
    for row in rows:
        for name in ("equal layers", "equal parameters"):
            assert row[name] is None or row[name] >= 1 - 1e-12
        assert (row["recomputing"] > 0) <= (row["limit"] is not None)


def test_an_unknown_chain_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "pipeline", "--problems", "x"]) == 2
    assert "there is no 'x'; there are: gpt2_infer" in capsys.readouterr().err
