"""memplan.jit for TPUs that are not here, with the real compiler."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from libtpu_process import run_with_libtpu

import memplan

pytestmark = pytest.mark.tpu

TOPOLOGIES = """
import jax, jax.numpy as jnp, numpy as np, memplan
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from memplan.backends.jit import machine, planning
from memplan.backends.tpu.compile import TOPOLOGY_OF_TARGET, TpuCompiler

devices = {
    target: topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    for target, topology in TOPOLOGY_OF_TARGET.items()
}
for target, described in devices.items():
    assert machine.target_of(described[0]) == target, described[0].device_kind
    assert not machine.is_here(described[0])

def argument(sharding):
    return jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=sharding)

def step(x):
    return jnp.tanh(x @ x)

on_one = argument(SingleDeviceSharding(devices["tpu-v5e"][1]))
for target in (None, "tpu-v5e"):
    lowered = memplan.jit(step, target=target).lower(on_one)
    assert planning.number_of_devices(lowered) == 1
    with TpuCompiler(use_cache=False) as compiler:
        assert "is_scheduled=true" in compiler.compile(planning.module_of(lowered), "v5e:2x2").text
try:
    memplan.jit(step, target="tpu-v4").lower(on_one)
except memplan.MemplanError as error:
    assert str(error) == "the arguments' shardings are of tpu-v5e, the target is tpu-v4"
else:
    raise AssertionError("a sharding of another chip was taken")
mesh = Mesh(np.array(devices["tpu-v5e"]).reshape(4), "d")
lowered = memplan.jit(step).lower(argument(NamedSharding(mesh, PartitionSpec("d"))))
try:
    lowered.compile()
except memplan.MemplanError as error:
    assert str(error) == "the program is for 4 devices: memplan plans programs of one device"
else:
    raise AssertionError("a program for four devices was planned")
"""


def test_shardings_of_a_topology(tmp_path: Path) -> None:
    run_with_libtpu(TOPOLOGIES, MEMPLAN_CACHE=str(tmp_path))


def test_compiled_with_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path))

    def step(x: jax.Array, w: jax.Array, *, scale: float) -> jax.Array:
        return jnp.tanh(x @ w) @ w * scale

    planned = memplan.jit(step, target="tpu-v5e", static_argnames="scale", donate_argnums=0, compile_budget=2)
    x = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16)
    compiled = planned.lower(x, x, scale=2.0).compile()
    assert "is_scheduled=true" in compiled.as_text()
    assert compiled.outcome.ratio <= 1.0
    assert memplan.verify(compiled.outcome.problem, compiled.plan) == []
    assert compiled.report().subject.latency > 0
    assert compiled.memory_analysis().argument_size_in_bytes == 2 * 256 * 256 * 2
    found = planned.plan(x, x, scale=2.0)
    assert found.outcome is not None
    assert found.outcome.best.text == compiled.as_text()
