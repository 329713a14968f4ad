"""A folder of problems of random programs, which several processes fill: `memplan generate`.

    DIR/manifest.json                  what they were made with, a row for each problem, and a summary
    DIR/00000.random-convnet.json      a `MappingProblem`, as `MappingProblem.load` reads it
    DIR/00001.random-decoder.json      …

Each problem has a number. Number and seed alone decide which one it is, so neither the number of processes nor an
interruption changes anything. Families take turns. A program that makes a problem of too few or too many operations, or
one that is in the folder already, is drawn again.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from memplan import __version__
from memplan.cell_processes import ProcessWorkers
from memplan.cells import ATTEMPTS, LostWorkerError, differing
from memplan.compiler import limits
from memplan.compiler.cache import sources_digest
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError, PlannerError
from memplan.compiler.files import make_folder, read_text, write_atomically
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.planner import CORES

SCHEMA = "memplan.problems/1"
MANIFEST = "manifest.json"

# How often a program is drawn for one number; about a third is of no use.
_ATTEMPTS = 100

# Rows after which the manifest is written again.
_ROWS_BETWEEN_WRITES = 10

# What problems follow from, and what their rooms follow from beside that.
_SOURCES = (
    "memplan.compiler",
    "memplan.passes",
    "memplan.workloads",
    "memplan.random_problems",
    "memplan.problem_folder",
)
_SOURCES_OF_ROOM = ("memplan.planners",)

# What makes the best known plan.
ROOM_PLANNER, ROOM_EFFORT = "search", Effort.NORMAL

# Above which room a problem counts as one with room.
WITH_ROOM = 0.01

Row = dict[str, Any]


def fill(
    folder: Path,
    count: int,
    seed: int = 0,
    processes: int = 1,
    with_room: bool = False,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Makes problems until a folder holds so many; goes on with those that it holds.

    Args:
      folder: is made if it is not there.
      count: of problems.
      seed: of all of them. The first problems are the same for every count.
      processes: that work at once.
      with_room: whether to measure what is to be gained over greedy's plan, which takes most of the time then.
      on_row: called with the row of each problem, also of those that the folder holds, in order.

    Returns:
      the rows of the manifest, `count` of them at least.

    Raises:
      MemplanError: the folder holds problems of another seed, version or setting, or cannot be written.
    """
    sources = sources_digest((*_SOURCES, *(_SOURCES_OF_ROOM if with_room else ())))
    made_with = {"memplan": __version__, "sources": sources, "jax": version("jax"), "seed": seed, "room": with_room}
    rows = _read(folder, made_with)
    known = {row["structure"] for row in rows}
    for row in rows:
        on_row(row)
    if len(rows) >= count:
        return rows
    make_folder(folder, "problems")
    _write(folder, made_with, rows)
    wanted = range(len(rows), count)
    request = {"folder": str(folder.absolute()), "seed": seed, "room": with_room}
    # No worker runs programs, and none needs an accelerator or more than one core.
    own = {"JAX_PLATFORMS": "cpu", CORES: "1"}
    try:
        with ProcessWorkers(f"{__name__}:make_problem", min(processes, len(wanted)), own) as workers:
            asked = [request | {"number": number, "attempt": 0} for number in wanted]
            for first, told in [(request, workers.submit(request)) for request in asked]:
                row = _answer(workers, first, told)
                while row["structure"] in known:
                    again = first | {"attempt": row["attempt"] + 1}
                    row = _answer(workers, again, workers.submit(again))
                known.add(row["structure"])
                rows.append(row)
                on_row(row)
                if len(rows) % _ROWS_BETWEEN_WRITES == 0:
                    _write(folder, made_with, rows)
    finally:
        _write(folder, made_with, rows)
    return rows


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns figures of the problems of each family, and of all of them under the name `all`.

    They are the number of problems, how many draws were rejected before them, medians of operations, buffers and
    over-subscription, and the mean of CPU seconds. Where room was measured, they are also its quartiles, the share of
    problems with more than `WITH_ROOM`, and the mean of the CPU seconds that measuring it took.
    """
    families = sorted({row["family"] for row in rows})
    groups = {family: [row for row in rows if row["family"] == family] for family in families}
    return {name: _figures(group) for name, group in (groups | {"all": list(rows)}).items() if group}


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {"problems": len(rows), "split": rows[0]["split"]}
    if len({row["split"] for row in rows}) > 1:
        found["split"] = "both"
    found["rejected"] = sum(row["attempt"] for row in rows)
    for key in ("operations", "buffers", "oversubscription"):
        found[key] = statistics.median(row[key] for row in rows)
    found["cpu_seconds"] = statistics.fmean(row["cpu_seconds"] for row in rows)
    if all("room" in row for row in rows):
        rooms = [row["room"] for row in rows]
        found["with_room"] = sum(room > WITH_ROOM for room in rooms) / len(rooms)
        found["room_quartiles"] = np.quantile(rooms, (0.25, 0.5, 0.75)).tolist()
        found["room_cpu_seconds"] = statistics.fmean(row["room_cpu_seconds"] for row in rows)
    return found


def load_manifest(folder: Path) -> list[Row]:
    """Returns the rows of a folder's manifest; raises MemplanError if it has none that can be read."""
    return _rows_of(folder / MANIFEST)["rows"]


