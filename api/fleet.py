"""A plan for each of many dumps, by many processes: `memplan fleet`.

    DIR/plans/NAME-DIGEST.json   the plan of a dump, as `memplan plan --out` writes it
    DIR/cells/NAME-DIGEST.json   its figures, and what it was made with (cells.py)
    DIR/summary.json             a row for each dump, and figures of all

The digest is that of the dump's content, so dumps of one name do not stand in each other's way, and dumps of the same
content are planned once. A dump that failed is in the summary alone, and is tried again by the next run.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from memplan import __version__
from memplan.cells import CellFolder, CellOutcome, WorkCell, Workers, cell_name, run
from memplan.compiler import limits
from memplan.compiler.cache import sources_digest
from memplan.compiler.cpu_time import cpu_seconds
from memplan.compiler.effort import Effort
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import make_folder, read_bytes, unpacked, write_atomically
from memplan.compiler.frontends.reader import read_packed
from memplan.compiler.hardware.guess import guessed_target
from memplan.compiler.hardware.target import Target
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.problem import SCHEMA as PROBLEM_SCHEMA
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import planner as planners
from memplan.planners.planner import DEFAULT_PLANNER, Budget

SCHEMA = "memplan.fleet/1"

# The work of a cell.
WORK = f"{__name__}:plan_content"

# What plans follow from.
_PACKAGES = ("memplan.compiler", "memplan.planners", "memplan.rl_agent")

Row = dict[str, Any]


@dataclass(frozen=True)
class FleetOptions:
    """How all dumps are planned.

    Attributes:
      target: to plan for; None for what each dump was compiled for.
      planner: its name.
      effort: of the planner.
      time_limit: seconds for each plan; None for no limit.
    """

    target: Target | None = None
    planner: str = DEFAULT_PLANNER
    effort: Effort = Effort.NORMAL
    time_limit: float | None = None

    def made_with(self) -> Row:
        """Returns what decides the plan of a dump, besides its content, as JSON holds it."""
        target = self.target and f"{self.target.name} {hashlib.sha256(repr(self.target).encode()).hexdigest()[:12]}"
        return {
            "memplan": __version__,
            "sources": sources_digest(_PACKAGES),
            "target": target,
            "planner": self.planner,
            "effort": self.effort.value,
            "time_limit": self.time_limit,
        }


@dataclass
class _Group:
    """Dumps of the same content: the cell that plans them, and their bytes."""

    cell: str
    size: int
    dumps: list[Path] = field(default_factory=list)


class Fleet:
    """Dumps to plan, and the folder that holds their plans.

    Args:
      dumps: files that `memplan plan` reads, or problems as JSON; a file that is named twice counts once.
      out: the folder; it is made if it is not there.
      options: of all plans.

    Attributes:
      out: the folder.
      rows: of the dumps that are planned, or have failed, by their paths.

    Raises:
      MemplanError: the folder holds plans that were made with other options, or cannot be made.
    """

    def __init__(self, dumps: Iterable[Path], out: Path, options: FleetOptions | None = None):
        self._options = options or FleetOptions()
        self.out, self._made_with = out, self._options.made_with()
        self._cells = CellFolder(out / "cells", self._made_with)
        self._dumps = list(dict.fromkeys(dumps))
        self._groups: dict[str, _Group] = {}
        self.rows: dict[Path, Row] = {}
        make_folder(out / "plans", "plans")
        for dump in self._dumps:
            try:
                content = read_bytes(dump, limits.PROGRAM)
            except MemplanError as error:
                self.rows[dump] = {"dump": str(dump), "error": str(error)}
                continue
            digest = hashlib.sha256(content).hexdigest()
            group = self._groups.setdefault(digest, _Group(self._cell_of(dump, digest), len(content)))
            group.dumps.append(dump)
        for group in self._groups.values():
            result = self._cells.find(group.cell)
            if result is not None and self._plan_of(group).is_file():
                self._tell(group, CellOutcome(result))

    def _cell_of(self, dump: Path, digest: str) -> str:
        """Returns the cell for a content: the one that the folder holds, which another name may have made."""
        ours = cell_name(dump_name(dump), digest)
        found = sorted(path.stem for path in (self.out / "cells").glob(f"*{cell_name('', digest)[1:]}.json"))
        return ours if ours in found or not found else found[0]

    def _plan_of(self, group: _Group) -> Path:
        return self.out / "plans" / f"{group.cell}.json"

    def _tell(self, group: _Group, outcome: CellOutcome) -> None:
        for dump in group.dumps:
            row: Row = {"dump": str(dump)}
            if outcome.error:
                row["error"] = outcome.error
            else:
                row |= {"plan": f"plans/{group.cell}.json", **outcome.result}
            self.rows[dump] = row

    def run(
        self,
        workers: Workers,
        on_row: Callable[[Row], None] = lambda row: None,
        on_lost: Callable[[str, str], None] = lambda dump, reason: None,
    ) -> None:
        """Plans the dumps that are left, the largest first.

        Args:
          workers: for the work `WORK`.
          on_row: is called with the row of each dump that is planned now, or fails.
          on_lost: is called with a dump and the reason when a worker was lost and the dump is to be planned again.
        """
        left = [(digest, group) for digest, group in self._groups.items() if group.dumps[0] not in self.rows]
        left.sort(key=lambda entry: -entry[1].size)
        groups = {group.cell: group for _, group in left}

        def done(cell: WorkCell, outcome: CellOutcome) -> None:
            group = groups[cell.name]
            if not outcome.error:
                result = dict(outcome.result)
                write_atomically(self._plan_of(group), result.pop("plan"))
                outcome = CellOutcome({**result, "attempts": outcome.attempts})
                self._cells.keep(cell.name, outcome.result)
            self._tell(group, outcome)
            for dump in group.dumps:
                on_row(self.rows[dump])

        try:
            run(
                (WorkCell(group.cell, partial(self._request, group.dumps[0], digest)) for digest, group in left),
                workers,
                done,
                lambda cell, reason: on_lost(str(groups[cell.name].dumps[0]), reason),
            )
        finally:
            self.write()

    def _request(self, dump: Path, digest: str) -> Row:
        """Returns what `plan_content` is called with: a worker of another machine has no file."""
        content = read_bytes(dump, limits.PROGRAM)
        if hashlib.sha256(content).hexdigest() != digest:
            raise MemplanError(f"{dump}: it has changed since the command began")
        options = self._options
        return {
            "content": content,
            "file": str(dump),
            "target": options.target,
            "planner": options.planner,
            "effort": options.effort,
            "time_limit": options.time_limit,
        }

    @property
    def num_left(self) -> int:
        """How many dumps are neither planned nor failed."""
        return len(self._dumps) - len(self.rows)

    def ordered(self) -> list[Row]:
        """Returns the rows in the order of the dumps."""
        return [self.rows[dump] for dump in self._dumps if dump in self.rows]

    def write(self) -> None:
        """Writes the summary; raises MemplanError if that is not possible."""
        rows = self.ordered()
        content = {"schema": SCHEMA, "made_with": self._made_with, "rows": rows, "summary": summarize(rows)}
        write_atomically(self.out / "summary.json", json.dumps(content, indent=1) + "\n")


def dump_name(dump: Path) -> str:
    """Returns what tells a dump from the others: its file name without the endings.

    >>> dump_name(Path("a/lstm.tpu-v5e.hlo.txt.gz"))
    'lstm.tpu-v5e'
    """
    name = dump.name
    for ending in (".gz", ".txt", ".json", ".hlo"):
        name = name.removesuffix(ending)
    return name


def summarize(rows: Sequence[Row]) -> Row:
    """Returns how many dumps were planned and how many failed, and geometric means of ratios of latencies."""
    planned = [row for row in rows if "error" not in row]
    found: Row = {"dumps": len(rows), "planned": len(planned), "failed": len(rows) - len(planned)}
    for other in ("slow", "xla"):
        ratios = [row["latency"] / row[other] for row in planned if row[other] and row["latency"]]
        found[f"mean_ratio_to_{other}"] = statistics.geometric_mean(ratios) if ratios else None
    found["worst_gap"] = max((row["gap"] for row in planned), default=None)
    found["cpu_seconds"] = sum(row["cpu_seconds"] for row in {row["plan"]: row for row in planned}.values())
    return found


def plan_content(request: Row) -> Row:
    """Plans the content of a dump: the work of a cell.

    Args:
      request: `content` of the file `file`, and the attributes of `FleetOptions`.

    Returns:
      the plan as JSON, and latencies in seconds: of the plan, of everything in slow memory, of XLA's own plan if there
      is one, and the best bound that is known.

    Raises:
      MemplanError: it cannot be read or planned.
    """
    began = cpu_seconds()
    problem = _problem(request["content"], request["file"], request["target"])
    budget = Budget(request["effort"], time_limit=request["time_limit"])
    plan = planners.get(request["planner"]).plan(problem, budget)
    emulator = TimingEmulator(problem)
    latency, bound = emulator.latency(plan), max(emulator.lower_bound(), plan.info.get("bound", 0.0))
    return {
        "name": problem.name,
        "target": problem.target,
        "operations": problem.end,
        "buffers": len(problem.buffers),
        "latency": latency,
        "slow": emulator.latency(planners.get("slow").plan(problem, Budget())),
        "xla": emulator.latency(planners.get("xla").plan(problem, Budget())) if problem.has_given_places else None,
        "bound": bound,
        "gap": latency / bound - 1 if bound > 0 else 0.0,
        "stopped": "stopped" in plan.info,
        "cpu_seconds": cpu_seconds() - began,
        "plan": plan.to_json(),
    }


def _problem(content: bytes, file: str, target: Target | None) -> MappingProblem:
    """Returns the problem of a file's content: a problem as JSON, or any program that `memplan plan` reads."""
    text = unpacked(content, file, limits.PROBLEM)
    if text.lstrip().startswith(b"{") and f'"{PROBLEM_SCHEMA}"'.encode() in text:
        problem = MappingProblem.from_json(text.decode(errors="replace"), file)
        if target is not None and problem.target != target.name:
            raise MemplanError(f"{file}: is a problem for {problem.target}, not for {target.name}")
        return problem
    graph = read_packed(content, file)
    return build_problem(graph, target or guessed_target(graph))
