"""Cells: each is done once, whatever becomes of the workers, and the next run finds it."""

import json
import os
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memplan.cell_processes import ProcessWorkers
from memplan.cells import ATTEMPTS, CellFolder, CellOutcome, WorkCell, cell_name, run
from memplan.compiler.errors import MemplanError

# Workers import it by its name.
WORK = """
import os, signal
from memplan.compiler.errors import PlannerError

def work(request):
    done, what = request
    print("what is printed is no answer")
    with open(done, "a") as file:
        file.write("begun\\n")
    if what == "always lost" or (what == "lost once" and open(done).read() == "begun\\n"):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "refused":
        raise PlannerError("no\\nplan")
    if what == "bug":
        return {}["missing"]
    with open(done, "a") as file:
        file.write("done\\n")
    return what.upper()
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "work_of_cells.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    return "work_of_cells:work"


def outcomes(workers: Any, folder: Path, *what: str) -> tuple[dict[str, CellOutcome], list[str]]:
    """Runs a cell for each name; returns what became of them, and the reasons for which workers were lost."""
    found: dict[str, CellOutcome] = {}
    lost: list[str] = []
    cells = [WorkCell(name, partial(lambda name: (str(folder / name), name), name)) for name in what]
    with workers:
        run(
            cells, workers, lambda cell, outcome: found.update({cell.name: outcome}), lambda cell, why: lost.append(why)
        )
    return found, lost


def check_lost(workers: AbstractContextManager[Any], folder: Path) -> list[str]:
    """Checks that a worker that is lost costs its cell only; returns the reasons."""
    found, lost = outcomes(workers, folder, "lost once", "always lost", "a", "b", "refused", "bug")
    assert found["lost once"] == CellOutcome("LOST ONCE", attempts=2)
    assert (found["a"], found["b"]) == (CellOutcome("A"), CellOutcome("B"))
    assert found["always lost"].error.startswith(f"its worker was lost {ATTEMPTS} times: ")
    assert found["refused"] == CellOutcome(error="no plan")
    assert "KeyError: 'missing' (work_of_cells.py:" in found["bug"].error
    for name in ("a", "b"):
        assert (folder / name).read_text() == "begun\ndone\n"
    assert (folder / "lost once").read_text() == "begun\nbegun\ndone\n"
    return lost


def test_a_lost_process_costs_its_cell_only(work: str, tmp_path: Path) -> None:
    lost = check_lost(ProcessWorkers(work, 2), tmp_path)
    assert lost == ["its process ended with SIGKILL"] * ATTEMPTS


@pytest.mark.slow
def test_a_lost_worker_of_a_cluster_costs_its_cell_only(work: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from memplan.cell_cluster import LOCAL, ClusterWorkers

    lost = check_lost(ClusterWorkers(work, LOCAL, 2), tmp_path)
    assert len(lost) == ATTEMPTS
    with pytest.raises(MemplanError, match=r"--ray ray://127.0.0.1:1: "):
        ClusterWorkers(work, "ray://127.0.0.1:1")


def test_an_interruption_ends_the_processes(work: str, tmp_path: Path) -> None:
    workers = ProcessWorkers(work, 2)

    def interrupt(cell: WorkCell, outcome: CellOutcome) -> None:
        raise KeyboardInterrupt

    cells = [WorkCell(name, partial(tuple, (str(tmp_path / name), name))) for name in "abc"]
    with workers:
        started = workers.pids
        with pytest.raises(KeyboardInterrupt):
            run(cells, workers, interrupt)
    assert len(started) == 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_cell_without_a_request_fails_and_the_others_are_done(work: str, tmp_path: Path) -> None:
    def missing() -> Any:
        raise MemplanError("there is no such file")

    found: dict[str, CellOutcome] = {}
    with ProcessWorkers(work, 1) as workers:
        cells = [WorkCell("gone", missing), WorkCell("there", lambda: (str(tmp_path / "there"), "there"))]
        run(cells, workers, lambda cell, outcome: found.update({cell.name: outcome}))
    assert found == {"gone": CellOutcome(error="there is no such file"), "there": CellOutcome("THERE")}


def test_a_folder_finds_what_it_keeps(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    cells = CellFolder(folder, {"memplan": "1", "effort": "fast"})
    assert cells.find("a") is None
    cells.keep("a", {"latency": 0.5})
    assert CellFolder(folder, {"memplan": "1", "effort": "fast"}).find("a") == {"latency": 0.5}
    with pytest.raises(MemplanError, match=r"a\.json: was made with other effort: name another folder"):
        CellFolder(folder, {"memplan": "1", "effort": "high"}).find("a")


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "memplan.cell/1"}', "[" * 100_000, '{"made_with": 3}'])
def test_a_damaged_cell_counts_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    assert CellFolder(tmp_path, {}).find("a") is None


def test_a_result_of_another_kind_counts_as_none(tmp_path: Path) -> None:
    CellFolder(tmp_path, {}).keep("a", {})
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(content | {"schema": "another"}))
    assert CellFolder(tmp_path, {}).find("a") is None


def test_names_of_cells_stay_in_their_folder() -> None:
    name = cell_name("../[red]\udcff\x1b[2J\n" + "x" * 300, "0" * 64)
    assert name.isascii()
    assert name.isprintable()
    assert len(name) < 100
    assert not set("/.\\") & set(name[:1]) | set("/\\") & set(name)
