"""`memplan pipeline`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.main import main
from memplan.planners.pipeline import PipelineLayer
from memplan.planners.pipeline.layers_file import layers_text

PROGRAM = """
import jax
import jax.numpy as jnp


def program():
    def fun(params, x):
        for w in params:
            x = x + jnp.tanh(x @ w)
        return x

    return fun, ([jax.ShapeDtypeStruct((16, 16), "float32")] * 6, jax.ShapeDtypeStruct((8, 16), "float32"))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "chain_of_mine.py").write_text(PROGRAM)
    layer = PipelineLayer("block", 1e-3, 2e-3, 1 << 20, 1 << 20, 1000)
    (tmp_path / "layers.json").write_text(layers_text((layer,) * 8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--stages", "2", "--microbatches", "4", "--latency", "0us", "--bandwidth", "1TB/s"]
    assert main(["pipeline", "layers.json", *options]) == 0
    out = capsys.readouterr().out
    assert (
        "8 layers on 2 devices, 4 microbatches: a step takes 60.0 ms, of which a device waits 20.0% on average" in out
    )
    assert "proven: no split is faster; the fullest device needs 12.0 MiB" in out
    assert "equal layers: 60.0 ms" in out
    lines = [line for line in out.splitlines() if line.startswith(("0 0", "1 ."))]
    assert len(lines) == 2
    assert lines[0].startswith("0 00000000111")
    assert lines[1].endswith("ddd................")


def test_json_of_a_program_and_its_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--stages", "2", "--microbatches", "4", "--interleave", "2", "--json"]
    assert main(["pipeline", "chain_of_mine:program", *common, "--layers-out", "out.json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [piece["device"] for piece in found["pieces"]] == [0, 1, 0, 1]
    assert found["pieces"][-1]["end"] == found["layers"] >= 6
    assert main(["pipeline", "out.json", *common]) == 0
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layers.json", "--limit", "1MiB"], "no split fits 2 devices of 1,048,576 bytes"),
        (["layers.json", "--limit", "x"], "a memory limit must be bytes"),
        (["layers.json", "--bandwidth", "3"], "--bandwidth 3: must be like 100GB/s"),
        (["layers.json", "--latency", "3"], "--latency 3: must be like 1us"),
        (["layers.json", "--interleave", "9"], "8 layers cannot be cut into 2 × 9 pieces"),
        (["missing.json"], "cannot read missing.json"),
        (["chain_of_mine:nothing"], "chain_of_mine has no nothing"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pipeline", *arguments, "--stages", "2", "--microbatches", "4"]) == 2
    assert message in capsys.readouterr().err
