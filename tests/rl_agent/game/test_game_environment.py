"""The game in JAX: move by move the same as the reference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from game_problems import (
    PADDING,
    Player,
    arrays_of,
    init,
    init_batch,
    play,
    seeded_game,
    small_game,
    step,
    step_batch,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import problems
from thorough import examples

import memplan
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.rl_agent.game.arrays import Padding, make_arrays
from memplan.rl_agent.game.environment import init_to_choice, step_to_choice
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.moves import ACTIONS, COPY, DROP, NO_COPY
from memplan.rl_agent.game.plan import make_plan, replay
from memplan.rl_agent.game.reference import Reference
from memplan.rl_agent.game.state import State
from memplan.workloads import dumps_folder


def same(reference: Reference, state: State) -> None:
    """What is decided and what is possible next are exactly the same; seconds are up to rounding."""
    choices = reference.choices
    assert tuple(np.asarray(state.legal).tolist()) == reference.legal
    assert bool(state.done) == reference.done
    assert bool(state.is_dead) == reference.is_dead
    assert (int(state.move), int(state.backups)) == (reference.move, reference.backups)
    assert int(state.stays) == reference.stays
    home = reference.game.home_latency
    assert float(state.reward) == pytest.approx(reference.reward, abs=1e-4 * home)
    assert float(state.total) == pytest.approx(reference.total, abs=1e-4 * home)
    if reference.done:
        return
    if choices.offset >= 0:
        assert (int(state.offset), int(state.start)) == (choices.offset, choices.start)
    if choices.legal[COPY]:
        assert choices.prefetch is not None
        assert tuple(map(int, state.prefetch)) == (choices.prefetch.first, choices.prefetch.last, choices.prefetch.rest)
        assert bool(state.is_late) == choices.prefetch.is_late
        assert float(state.wait) == pytest.approx(choices.prefetch.wait, abs=1e-4 * home)
    if choices.eviction is not None:
        assert tuple(map(int, state.eviction)) == (choices.eviction.first, choices.eviction.last, choices.eviction.rest)
        assert float(state.eviction_wait) == pytest.approx(choices.eviction.wait, abs=1e-4 * home)


def play_both(game: Game, seed: int) -> tuple[Reference, State]:
    """Plays a game at random in both; returns them after the end."""
    arrays, player = arrays_of(game), Player(seed)
    reference, state = Reference(game), init(arrays)
    same(reference, state)
    while not reference.done:
        action = player.choose(reference.legal)
        reference.step(action)
        state = step(arrays, state, action)
        same(reference, state)
    assert (np.asarray(state.history) & ACTIONS)[: len(game.moves)].tolist() == reference.history
    length, units = len(game.slots.time), game.num_units
    assert np.asarray(state.left)[:length].tolist() == reference.slot_supply.left
    assert np.asarray(state.owner)[:length].tolist() == reference.slot_supply.owner
    assert np.asarray(state.issued)[:length].tolist() == reference.slot_supply.issued
    open_units = ~game.blocked
    assert (np.asarray(state.busy_until)[:units][open_units] == np.array(reference.busy_until)[open_units]).all()
    return reference, state


@settings(max_examples=examples(10, 30))
@given(problems(max_length=10, depth=1), st.integers(0, 10**6))
@pytest.mark.slow
def test_any_game(problem: MappingProblem, seed: int) -> None:
    play_both(small_game(problem), seed)


@pytest.mark.slow
def test_games_with_backups_loops_and_conditionals() -> None:
    backups = 0
    for seed in range(14):
        reference, _ = play_both(seeded_game(seed), seed)
        backups += reference.backups
    assert backups > 3


@pytest.mark.slow
def test_different_problems_in_one_batch() -> None:
    games = [seeded_game(seed) for seed in range(6)]
    batch = jax.tree.map(lambda *parts: np.stack(parts), *(arrays_of(game) for game in games))
    references = [Reference(game) for game in games]
    players = [Player(seed) for seed in range(len(games))]
    state = init_batch(batch)
    for _ in range(60):
        actions = [
            DROP if reference.done else player.choose(reference.legal)
            for reference, player in zip(references, players, strict=True)
        ]
        for reference, action in zip(references, actions, strict=True):
            if not reference.done:
                reference.step(action)
        state = step_batch(batch, state, jnp.array(actions))
        assert state.legal.tolist() == [list(reference.legal) for reference in references]
        assert state.move.tolist() == [reference.move for reference in references]
    totals = [reference.total / reference.game.home_latency for reference in references]
    homes = np.array([game.home_latency for game in games])
    np.testing.assert_allclose(np.asarray(state.total) / homes, totals, atol=1e-4)


def test_after_the_end_nothing_changes() -> None:
    game = seeded_game(4)
    _, state = play_both(game, 0)
    after = step(arrays_of(game), state, COPY)
    assert float(after.reward) == 0.0
    assert not np.asarray(after.legal).any()
    for name in ("move", "total", "backups", "history", "left", "owner", "busy_until", "held_until", "done"):
        np.testing.assert_array_equal(getattr(after, name), getattr(state, name), name)


def test_an_action_that_is_not_legal_is_replaced() -> None:
    arrays = arrays_of(seeded_game(2))
    state = init(arrays)
    wrong = int(np.argmin(np.asarray(state.legal)))
    assert not state.legal[wrong]
    first = int(np.argmax(np.asarray(state.legal)))
    for action in (wrong, -1, 99):
        after = step(arrays, state, action)
        assert int(after.history[0]) == first
        assert int(after.move) == 1


@pytest.mark.slow
def test_forced_moves_are_made_by_themselves() -> None:
    for seed in (3, 8, 12)[: examples(1, 3)]:
        game = seeded_game(seed)
        arrays, player = arrays_of(game), Player(seed)
        state = jax.jit(init_to_choice)(arrays)
        advance = jax.jit(step_to_choice)
        total = float(state.reward)
        while not state.done:
            assert int(state.legal.sum()) > 1
            state = advance(arrays, state, player.choose(np.asarray(state.legal)))
            total += float(state.reward)
        reference = replay(game, np.asarray(state.history) & ACTIONS)
        assert total == pytest.approx(reference.total, abs=1e-4 * game.home_latency)


def test_the_same_actions_make_the_same_game() -> None:
    game = seeded_game(5)
    _, one = play_both(game, 7)
    _, other = play_both(game, 7)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_problem_that_is_larger_than_the_padding() -> None:
    game = seeded_game(19)
    with pytest.raises(PlannerError, match=r"random needs moves=\d+ in the game's padding, which has 1"):
        make_arrays(game, Padding(1, 64, 64, 64, 16, PADDING.reach))
    with pytest.raises(PlannerError, match="reach=12 in the game's padding, which has 13"):
        make_arrays(game, Padding(512, 256, 64, 64, 16, 13))


def test_padding_that_suits_several_games() -> None:
    games = [seeded_game(seed) for seed in (1, 2, 19)]
    padding = Padding.of(*games)
    assert padding.moves % 64 == 0
    assert {tuple(part.shape for part in make_arrays(game, padding)) for game in games} == {
        tuple(part.shape for part in make_arrays(games[0], padding))
    }


def test_a_program_without_choices() -> None:
    game = seeded_game(0)
    nothing = Game(
        MappingProblem("empty", "test", game.problem.spaces, game.problem.links, game.problem.regions[:1], (), ()),
        units=16,
        reach=12,
    )
    state = init(arrays_of(nothing))
    assert bool(state.done)
    assert not np.asarray(state.legal).any()
    assert Reference(nothing).done


@pytest.mark.slow
def test_a_real_program() -> None:
    """The LSTM as compiled for TPU v5e: what stays where it is, then what can be copied, then the rest at home."""
    graph = memplan.read(dumps_folder() / "lstm.tpu-v5e.default.hlo.txt.gz")
    problem = memplan.problem(graph, "tpu-v5e")
    game = Game(problem, units=512, reach=12)
    arrays = make_arrays(game)
    reference, state = Reference(game), init(arrays)
    while not reference.done:
        action = next(action for action in (NO_COPY, COPY, DROP) if reference.legal[action])
        reference.step(action)
        state = step(arrays, state, action)
        same(reference, state)
    plan = make_plan(reference)
    assert verify(problem, plan) == []
    latency = TimingEmulator(problem).latency(plan)
    assert latency == pytest.approx(game.home_latency - reference.total, rel=1e-9)
    assert latency < 0.95 * game.home_latency


def test_a_random_game_is_the_same_in_every_process() -> None:
    first, second = play(seeded_game(11), 5), play(small_game(seeded_game(11).problem), 5)
    assert first.history == second.history
