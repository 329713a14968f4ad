"""The planner `hybrid`: `search`, guided by what the agent's policy says of greedy's plan.

Where runs of accesses compete for room, `search` lets the one with the larger claim go first. Here each claim is
multiplied by a factor that grows with how likely the policy serves its first access in fast memory: large neighbourhood
search guided by a learned prior. The paper's variant for production was a combination as well: the better of the
agent's plan and its compiler's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.planner import Budget, Planner, get
from memplan.planners.search.solve import SearchOptions
from memplan.planners.search.solve import solve_with as search_with
from memplan.rl_agent.planner import LIBRARIES, AgentOptions, make_trainer, ready_to_play

# By how much a claim is multiplied where the policy is sure of slow memory, and of fast memory.
_LEAST, _MOST = 0.5, 2.0


def prior_of(problem: MappingProblem, start: Plan, checkpoint: Path | None = None) -> NDArray[np.float64]:
    """Returns by how much the policy would multiply each item's claim.

    Args:
      problem: to be planned.
      start: plan that the policy is asked about.
      checkpoint: of the agent; None for the one that comes with the package.

    Returns: `[num_items]` of the first fast space, 1 where the policy has no choice.

    Raises:
      CheckpointError, PlannerError: as `rl_agent.planner.solve_with`.
    """
    with ready_to_play():
        trainer = make_trainer(problem, start, AgentOptions(checkpoint))
        policy = trainer.policy()
    game = trainer.contests[0].game
    prior = np.ones(len(game.chains.chain))
    for move, said in zip(game.moves, policy, strict=True):
        if move.item >= 0 and said.sum() > 0:
            prior[move.item] = _LEAST * (_MOST / _LEAST) ** float(said[0] + said[1])
    return prior


def solve_with(problem: MappingProblem, budget: Budget, checkpoint: Path | None = None) -> Plan:
    """Returns the plan of `search` under the prior; its `info` is that of search.

    Raises:
      CheckpointError, PlannerError: as `prior_of`, and `search`.
    """
    start = get("greedy").solve(problem, replace(budget, on_plan=lambda _: None))
    prior = prior_of(problem, start, checkpoint)

    def tell(plan: Plan) -> None:
        budget.on_plan(replace(plan, planner="hybrid"))

    guided = replace(budget, on_plan=tell, known=start)
    return replace(search_with(problem, guided, SearchOptions(prior=prior)), planner="hybrid")


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the plan of `solve_with` with the agent that comes with the package."""
    return solve_with(problem, budget)


def prepare() -> None:
    """Compiles the kernels of `search`, or loads them."""
    get("search").prepare()


PLANNER = Planner(
    "hybrid", "Simulated annealing as in search, guided by the agent's policy.", solve, LIBRARIES, prepare=prepare
)
