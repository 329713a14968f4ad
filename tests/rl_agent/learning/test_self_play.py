"""Windows: outside of them as the champion, inside by the agent, and what is recorded is what happened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from learning_problems import SMALL, padding_of, problem_of

from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.rl_agent.game.moves import ACTIONS, DROP
from memplan.rl_agent.game.plan import make_plan, replay
from memplan.rl_agent.learning import self_play
from memplan.rl_agent.learning.agent import agent_of
from memplan.rl_agent.learning.scripted import scripted
from memplan.rl_agent.learning.sight import trace
from memplan.rl_agent.learning.trainer import Trainer
from memplan.rl_agent.learning.tree_search import TreeSearchOptions


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    problem = problem_of(9)
    return Trainer([problem], SMALL, padding_of(problem))


@pytest.mark.parametrize(
    "search",
    [
        SMALL.search,
        pytest.param(TreeSearchOptions(method="muzero", simulations=3, patience=2), marks=pytest.mark.slow),
        TreeSearchOptions(simulations=3, model="game"),
    ],
    ids=["gumbel", "patient muzero", "game"],
)
def test_windows(trainer: Trainer, search: TreeSearchOptions) -> None:
    contest = trainer.contests[0]
    moves = len(contest.game.moves)
    start = np.linspace(0, moves - 1, 4).astype(np.int32)
    length = np.array([1, 3, 6, 2], np.int32)
    run = agent_of(replace(SMALL, search=search)).decide_alone

    def agent(key: jax.Array, *rest: Any) -> self_play.AgentStep:
        return run(trainer.params, key, contest.arrays, contest.champion, *rest)

    played = self_play.play_windows(
        agent, contest.host, contest.champion, search.patience, 6, 4, jax.random.key(5), start, length
    )
    windows = played.trajectories
    assert played.history.shape == (16, len(contest.champion.history))
    for game in range(16):
        made = windows.is_made[game]
        assert made.sum() <= length[game // 4]
        assert not np.diff(made.astype(int)).max() > 0, "choices are made one after the other"
        rows = np.flatnonzero(made)
        assert windows.legal[game, rows, windows.action[game, rows]].all()
        np.testing.assert_allclose(windows.policy[game, rows].astype(float).sum(-1), 1.0, atol=1e-2)
        assert (played.history[game, : played.first[game]] == contest.champion.history[: played.first[game]]).all()
        if not np.isfinite(played.total[game]):
            assert windows.end[game] < 0
            continue
        # The history is a game of the reference, worth the same, and its plan is valid.
        reference = replay(contest.game, (played.history[game] & ACTIONS)[:moves])
        home = contest.game.home_latency
        assert reference.total == pytest.approx(played.total[game], abs=1e-5 * home)
        assert windows.end[game] == pytest.approx((reference.total - contest.total) / home, abs=1e-5)
        assert verify(contest.problem, make_plan(reference)) == []


def test_games_leave_the_champion(trainer: Trainer) -> None:
    """All but the first lane of a window differ from it, wherever something else is legal."""
    for _ in range(4):
        report = trainer.step()
        assert report.changed > 0


def test_survey_asks_at_choices_only(trainer: Trainer) -> None:
    contest = trainer.contests[0]
    along = trainer._along(contest)
    policy, leaves = map(np.asarray, trainer.agent.survey(trainer.params, contest.arrays, contest.champion, *along))
    assert ((leaves > 0) <= along[1]).all()
    assert leaves.min() >= 0
    assert 0 < leaves.max() <= 1
    assert (leaves[len(contest.game.moves) :] == 0).all()
    total = policy.sum(axis=-1)
    assert np.all((total == 0) | (np.abs(total - 1) < 1e-5))
    assert ((total > 0) >= (leaves > 0)).all()


def test_whole_games_are_repeatable(trainer: Trainer) -> None:
    contest = trainer.contests[0]
    agent = trainer._decider(contest, is_alone=True)
    heat = np.zeros(16, np.float32)
    ends = [self_play.play_out(agent, contest.host, contest.champion, jax.random.key(seed), heat) for seed in (0, 1)]
    assert ends[0]["done"].all()
    assert (ends[0]["history"] == ends[1]["history"]).all(), "without noise the key does not matter"


def test_whole_games_are_not_worse_than_the_champion(trainer: Trainer) -> None:
    """Even if what decides does so at random."""
    contest = trainer.contests[0]
    everything_home = contest.host.starts(np.full((1, len(contest.champion.history)), DROP, np.int8))
    contest.host.follow(everything_home)
    champion = trace(contest.host, everything_home["history"][0] & np.int8(ACTIONS))
    generator = np.random.default_rng(0)

    class Said:
        def __init__(self, legal: Any) -> None:
            self.action = (generator.random(legal.shape) * legal).argmax(axis=1)

    def at_random(key: jax.Array, states: Any, *rest: Any) -> Any:
        return Said(states.legal)

    ends = self_play.play_out(at_random, contest.host, champion, jax.random.key(0), np.ones(16, np.float32))
    least = float(champion.totals[-1])
    assert (ends["total"] >= least - 1e-5 * contest.game.home_latency).all()
    assert (ends["total"] > least + 1e-3 * contest.game.home_latency).any(), "what chance finds better is taken"


def test_a_lesson_shows_what_another_game_does_better(trainer: Trainer) -> None:
    contest = trainer.contests[0]
    moves = len(contest.game.moves)
    champion = trace(contest.host, scripted(contest.host)[0])
    other = contest.host.starts(np.full((1, len(champion.history)), DROP, np.int8))
    contest.host.follow(other, patience=moves)
    history = other["history"][0] & np.int8(ACTIONS)
    assert (history != champion.history)[:moves].any()

    def agent(key: jax.Array, *rest: Any) -> self_play.AgentStep:
        return trainer.agent.decide_alone(trainer.params, key, contest.arrays, champion, *rest)

    window, games = 6, 16
    windows = self_play.lesson(agent, contest.host, champion, history, window, games, jax.random.key(0))
    assert windows.is_made.shape == (games // window, window)
    assert windows.is_made[0, 0], "the first difference is shown"
    home = contest.game.home_latency
    gain = (replay(contest.game, history[:moves]).total - replay(contest.game, champion.history[:moves]).total) / home
    np.testing.assert_allclose(windows.end, gain, atol=1e-5)
    for row in range(len(windows.is_made)):
        made = np.flatnonzero(windows.is_made[row])
        assert (np.diff(windows.is_made[row].astype(int)) <= 0).all()
        assert windows.legal[row, made, windows.action[row, made]].all()
        assert (windows.policy[row, made, windows.action[row, made]] == 1).all()
        assert np.isfinite(windows.lead[row]).all()


def test_what_learns_nothing_keeps_its_networks() -> None:
    problem: MappingProblem = problem_of(9)
    trainer = Trainer([problem], replace(SMALL, learns=False), padding_of(problem))
    before = jax.device_get(trainer.params)
    report = trainer.step()
    assert report.losses is None
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(trainer.params))
