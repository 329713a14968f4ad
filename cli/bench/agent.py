"""`memplan bench agent`: latency against time, of the agent and of what it is compared with.

The agent learns each program from scratch, on all cores. Evolution and search have the same time, one core each, beside
each other; a player of random games has half of it, on all cores. A method that reaches the bound ends there. All plans
are scored by the same emulator, and checked by `verify`; for random games the score of the game counts.

With `--ablations`, variants of the agent are compared that lack one part each.
"""

from __future__ import annotations

import io
import queue
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from memplan.cli.arguments import JsonFile, Markdown, Resume
from memplan.cli.bench.mapping import OPTIMAL
from memplan.cli.bench.results import Results
from memplan.cli.bench.rows import print_rows
from memplan.cli.bindings import Bindings
from memplan.cli.console import Stages
from memplan.cli.outputs import check_file
from memplan.cli.train import BASELINES, baselines, read_problem
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import write_atomically
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.compiler.printable import printable
from memplan.compiler.report.picture import texts_as_they_are
from memplan.compiler.report.units import print_seconds, ratio
from memplan.fleet import dump_name
from memplan.planners.auto.member import Member, News
from memplan.planners.bound import lower_bound
from memplan.planners.planner import Budget, Effort
from memplan.planners.planner import get as planner_called

# The first ten, by name, of the shipped programs of a TPU v5e with up to 1,000 decisions.
DEFAULT_PROGRAMS = (
    "alexnet_train", "decode_kv", "hyena", "lstm", "lstm_train",
    "mamba", "mlp_mixer", "moe", "neural_ode", "resnet50_infer",
)  # fmt: skip
_TARGET = "tpu-v5e"

# They have all the time, beside each other; the others need little.
_SEARCHERS = ("evolution", "search")

# Random games that are played at once.
_BATCH = 256

# What is this close to the bound is at the bound: the game adds in single precision.
_AT_BOUND = 1.0 + 1e-6

Curve = list[tuple[float, float]]  # seconds, latency of the best plan so far


def command(
    dumps: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", show_default=False, help="Play this dump (repeatable). By default ten shipped."),
    ] = None,
    minutes: Annotated[float, typer.Option(metavar="M", help="For each program and method.")] = 10.0,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Compare variants of the agent that lack a part each.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Of all that is random.")] = 0,
    markdown: Markdown = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", show_default=False, help="Draw the curves: PNG or SVG.")
    ] = None,
    json_file: JsonFile = None,
    resume: Resume = False,
) -> None:
    """Latency against time: the agent from scratch, beside the planners.

    Takes four hours with ten minutes for each program and method.
    """
    check_file(json_file)
    check_file(picture)
    if not minutes > 0:
        raise MemplanError(f"--minutes {minutes}: must be more than 0")
    from memplan.rl_agent.planner import ready_to_play

    files = dumps or _shipped()
    setting = {"minutes": minutes, "ablations": ablations, "seed": seed}
    results = Results("agent", json_file, setting, summarize, resume)
    with ready_to_play(), Stages(total=len(files)) as stages:
        for file in files:
            with stages.stage(dump_name(file)):
                if results.has(dump=dump_name(file)):
                    continue
                problem = read_problem(file, None, Bindings())
                bound = lower_bound(problem).value
                measure = _ablated if ablations else _compared
                row = {"dump": dump_name(file), "bound": bound, **measure(problem, minutes, seed, _AT_BOUND * bound)}
                results.add([row])
    columns, lines = _lines(results.rows)
    print_rows(columns, lines, {"program"}, markdown=markdown)
    if picture is not None:
        draw(results.rows, picture)


def _shipped() -> list[Path]:
    from memplan import workloads

    return [workloads.dumps_folder() / f"{name}.{_TARGET}.default.hlo.txt.gz" for name in DEFAULT_PROGRAMS]


