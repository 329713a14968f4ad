"""Games followed on the host: move by move the same as `environment.py`, which is the same as the reference."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from game_problems import Player, arrays_of, init, play, seeded_game, step
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from memplan.compiler.errors import PlannerError
from memplan.rl_agent.game import host_kernel
from memplan.rl_agent.game.environment import step_to_choice
from memplan.rl_agent.game.host import Host, as_states
from memplan.rl_agent.game.moves import ACTIONS, COPY, DROP, NO_COPY
from memplan.rl_agent.game.plan import assembled, make_plan, replay
from memplan.rl_agent.game.state import State

_EXACT = (
    "move", "legal", "done", "backups", "is_dead", "history", "replay_until", "left", "owner", "issued",
    "busy_until", "held_until", "duration", "stays",
)  # fmt: skip


def same(state: State, other: State, home: float) -> None:
    """All that later moves depend on is exactly the same; seconds are up to rounding."""
    for name in _EXACT:
        np.testing.assert_array_equal(getattr(state, name), getattr(other, name)[0], name)
    for name in ("total", "reward", "eviction_wait"):
        assert float(getattr(state, name)) == pytest.approx(float(getattr(other, name)[0]), abs=1e-4 * home)
    if state.legal[COPY]:
        assert tuple(map(int, state.prefetch)) == tuple(int(part[0]) for part in other.prefetch)
        assert (int(state.start), int(state.offset)) == (int(other.start[0]), int(other.offset[0]))
        assert bool(state.is_late) == bool(other.is_late[0])
        assert float(state.wait) == pytest.approx(float(other.wait[0]), abs=1e-4 * home)


@settings(max_examples=examples(10, 25))
@given(st.integers(0, 29), st.integers(0, 10**6))
@pytest.mark.slow
def test_any_game(number: int, seed: int) -> None:
    game = seeded_game(number)
    arrays, player = arrays_of(game), Player(seed)
    host, state = Host(arrays), init(arrays)
    games = host.starts(np.asarray(state.history)[None])
    same(state, as_states(games), game.home_latency)
    while not state.done:
        action = player.choose(np.asarray(state.legal))
        state = step(arrays, state, action)
        host_kernel.step(host.board, host.moves, games, 0, action)
        same(state, as_states(games), game.home_latency)


def test_what_is_not_legal_is_replaced_and_nothing_follows_the_end() -> None:
    game = seeded_game(2)
    arrays = arrays_of(game)
    host, state = Host(arrays), init(arrays)
    wrong = int(np.argmin(np.asarray(state.legal)))
    for action in (wrong, -1, 99):
        games = host.starts(np.asarray(state.history)[None])
        host_kernel.step(host.board, host.moves, games, 0, action)
        same(step(arrays, state, action), as_states(games), game.home_latency)
    host.follow(games, patience=len(game.moves))
    before = games.copy()
    host_kernel.step(host.board, host.moves, games, 0, COPY)
    assert games["reward"][0] == 0.0
    assert (games["history"] == before["history"]).all()
    assert games["total"] == before["total"]


@pytest.mark.slow
def test_forced_moves_are_made_by_themselves() -> None:
    advance = jax.jit(step_to_choice)
    for seed in (3, 8, 12):
        game = seeded_game(seed)
        arrays, player = arrays_of(game), Player(seed)
        host, state = Host(arrays), init(arrays)
        games = host.starts(np.asarray(state.history)[None])
        while not state.done:
            action = player.choose(np.asarray(state.legal))
            state = advance(arrays, state, action)
            host.step_to_choice(games, np.array([action]), patience=len(game.moves))
            assert int(state.move) == int(games["move"][0])
            np.testing.assert_array_equal(np.asarray(state.history), games["history"][0])


def test_a_batch_follows_histories() -> None:
    game = seeded_game(9)
    host = Host(arrays_of(game))
    generator = np.random.default_rng(0)
    histories = generator.integers(0, 3, (40, len(host.moves))).astype(np.int8)
    games = host.starts(histories)
    host.follow(games, until=np.full(40, 5))
    assert ((games["move"] >= 5) | (games["done"] == 1)).all()
    assert (games["legal"][games["done"] == 0].sum(axis=1) > 1).all(), "it stops at choices"
    host.follow(games, patience=len(game.moves))
    assert games["done"].all()
    for row in range(40):
        reference = replay(game, (games["history"][row] & ACTIONS)[: len(game.moves)])
        assert reference.total == pytest.approx(float(games["total"][row]), abs=1e-4 * game.home_latency)


def test_patience_gives_games_up() -> None:
    found = 0
    for seed in range(14):
        game = seeded_game(seed)
        host = Host(arrays_of(game))
        histories = np.random.default_rng(seed).integers(0, 3, (16, len(host.moves))).astype(np.int8)
        games = host.starts(histories)
        host.follow(games, patience=0)
        given_up = games["backups"] > 0
        assert (games["done"][~given_up] == 1).all()
        assert (games["done"][given_up] == 0).all()
        found += int(given_up.sum())
    assert found > 0


def test_trace_says_what_was_saved_and_where_there_was_no_choice() -> None:
    game = seeded_game(4)
    host = Host(arrays_of(game))
    games = host.starts(np.full((1, len(host.moves)), NO_COPY, np.int8))
    host.follow(games, patience=len(game.moves))
    history = games["history"][0] & np.int8(ACTIONS)
    totals, dropped = host.trace(history)
    assert totals[0] == 0
    assert totals[-1] == games["total"][0]
    assert (history[dropped] == DROP).all()


def test_what_the_champion_had_to_drop_is_taken_by_the_eager() -> None:
    better = 0
    for seed in range(10):
        game = seeded_game(seed)
        host = Host(arrays_of(game))
        drops = np.full((2, len(host.moves)), DROP, np.int8)
        games = host.starts(drops)
        everywhere = np.ones(len(host.moves), np.bool_)
        host.follow(games, patience=len(game.moves), had_to_drop=everywhere, is_eager=np.array([False, True]))
        better += bool(games["total"][1] > games["total"][0])
    assert better > 0


def test_random_games_are_legal_and_differ() -> None:
    game = seeded_game(2)
    games = Host(arrays_of(game)).random_games(range(64))
    assert games["done"].all()
    assert len(set(games["total"].tolist())) > 8
    assert (games["history"] == Host(arrays_of(game)).random_games(range(64))["history"]).all()


def test_residencies_are_those_of_the_reference() -> None:
    copies = 0
    for number in range(12):
        game = seeded_game(number)
        reference = play(game, number)
        found = Host(arrays_of(game)).residencies(game, np.array(reference.history))
        assert set(found) == set(reference.residencies)
        for opened, wanted in reference.residencies.items():
            prefetch = None if wanted.prefetch is None else replace(wanted.prefetch, wait=0.0, leads=False)
            eviction = None if wanted.eviction is None else replace(wanted.eviction, wait=0.0)
            assert found[opened] == replace(wanted, prefetch=prefetch, eviction=eviction)
            copies += (wanted.prefetch is not None) + (wanted.eviction is not None)
        assert assembled(game, found) == make_plan(reference)
    assert copies > 20
    with pytest.raises(PlannerError, match="is not legal"):
        Host(arrays_of(game)).residencies(game, np.zeros(len(game.moves), np.int8))
