"""The notebooks of the documentation run, and what is stored in them is what they show."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from notebooks import COMPILER, NOTEBOOKS, run


def told(notebook: dict[str, Any]) -> list[list[Any]]:
    """Returns what the cells show, without what depends on the machine: figures, and names that the compiler gives.

    Of a table, these are captions and titles of columns.
    """
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            text = "".join(output.get("text", ()) or output["data"].get("text/html") or output["data"]["text/plain"])
            parts = re.findall(r"<(?:strong|th)\b[^>]*>(.*?)</", text) or [text]
            found.append(
                [
                    output["output_type"],
                    *(re.sub(r" at .*|[-\d.,+%]+( [KMG]?i?B| [mµn]?s)?", "#", part) for part in parts),
                ]
            )
    return found


@pytest.fixture
def compiled_well() -> Iterator[None]:
    """Has JAX compile as it does for users: other code may need other memory."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.usefixtures("compiled_well")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.slow
def test_notebook(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = json.loads(path.read_text())
    assert (stored["nbformat"], {cell["cell_type"] for cell in stored["cells"]}) == (4, {"markdown", "code"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = copy.deepcopy(stored)
    run(ran, path.name)
    assert len(told(ran)) == len(told(stored)) > 0
    if stored["metadata"][COMPILER] == jax.__version__:
        assert told(ran) == told(stored), "python tests/notebooks.py writes the outputs anew"