def _compared(problem: MappingProblem, minutes: float, seed: int, enough: float) -> dict[str, Any]:
    emulator = TimingEmulator(problem)
    curves: dict[str, Curve] = {}
    started = time.monotonic()
    for name, plan in baselines(problem, seed):
        curves[name] = [(time.monotonic() - started, emulator.latency(plan))]
        started = time.monotonic()
    searched, violations = _searched(problem, emulator, 60.0 * minutes, seed, enough)
    curves |= searched
    curves["random"] = _at_random(problem, 30.0 * minutes, seed)
    from memplan.rl_agent.learning.options import TrainOptions

    curves["agent"], moves, broken = _learned(problem, TrainOptions(seed=seed), minutes, enough)
    return {"moves": moves, "violations": violations + broken, "curves": curves}


def _searched(
    problem: MappingProblem, emulator: TimingEmulator, seconds: float, seed: int, enough: float
) -> tuple[dict[str, Curve], int]:
    """Returns the curves of planners that search, and how many rules their plans break."""
    started = time.monotonic()
    curves: dict[str, Curve] = {name: [] for name in _SEARCHERS}
    violations = 0
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    proven: set[Member] = set()
    running = [Member(name, problem, Budget(Effort.HIGH, seed, seconds), news) for name in _SEARCHERS]
    try:
        while running:
            told = news.get()
            if told.plan is None:
                running.remove(told.member)
                if told.error and told.member not in proven:
                    raise MemplanError(f"{told.member.planner} on {problem.name}: {told.error}")
                continue
            curve, latency = curves[told.member.planner], emulator.latency(told.plan)
            violations += len(verify(problem, told.plan))
            if not curve or latency < curve[-1][1]:
                curve.append((time.monotonic() - started, latency))
            if latency <= enough:
                proven.add(told.member)
                told.member.stop()
    finally:
        for member in running:
            member.stop()
    return curves, violations


def _at_random(problem: MappingProblem, seconds: float, seed: int) -> Curve:
    """Returns the curve of the best of games that are played at random."""
    from memplan.rl_agent.game.arrays import make_arrays
    from memplan.rl_agent.game.game import Game
    from memplan.rl_agent.game.host import Host

    game = Game(problem, guide=None)
    host = Host(make_arrays(game))
    curve: Curve = []
    played, started = 0, time.monotonic()
    while not curve or time.monotonic() - started < seconds:
        returns = host.play_at_random(range(seed + played, seed + played + _BATCH))
        best = game.home_latency - max(returns.tolist())
        played += _BATCH
        if not curve or best < curve[-1][1]:
            curve.append((time.monotonic() - started, best))
    return curve


def _ablated(problem: MappingProblem, minutes: float, seed: int, enough: float) -> dict[str, Any]:
    from memplan.rl_agent.learning.options import TrainOptions
    from memplan.rl_agent.learning.tree_search import TreeSearchOptions

    whole = TrainOptions(seed=seed)
    variants = {
        "agent": whole,
        "no search": replace(whole, search=replace(whole.search, method="none")),
        "game as model": replace(whole, search=replace(whole.search, model="game")),
        "drop-backup": replace(whole, search=replace(whole.search, patience=2)),
        "MuZero": replace(whole, search=TreeSearchOptions(method="muzero", simulations=whole.search.simulations)),
        "random network": replace(whole, learns=False),
        "no scouts": replace(whole, scouted=0),
        "no scouts, random network": replace(whole, scouted=0, learns=False),
        "scouts of a random network": replace(whole, learns=False, windows=2, lanes=2),
    }
    greedy = planner_called("greedy").plan(problem, Budget(seed=seed))
    curves: dict[str, Curve] = {"greedy": [(0.0, TimingEmulator(problem).latency(greedy))]}
    violations = moves = 0
    for name, options in variants.items():
        _compile(problem, options)
        curves[name], moves, broken = _learned(problem, options, minutes, enough)
        violations += broken
    return {"moves": moves, "violations": violations, "curves": curves}


def _compile(problem: MappingProblem, options: Any) -> None:
    """Has JAX compile what an agent needs, and keep it: no variant shall lose its time to that for being the first."""
    from memplan.rl_agent.learning.training import Training

    Training([problem], options).run(60.0, iterations=1)


