"""What the tests of learning play: small problems in one padding, few moves in an iteration."""

from __future__ import annotations

from dataclasses import replace

from random_problems import REAL, TINY, seeded_problem

from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.ilp import solve as ilp
from memplan.planners.planner import Budget
from memplan.rl_agent.game.arrays import Padding
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.learning.options import TrainOptions

SMALL = TrainOptions(seed=3, budget=1000)


def problem_of(seed: int) -> MappingProblem:
    """Returns a problem with something to decide."""
    return seeded_problem(seed, 6 + seed % 8, TINY if seed % 2 else REAL)


def with_stays(problem: MappingProblem) -> MappingProblem:
    """Returns a problem in which an argument may stay from run to run."""
    return replace(problem, cross_program_prefetches=1)


def padding_of_games(*games: Game) -> Padding:
    """Returns sizes that suit games of these tests: the same for all, so that they share what is compiled."""
    return replace(Padding.of(*games, multiple=128), units=512)


def proven(problem: MappingProblem) -> float | None:
    """Returns the least latency, if it is proven."""
    plan = ilp.solve(problem, Budget())
    return float(plan.info["bound"]) if plan.info["optimal"] else None
