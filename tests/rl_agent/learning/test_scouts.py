"""Scouts: what they claim is what their games are worth, and they find what is better."""

from __future__ import annotations

import numpy as np
import pytest
from game_problems import PADDING, arrays_of, seeded_game
from thorough import examples

import memplan
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.verify import verify
from memplan.rl_agent.game.arrays import Padding, make_arrays
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.plan import make_plan, replay
from memplan.rl_agent.learning.scouts import Scouts
from memplan.rl_agent.learning.scripted import scripted
from memplan.workloads import dumps_folder


def explore(game: Game, heat: float, budget: int, seed: int = 0, padding: Padding | None = PADDING):  # type: ignore[no-untyped-def]
    host = Host(make_arrays(game, padding))
    history, total = scripted(host)
    policy = np.full((len(history), 3), 1 / 3)
    urge = np.arange(len(history)) < len(game.moves)
    return host, total, Scouts(host, 2).explore(history, policy, urge, heat * game.home_latency, budget, seed)


@pytest.mark.parametrize("seed", range(examples(4, 12)))
def test_totals_are_those_of_the_games(seed: int) -> None:
    game = seeded_game(seed)
    host, start, found = explore(game, 1e-2, 3000, seed)
    for scouted in found:
        for history, total in ((scouted.history, scouted.total), (scouted.best_history, scouted.best_total)):
            reference = replay(game, history[: len(game.moves)])
            assert reference.backups == 0
            assert reference.total == pytest.approx(total, abs=1e-4 * game.home_latency)
            assert host.trace(history)[0][-1] == pytest.approx(total, abs=1e-5 * game.home_latency)
        assert scouted.best_total >= max(start, scouted.total) - 1e-5 * game.home_latency


@pytest.mark.slow
def test_where_a_game_is_the_present_one_again_the_rest_is_known() -> None:
    """On a large program most games end long before the program does, and the totals still are exact."""
    graph = memplan.read(dumps_folder() / "alexnet_train.tpu-v5e.default.hlo.txt.gz")
    problem = memplan.problem(graph, "tpu-v5e")
    game = Game(problem, guide=None)
    host, start, found = explore(game, 1e-4, 60_000, padding=None)
    for scouted in found:
        assert scouted.games > 1.5 * 60_000 / len(game.moves), "games do not end early"
        assert host.trace(scouted.history)[0][-1] == pytest.approx(scouted.total, abs=1e-6 * game.home_latency)
        plan = make_plan(replay(game, scouted.best_history[: len(game.moves)]))
        assert verify(problem, plan) == []
        latency = TimingEmulator(problem).latency(plan)
        assert latency == pytest.approx(game.home_latency - scouted.best_total, rel=1e-5)
    assert all(scouted.best_total > start for scouted in found)


def test_the_same_seed_finds_the_same_and_scouts_differ() -> None:
    game = seeded_game(9)
    first, second = (explore(game, 1e-2, 500, seed=7)[2] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.history, other.history)
        assert one.games == other.games
    assert first[0].games != first[1].games or (first[0].history != first[1].history).any()


def test_without_heat_nothing_gets_worse() -> None:
    game = seeded_game(6)
    _, start, found = explore(game, 0.0, 2000)
    assert all(scouted.total == scouted.best_total for scouted in found)
    assert all(scouted.total >= start for scouted in found)


def test_where_nothing_may_change_nothing_is_explored() -> None:
    game = seeded_game(2)
    host = Host(arrays_of(game))
    history, _ = scripted(host)
    policy = np.full((len(history), 3), 1 / 3)
    assert Scouts(host, 2).explore(history, policy, np.zeros(len(history)), 0.0, 100, 0) == []
