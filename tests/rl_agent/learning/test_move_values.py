"""Values: what they begin with, what they say, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from game_problems import seeded_game

from memplan.compiler.errors import PlannerError
from memplan.rl_agent.learning.values import FEATURES, MoveValues, features_of


def test_features_are_finite_and_tell_moves_apart() -> None:
    features = features_of(seeded_game(4))
    assert features.shape[1] == len(FEATURES)
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 10.0
    assert len(np.unique(features, axis=0)) > 3


def test_the_policy_prefers_what_is_worth_more() -> None:
    values = MoveValues.new(2)
    features = np.zeros((2, len(FEATURES)))
    np.testing.assert_allclose(values.policy(features), 1 / 3)
    values.items[0] = 0.0, 2.0, -1.0
    policy = values.policy(features)
    assert policy[0].argmax() == 1
    np.testing.assert_allclose(policy.sum(axis=1), 1.0)
    features[1, 0], values.weights[0] = 1.0, (3.0, 0.0, 0.0)
    assert values.policy(features)[1].argmax() == 0, "features count as well"


def test_copies_learn_apart() -> None:
    values = MoveValues.new(2)
    other = values.copy()
    other.items[0, 0] = 1.0
    assert values.items[0, 0] == 0.0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PlannerError, match="weights of features"):
        MoveValues.new(2, np.zeros((3, 3)))
    values = MoveValues.new(2)
    with pytest.raises(PlannerError, match="items are not finite numbers of shape"):
        values.restore(MoveValues.new(3).state())
    with pytest.raises(PlannerError, match="items are not finite"):
        values.restore({**values.state(), "items": np.full((2, 3), np.nan)})
