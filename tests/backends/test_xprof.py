"""The log folder for XProf, read back by our own reader, and by XProf where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from memplan.backends.cpu import compile_for_cpu
from memplan.backends.dumped import DumpedModule
from memplan.backends.xprof import PROFILE, read_hlo_proto, write_xprof
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import hlo_proto, protobuf
from memplan.compiler.frontends.reader import read
from memplan.compiler.ir import Graph

X = jax.ShapeDtypeStruct((64, 256), jnp.float32)


def wide(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.tanh(x @ x.T) @ x)


def names(graph: Graph) -> dict[str, list[str]]:
    return {
        name: [instruction.name for instruction in computation.instructions]
        for name, computation in graph.computations.items()
    }


@pytest.fixture(scope="module")
def module() -> DumpedModule:
    return compile_for_cpu(wide, (X,), with_proto=True)


@pytest.fixture(scope="module")
def run(module: DumpedModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    log: Path = tmp_path_factory.mktemp("log")
    run = write_xprof(log / "new", module.proto)
    assert run == log / "new" / "plugins" / "profile" / module.graph.name
    return run


def test_our_reader_reads_the_module_and_xla_assigned_as_much(module: DumpedModule, run: Path) -> None:
    path = run / f"{module.graph.name}.hlo_proto.pb"
    graph = read(path)
    assert names(graph) == names(module.graph)
    assignment = protobuf.submessage(protobuf.read_message(read_hlo_proto(path)), 3)
    allocations = protobuf.submessages(assignment, 3)
    assert [protobuf.integer(each, 2) for each in allocations] == [each.size for each in module.assignment.allocations]


def test_the_profile_names_the_module_and_holds_it(module: DumpedModule, run: Path) -> None:
    (plane,) = protobuf.submessages(protobuf.read_message((run / PROFILE).read_bytes()), 1)
    assert protobuf.string(plane, 2) == "/host:metadata"
    event = protobuf.submessage(protobuf.submessage(plane, 4), 2)
    assert protobuf.string(event, 2) == module.graph.name
    assert protobuf.raw(protobuf.submessage(event, 5), 6) == module.proto


def test_what_has_no_assignment_is_refused(module: DumpedModule, tmp_path: Path) -> None:
    path = tmp_path / "step"
    alone = hlo_proto.module_bytes(module.proto)
    assert len(alone) < len(module.proto)
    for content in (b"HloModule step\n", b"", alone, module.proto[:-5]):
        path.write_bytes(content)
        with pytest.raises(MemplanError, match="step: XProf needs"):
            read_hlo_proto(path)
    with pytest.raises(MemplanError, match="standard input"):
        read_hlo_proto(Path("-"))


def test_a_hostile_name_stays_in_the_folder(module: DumpedModule, tmp_path: Path) -> None:
    name = module.graph.name.encode()
    renamed = module.proto.replace(name, b"../" + name[3:])
    run = write_xprof(tmp_path, renamed)
    assert run.parent == tmp_path / "plugins" / "profile"
    assert len(list(run.iterdir())) == 2


def test_xprof_opens_it(module: DumpedModule, run: Path) -> None:
    convert = pytest.importorskip("xprof.convert.raw_to_tool_data", reason="xprof is not installed")
    profile = str(run / PROFILE)
    assert "memory_viewer" in convert.xspace_to_tool_names([profile])
    options = {"module_name": module.graph.name, "memory_space": "0"}
    shown = json.loads(convert.xspace_to_tool_data([profile], "memory_viewer", options)[0])
    assert shown["moduleName"] == module.graph.name
    assert shown["entryComputationParametersMib"] * 2**20 == 64 * 256 * 4
    assert shown["totalBufferAllocationMib"] * 2**20 == pytest.approx(module.assignment.total, rel=0.01)
    everything = {name for computation in names(module.graph).values() for name in computation}
    instructions = {each["instructionName"] for each in shown["maxHeap"] if "instructionName" in each}
    assert instructions
    assert instructions <= everything
