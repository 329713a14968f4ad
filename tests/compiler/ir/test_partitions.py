"""How many devices a module is for, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import memplan
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir.partitions import num_partitions, partition_note, sharding_devices

MODULE = """
HloModule m, is_scheduled={scheduled}{header}

ENTRY e {{
  a = f32[64,64]{{1,0}} parameter(0){sharding}
  ROOT b = f32[64,64]{{1,0}} tanh(a)
}}
"""
DATA = Path(__file__).parents[1] / "frontends" / "data"


def module(scheduled: bool = True, header: str = "", sharding: str = "") -> str:
    return MODULE.format(scheduled=str(scheduled).lower(), header=header, sharding=sharding)


@pytest.mark.parametrize(
    ("sharding", "devices"),
    [
        ("", 1),
        (", sharding={replicated}", 1),
        (", sharding={maximal device=3}", 1),
        (", sharding={devices=[2,2]<=[4]}", 4),
        (", sharding={devices=[2,1,4]<=[8] last_tile_dim_replicate}", 8),
        (", sharding={devices=[1,2]0,1}", 2),
    ],
)
def test_devices_of_shardings(sharding: str, devices: int) -> None:
    assert sharding_devices(parse_hlo(module(sharding=sharding))) == devices


def test_devices_of_a_mesh() -> None:
    header = ', frontend_attributes={xla.sdy.meshes={mesh = #sdy.mesh<["a"=2, "b"=3]>}}'
    assert sharding_devices(parse_hlo(module(header=header))) == 6
    empty = ", frontend_attributes={xla.sdy.meshes={empty_mesh = #sdy.mesh<[]>}}"
    assert sharding_devices(parse_hlo(module(header=empty))) == 1


def test_a_compiled_module_is_one_partition() -> None:
    graph = parse_hlo(module(True, ", num_partitions=4", ", sharding={devices=[2,2]<=[4]}"))
    assert num_partitions(graph) == 4
    assert partition_note(graph) == "the module is one of 4 partitions: sizes and times are those of one device"


def test_a_module_that_is_not_divided_yet() -> None:
    for header in ("", ", num_partitions=4"):
        graph = parse_hlo(module(False, header, ", sharding={devices=[2,2]<=[4]}"))
        assert partition_note(graph) == (
            "the module has shardings over 4 devices and no schedule: if no compiler has divided it yet, its sizes are "
            "those of all devices together"
        )


def test_a_module_for_one_device() -> None:
    assert partition_note(parse_hlo(module())) == ""


def test_the_problem_and_the_report_say_it() -> None:
    graph = memplan.read(DATA / "spmd.tpu-v5e.jax012.txt.gz")
    problem = memplan.problem(graph, "tpu-v5e")
    assert problem.notes[0] == "the module is one of 4 partitions: sizes and times are those of one device"
