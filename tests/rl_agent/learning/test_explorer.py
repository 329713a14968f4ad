"""Explorations: what they claim is what their games are worth, they find what is better, and learn what is worth it."""

from __future__ import annotations

import numpy as np
import pytest
from game_problems import PADDING, seeded_game
from thorough import examples

import memplan
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.verify import verify
from memplan.rl_agent.game.arrays import Padding, make_arrays
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.plan import make_plan, replay
from memplan.rl_agent.learning.explorer import Explorer
from memplan.rl_agent.learning.scripted import scripted
from memplan.rl_agent.learning.values import MoveValues, features_of
from memplan.workloads import dumps_folder


def explore(game: Game, heat: float, budget: int, seed: int = 0, padding: Padding | None = PADDING, **more):  # type: ignore[no-untyped-def]
    """Returns the game's host, what rules of thumb reach, what was found around that, and what was learned."""
    host = Host(make_arrays(game, padding))
    history, values = scripted(host), MoveValues.new(len(game.moves))
    found = Explorer(host, features_of(game)).explore(history, values, heat, budget, seed, **more)
    return host, float(host.trace(history)[0][-1]), found, values


@pytest.mark.parametrize("seed", range(examples(4, 12)))
def test_totals_are_those_of_the_games(seed: int) -> None:
    game = seeded_game(seed)
    host, start, found, _ = explore(game, 1e-2, 3000, seed)
    for history, total in ((found.history, found.total), (found.best_history, found.best_total)):
        reference = replay(game, history[: len(game.moves)])
        assert reference.backups == 0
        assert reference.total == pytest.approx(total, abs=1e-4 * game.home_latency)
        assert host.trace(history)[0][-1] == pytest.approx(total, abs=1e-5 * game.home_latency)
    assert found.best_total >= max(start, found.total) - 1e-5 * game.home_latency


@pytest.mark.slow
def test_where_a_game_is_the_present_one_again_the_rest_is_known() -> None:
    """On a large program most games end long before the program does, and the totals still are exact."""
    graph = memplan.read(dumps_folder() / "alexnet_train.tpu-v5e.default.hlo.txt.gz")
    problem = memplan.problem(graph, "tpu-v5e")
    game = Game(problem, guide=None)
    host, start, found, _ = explore(game, 1e-4, 60_000, padding=None)
    assert found.games > 1.5 * 60_000 / len(game.moves), "games do not end early"
    assert host.trace(found.history)[0][-1] == pytest.approx(found.total, abs=1e-6 * game.home_latency)
    plan = make_plan(replay(game, found.best_history[: len(game.moves)]))
    assert verify(problem, plan) == []
    latency = TimingEmulator(problem).latency(plan)
    assert latency == pytest.approx(game.home_latency - found.best_total, rel=1e-5)
    assert found.best_total > start


def test_the_same_seed_finds_and_learns_the_same() -> None:
    game = seeded_game(9)
    first, second, other = (explore(game, 1e-2, 500, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[2].history, second[2].history)
    np.testing.assert_array_equal(first[3].items, second[3].items)
    assert first[2].games != other[2].games or (first[3].items != other[3].items).any()


def test_without_heat_nothing_gets_worse() -> None:
    _, start, found, _ = explore(seeded_game(6), 0.0, 2000)
    assert found.total == found.best_total >= start


def test_where_nothing_may_change_nothing_is_explored() -> None:
    game = seeded_game(2)
    assert explore(game, 0.0, 100, frozen=len(game.moves))[2].games == 0


def test_what_does_not_learn_stays_as_it_is() -> None:
    game = seeded_game(4)
    values = explore(game, 1e-2, 2000, learns=False)[3]
    fresh = MoveValues.new(len(game.moves))
    for name, part in values.state().items():
        np.testing.assert_array_equal(part, fresh.state()[name])


def test_values_are_what_single_changes_gain() -> None:
    """Without heat and after enough games, each value that was learned has the sign of what the change gains."""
    game = seeded_game(4)
    host, _, found, values = explore(game, 0.0, 60_000)
    policy_of = values.items + features_of(game) @ values.weights
    base, right, count = host.trace(found.best_history)[0][-1], 0, 0
    for number in range(len(game.moves)):
        present = found.best_history[number]
        for action in range(3):
            if action == present or values.visits[number, action] < 20:
                continue
            history = found.best_history.copy()
            history[number] = action
            games = host.starts(history[None])
            host.follow(games)
            gain = games["total"][0] - base
            if games["done"][0] and games["history"][0][number] == action and gain < -1e-3 * game.home_latency:
                count += 1
                right += bool(policy_of[number, action] < policy_of[number, present])
    assert count > 3
    assert right >= 0.9 * count
