"""The Gymnasium environment: the interface's own checker, a game to its end, and pictures."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from game_problems import play, seeded_game
from gymnasium.utils.env_checker import check_env

import memplan.rl_agent  # noqa: F401  # registers the environment
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.verify import verify
from memplan.rl_agent.game.observation import View
from memplan.rl_agent.gymnasium_env import NAME, MallocGame
from memplan.rl_agent.rendering import draw

VIEW = View(before=6, after=4, columns=8, slots=5, items=3)


@pytest.fixture(scope="module")
def env() -> gymnasium.Env:
    problem = seeded_game(18).problem
    return gymnasium.make(NAME, problem=problem, units=16, reach=12, view=VIEW, render_mode="rgb_array")


@pytest.mark.slow
def test_the_interface(env: gymnasium.Env) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_a_game_to_its_end(env: gymnasium.Env) -> None:
    game: MallocGame = env.unwrapped  # type: ignore[assignment]
    observation, info = env.reset()
    random, total, done = np.random.default_rng(0), 0.0, False
    start = info["latency"]
    while not done:
        assert observation in env.observation_space
        assert game.action_masks().sum() > 1
        observation, reward, done, truncated, info = env.step(random.choice(np.flatnonzero(game.action_masks())))
        assert info["is_legal"]
        assert not truncated
        total += reward
    assert info["moves"] == len(game.game.moves)
    assert start - info["latency"] == pytest.approx(total * game.game.home_latency, rel=1e-3)
    plan = game.plan()
    assert verify(game.game.problem, plan) == []


def test_an_action_that_is_not_legal_is_told(env: gymnasium.Env) -> None:
    env.reset()
    game: MallocGame = env.unwrapped  # type: ignore[assignment]
    while game.action_masks().all():
        env.step(np.int64(2))
    _, _, _, _, info = env.step(np.int64(np.argmin(game.action_masks())))
    assert not info["is_legal"]


def test_pictures(env: gymnasium.Env) -> None:
    env.reset()
    first = env.render()
    assert isinstance(first, np.ndarray)
    assert (first.dtype, first.ndim, first.shape[2]) == (np.uint8, 3, 3)
    game: MallocGame = env.unwrapped  # type: ignore[assignment]
    env.step(np.int64(np.argmax(game.action_masks())))
    second = env.render()
    assert isinstance(second, np.ndarray)
    assert second.shape == first.shape
    assert (second != first).any()


def test_a_residency_is_where_it_is_drawn() -> None:
    reference = play(seeded_game(7), 1)
    assert reference.residencies
    game = reference.game
    picture = draw(reference, width=4 * (game.problem.end + 1), height=4 * game.num_units, supply_height=10)
    assert picture.shape == (4 * game.num_units + 10, 4 * (game.problem.end + 1), 3)
    residency = next(iter(reference.residencies.values()))
    column = 4 * residency.start + 2
    row = 4 * (game.num_units - residency.offset) - 2
    around = picture[row - 4 * residency.size + 4 : row + 1, column]
    assert (around == around[0]).all()
    assert tuple(around[0]) not in ((250, 250, 250), (200, 200, 200))


def test_a_problem_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "problem.json"
    seeded_game(18).problem.save(path)
    env = MallocGame(str(path), units=16, reach=12, view=VIEW, normalize=False)
    env.reset(seed=1)
    assert env.render() is None
    with pytest.raises(PlannerError, match="it must be over"):
        env.plan()


def test_what_cannot_be_played() -> None:
    problem = seeded_game(18).problem
    with pytest.raises(PlannerError, match="render_mode='human'"):
        MallocGame(problem, render_mode="human")
    with pytest.raises(PlannerError, match="reset"):
        MallocGame(problem).action_masks()
