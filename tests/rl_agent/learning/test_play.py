"""Windows: outside of them as the champion, inside by the agent, and what is recorded is what happened."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from learning_problems import SMALL, padding_of, problem_of

from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.rl_agent.game.environment import ACTIONS
from memplan.rl_agent.game.plan import make_plan, replay
from memplan.rl_agent.learning import play
from memplan.rl_agent.learning.search import SearchOptions
from memplan.rl_agent.learning.trainer import Trainer


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    problem = problem_of(9)
    return Trainer([problem], SMALL, padding_of(problem))


@pytest.mark.parametrize(
    "search",
    [
        SearchOptions(simulations=3),
        SearchOptions(method="muzero", simulations=3, patience=2),
        SearchOptions(simulations=3, model="game"),
    ],
    ids=["gumbel", "patient muzero", "game"],
)
def test_windows(trainer: Trainer, search: SearchOptions) -> None:
    contest = trainer.contests[0]
    moves = len(contest.game.moves)
    start = np.linspace(0, moves - 1, 4).astype(np.int32)
    length = np.array([1, 3, 6, 2], np.int32)
    run = jax.jit(lambda params, key: play.play_windows(
        trainer.networks, search, 6, 3, params, key, contest.arrays, contest.champion, start, length
    ))  # fmt: skip
    played = jax.device_get(run(trainer.params, jax.random.key(5)))
    windows = played.trajectories
    assert played.history.shape == (12, len(contest.champion.history))
    for game in range(12):
        made = windows.is_made[game]
        assert made.sum() <= length[game // 3]
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
    policy, leaves = map(np.asarray, trainer._survey(trainer.params, contest.arrays, contest.champion))
    assert leaves.min() >= 0
    assert 0 < leaves.max() <= 1
    assert (leaves[len(contest.game.moves) :] == 0).all()
    total = policy.sum(axis=-1)
    assert np.all((total == 0) | (np.abs(total - 1) < 1e-5))
    assert ((total > 0) >= (leaves > 0)).all()


def test_whole_games_are_repeatable(trainer: Trainer) -> None:
    contest = trainer.contests[0]
    heat = np.zeros(2, np.float32)
    ends = [
        jax.device_get(
            trainer._play_out(2, trainer.params, jax.random.key(seed), contest.arrays, contest.champion, heat)
        )
        for seed in (0, 1)
    ]
    assert ends[0].done.all()
    assert (ends[0].history == ends[1].history).all(), "without noise the key does not matter"


def test_what_learns_nothing_keeps_its_networks() -> None:
    problem: MappingProblem = problem_of(9)
    trainer = Trainer([problem], replace(SMALL, learns=False), padding_of(problem))
    before = jax.device_get(trainer.params)
    report = trainer.step()
    assert report.losses is None
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(trainer.params))
