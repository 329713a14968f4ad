"""`memplan bench game`, with few games and moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.bench import game as bench_game
from memplan.compiler.errors import MemplanError
from memplan.workloads import dumps_folder


@pytest.mark.slow
def test_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    file = tmp_path / "game.json"
    bench_game.command(dumps_folder() / "lstm.tpu-v5e.default.hlo.txt.gz", 4, 8, 1, file)
    (row,) = json.loads(file.read_text())["rows"]
    assert row["steps_per_second"] == pytest.approx(4 * 8 / row["seconds"])
    assert row["moves"] == 85
    assert f"{row['steps_per_second']:,.0f}" in capsys.readouterr().out


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(MemplanError, match="--batch 0: must be at least 1"):
        bench_game.command(None, 0, 8, 1, None)
