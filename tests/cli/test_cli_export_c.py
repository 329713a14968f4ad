"""`memplan export-c`: what it writes and prints, and that it writes nothing where it cannot."""

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.cli.main import main

_PROGRAM = """
import jax, jax.numpy as jnp

def program():
    def step(w, x):
        return w - 0.1 * x, (w * x).sum()
    return step, (jnp.ones(8), jax.ShapeDtypeStruct((8,), jnp.float32))

def sorting():
    return lambda x: jnp.sort(x), (jnp.ones(8),)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "exported_programs.py").write_text(_PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_step_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-c", "exported_programs:program", "--state", "0", "--out", "out", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found["arena"], found["bound"], found["steps"], found["fits"]) == (68, 68, 2, True)
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.*")) == found["files"]
    assert main(["export-c", "exported_programs:program", "--state", "0", "--out", "out"]) == 0
    assert "2 steps in an arena of 68 B" in capsys.readouterr().out


def test_nothing_is_written_over_budget_or_without_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-c", "exported_programs:program", "--state", "0", "--out", "out", "--budget", "64"]) == 1
    assert "no arena below 68 bytes is possible" in capsys.readouterr().out
    assert main(["export-c", "exported_programs:sorting", "--out", "out"]) == 2
    assert "no C code for sort (" in capsys.readouterr().err
    assert not Path("out").exists()
