"""`memplan bench agent`: how much of what greedy leaves each method finds, by CPU seconds.

All arms start from greedy's plan. What is measured is the part of the way from there to the best known latency that an
arm has gone after so many CPU seconds of all its threads. It is negative as long as the arm's own plans are worse than
the start: a game cannot repeat every plan. Compiling is done before, by a first run that ends at once.
The best known latency is the optimum where that is planted, otherwise the least latency of all rows of the problem. A
problem on which this is less than 2 % below the start has no room: it is listed, but does not count.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from memplan.cli.arguments import JsonFile, Markdown, Resume
from memplan.cli.bench.agent_arms import ARMS, Arm, Clock
from memplan.cli.bench.agent_problems import NamedProblem, named_problem
from memplan.cli.bench.results import Results
from memplan.cli.bench.rows import chosen_names, print_rows
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import MemplanError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.report.units import ratio
from memplan.planners.planner import Budget
from memplan.planners.planner import get as planner_called

# Over 2 % lie between greedy's plan and the best known one of each of these.
DEFAULT_PROBLEMS = "decode_kv.tpu-7x,transformer_train.tpu-v5e,resnet50_train.tpu-v5e@0.5,placement:300"

# The part of the start below which nothing that learns can show itself.
_ROOM = 0.02

# The arm that the others are compared with, pair by pair.
_MAIN = "agent"

# Shares that are closer than this are equal.
_TIE = 1e-4

Row = dict[str, Any]


def command(
    problems: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Dumps (NAME or NAME@PART of the memory), placement:N, generated:SEED, …"),
    ] = DEFAULT_PROBLEMS,
    arms: Annotated[
        str | None, typer.Option(metavar="NAMES", show_default=False, help="Which methods; by default all.")
    ] = None,
    minutes: Annotated[str, typer.Option(metavar="M,…", help="CPU minutes after which to look.")] = "1,3",
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs of each arm on each problem.")] = 3,
    markdown: Markdown = False,
    json_file: JsonFile = None,
    resume: Resume = False,
) -> None:
    """How much of what greedy leaves the agent and others find, by CPU minutes.

    Takes as many CPU minutes as problems × arms × seeds × the last of `--minutes`.
    """
    check_file(json_file)
    moments = _moments(minutes)
    if seeds < 1:
        raise MemplanError(f"--seeds {seeds}: must be at least 1")
    chosen = [ARMS[name] for name in chosen_names(arms, "--arms", ARMS)]
    names = problems.split(",")
    setting = {"seconds": moments}
    results = Results("agent", json_file, setting, summarize, resume)
    with Stages(total=len(names) * len(chosen) * seeds) as stages:
        for name in names:
            # Rows of a file that is gone on with need no problem.
            wanted = [
                (arm, seed)
                for seed in range(seeds)
                for arm in chosen
                if not results.has(problem=name, arm=arm.name, seed=seed)
            ]
            if not wanted:
                continue
            given = named_problem(name)
            start = planner_called("greedy").plan(given.problem, Budget())
            for arm, seed in wanted:
                with stages.stage(f"{name}: {arm.name}, seed {seed}"):
                    results.add([_run(name, given, start, arm, seed, moments)])
    for columns, lines in (_shares_by_time(results.rows), _shares_by_problem(results.rows)):
        print_rows(columns, lines, {"arm", "problem"}, markdown=markdown)


def _moments(minutes: str) -> list[float]:
    """Returns the CPU seconds of an option; raises MemplanError if a part of it is no positive number."""
    try:
        moments = sorted({60.0 * float(part) for part in minutes.split(",")})
    except ValueError:
        moments = [0.0]
    if not (moments[0] > 0.0 and math.isfinite(moments[-1])):
        raise MemplanError(f"--minutes {minutes}: must be numbers above 0, such as 1,3,10")
    return moments


def _run(name: str, given: NamedProblem, start: Plan, arm: Arm, seed: int, moments: Sequence[float]) -> Row:
    """Returns the row of one run."""
    arm.run(given.problem, start, seed, Clock(given.problem, 0.0))  # compiles
    clock = Clock(given.problem, moments[-1])
    arm.run(given.problem, start, seed, clock)
    begin = TimingEmulator(given.problem).latency(start)
    return {
        "problem": name,
        "arm": arm.name,
        "seed": seed,
        "start": begin,
        "optimum": given.optimum,
        "points": clock.points,
        "seconds": list(moments),
        "at": [_latency_at(clock.points, end, begin) for end in moments],
        "violations": clock.violations,
    }


def _latency_at(points: Sequence[tuple[float, float]], end: float, start: float) -> float:
    """Returns an arm's own best latency after some seconds, or its first one; the start's if it found no plan at all.

    An arm that must first make its way back to the start is behind it until then.
    """
    own = [latency for seconds, latency in points if seconds <= end] or [latency for _, latency in points[:1]]
    return min(own, default=start)


def best_known(rows: Sequence[Row]) -> dict[str, float]:
    """Returns the best known latency of each problem."""
    return {
        name: min(min(row["start"], row["optimum"] or row["at"][-1]) for row in rows if row["problem"] == name)
        for name in dict.fromkeys(row["problem"] for row in rows)
    }


def shares(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of problems with room, each with the `share` of the room that is closed at each moment."""
    best = best_known(rows)
    found = []
    for row in rows:
        room = row["start"] - best[row["problem"]]
        if room > _ROOM * row["start"]:
            found.append({**row, "share": [(row["start"] - latency) / room for latency in row["at"]]})
    return found


