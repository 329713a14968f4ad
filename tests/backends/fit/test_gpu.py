"""Programs for a GPU that is not here, by the word of its compiler."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from memplan import MemplanError
from memplan.backends.fit.fit import fit
from memplan.backends.gpu import compile as gpu_compile
from memplan.backends.gpu.chips import TARGET_CONFIGS
from memplan.backends.gpu.compile import GpuCompiler
from memplan.backends.tpu import worker
from memplan.compiler.hardware.target import load_target

MIB = 2**20


def step(weights: list[jax.Array], x: jax.Array) -> list[jax.Array]:
    def loss(weights: list[jax.Array]) -> jax.Array:
        y = x
        for w in weights:
            y = jnp.tanh(y @ w)
        return jnp.mean(y * y)

    return [w - 0.1 * g for w, g in zip(weights, jax.grad(loss)(weights), strict=True)]


ARGS = ([jax.ShapeDtypeStruct((256, 256), jnp.float32)] * 6, jax.ShapeDtypeStruct((8192, 256), jnp.float32))


def test_a_missing_plugin_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_compile, "find_spec", lambda _: None)
    with pytest.raises(MemplanError, match=f"pip install jax-cuda12-plugin=={version('jaxlib')}$"):
        fit(step, *ARGS, limit="30MiB", target="h200")


def test_the_plugin_is_found_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"jax_plugins", "jax_plugins.xla_cuda13"}
    monkeypatch.setattr(gpu_compile, "find_spec", lambda name: name if name in there else None)
    monkeypatch.setattr(gpu_compile, "version", lambda name: {"jax-cuda13-plugin": "9.8"}.get(name, "1.0"))
    assert GpuCompiler().versions() == ["1.0", "cuda13 9.8"]
    GpuCompiler().demand()


def test_a_gpu_is_described_to_its_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Description:
        devices = ("a device",)

    def get_topology_desc(**options: Any) -> Description:
        asked.append(options)
        return Description()

    monkeypatch.setattr(topologies, "get_topology_desc", get_topology_desc)
    compiler = worker._Compiler()
    assert compiler.slice("h200") == compiler.slice("h200") == ["a device"]
    assert asked == [{"platform": "cuda", "target_config": TARGET_CONFIGS["h200"], "topology": "1x1x1"}]


@pytest.mark.parametrize("name", TARGET_CONFIGS)
def test_chips_agree_with_their_targets(name: str) -> None:
    target, lines = load_target(name), [line.split() for line in TARGET_CONFIGS[name].splitlines()]
    figures = {words[0]: words[1] for words in lines if len(words) == 2}
    (memory,) = [space for space in target.spaces if space.name == "hbm"]
    assert int(figures["device_memory_size:"]) == memory.size
    assert float(figures["memory_bandwidth:"]) == memory.peak_bandwidth


@pytest.mark.skipif(
    importlib.util.find_spec("jax_plugins") is None or gpu_compile._plugin() is None,
    reason="JAX's CUDA plugin, which is not among the tests' requirements, is half a gigabyte",
)
def test_a_step_fits_by_the_word_of_the_gpu_compiler() -> None:
    given = fit(step, *ARGS, limit="1GiB", target="h200", effort="fast")
    assert given.is_default
    assert given.memory.temporaries > 6 * 8 * MIB
    limit = given.memory.interface + int(0.8 * given.memory.temporaries)
    result = fit(step, *ARGS, limit=limit, target="h200", effort="fast")
    assert result.memory.total <= limit
    assert result.default == given.memory
    assert any(each.decision == "computed again" for each in result.decisions)
