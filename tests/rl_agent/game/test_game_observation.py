"""What a player sees: shapes, ranges, and that it says what is so."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
from game_problems import Player, arrays_of, init, seeded_game, step

from memplan.rl_agent.game.moves import COPY
from memplan.rl_agent.game.observation import FACTS, ITEM_FEATURES, View, observe
from memplan.rl_agent.game.reference import Reference

VIEW = View(before=6, after=4, columns=8, slots=5, items=3)
see = jax.jit(partial(observe, view=VIEW))


def feature(items: np.ndarray, name: str) -> np.ndarray:
    return items[:, ITEM_FEATURES.index(name)]


@pytest.mark.parametrize("seed", [2, 5, 9])
def test_what_is_seen_is_so(seed: int) -> None:
    game = seeded_game(seed)
    arrays, reference, player = arrays_of(game), Reference(game), Player(seed)
    state = init(arrays)
    seen_taken = False
    while not reference.done:
        seen = see(arrays, state)
        assert [part.shape for part in seen] == [(10, 8), (5, 2), (3, len(ITEM_FEATURES)), (len(FACTS),)]
        for part in map(np.asarray, seen):
            assert np.isfinite(part).all()
            assert (np.abs(part) <= 1.0).all()
        facts = dict(zip(FACTS, np.asarray(seen.facts).tolist(), strict=True))
        assert [facts["can_copy"], facts["can_stay"], facts["can_drop"]] == list(map(float, reference.legal))
        prefetch = reference.choices.prefetch
        if reference.legal[COPY]:
            assert prefetch is not None
            eviction = reference.choices.eviction
            wait = (
                (prefetch.wait + (0.0 if eviction is None else eviction.wait))
                * game.supply.repetitions[game.moves[reference.move].done]
                / game.home_latency
            )
            assert facts["is_late"] == float(prefetch.is_late)
            assert facts["wait"] == pytest.approx(min(wait, 1.0), abs=1e-4)
        assert facts["progress"] == pytest.approx(reference.move / len(game.moves))
        move, chain = game.moves[reference.move], reference.chains[game.moves[reference.move].chain]
        items = np.asarray(seen.items)
        assert feature(items, "size")[0] == pytest.approx(move.size / game.num_units)
        assert bool(feature(items, "reads")[0]) == move.reads
        assert bool(feature(items, "is_open")[0]) == (chain.opened >= 0)
        assert bool(feature(items, "is_covered")[0]) == reference._is_covered(move)
        assert feature(items, "is_there").sum() == min(3, len(game.moves) - reference.move)
        # The row of the board at the move's own time: the part of each column that is taken or kept then.
        units = np.array(reference.busy_until + [2**30] * (16 - game.num_units))
        is_taken = (units > move.start) | (np.arange(16) < game.reserved[move.start])
        np.testing.assert_allclose(np.asarray(seen.board)[VIEW.before], is_taken.reshape(8, 2).mean(1))
        seen_taken |= bool(is_taken[: game.num_units].any())
        action = player.choose(reference.legal)
        reference.step(action)
        state = step(arrays, state, action)
    assert seen_taken


def test_supply_is_a_share_of_what_the_copy_needs() -> None:
    for seed in range(30):
        game = seeded_game(seed)
        arrays, reference = arrays_of(game), Reference(game)
        state = init(arrays)
        while not reference.done:
            if reference.legal[COPY]:
                supply = np.asarray(see(arrays, state).supply)
                prefetch = reference.choices.prefetch
                assert prefetch is not None
                move = game.moves[reference.move]
                if prefetch.first == prefetch.last >= move.done - VIEW.slots:
                    assert supply[prefetch.first - move.done + VIEW.slots, 0] == 1.0
                    return
            action = reference.legal.index(True)
            reference.step(action)
            state = step(arrays, state, action)
    raise AssertionError("no copy was possible in any game")
