"""Runs the notebooks of the documentation as Jupyter would; `python tests/notebooks.py` writes their outputs anew.

A notebook is JSON (nbformat 4). Its cells here are plain Python without magics, so that no kernel is needed: the last
expression of a cell is shown as HTML if it has `_repr_html_`, and what is printed is shown as text.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))

# The library whose compiler decides what the outputs say; `metadata` of a notebook has its version.
COMPILER = "jax"


def run(notebook: dict[str, Any], name: str) -> None:
    """Runs all cells in one namespace and replaces their outputs. The current folder must be importable."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    log = logging.getLogger("memplan")
    before = log.level, log.handlers[:]
    try:
        for count, cell in enumerate(codes, start=1):
            cell["execution_count"] = count
            cell["outputs"] = [*_outputs("".join(cell["source"]), f"{name}, cell {count}", namespace, count)]
    finally:
        log.level, log.handlers[:] = before


def _outputs(source: str, place: str, namespace: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    tree = ast.parse(source, place)
    shown = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, place, "exec"), namespace)
        if shown is not None:
            value = eval(compile(ast.Expression(shown.value), place, "eval"), namespace)
    if text := printed.getvalue():
        yield {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
    if value is not None:
        data = {"text/plain": [repr(value)]}
        if hasattr(value, "_repr_html_"):
            html = value._repr_html_()
            data = {"text/html": html.splitlines(keepends=True), "text/plain": [f"<{type(value).__name__}>"]}
        yield {"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"}


def main() -> None:
    import jax

    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text())
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            sys.path.insert(0, os.getcwd())
            run(notebook, path.name)
            sys.path.pop(0)
        notebook["metadata"][COMPILER] = jax.__version__
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
