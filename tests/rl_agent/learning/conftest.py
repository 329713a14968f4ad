"""Tests of learning compile for few sizes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from learning_problems import padding_of_games

from memplan.rl_agent.game.arrays import Padding


@pytest.fixture(scope="module", autouse=True)
def _few_sizes(compiled: Path, prepared: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # For the processes that tests start.
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(compiled))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        # Sizes that these problems share, and no larger.
        patch.setattr(Padding, "rounded", staticmethod(padding_of_games))
        yield