# ---- the manifest


def _read(folder: Path, made_with: Row) -> list[Row]:
    path = folder / MANIFEST
    if not path.exists():
        return []
    found = _rows_of(path)
    if other := differing(made_with, found["made_with"]):
        raise MemplanError(f"{path}: was made with other {', '.join(other)}: name another folder")
    rows: list[Row] = found["rows"]
    # A problem whose file is gone is made again, and what follows it, which might be like it.
    whole = next((i for i, row in enumerate(rows) if not (folder / row["file"]).is_file()), len(rows))
    return rows[:whole]


def _rows_of(path: Path) -> Row:
    try:
        found = json.loads(read_text(path, limits.RESULTS))
        rows = found["rows"]
        is_valid = found["schema"] == SCHEMA and isinstance(found["made_with"], dict) and isinstance(rows, list)
        keys = {"file", "family", "split", "attempt", "operations", "buffers", "oversubscription", "structure"}
        keys |= {"cpu_seconds"}
        is_valid = is_valid and all(isinstance(row, dict) and row.keys() >= keys for row in rows)
        is_valid = is_valid and all(
            isinstance(row["file"], str) and Path(row["file"]).name == row["file"] for row in rows
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        is_valid = False
    if not is_valid:
        raise MemplanError(f"{path}: is no manifest of `memplan generate`")
    return found


def _write(folder: Path, made_with: Row, rows: Sequence[Row]) -> None:
    content = {"schema": SCHEMA, "made_with": made_with, "rows": list(rows), "summary": summarize(rows)}
    write_atomically(folder / MANIFEST, json.dumps(content, indent=1) + "\n")


# ---- processes


def _answer(workers: ProcessWorkers, request: Row, told: Future[tuple[Any, str]]) -> Row:
    """Returns the row that a worker makes; another one is asked if it is lost."""
    for _ in range(ATTEMPTS):
        try:
            row, error = told.result()
        except LostWorkerError as lost:
            error = str(lost)
            told = workers.submit(request)
        else:
            if not error:
                return dict(row)
            break
    raise PlannerError(f"problem {request['number']} cannot be made: {error}")


def make_problem(request: Row) -> Row:
    """Writes the problem of a number, drawn at this attempt or the next that gives one of use; returns its row."""
    return _made(Path(request["folder"]), request["seed"], request["number"], request["attempt"], request["room"])


def _made(folder: Path, seed: int, number: int, attempt: int, room: bool) -> Row:
    """Writes the problem of a number, drawn at this attempt or the next that gives one of use; returns its row."""
    from memplan.random_problems import is_of_size, random_problem
    from memplan.workloads.random_programs import FAMILIES

    began = time.process_time()
    family = FAMILIES[number % len(FAMILIES)]
    for again in range(attempt, attempt + _ATTEMPTS):
        drawn = int.from_bytes(hashlib.sha256(f"{seed} {number} {again}".encode()).digest()[:5])
        made = random_problem(drawn, family)
        if is_of_size(made.problem):
            break
    else:
        raise PlannerError(f"{_ATTEMPTS} programs of family {family} made no problem of a useful size")
    row: Row = {
        "file": f"{number:05}.{family}.json",
        "name": made.program.name,
        "family": family,
        "split": made.program.split,
        "kind": made.program.kind,
        "seed": drawn,
        "attempt": again,
        "description": made.program.description,
        "operations": made.problem.end,
        "buffers": len(made.problem.buffers),
        "oversubscription": round(made.oversubscription, 4),
        "structure": made.structure,
    }
    made.problem.save(folder / row["file"])
    row["cpu_seconds"] = round(time.process_time() - began, 2)
    return row | (room_of(made.problem) if room else {})


def room_of(problem: MappingProblem) -> Row:
    """Returns the latency of greedy's plan and of the best known, and by what part the former is larger.

    The best known is that of `search` at effort `normal`, which goes on from greedy's plan. At effort `fast` it finds a
    small part of the room, and so does `neighbourhoods` at either, which makes the moves that greedy ended with.
    """
    from memplan.compiler.emulator.timing import TimingEmulator
    from memplan.planners import planner as planners
    from memplan.planners.planner import Budget

    began = time.process_time()
    emulator = TimingEmulator(problem)
    greedy = planners.get("greedy").plan(problem, Budget(ROOM_EFFORT))
    best = planners.get(ROOM_PLANNER).plan(problem, Budget(ROOM_EFFORT, known=greedy))
    slow, fast = emulator.latency(greedy), emulator.latency(best)
    seconds = round(time.process_time() - began, 2)
    return {"greedy": slow, "best": fast, "room": slow / fast - 1, "room_cpu_seconds": seconds}
