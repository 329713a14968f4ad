"""Runs the cells of tables (tables.py), and writes what they make: result files, tables in pages, and pictures."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from memplan import __version__
from memplan.cell_processes import ProcessWorkers
from memplan.cells import CellFolder, CellOutcome, WorkCell, run
from memplan.cli.bench.results import sources
from memplan.cli.bench.tables import DUMPS, BenchTable, table_named
from memplan.compiler import child_process, limits
from memplan.compiler.cpu_time import cpu_of_children
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import make_folder, read_bytes, read_text, write_atomically
from memplan.compiler.printable import file_name
from memplan.fleet import dump_name

# The work of a cell.
WORK = f"{__name__}:run_bench"

# In a page, a table stands between these two lines.
_PLACE = re.compile(
    r"(?P<begin><!-- table (?P<name>\w+) -->\n)(?P<table>(?:(?!<!-- ).)*?)(?P<end>\n<!-- end -->)", re.DOTALL
)

# What a bench reads before it runs.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True)
class Left:
    """What a table lacks.

    Attributes:
      table: the table.
      done: how many of its cells are there.
      cells: those that are not.
      cpu_seconds: that the cells which are there took; None if there is none.
    """

    table: BenchTable
    done: int
    cells: tuple[WorkCell, ...]
    cpu_seconds: float | None

    def estimate(self, docs: Path) -> float | None:
        """Returns the CPU seconds that the cells take which are left, if they take as long as others did.

        Args:
          docs: its folder `results` has the rows of an earlier run, which count if no cell is there.
        """
        if self.cpu_seconds is not None:
            return self.cpu_seconds / self.done * len(self.cells)
        try:
            rows = json.loads(read_text(docs / "results" / f"{self.table.name}.json", limits.RESULTS))["rows"]
            return sum(row["cpu_seconds"] for row in rows)
        except (MemplanError, ValueError, TypeError, LookupError):
            return None


class Benchmarks:
    """Tables to make, and the folder that keeps their cells.

    Args:
      tables: to make.
      folder: of the cells.
      restart: make cells again that the folder has from another version; otherwise they are an error.
    """

    def __init__(self, tables: Sequence[BenchTable], folder: Path, restart: bool = False):
        self.tables, self._folder, self._restart = list(tables), folder, restart
        self._made_with = {"memplan": __version__, "sources": sources(), "jax": version("jax")}

    def _cells(self, table: BenchTable) -> CellFolder:
        made_with = {**self._made_with, "arguments": list(table.arguments)}
        return CellFolder(self._folder / table.name, made_with, self._restart)

    def left(self, table: BenchTable) -> Left:
        """Returns what a table lacks; raises MemplanError if what there is was made with another version."""
        cells = self._cells(table)
        missing, seconds = [], []
        for label, more in table.parts():
            found = cells.find(file_name(label))
            if found is None:
                request = {"arguments": [*table.arguments, *more]}
                missing.append(WorkCell(f"{table.name}/{file_name(label)}", partial(dict, request)))
            else:
                seconds.append(float(found["cpu_seconds"]))
        return Left(table, len(seconds), tuple(missing), sum(seconds) if seconds else None)

    def run(self, beside: Callable[[int], Any], tell: Callable[[str, CellOutcome], None]) -> None:
        """Makes what is left: first the cells that run side by side, then those that run alone.

        Args:
          beside: makes the workers of the former, a context manager, from the number of cells.
          tell: is called with each cell's name when it is done or has failed.
        """
        left = [self.left(table) for table in self.tables]
        together = [cell for one in left for cell in one.cells if not one.table.alone]
        alone = [cell for one in left for cell in one.cells if one.table.alone]
        done = partial(self._done, tell)
        for cells, make in ((together, beside), (alone, lambda number: ProcessWorkers(WORK, 1))):
            if cells:
                with make(len(cells)) as workers:
                    run(cells, workers, done)

    def _done(self, tell: Callable[[str, CellOutcome], None], cell: WorkCell, outcome: CellOutcome) -> None:
        name, _, label = cell.name.partition("/")
        if not outcome.error:
            table = table_named(name)
            assert table is not None
            self._cells(table).keep(label, outcome.result)
        tell(cell.name, outcome)

    def complete(self) -> dict[str, tuple[dict[str, Any], str]]:
        """Returns result file and Markdown of each table that lacks nothing, by name."""
        found = {}
        for table in self.tables:
            cells = [self._cells(table).find(file_name(label)) for label, _ in table.parts()]
            if all(cell is not None for cell in cells):
                found[table.name] = table.merged([cell for cell in cells if cell is not None])
        return found

    def write(self, docs: Path) -> list[Path]:
        """Writes result files, and the tables in the pages of a folder of documentation; returns what changed."""
        found = self.complete()
        make_folder(docs / "results", "results")
        new = {
            docs / "results" / f"{name}.json": json.dumps(made[0], indent=2) + "\n"
            for name, made in found.items()
            if name != "maps"
        }
        tables = {name: made[1] for name, made in found.items()}
        for page in sorted(docs.glob("*.md")):
            new[page] = with_tables(page.read_text(), tables)
        changed = [path for path, text in new.items() if not path.exists() or path.read_text() != text]
        for path in changed:
            write_atomically(path, new[path])
        return changed


def with_tables(page: str, tables: dict[str, str]) -> str:
    """Returns the text of a page with tables of these names in their places.

    >>> with_tables("<!-- table a -->\\nold\\n<!-- end -->", {"a": "new", "b": "x"})
    '<!-- table a -->\\n\\nnew\\n\\n<!-- end -->'
    """

    def filled(found: re.Match[str]) -> str:
        return "\n".join((found["begin"], tables.get(found["name"], found["table"].strip("\n")), found["end"]))

    return _PLACE.sub(filled, page)


def places(page: str) -> list[str]:
    """Returns the names of the tables that have a place in a page."""
    return [found["name"] for found in _PLACE.finditer(page)]


def run_bench(request: dict[str, Any]) -> dict[str, Any]:
    """Runs one `memplan bench` command in a process of its own: the work of a cell.

    Args:
      request: its `arguments`, without those that say where results go.

    Returns:
      the `results` that it wrote, the `markdown` that it printed, and the `cpu_seconds` that it took.

    Raises:
      MemplanError: it failed.
    """
    from memplan import workloads

    arguments = [text.replace(DUMPS, str(workloads.dumps_folder())) for text in request["arguments"]]
    is_plan = arguments[0] == "plan"
    os.environ.update(_ENVIRONMENT)
    before = cpu_of_children()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        command = arguments if is_plan else ["bench", *arguments]
        to = ["--report", folder] if is_plan else ["--json", str(file)]
        done = child_process.run("memplan.cli.main", *command, *to)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise MemplanError(lines[-1] if lines else f"memplan {command[0]} ended with status {done.returncode}")
        if is_plan:
            picture = base64.b64encode(read_bytes(Path(folder) / "memory.png", limits.RESULTS)).decode()
            results: dict[str, Any] = {"rows": [{"name": dump_name(Path(arguments[-1])), "picture": picture}]}
        else:
            results = json.loads(read_text(file, limits.RESULTS))
    return {"results": results, "markdown": done.stdout.decode(), "cpu_seconds": cpu_of_children() - before}
