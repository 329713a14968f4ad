"""What the tests of learning play: small problems in one padding, small networks."""

from __future__ import annotations

from dataclasses import replace

from random_problems import REAL, TINY, seeded_problem

from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.ilp import solve as ilp
from memplan.planners.planner import Budget
from memplan.rl_agent.game.arrays import Padding
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.learning.network import NetworkSizes
from memplan.rl_agent.learning.options import TrainOptions
from memplan.rl_agent.learning.tree_search import TreeSearchOptions
from memplan.rl_agent.learning.update import UpdateOptions

SMALL = TrainOptions(
    seed=3,
    windows=4,
    lanes=4,
    window=6,
    capacity=64,
    updates=2,
    reanalysed=4,
    scouted=1000,
    sizes=NetworkSizes(hidden=16, trunk=32, blocks=1),
    search=TreeSearchOptions(simulations=4),
    update=UpdateOptions(batch=32, unroll=2, td_steps=3),
)


# Much less to compile.
WITHOUT_SEARCH = replace(SMALL, search=TreeSearchOptions(method="none"))


def problem_of(seed: int) -> MappingProblem:
    """Returns a problem with something to decide."""
    return seeded_problem(seed, 6 + seed % 8, TINY if seed % 2 else REAL)


def padding_of(*problems: MappingProblem) -> Padding:
    """Returns sizes that suit problems of these tests: the same for all, so that they share what is compiled."""
    return padding_of_games(*(Game(problem, guide=None) for problem in problems))


def padding_of_games(*games: Game) -> Padding:
    """Returns sizes that suit games of these tests."""
    return replace(Padding.of(*games, multiple=128), units=512)


def proven(problem: MappingProblem) -> float | None:
    """Returns the least latency, if it is proven."""
    plan = ilp.solve(problem, Budget())
    return float(plan.info["bound"]) if plan.info["optimal"] else None
