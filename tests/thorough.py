"""How much the tests do: enough to notice a mistake or, under `scripts/test --all`, everything."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pytest


def examples(few: int, many: int) -> int:
    """Returns how many examples hypothesis tries, where each costs a compile."""
    return many if os.environ.get("MEMPLAN_TEST_ALL") else few


def dumps(paths: Iterable[Path], quick: Collection[str]) -> list[Any]:
    """Returns dumps as parameters of a test: those whose names are in `quick`, and the others marked slow."""
    names = {path.name.removesuffix(".hlo.txt.gz"): path for path in paths}
    assert set(quick) <= set(names), set(quick) - set(names)
    return [
        pytest.param(path, id=name, marks=[] if name in quick else pytest.mark.slow) for name, path in names.items()
    ]
