"""Work in cells: many pieces that do not depend on each other, each done once and kept in a file.

    cells ──► run ──► workers   processes of this machine (cell_processes.py), or of a Ray cluster (cell_cluster.py)
               │                a worker does one cell at a time; if it is lost, its cell alone is done again
               ▼
          CellFolder            FOLDER/NAME.json, written as a whole when the cell is done, and found by the next run

The work of all cells is one function of a module, `package.module:function`. It gets a request and returns a result,
both of which can be pickled.
"""

from __future__ import annotations

import importlib
import json
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from memplan.compiler import limits
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import make_folder, read_text, write_atomically
from memplan.compiler.printable import file_name

SCHEMA = "memplan.cell/1"

# How often a cell is begun whose worker is lost: what the cell itself brings down shall not be tried for ever.
ATTEMPTS = 3

# Characters of the name of a cell that come from elsewhere.
_LONGEST_LABEL = 80


class LostWorkerError(MemplanError):
    """A worker ended before its cell was done."""


@dataclass(frozen=True)
class WorkCell:
    """A piece of work.

    Attributes:
      name: tells it from the others.
      request: makes what the work is called with, when its turn has come; raises MemplanError if it cannot.
    """

    name: str
    request: Callable[[], Any]


@dataclass(frozen=True)
class CellOutcome:
    """What became of a cell.

    Attributes:
      result: what the work returned; None if it failed.
      error: why it failed, in one line; empty if it did not.
      attempts: how often it was begun; more than once if workers were lost.
    """

    result: Any = None
    error: str = ""
    attempts: int = 1


class Workers(Protocol):
    """What does the work of cells. Each answer is that of `answer`, or the error `LostWorkerError`."""

    def capacity(self) -> int:
        """Returns how many requests it is of use to have under way."""

    def submit(self, request: Any) -> Future[tuple[Any, str]]:
        """Hands a request to the next worker that is idle."""


def _ignore(cell: WorkCell, told: Any) -> None:
    """Does nothing."""


def run(
    cells: Iterable[WorkCell],
    workers: Workers,
    on_done: Callable[[WorkCell, CellOutcome], None],
    on_lost: Callable[[WorkCell, str], None] = _ignore,
) -> None:
    """Does the work of cells; an exception leaves those that are under way undone.

    Args:
      cells: in the order in which they begin.
      workers: do them.
      on_done: is called when a cell is done or has failed, in the order in which that happens.
      on_lost: is called with the reason when a worker was lost and its cell is going to be done again.
    """
    waiting = deque((cell, 1) for cell in cells)
    running: dict[Future[tuple[Any, str]], tuple[WorkCell, int]] = {}
    while waiting or running:
        while waiting and len(running) < workers.capacity():
            cell, attempt = waiting.popleft()
            try:
                request = cell.request()
            except MemplanError as error:
                on_done(cell, CellOutcome(error=_in_one_line(str(error))))
                continue
            running[workers.submit(request)] = cell, attempt
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            cell, attempt = running.pop(future)
            try:
                result, error_text = future.result()
            except LostWorkerError as error:
                if attempt < ATTEMPTS:
                    on_lost(cell, str(error))
                    waiting.appendleft((cell, attempt + 1))
                else:
                    on_done(cell, CellOutcome(error=f"its worker was lost {attempt} times: {error}", attempts=attempt))
            else:
                on_done(cell, CellOutcome(result, error_text, attempt))


def answer(work: str, request: Any) -> tuple[Any, str]:
    """Returns the result of the work and no error, or nothing and why it failed; for those who make workers."""
    try:
        return _function(work)(request), ""
    except MemplanError as error:
        return None, _in_one_line(str(error))
    except MemoryError:
        return None, "memory ran out"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return None, _in_one_line(f"a bug in memplan: {type(error).__name__}: {error} ({where})")


def _function(work: str) -> Callable[[Any], Any]:
    module, _, name = work.partition(":")
    found: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return found


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def cell_name(label: str, digest: str) -> str:
    """Returns a name for a cell that can be a file's: a label, and the start of a digest of what decides the cell.

    >>> cell_name("../a.hlo", "e3b0c44298fc1c14")
    '_._a.hlo-e3b0c44298fc'
    """
    return f"{file_name(label)[:_LONGEST_LABEL]}-{digest[:12]}"


def differing(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Returns the keys of what results are to be made with for which those that were found were made with another."""
    return [key for key, value in wanted.items() if found.get(key) != value]


class CellFolder:
    """The results of cells, a file each.

    Args:
      folder: where they are; it is made with the first.
      made_with: versions and options that all results follow from, as JSON holds them.
      forgets: whether a result that was made with anything else counts as none; otherwise it is an error.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any], forgets: bool = False):
        self._folder, self._made_with, self._forgets = folder, dict(made_with), forgets

    def find(self, name: str) -> dict[str, Any] | None:
        """Returns the result of a cell; None if there is none, or none that can be read.

        Raises:
          MemplanError: it was made with another version or other options.
        """
        path = self._folder / f"{name}.json"
        if not path.is_file():
            return None
        try:
            found = json.loads(read_text(path, limits.RESULTS))
            made_with, result = found["made_with"], found["result"]
            is_valid = found["schema"] == SCHEMA and isinstance(made_with, dict) and isinstance(result, dict)
        except (MemplanError, ValueError, TypeError, LookupError, RecursionError):
            return None
        if not is_valid:
            return None
        if other := differing(self._made_with, made_with):
            if self._forgets:
                return None
            raise MemplanError(f"{path}: was made with other {', '.join(other)}: name another folder")
        return dict(result)

    def keep(self, name: str, result: Mapping[str, Any]) -> None:
        """Writes the result of a cell; raises MemplanError if that is not possible."""
        make_folder(self._folder, "results")
        content = {"schema": SCHEMA, "made_with": self._made_with, "result": dict(result)}
        write_atomically(self._folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
