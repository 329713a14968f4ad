"""Programs for several devices are refused, wherever that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import memplan
from memplan.compiler.errors import MemplanError

# Newer versions of JAX take axes for explicit unless they are told otherwise.
MESH = AbstractMesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
DIVIDED = NamedSharding(MESH, PartitionSpec("a", "b"))
EXPLICIT = AbstractMesh((2, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
PLAIN = jax.ShapeDtypeStruct((8, 8), jnp.float32)


def on(sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=sharding)


def program(x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ x)


def constrained(x: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(x + 1, DIVIDED)


def within(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 3, lambda _, x: constrained(x), x)


def mapped(x: jax.Array) -> jax.Array:
    spec = PartitionSpec("a", "b")
    return jax.shard_map(lambda part: part + 1, mesh=MESH, in_specs=spec, out_specs=spec)(x)


CASES = {
    "an argument": (program, (on(DIVIDED),)),
    "an argument that all devices have whole": (program, (on(NamedSharding(MESH, PartitionSpec())),)),
    "an argument in a tree": (lambda tree: program(tree["x"][0]), ({"x": [on(DIVIDED)]},)),
    "in_shardings": (jax.jit(program, in_shardings=DIVIDED), (PLAIN,)),
    "out_shardings": (jax.jit(program, out_shardings=DIVIDED), (PLAIN,)),
    "a function within": (lambda x: jax.jit(program, in_shardings=DIVIDED)(x) + 1, (PLAIN,)),
    "a constraint": (constrained, (PLAIN,)),
    "a constraint in a loop": (within, (PLAIN,)),
    "shard_map": (mapped, (PLAIN,)),
    "an argument over explicit axes": (jnp.tanh, (on(NamedSharding(EXPLICIT, PartitionSpec("a", "b"))),)),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str) -> None:
    fun, arguments = CASES[name]
    with pytest.raises(MemplanError, match="is for 4 devices: memplan plans programs of one device"):
        memplan.trace(fun, *arguments)
    with pytest.raises(MemplanError, match="is for 4 devices: memplan plans programs of one device"):
        memplan.jit(fun, target="generic").plan(*arguments)


def test_refused_within_a_mesh() -> None:
    with (
        jax.sharding.use_abstract_mesh(MESH),
        pytest.raises(MemplanError, match="program is for 4 devices: memplan plans programs of one device"),
    ):
        memplan.trace(program, PLAIN)


def test_a_mesh_of_one_device_is_planned() -> None:
    mesh = AbstractMesh((1, 1), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec("a", "b"))
    graph = memplan.trace(lambda x: jax.lax.with_sharding_constraint(program(x), sharding), on(sharding))
    assert [i.opcode for i in graph.entry_computation.instructions] == ["parameter", "dot", "tanh", "bitcast"]


def test_a_mesh_as_a_static_argument_is_no_sharding() -> None:
    assert memplan.trace(lambda x, mesh: program(x), PLAIN, MESH, static_argnums=1).entry == "main"


# As many devices as a process has are set when it starts.
CONCRETE = """
import jax, jax.numpy as jnp, memplan
from jax.sharding import Mesh, NamedSharding, PartitionSpec
mesh = jax.make_mesh((4,), ("a",))
divided = NamedSharding(mesh, PartitionSpec("a"))
x = jnp.ones((8, 8))
placed = jax.device_put(x, divided)
explicit = jax.make_mesh((4,), ("a",), axis_types=(jax.sharding.AxisType.Explicit,))

def refused(fun, *args):
    for attempt in (memplan.trace, lambda fun, *args: memplan.jit(fun, target="generic").plan(*args)):
        try:
            attempt(fun, *args)
        except memplan.MemplanError as error:
            assert "is for 4 devices: memplan plans programs of one device" in str(error), error
        else:
            raise AssertionError(fun)

refused(lambda x: x + 1, placed)
refused(lambda x: x + placed, x)
refused(lambda x: jax.device_put(x, divided) + 1, x)
refused(jax.pmap(lambda x: x + 1), jnp.ones((4, 2)))
with jax.set_mesh(explicit):
    refused(lambda x: jax.sharding.reshard(x, PartitionSpec("a")), x)
assert memplan.trace(lambda x: x + 1, x).entry == "main"
assert memplan.trace(lambda x: x + 1, jax.device_put(x, jax.devices()[2])).entry == "main"
"""


@pytest.mark.slow
def test_arrays_on_several_devices() -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run([sys.executable, "-c", CONCRETE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
