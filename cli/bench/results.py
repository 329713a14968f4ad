"""The result files of benches; one that takes long writes its rows as they come, and goes on where it was cut off.

    {"bench": "mapping", "made_with": {"memplan": "0.2.0", "sources": "9f…", "effort": "normal", …}, "rows": […], …}

Rows of one table are of one version and one setting: a file that was made with others is not added to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from memplan import __version__
from memplan.cells import differing
from memplan.cli.signals import interrupted
from memplan.compiler import limits
from memplan.compiler.cache import sources_digest
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import read_text, write_atomically

Row = Mapping[str, Any]
Rows = Sequence[Row]

# What decides the results.
_PACKAGES = [f"memplan.{name}" for name in ("backends", "compiler", "passes", "planners", "rl_agent", "workloads")]


class Results:
    """The rows of a bench, and the file that they are kept in.

    Attributes:
      rows: all of them, those that were read from the file first.
    """

    def __init__(
        self,
        bench: str,
        path: Path | None,
        setting: dict[str, Any],
        summarize: Callable[[list[dict[str, Any]]], Row],
        resume: bool = False,
    ):
        """Starts a result file, or goes on with one.

        Args:
          bench: the name of the bench.
          path: of the file; None keeps the rows in memory alone.
          setting: the options that the rows depend on.
          summarize: gives the summary of rows.
          resume: keep the rows that the file holds.

        Raises:
          MemplanError: there is no such file to go on with, or it was made with another version or setting.
        """
        self.rows: list[dict[str, Any]] = []
        self._bench, self._path, self._summarize = bench, path, summarize
        self._made_with = _version() | setting
        if resume:
            if path is None:
                raise MemplanError("--resume goes on with the results in a file: name it with --json")
            if path.exists():
                self.rows = self._read(path)

    def has(self, **values: Any) -> bool:
        """Returns whether there is a row with these values."""
        return any(all(row.get(key) == value for key, value in values.items()) for row in self.rows)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds the rows that belong together, and writes the file.

        Raises:
          KeyboardInterrupt: the command was interrupted meanwhile. A planner then ends with its best plan so far, and
            rows of such a plan are none.
        """
        new = list(rows)
        if interrupted():
            raise KeyboardInterrupt
        self.rows.extend(new)
        _write(self._path, self._bench, self._made_with, self.rows, self._summarize(self.rows))

    def _read(self, path: Path) -> list[dict[str, Any]]:
        try:
            found = json.loads(read_text(path, limits.RESULTS))
            bench, made_with, rows = found["bench"], found["made_with"], found["rows"]
            is_valid = isinstance(made_with, dict) and isinstance(rows, list) and all(isinstance(r, dict) for r in rows)
        except (ValueError, TypeError, LookupError, RecursionError):
            is_valid = False
        if not is_valid or bench != self._bench:
            raise MemplanError(f"{path}: holds no results of `memplan bench {self._bench}`")
        if made_with != self._made_with:
            other = differing(self._made_with, made_with)
            raise MemplanError(
                f"{path}: was made with other {', '.join(other or ['options'])}: leave out --resume to begin again"
            )
        return list(rows)


def write_bench(path: Path | None, bench: str, rows: Rows, summary: Row) -> None:
    """Writes the results of a bench that is done in one go, if they are wanted in a file."""
    _write(path, bench, _version(), rows, summary)


def _write(path: Path | None, bench: str, made_with: dict[str, Any], rows: Rows, summary: Row) -> None:
    if path is not None:
        content = {"bench": bench, "made_with": made_with, "rows": list(rows), "summary": summary}
        write_atomically(path, json.dumps(content, indent=2) + "\n")


def _version() -> dict[str, Any]:
    return {"memplan": __version__, "sources": sources()}


@cache
def sources() -> str:
    """Returns a digest of the sources that results follow from."""
    return sources_digest(_PACKAGES)
