"""Tests of learning compile each function once, and fast rather than well."""

from collections.abc import Iterator

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from learning_problems import padding_of_games

from memplan.rl_agent.game.arrays import Padding


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of what was compiled."""
    return str(tmp_path_factory.mktemp("jax"))


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(compiled: str) -> Iterator[None]:
    folder = compiled
    settings = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_disable_most_optimizations": True,
    }
    before = {
        "jax_compilation_cache_dir": None,
        "jax_persistent_cache_min_compile_time_secs": 1.0,
        "jax_disable_most_optimizations": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        # For the processes that tests start.
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        # Sizes that most of these problems share, and no larger.
        patch.setattr(Padding, "rounded", staticmethod(padding_of_games))
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()
