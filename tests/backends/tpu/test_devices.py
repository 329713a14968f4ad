"""Which slice a program is compiled for, and which of its devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

from memplan.backends.jit.lowering import devices_of, lower_for_tpu
from memplan.backends.jit.planning import TpuProgram
from memplan.backends.tpu.devices import (
    TOPOLOGY_OF_TARGET,
    TpuSlice,
    meshes,
    partitions_of,
    slice_of,
    slice_of_devices,
    unstated,
)
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import load_target

MESH = AbstractMesh((2, 2), ("data", "model"))
X = jax.ShapeDtypeStruct((8, 8), jnp.float32)


def sharded(*spec: str | None) -> Any:
    return X.update(sharding=NamedSharding(MESH, P(*spec)))


def lowered(fun: Any, *args: Any, **options: Any) -> Any:
    return lower_for_tpu(jax.jit(fun, **options).trace(*args))


@pytest.mark.parametrize(
    ("target", "partitions", "topology"),
    [
        ("tpu-v5e", 1, "v5e:2x2"),
        ("tpu-v5e", 3, "v5e:2x2"),
        ("tpu-v5e", 5, "v5e:2x4"),
        ("tpu-v6e", 256, "v6e:16x16"),
        ("tpu-v5p", 8, "v5p:2x2x2"),
        ("tpu-v5p", 16, "v5p:2x2x4"),
        ("tpu-v4", 8, "v4:2x2x1"),
        ("tpu-7x", 16, "tpu7x:2x2x2"),
    ],
)
def test_the_smallest_slice(target: str, partitions: int, topology: str) -> None:
    assert slice_of(target, partitions) == TpuSlice(topology)


def test_a_slice_that_nobody_has() -> None:
    with pytest.raises(MemplanError, match="no slice of tpu-v5e has 100,000 devices"):
        slice_of("tpu-v5e", 100_000)


@dataclass(frozen=True)
class Device:
    id: int
    coords: tuple[int, int, int]
    client: Any = field(compare=False, default=None)


@dataclass
class Client:
    known: list[Device] = field(default_factory=list)

    def devices(self) -> list[Device]:
        return self.known


def test_the_slice_of_devices() -> None:
    """Its sides are those of all its devices, not only of those that run the program."""
    client = Client()
    client.known = [Device(4 * y + x, (x, y, 0), client) for y in range(2) for x in range(4)]
    assert slice_of_devices("tpu-v5e", client.known[5:3:-1]) == TpuSlice("v5e:4x2", (5, 4))
    assert slice_of_devices("tpu-v5p", client.known[:2]) == TpuSlice("v5p:4x2x1", (0, 1))


def test_what_a_module_says_of_its_devices() -> None:
    module = lowered(
        lambda x, y, z: (x @ y, x + z),
        sharded("data"),
        sharded(None, "model"),
        X,
        out_shardings=(None, NamedSharding(MESH, P("data"))),
    ).compiler_ir("stablehlo")
    assert partitions_of(module) == 4
    assert meshes(module) == [(2, 2)]
    assert unstated(module) == ([False, False, True], [True, False])


def test_one_device() -> None:
    module = lowered(jnp.sin, X).compiler_ir("stablehlo")
    assert (partitions_of(module), meshes(module), unstated(module)) == (1, [], ([True], [True]))


@pytest.mark.parametrize(
    "fun",
    [
        jax.shard_map(lambda x: jax.lax.psum(x, "data"), mesh=MESH, in_specs=P("data"), out_specs=P()),
        lambda x: jax.lax.with_sharding_constraint(x @ x, NamedSharding(MESH, P("data", "model"))),
    ],
    ids=["shard_map", "constraint"],
)
def test_a_mesh_counts_where_arguments_have_no_shardings(fun: Any) -> None:
    """JAX itself says of such a module that it has one partition."""
    assert partitions_of(lowered(fun, X).compiler_ir("stablehlo")) == 4


def test_programs_of_one_device_and_of_several() -> None:
    target = load_target("tpu-v5p")
    assert TpuProgram.of(lowered(jnp.sin, X), target).slice is None
    four = lowered(jnp.sin, sharded("data", "model"))
    assert devices_of(four) == ()
    assert TpuProgram.of(four, target).slice == TpuSlice(TOPOLOGY_OF_TARGET["tpu-v5p"])
    with pytest.raises(MemplanError, match="no compiler carries out plans for h200"):
        TpuProgram.of(four, load_target("h200"))


def test_devices_of_another_platform_stand_for_those_of_the_target() -> None:
    """The sharding is of a CPU here, and one device of it runs the whole program."""
    here = jax.make_mesh((1,), ("x",), devices=jax.devices()[:1])
    program = lowered(jnp.sin, X.update(sharding=NamedSharding(here, P("x"))))
    assert devices_of(program) == (jax.devices()[0],)
    assert TpuProgram.of(program, load_target("tpu-v5e")).slice is None