def sign_test(wins: int, losses: int) -> float:
    """Returns how likely as unequal a split is where wins and losses are equally likely: the two-sided sign test."""
    count, least = wins + losses, min(wins, losses)
    return min(1.0, 2.0 * sum(math.comb(count, k) for k in range(least + 1)) / 2.0**count)


def compared(rows: Sequence[Row], other: str) -> tuple[int, int]:
    """Returns in how many pairs of one problem and seed the agent ends with a larger share than an arm, and less."""
    ends = {(row["arm"], row["problem"], row["seed"]): row["share"][-1] for row in shares(rows)}
    gains = [
        share - ends[other, problem, seed]
        for (arm, problem, seed), share in ends.items()
        if arm == _MAIN and (other, problem, seed) in ends
    ]
    return sum(gain > _TIE for gain in gains), sum(gain < -_TIE for gain in gains)


def summarize(rows: Sequence[Row]) -> Row:
    """Returns the problems with their room, and per arm its mean share at each moment, and how the agent compares."""
    with_room, best = shares(rows), best_known(rows)
    start = {row["problem"]: row["start"] for row in rows}
    summary: Row = {"room": {name: 1.0 - ratio(best[name], start[name]) for name in best}, "arms": {}}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row["share"] for row in with_room if row["arm"] == arm]
        wins, losses = compared(rows, arm)
        summary["arms"][arm] = {
            "shares": [statistics.fmean(column) for column in zip(*own, strict=True)],
            "won_by_agent": wins,
            "lost_by_agent": losses,
            "p": sign_test(wins, losses),
        }
    return summary


def _shares_by_time(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns a table of arms: their mean share at each moment, and the sign test."""
    arms = summarize(rows)["arms"]
    moments = rows[0]["seconds"] if rows else []
    columns = ["arm", *(f"{seconds:g} s" for seconds in moments), "agent better", "worse", "p"]
    lines = []
    for name, found in arms.items():
        cells = [f"{share:.1%}" for share in found["shares"]] or [""] * len(moments)
        test = [str(found["won_by_agent"]), str(found["lost_by_agent"]), f"{found['p']:.3f}"]
        lines.append([name, *cells, *(test if name != _MAIN else ["", "", ""])])
    return columns, lines


def _shares_by_problem(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns a table of problems: their room, and the mean share of each arm in the end."""
    found, room = shares(rows), summarize(rows)["room"]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    lines = []
    for name, part in room.items():
        cells = []
        for arm in arms:
            ends = [row["share"][-1] for row in found if (row["arm"], row["problem"]) == (arm, name)]
            cells.append(f"{statistics.fmean(ends):.1%}" if ends else "")
        lines.append([name, f"{part:.2%}", *cells])
    return ["problem", "room", *arms], lines
