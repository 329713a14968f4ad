"""How many devices a module of HLO is for, and whether its sizes are those of one of them.

XLA partitions a program of several devices (SPMD): before that, instructions have the shapes of all devices together
and shardings that say how they are divided; afterwards, they have those of one partition. Arguments and results keep
their shardings then.
"""

from __future__ import annotations

import math
import re

from memplan.compiler.ir.graph import Graph

# {devices=[2,1,4]<=[8]}, with other fields before and after it.
_TILES = re.compile(r"devices=\[([\d,]{1,200})\]")
# {mesh = #sdy.mesh<["a"=2, "b"=2]>}
_MESH = re.compile(r"#sdy\.mesh<\[([^\]>]*)\]")
_AXIS = re.compile(r"=\s*(\d{1,18})")


def num_partitions(graph: Graph) -> int:
    """Returns how many partitions the header of a module states; 1 if it states none."""
    stated = dict(graph.attributes).get("num_partitions", "1")
    return int(stated) if stated.isascii() and stated.isdecimal() and len(stated) < 19 else 1


def sharding_devices(graph: Graph) -> int:
    """Returns over how many devices the shardings of a module divide its values, and its meshes go; 1 for none."""
    devices = [1]
    for mesh in _MESH.findall(dict(graph.attributes).get("frontend_attributes", "")):
        devices.append(math.prod(int(size) for size in _AXIS.findall(mesh)))
    for _, instruction in graph.instructions():
        for tiles in _TILES.findall(instruction.attribute("sharding")):
            devices.append(math.prod(int(size) for size in tiles.split(",") if size))
    return max(devices)


def partition_note(graph: Graph) -> str:
    """Returns what a reader of a plan must know where a module is for several devices; "" where it is for one."""
    if not graph.is_scheduled and (devices := sharding_devices(graph)) > 1:
        return (
            f"the module has shardings over {devices:,} devices and no schedule: if no compiler has divided it yet, "
            "its sizes are those of all devices together"
        )
    partitions = num_partitions(graph)
    if partitions <= 1:
        return ""
    return f"the module is one of {partitions:,} partitions: sizes and times are those of one device"
