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
import re
import jax, jax.numpy as jnp, numpy as np, memplan
from jax.experimental import topologies
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from memplan.backends.jit import machine, planning
from memplan.backends.tpu.compile import TpuCompiler
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET

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
rows = argument(NamedSharding(mesh, PartitionSpec("d")))

def program(text):  # the instructions of a module, without where they were written
    found = [re.sub(", metadata={[^}]*}", "", line) for line in text.splitlines() if " = " in line]
    return [line for line in found if "HloModule" not in line]

usual = jax.jit(step).lower(rows).compile().as_text()
planned = memplan.jit(step, compile_budget=2)
compiled = planned.lower(rows).compile()
assert program(compiled.outcome.default.text) == program(usual)
assert compiled.outcome.ratio <= 1.0 and "num_partitions=4" in compiled.as_text()
assert compiled.memory_analysis().argument_size_in_bytes == 256 * 256 * 4 // 4
assert planned.plan(rows).outcome.best.text == compiled.as_text()

# Which device runs which part counts.
other = Mesh(mesh.devices[[0, 3, 1, 2]], "d")
crossed = memplan.jit(step, compile_budget=1).lower(argument(NamedSharding(other, PartitionSpec("d"))))
assert planning.TpuProgram.of(crossed, memplan.load_target("tpu-v5e")).slice.devices == (0, 3, 1, 2)
assert "num_partitions=4" in crossed.compile().as_text()

# With an abstract mesh no argument needs to say anything.
halves = AbstractMesh((2,), ("d",))
summed = jax.shard_map(lambda x: jax.lax.psum(x, "d"), mesh=halves, in_specs=PartitionSpec("d"), out_specs=PartitionSpec())
compiled = memplan.jit(summed, target="tpu-v6e", compile_budget=1).lower(argument(None)).compile()
assert "num_partitions=2" in compiled.as_text() and " all-reduce(" in compiled.as_text()
"""


@pytest.mark.slow
def test_shardings_of_a_topology(tmp_path: Path) -> None:
    run_with_libtpu(TOPOLOGIES, MEMPLAN_CACHE=str(tmp_path))


@pytest.mark.slow
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
