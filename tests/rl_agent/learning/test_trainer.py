"""The loop of learning: it finds what is best, it repeats exactly, and it goes on exactly."""

from __future__ import annotations

import numpy as np
import pytest
from learning_problems import SMALL, padding_of_games, problem_of, proven, with_stays
from random_problems import TINY, seeded_problem

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy
from memplan.planners.planner import Budget
from memplan.rl_agent.game.arrays import make_arrays
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.moves import NO_COPY
from memplan.rl_agent.learning import checkpoint
from memplan.rl_agent.learning.contest import Contest, PlayLine, history_of
from memplan.rl_agent.learning.trainer import Trainer


def test_it_finds_the_proven_optimum() -> None:
    problem = seeded_problem(26, 8, TINY)
    best = proven(problem)
    assert best is not None
    trainer = Trainer([problem], SMALL)
    begin = trainer.contests[0].latency
    for _ in range(120):
        trainer.step()
        if trainer.contests[0].latency <= best * (1 + 1e-4):
            break
    plan = trainer.contests[0].plan()
    assert verify(problem, plan) == []
    latency = TimingEmulator(problem).latency(plan)
    assert latency == pytest.approx(trainer.contests[0].latency, rel=1e-5)
    assert latency <= best * (1 + 1e-4)
    assert begin > best * (1 + 1e-3), "rules of thumb would have been enough: the test shows nothing"


def test_the_same_seed_learns_the_same_and_goes_on_the_same() -> None:
    problems = [problem_of(2), with_stays(problem_of(6))]
    whole, first, resumed = (Trainer(problems, SMALL) for _ in range(3))
    for _ in range(10):
        whole.step()
    for _ in range(5):
        first.step()
    assert any(contest.rival is not None for contest in first.contests)
    saved = checkpoint.read(checkpoint.content_of(first.state(), SMALL, {}), "there")
    assert saved.iteration == 5
    resumed.restore(saved.state)
    for _ in range(5):
        resumed.step()
    assert checkpoint.content_of(whole.state(), SMALL, {}) == checkpoint.content_of(resumed.state(), SMALL, {})


def test_what_is_learned_of_one_problem_is_there_for_the_next() -> None:
    trainer = Trainer([problem_of(2), problem_of(8)], SMALL)
    played = {trainer.step().problem for _ in range(6)}
    assert played == {0, 1}
    assert np.abs(trainer.weights).max() > 0.0
    last = trainer.step().problem
    np.testing.assert_array_equal(trainer.contests[last].champion.values.weights, trainer.weights)


def test_a_contest_starts_from_a_plan() -> None:
    problem = problem_of(8)
    plan = greedy.solve(problem, Budget())
    contest = Contest(problem, start=plan)
    assert contest.latency <= TimingEmulator(problem).latency(contest.plan()) * (1 + 1e-5)
    assert verify(problem, contest.plan()) == []
    game = Game(problem, guide=plan)
    history = history_of(game, Host(make_arrays(game, padding_of_games(game))), plan)
    assert len(history) == len(contest.game.moves)
    before = contest.latency
    contest.champion.repack()
    assert contest.latency <= before * (1 + 1e-7), "the best is never forgotten"


def test_rivals_keep_different_arguments() -> None:
    problem = with_stays(problem_of(12))
    contest = Contest(problem)
    stays = contest.champion.stays.tolist()
    assert len(stays) > 1

    def kept(line: PlayLine) -> list[bool]:
        return [bool(line.history[stay] == NO_COPY) for stay in stays]

    before, seen = kept(contest.champion), set()
    generator = np.random.default_rng(0)
    for _ in range(40):
        contest.rival = None
        contest.play(SMALL, generator)
        if contest.rival is not None:
            assert verify(problem, contest.rival.plan()) == []
            seen.add(tuple(kept(contest.rival)))
        if len(seen) > 2:
            break
    assert len(seen) > 2
    assert sum(before) <= 1


def test_nothing_to_play() -> None:
    with pytest.raises(PlannerError, match="no problem to play"):
        Trainer([], SMALL)
