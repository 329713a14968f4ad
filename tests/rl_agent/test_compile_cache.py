"""What JAX compiles for the agent is kept with checksums, and works without a cache."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from memplan.compiler import cache as caches
from memplan.compiler.cache import CacheWarning
from memplan.rl_agent import compile_cache
from memplan.rl_agent.compile_cache import keeping_compiled


@pytest.fixture(autouse=True)
def _no_cache_of_jax(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    monkeypatch.setattr(caches, "_said", set())
    yield
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])


def compute() -> float:
    jax.clear_caches()
    with keeping_compiled():
        return float(jax.jit(lambda x: jnp.sin(x) * 2.0 + 1.0)(0.0))


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "jax").rglob("*") if path.is_file())


def test_what_is_compiled_is_kept_and_damage_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compute() == 1.0
        kept = {path: path.read_bytes() for path in entries(tmp_path)}
        assert kept
        assert compute() == 1.0
    assert {path: path.read_bytes() for path in entries(tmp_path)} == kept
    for path, content in kept.items():
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.warns(CacheWarning, match="damaged entry") as said:
        assert compute() == 1.0
    assert len(said) == 1
    assert set(entries(tmp_path)) == set(kept)
    assert all(caches.opened(path.read_bytes()) for path in kept)
    assert jax.config.jax_compilation_cache_dir is None


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path / "file"))
    with pytest.warns(CacheWarning, match="there is no cache in") as said:
        assert compute() == 1.0
    assert len(said) == 1
    assert compute() == 1.0


def test_another_implementation_of_jax_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path))
    monkeypatch.setattr(compile_cache, "_implementation", lambda: None)
    assert compute() == 1.0
    assert not (tmp_path / "jax").exists()