def _learned(problem: MappingProblem, options: Any, minutes: float, enough: float) -> tuple[Curve, int, int]:
    """Returns the curve of an agent that learns from scratch, the moves of its game, and the rules its plan breaks."""
    from memplan.rl_agent.learning.training import Training

    started = time.monotonic()
    training = Training([problem], options)
    contest = training.trainer.contests[0]
    curve: Curve = [(time.monotonic() - started, contest.latency)]
    ready = curve[0][0]
    training.run(60.0 * minutes - ready, enough=enough)
    curve += [(ready + point["seconds"], point["latency"]) for point in training.points]
    plan = contest.plan()
    # The game adds in single precision: the last figure is the emulator's.
    curve[-1] = (curve[-1][0], TimingEmulator(problem).latency(plan))
    return curve, len(contest.game.moves), len(verify(problem, plan))


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns per method the geometric mean of its last latency over that of `greedy`, and how often it is lower."""
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row["curves"]):
        ratios = [
            ratio(row["curves"][name][-1][1], row["curves"]["greedy"][-1][1])
            for row in rows
            if row["curves"].get(name) and row["curves"].get("greedy")
        ]
        summary[name] = {
            "mean_ratio_to_greedy": statistics.geometric_mean(ratios),
            "better_than_greedy": sum(value < 1.0 - 1e-9 for value in ratios),
            "not_worse_than_greedy": sum(value <= 1.0 + 1e-9 for value in ratios),
            "within_1_percent_of_bound": sum(
                row["curves"][name][-1][1] <= 1.01 * row["bound"] for row in rows if row["curves"].get(name)
            ),
            "proven_best": sum(
                row["curves"][name][-1][1] <= (1 + OPTIMAL) * row["bound"] for row in rows if row["curves"].get(name)
            ),
        }
    return summary


def _lines(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    methods = [name for name in dict.fromkeys(n for row in rows for n in row["curves"]) if name != "greedy"]
    columns = ["program", "moves", "greedy", *(f"{name} ÷ greedy" for name in methods), "bound ÷ greedy"]
    lines = []
    for row in rows:
        greedy = row["curves"]["greedy"][-1][1]
        ratios = [f"{ratio(row['curves'][n][-1][1], greedy):.4f}" if row["curves"].get(n) else "" for n in methods]
        bound = f"{ratio(row['bound'], greedy):.4f}"
        lines.append([row["dump"], f"{row['moves']:,}", print_seconds(greedy), *ratios, bound])
    means = summarize(rows)
    last = [f"{means[name]['mean_ratio_to_greedy']:.4f}" for name in methods]
    lines.append(["geometric mean", "", "", *last, ""])
    return columns, lines


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a picture of all curves: latency over that of greedy, against seconds.

    Raises:
      MemplanError: it cannot be written, or matplotlib does not know the format.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    columns = min(5, len(rows))
    height = -(-len(rows) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * height), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False).ravel()
    names = [name for name in dict.fromkeys(n for row in rows for n in row["curves"]) if name not in ("slow",)]
    for axis, row in zip(axes, rows, strict=False):
        greedy = row["curves"]["greedy"][-1][1]
        end = max(seconds for curve in row["curves"].values() for seconds, _ in curve)
        for number, name in enumerate(names):
            curve = row["curves"].get(name)
            if not curve:
                continue
            color = f"C{number}"
            if name in BASELINES:
                axis.axhline(ratio(curve[-1][1], greedy), color=color, linewidth=1, linestyle="--", label=name)
                continue
            seconds = [max(point[0], 0.1) for point in curve] + [end]
            values = [ratio(point[1], greedy) for point in curve] + [ratio(curve[-1][1], greedy)]
            axis.step(seconds, values, where="post", color=color, linewidth=1.4, label=name)
        axis.axhline(ratio(row["bound"], greedy), color="0.6", linewidth=1, linestyle=":", label="bound")
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(printable(row["dump"].removesuffix(".default")), fontsize=8, parse_math=False)
        axis.tick_params(labelsize=7)
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    figure.supxlabel("seconds", fontsize=8)
    figure.supylabel("latency ÷ that of greedy", fontsize=8)
    axes[0].legend(fontsize=6)
    content = io.BytesIO()
    try:
        with texts_as_they_are():
            figure.savefig(content, dpi=110, format=path.suffix.removeprefix(".") or "png")
    except ValueError as error:
        raise MemplanError(f"cannot write {path}: {error}") from None
    write_atomically(path, content.getvalue())
