"""Problems that several tests play, and how they are played: few shapes, so that JAX compiles each function once."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import jax
from random_problems import REAL, TINY, seeded_problem

from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import greedy
from memplan.planners.greedy import GreedyOptions
from memplan.planners.planner import Budget
from memplan.rl_agent.game import environment
from memplan.rl_agent.game.arrays import GameArrays, Padding, make_arrays
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.moves import NUM_ACTIONS
from memplan.rl_agent.game.reference import Reference

PADDING = Padding(moves=192, rows=96, slots=64, times=64, units=16, reach=12)

init, step = jax.jit(environment.init), jax.jit(environment.step)
init_batch = jax.jit(jax.vmap(environment.init))
step_batch = jax.jit(jax.vmap(environment.step))


def small_game(problem: MappingProblem) -> Game:
    """Returns a game that fits `PADDING`, if the problem is small; its guide is a plan with something to improve."""
    guide = greedy.solve_with(problem, Budget(), GreedyOptions(moves=0))
    return Game(problem, units=PADDING.units, reach=PADDING.reach, guide=guide)


@cache
def seeded_game(seed: int) -> Game:
    """Returns the game of a seed, of very different sizes and times."""
    return small_game(seeded_problem(seed, 4 + seed % 20, TINY if seed % 2 else REAL))


def arrays_of(game: Game) -> GameArrays:
    """Returns the game in the one padding of these tests."""
    return make_arrays(game, PADDING)


class Player:
    """Plays at random, with a taste of its own for each action."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.weights = [self.random.random() + 0.05 for _ in range(NUM_ACTIONS)]

    def choose(self, legal: Any) -> int:
        """Returns one of the legal actions."""
        actions = [action for action in range(NUM_ACTIONS) if legal[action]]
        return self.random.choices(actions, [self.weights[action] for action in actions])[0]


def play(game: Game, seed: int) -> Reference:
    """Returns a game after its end; fails if it does not come to one."""
    reference, player = Reference(game), Player(seed)
    # One try before each backup, and one after the last.
    for _ in range((len(game.moves) + 1) * (len(game.moves) + 1)):
        if reference.done:
            return reference
        reference.step(player.choose(reference.legal))
    raise AssertionError("the game does not end")
