"""Tests of learning compile for few sizes."""

from collections.abc import Iterator

import pytest
from learning_problems import padding_of_games

from memplan.rl_agent.game.arrays import Padding


@pytest.fixture(scope="module", autouse=True)
def _few_sizes(prepared: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Sizes that these problems share, and no larger.
        patch.setattr(Padding, "rounded", staticmethod(padding_of_games))
        yield
