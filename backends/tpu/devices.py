"""The devices of a TPU slice that a program is compiled for.

A program of several devices is one module, which each of them runs on its part of the data (SPMD): the compiler divides
it by its shardings. Which device runs which part matters to collectives, so the compiler is told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from memplan.compiler.errors import MemplanError

# The smallest slice with a whole host, whose first device stands for a target where a program is for one.
TOPOLOGY_OF_TARGET: dict[str, str] = {
    "tpu-v4": "v4:2x2x1",
    "tpu-v5e": "v5e:2x2",
    "tpu-v5p": "v5p:2x2x1",
    "tpu-v6e": "v6e:2x2",
    "tpu-7x": "tpu7x:2x2x1",
}

# A chip of these has two devices.
_TWO_DEVICES = frozenset({"tpu-v4", "tpu-7x"})

# The largest slices that Google sells have fewer devices.
_MOST_DEVICES = 2**15

_AXES = re.compile(r"<\[(.*?)\]")
_SIZE = re.compile(r"=\s*(\d{1,9})")


@dataclass(frozen=True)
class TpuSlice:
    """Devices of a slice.

    Attributes:
      topology: name of the slice, such as `v5e:2x2`.
      devices: their ids, in the order of the program's partitions. If there are none, as many as the program has
        partitions are taken: the program's mesh is laid over the slice so that neighbours in the mesh are near.
    """

    topology: str
    devices: tuple[int, ...] = ()


def slice_of(target: str, partitions: int) -> TpuSlice:
    """Returns the smallest slice that has devices for all partitions of a program.

    >>> slice_of("tpu-v5e", 8).topology, slice_of("tpu-v4", 8).topology, slice_of("tpu-v5p", 64).topology
    ('v5e:2x4', 'v4:2x2x1', 'v5p:4x4x4')

    Args:
      target: a name in `TOPOLOGY_OF_TARGET`.
      partitions: how many the program has.

    Raises:
      MemplanError: there is no such slice.
    """
    prefix, _, shape = TOPOLOGY_OF_TARGET[target].partition(":")
    if partitions > _MOST_DEVICES:
        raise MemplanError(f"no slice of {target} has {partitions:,} devices")
    sides = [int(side) for side in shape.split("x")]
    while math.prod(sides) * (2 if target in _TWO_DEVICES else 1) < partitions:
        shortest = max(i for i, side in enumerate(sides) if side == min(sides))
        sides[shortest] *= 2
    return TpuSlice(f"{prefix}:{'x'.join(map(str, sides))}")


def slice_of_devices(target: str, devices: Sequence[Any]) -> TpuSlice:
    """Returns the slice that some devices of JAX are of, whether they are here or a topology describes them.

    Args:
      target: of the devices, a name in `TOPOLOGY_OF_TARGET`.
      devices: in the order of the program's partitions.
    """
    prefix, _, shape = TOPOLOGY_OF_TARGET[target].partition(":")
    places = [device.coords for device in devices[0].client.devices()]
    sides = [max(place[axis] for place in places) + 1 for axis in range(shape.count("x") + 1)]
    return TpuSlice(f"{prefix}:{'x'.join(map(str, sides))}", tuple(device.id for device in devices))


def partitions_of(module: Any) -> int:
    """Returns how many devices an MLIR module of StableHLO is for.

    The module says so itself, except where its mesh is abstract and its arguments have no shardings: then only the mesh
    does.
    """
    attributes = module.operation.attributes
    counts = [attributes[name].value for name in ("mhlo.num_partitions", "mhlo.num_replicas") if name in attributes]
    return max([1, *counts, *(math.prod(sizes) for sizes in meshes(module))])


def meshes(module: Any) -> list[tuple[int, ...]]:
    """Returns the sizes of the axes of each mesh of an MLIR module."""
    return [_sizes(str(operation)) for operation in module.body.operations if operation.operation.name == "sdy.mesh"]


def _sizes(mesh: str) -> tuple[int, ...]:
    """Returns the sizes of the axes of a mesh in its text.

    >>> _sizes('sdy.mesh @mesh = <["data"=2, "model"=4], device_ids=[3, 2, 1, 0]>')
    (2, 4)
    """
    axes = _AXES.search(mesh)
    return tuple(int(size) for size in _SIZE.findall(axes[1])) if axes else ()


def unstated(module: Any) -> tuple[list[bool], list[bool]]:
    """Returns for each argument and each result of an MLIR module whether the compiler chooses its sharding."""
    from jaxlib.mlir import ir

    (main,) = [
        operation
        for operation in module.body.operations
        if "sym_name" in operation.attributes and ir.StringAttr(operation.attributes["sym_name"]).value == "main"
    ]
    function = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)

    def of(types: Iterable[Any], attribute: str) -> list[bool]:
        known = list(types)
        found = list(main.attributes[attribute]) if attribute in main.attributes else [{}] * len(known)
        return [
            "token" not in str(kind) and not any(name in each for name in ("sdy.sharding", "mhlo.sharding"))
            for kind, each in zip(known, found, strict=True)
        ]

    return of(function.inputs, "arg_attrs"), of(function.results, "res_attrs")
