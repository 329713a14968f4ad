"""`memplan generate`: a folder of problems from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_command(run_unprepared: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "problems"
    run = run_unprepared("generate", "--count", "1", "--seed", "3", "--processes", "1", "--out", str(out), "--json")
    assert json.loads(run.out)["all"]["problems"] == 1
    (tmp_path / "file").write_text("")
    run = run_unprepared("generate", "--out", str(tmp_path / "file"))
    assert "is not a folder" in run.errors[0]
