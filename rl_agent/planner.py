"""The planner `agent`: a trained agent plays the mallocGame of the problem, and goes on playing and learning.

    greedy's plan ─► whole games by the agent ─► windows of the best game, played and learned from, in iterations

The networks come from a checkpoint, by default from that of the generalist that is shipped with the package. What JAX
compiles is kept between runs, by the sizes of problems: the first problem of a size takes some seconds longer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.planner import Budget, Planner, get

# The generalist that comes with the package.
PRETRAINED = Path(__file__).parent / "pretrained"


# Iterations of playing windows, by effort.
_ITERATIONS = (0, 40, 600)


@dataclass(frozen=True)
class AgentOptions:
    """How the agent plans.

    Attributes:
      checkpoint: folder that `memplan train` wrote; None for the generalist that comes with the package.
      iterations: of playing windows; None for what the effort affords, 0 for whole games only.
      games: whole games that are played first; the first of them without noise.
      learns: whether it learns from what it plays here.
    """

    checkpoint: Path | None = None
    iterations: int | None = None
    games: int = 8
    learns: bool = True


def solve_with(problem: MappingProblem, budget: Budget, options: AgentOptions) -> Plan:
    """Returns the best plan of the games that the agent played, or that of `greedy`, which it starts from.

    Its `info` says how many iterations were made (`iterations`), and what the whole games reached (`whole_games`, in
    seconds).

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.
      PlannerError: libraries for learning are not installed; the problem has no fast memory, or the buffers do not fit
        their homes.
    """
    start = get("greedy").solve(problem, budget)
    with ready_to_play():
        return _played(problem, budget, options, start)


def _played(problem: MappingProblem, budget: Budget, options: AgentOptions, start: Plan) -> Plan:
    """Goes on from a plan."""
    iterations = budget.effort.of(*_ITERATIONS) if options.iterations is None else options.iterations
    trainer = make_trainer(problem, start, options, budget.seed)
    contest = trainer.contests[0]
    emulator = TimingEmulator(problem)
    best = [replace(start, planner="agent", info={})]
    info: dict[str, Any] = {"iterations": 0}

    def tell() -> None:
        plan = contest.plan(planner="agent", info=dict(info))
        if emulator.latency(plan) < emulator.latency(best[0]):
            best[:] = [plan]
            budget.on_plan(plan)

    budget.on_plan(best[0])
    tell()
    with contextlib.suppress(KeyboardInterrupt):
        if options.games and not budget.guard.reached():
            info["whole_games"] = trainer.play_whole_games(options.games)
            tell()
        while info["iterations"] < iterations and not budget.guard.reached():
            report = trainer.step()
            info["iterations"] += 1
            if report.improved:
                tell()
    return replace(best[0], info=info)


def make_trainer(problem: MappingProblem, start: Plan, options: AgentOptions, seed: int = 0) -> Any:
    """Returns a `Trainer` of one problem that goes on from a plan with the networks of the options' checkpoint.

    Call it, and use the trainer, within `ready_to_play`.

    Raises:
      CheckpointError, PlannerError: as `solve_with`.
    """
    from memplan.rl_agent.learning.checkpoint import load
    from memplan.rl_agent.learning.trainer import Trainer

    saved = load(options.checkpoint or PRETRAINED)
    trained = replace(saved.options, seed=seed, learns=options.learns)
    return Trainer([problem], trained, params=saved.params, starts=[start])


def check_installed() -> None:
    """Raises PlannerError, with what to do, if a library that learning needs is not installed."""
    if missing := PLANNER.missing():
        raise PlannerError(f"the agent needs {', '.join(missing)}: pip install 'memplan[rl]'")


@contextlib.contextmanager
def ready_to_play() -> Iterator[None]:
    """Sets JAX up, and keeps what it compiles meanwhile in memplan's cache, unless the user chose another place.

    Raises:
      PlannerError: a library that learning needs is not installed.
    """
    check_installed()
    from memplan.rl_agent.devices import use_all_devices

    use_all_devices()  # JAX reads what this sets when it is imported.
    from memplan.rl_agent.compile_cache import keeping_compiled

    with keeping_compiled():
        yield


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the plan of `solve_with` under the default options."""
    return solve_with(problem, budget, AgentOptions())


def prepare() -> None:
    """Compiles the kernels of `greedy`, whose plan is the start, or loads them."""
    get("greedy").prepare()


# What `pip install 'memplan[rl]'` brings.
LIBRARIES = ("flax", "mctx", "optax", "orbax", "tensorboardX")

PLANNER = Planner(
    "agent", "A trained agent that plays the mallocGame, and goes on learning.", solve, LIBRARIES, prepare=prepare
)
