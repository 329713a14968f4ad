"""How many devices a JAX program is for: a Graph is made of programs of one.

The shapes in the jaxpr of a program for several devices are those of all of them together, or of one within a
`shard_map`. On one device they would be planned wrongly, so such programs are refused. What one of several devices
runs is known once a compiler has divided the program: `memplan.jit` plans that on TPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, Sharding

from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import jaxpr_versions as versions


class SeveralDevicesError(MemplanError):
    """A program is for several devices.

    Args:
      name: of the program.
      devices: how many they are.
    """

    def __init__(self, name: str, devices: int):
        super().__init__(
            f"{name} is for {devices} devices: memplan plans programs of one device here; on TPUs, memplan.jit and "
            "memplan compile plan those of several"
        )


def demand_one_device(traced: Any, arguments: Iterable[Any]) -> None:
    """Raises SeveralDevicesError if a program is for several devices.

    Args:
      traced: what `jax.jit(…).trace(…)` returned.
      arguments: the leaves of what it was traced for. Committed arrays and `jax.ShapeDtypeStruct`s may have shardings.
    """
    meshes = [jax.sharding.get_abstract_mesh(), *versions.stated_shardings(traced)]
    placed = [getattr(leaf, "sharding", None) for leaf in arguments if getattr(leaf, "committed", True)]
    devices = max(map(_devices, [*meshes, *placed, *_values(traced.jaxpr)]))
    if devices > 1:
        raise SeveralDevicesError(traced.fun_name, devices)


def _devices(value: Any) -> int:
    """Returns the number of devices of a sharding, a mesh, or what has a sharding; 1 for anything else."""
    if isinstance(value, Mesh | AbstractMesh):
        return int(value.size)
    if not isinstance(value, Sharding):
        value = getattr(value, "sharding", None)
    return int(value.num_devices) if isinstance(value, Sharding) else 1


def _values(jaxpr: Any) -> Iterator[Any]:
    """Yields the parameters of all equations, those of nested jaxprs included."""
    seen: set[int] = set()
    waiting = [jaxpr]
    while waiting:
        inner, constants = versions.opened(waiting.pop())
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        yield from constants
        for equation in inner.eqns:
            for parameter in equation.params.values():
                for value in parameter if isinstance(parameter, tuple | list) else (parameter,):
                    if versions.is_jaxpr(value):
                        waiting.append(value)
                    else:
                        yield value
