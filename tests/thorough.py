"""How much the tests do: enough to notice a mistake or, under `scripts/test --all`, everything."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def examples(few: int, many: int) -> int:
    """Returns how many examples are tried, of hypothesis or of seeds: enough to notice a mistake, or many."""
    return many if os.environ.get("MEMPLAN_TEST_ALL") else few


def some(items: Sequence[T], step: int) -> Sequence[T]:
    """Returns each `step`-th of what is tried in the same way, or everything."""
    return items[:: examples(step, 1)]


def dumps(paths: Iterable[Path], quick: Collection[str]) -> list[Any]:
    """Returns dumps as parameters of a test: those whose names are in `quick`, and the others marked slow."""
    names = {path.name.removesuffix(".hlo.txt.gz"): path for path in paths}
    assert set(quick) <= set(names), set(quick) - set(names)
    return [
        pytest.param(path, id=name, marks=[] if name in quick else pytest.mark.slow) for name, path in names.items()
    ]
