"""`memplan bench contraction`, on networks that take no time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.bench.contraction import NETWORKS, OTHERS
from memplan.cli.main import main


def test_small_networks_are_proven_and_not_beaten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "contraction.json"
    names = "grid-4,drawn-12"
    assert main(["bench", "contraction", "--networks", names, "--effort", "fast", "--json", str(file)]) == 0
    assert capsys.readouterr().out.count("optimal") == 4
    found = json.loads(file.read_text())
    assert found["summary"] == {"proven": 4, "beaten": 0}
    assert all(row[name] >= row["least"] for row in found["rows"] for name in OTHERS)


def test_every_network_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    for make in NETWORKS.values():
        make("flops").check()
    assert main(["bench", "contraction", "--networks", "x"]) == 2
    assert "there is no 'x'; there are: chain-20" in capsys.readouterr().err
