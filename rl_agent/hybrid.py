"""The planner `hybrid`: `search`, guided by what the agent learned of the program in a short while.

Where runs of accesses compete for room, `search` lets the one with the larger claim go first. Here each claim is
multiplied by a factor that grows with how likely the agent's policy serves its first access in fast memory: large
neighbourhood search guided by a learned prior. The agent's own plan counts as well.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.planner import Budget, Planner, get
from memplan.planners.search.solve import SearchOptions
from memplan.planners.search.solve import solve_with as search_with
from memplan.rl_agent import planner
from memplan.rl_agent.game.moves import DROP
from memplan.rl_agent.planner import AgentOptions, make_trainer

if TYPE_CHECKING:
    from memplan.rl_agent.learning.trainer import Trainer

# By how much a claim is multiplied where the policy is sure of slow memory, and of fast memory.
_LEAST, _MOST = 0.5, 2.0

# Iterations in which the agent learns before the search, by effort.
_ITERATIONS = (1, 10, 100)


def prior_of(trainer: Trainer) -> NDArray[np.float64]:
    """Returns by how much the policy of a trainer's only problem multiplies each item's claim.

    Returns: `[num_items]` of the first fast space, 1 for what is no move.
    """
    game = trainer.contests[0].game
    prior = np.ones(len(game.chains.chain))
    for move, said in zip(game.moves, trainer.policy(), strict=True):
        if move.item >= 0:
            prior[move.item] = _LEAST * (_MOST / _LEAST) ** float(1.0 - said[DROP])
    return prior


def solve_with(problem: MappingProblem, budget: Budget, checkpoint: Path | None = None) -> Plan:
    """Returns the better one of the plans of `search` under the prior and of the agent; `info` is that of search.

    Raises:
      CheckpointError, PlannerError: as `rl_agent.planner.solve_with`, and `search`.
    """
    start = get("greedy").solve(problem, replace(budget, on_plan=lambda _: None))
    trainer = make_trainer(problem, start, AgentOptions(checkpoint), budget.seed)
    for _ in range(budget.effort.of(*_ITERATIONS)):
        if budget.guard.reached():
            break
        trainer.step()
    emulator = TimingEmulator(problem)
    own = trainer.contests[0].plan(planner="hybrid")
    told = [emulator.latency(start)]

    def tell(plan: Plan) -> None:
        latency = emulator.latency(plan)
        if latency < told[0] or plan is start:
            told[0] = latency
            budget.on_plan(replace(plan, planner="hybrid"))

    tell(start)
    tell(own)
    found = search_with(problem, replace(budget, on_plan=tell, known=start), SearchOptions(prior=prior_of(trainer)))
    better = own if emulator.latency(own) < emulator.latency(found) else found
    return replace(better, planner="hybrid", info=found.info)


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the plan of `solve_with` without a checkpoint."""
    return solve_with(problem, budget)


def prepare() -> None:
    """Compiles the kernels of `search` and of the agent, or loads them."""
    get("search").prepare()
    planner.prepare()


PLANNER = Planner("hybrid", "Simulated annealing as in search, guided by the agent's policy.", solve, prepare=prepare)
