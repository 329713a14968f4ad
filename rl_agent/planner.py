"""The planner `agent`: plays the mallocGame of the problem from greedy's plan on, and learns it meanwhile.

    greedy's plan ─► champion ─► windows around it, every one learned from ─► a better champion ─► …

It begins with the weights of features of a checkpoint, by default with those that come with the package. If the
checkpoint is of a run that trained on this very problem, play goes on where that run stopped.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.planner import Budget, Planner, get
from memplan.planners.stays.small_problem import small_problem

if TYPE_CHECKING:
    from memplan.rl_agent.learning.trainer import Trainer

# Iterations by effort: about two, sixty and six hundred CPU seconds.
_ITERATIONS = (3, 80, 800)


@dataclass(frozen=True)
class AgentOptions:
    """How the agent plans.

    Attributes:
      checkpoint: folder that `memplan train` wrote; None for the weights that come with the package.
      iterations: of playing and learning; None for what the effort affords.
      learns: whether it learns from what it plays here.
    """

    checkpoint: Path | None = None
    iterations: int | None = None
    learns: bool = True


def solve_with(problem: MappingProblem, budget: Budget, options: AgentOptions) -> Plan:
    """Returns the best plan of the games that the agent played, or that of `greedy`, which it starts from.

    Its `info` says how many iterations were made (`iterations`), and how many games were played (`games`).

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.
      PlannerError: the problem has no fast memory, or the buffers do not fit their homes.
    """
    start = budget.known or get("greedy").solve(problem, replace(budget, on_plan=lambda _: None))
    iterations = budget.effort.of(*_ITERATIONS) if options.iterations is None else options.iterations
    trainer = make_trainer(problem, start, options, budget.seed)
    contest = trainer.contests[0]
    emulator = TimingEmulator(problem)
    best = [replace(start, planner="agent", info={})]
    info: dict[str, Any] = {"iterations": 0, "games": 0}

    def tell() -> None:
        plan = contest.plan(planner="agent", info=dict(info))
        if emulator.latency(plan) < emulator.latency(best[0]):
            best[:] = [plan]
            budget.on_plan(plan)

    budget.on_plan(best[0])
    tell()
    with contextlib.suppress(KeyboardInterrupt):
        while info["iterations"] < iterations and not budget.guard.reached():
            report = trainer.step()
            info["iterations"] += 1
            info["games"] += report.games
            if report.improved:
                tell()
    return replace(best[0], info=info)


def make_trainer(problem: MappingProblem, start: Plan, options: AgentOptions, seed: int = 0) -> Trainer:
    """Returns a trainer of one problem that goes on from a plan with what the options' checkpoint has learned.

    Raises:
      CheckpointError, PlannerError: as `solve_with`.
    """
    # The game's arrays are described by types of JAX, which takes long to load.
    from memplan.rl_agent.learning import checkpoint, pretrained
    from memplan.rl_agent.learning.options import TrainOptions
    from memplan.rl_agent.learning.trainer import Trainer

    train = TrainOptions(seed=seed, learns=options.learns)
    if options.checkpoint is None:
        return Trainer([problem], train, pretrained.weights(), [start])
    saved = checkpoint.load(options.checkpoint)
    trainer = Trainer([problem], train, saved.state.get("weights"), [start])
    known = list(saved.meta.get("problems", {}).values())
    if problem.fingerprint in known:
        begun = trainer.contests[0].latency
        state = saved.state["contests"][str(known.index(problem.fingerprint))]
        try:
            trainer.contests[0].restore(state)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise checkpoint.DamagedCheckpointError(f"{options.checkpoint} is damaged: {error}") from None
        if trainer.contests[0].latency > begun:  # Greedy's plan is better than what that run reached.
            trainer = Trainer([problem], train, saved.state["weights"], [start])
    return trainer


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the plan of `solve_with` under the default options."""
    return solve_with(problem, budget, AgentOptions())


@cache
def prepare() -> None:
    """Compiles the kernels of `greedy`, whose plan is the start, and of games of a common size, or loads them."""
    get("greedy").prepare()
    solve_with(small_problem(), Budget(), AgentOptions(iterations=1))


PLANNER = Planner("agent", "Plays the mallocGame, and learns it meanwhile.", solve, prepare=prepare)
