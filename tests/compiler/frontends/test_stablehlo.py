from pathlib import Path

import pytest
from sample_modules import DATA

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends import hlo_text, stablehlo
from memplan.compiler.ir.trip_count import trip_count

TEXT = """// A program.
module @double attributes {mhlo.num_partitions = 1 : i32} {
  func.func public @main(%arg0: tensor<8xf32>) -> (tensor<8xf32>) {
    %0 = stablehlo.add %arg0, %arg0 : tensor<8xf32>
    return %0 : tensor<8xf32>
  }
}
"""


def test_text() -> None:
    graph = stablehlo.parse(TEXT.encode(), "m.mlir")
    entry = graph.entry_computation
    assert (graph.name, graph.file, graph.is_scheduled) == ("double", "m.mlir", False)
    assert [i.opcode for i in entry.instructions] == ["parameter", "add"]
    assert entry.root_instruction.operands == (0, 0)


@pytest.mark.parametrize("name", ["scan.mlir.bc", "scan.export"])
def test_bytecode_and_exported_artifacts(name: str) -> None:
    """`scan` is a loop of seven steps of `tanh(c @ y)`: `jax.export`'s `mlir_module_serialized`, and its `serialize()`."""
    content = (DATA / name).read_bytes()
    assert stablehlo.is_stablehlo(content)
    graph = stablehlo.parse(content, name)
    loops = [(c, i) for c, i in graph.instructions() if i.opcode == "while"]
    assert [trip_count(graph, instruction, computation) for computation, instruction in loops] == [(7.0, True)]
    assert {"tanh", "dot", "reduce"} <= {i.opcode for _, i in graph.instructions()}


@pytest.mark.parametrize(
    "content",
    [
        b"module {}",
        b"#loc1 = loc(unknown)\nmodule {}",
        b"\n  func.func @f() {}",
        b"!a = i32",
        TEXT.encode(),
        b"ML\xefR\x0dStableHLO",
    ],
)
def test_what_is_stablehlo(content: bytes) -> None:
    assert stablehlo.is_stablehlo(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"HloModule module\n",
        b"%module (a: f32[]) -> f32[] {",
        b"modules {",
        b"\x08\0\0\0ML\xefR",
        b"ENTRY e {",
        b"// module\n",
    ],
)
def test_what_is_not(content: bytes) -> None:
    assert not stablehlo.is_stablehlo(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            TEXT.replace("stablehlo.add", "stablehlo.plus").encode(),
            r"m.mlir:4:\d+: not StableHLO that jaxlib can read: ",
        ),
        (TEXT[:-20].encode(), r"m.mlir:\d+:\d+: not StableHLO that jaxlib can read: "),
        (b"module {}", "m.mlir:1:1: not StableHLO that jaxlib can read: .*`main`"),
        (b"ML\xefR\x0dStableHLO_v1.0.0", "m.mlir: "),
    ],
)
def test_mistakes_are_located(content: bytes, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        stablehlo.parse(content, "m.mlir")


def test_damaged_bytecode_cannot_crash_us() -> None:
    content = (DATA / "scan.mlir.bc").read_bytes()
    errors = 0
    for start in range(40, len(content), len(content) // 6):
        damaged = content[:start] + b"\xff\x00\x81" + content[start + 3 :]
        try:
            stablehlo.parse(damaged, "m.mlir")
        except ParseError:
            errors += 1
    assert errors > 2


def test_a_crash_of_the_worker_is_a_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(crashing))
    with pytest.raises(ParseError, match="damaged StableHLO: jaxlib crashed reading it"):
        stablehlo.parse(TEXT.encode(), "m.mlir")


def test_same_as_jaxlib_translates_in_this_process() -> None:
    from jaxlib import _jax

    computation = _jax.mlir.mlir_module_to_xla_computation(TEXT, use_tuple_args=False, return_tuple=False)
    ours = stablehlo.parse(TEXT.encode()).entry_computation.instructions
    theirs = hlo_text.parse(computation.as_hlo_text()).entry_computation.instructions  # has no metadata
    assert [(i.name, i.opcode, i.shape, i.operands) for i in ours] == [
        (i.name, i.opcode, i.shape, i.operands) for i in theirs
    ]


DIVIDED = """
module @m attributes {{mhlo.num_partitions = {devices} : i32, mhlo.num_replicas = 1 : i32}} {{{mesh}
  func.func public @main(%arg0: tensor<64x64xf32> {{{sharding}}}) -> tensor<64x64xf32> {{
    %0 = stablehlo.tanh %arg0 : tensor<64x64xf32>
    return %0 : tensor<64x64xf32>
  }}
}}
"""


@pytest.mark.parametrize(
    ("mesh", "sharding"),
    [
        ("", 'mhlo.sharding = "{devices=[2,2]<=[4]}"'),
        ('\n  sdy.mesh @mesh = <["a"=2, "b"=2]>', 'sdy.sharding = #sdy.sharding<@mesh, [{"a"}, {"b"}]>'),
        ('\n  sdy.mesh @mesh = <["a"=2, "b"=2]>', "sdy.sharding = #sdy.sharding<@mesh, [{}, {}]>"),
    ],
)
def test_a_program_that_is_not_divided_yet_is_refused(mesh: str, sharding: str) -> None:
    text = DIVIDED.format(devices=4, mesh=mesh, sharding=sharding)
    with pytest.raises(ParseError, match="the program is for 4 devices, and no compiler has divided it yet"):
        stablehlo.parse(text.encode())


@pytest.mark.parametrize(
    ("mesh", "sharding"),
    [
        ("", 'mhlo.sharding = "{replicated}"'),
        ("\n  sdy.mesh @mesh = <[]>", "sdy.sharding = #sdy.sharding<@mesh, [{}, {}]>"),
        ('\n  sdy.mesh @mesh = <["a"=1]>', 'sdy.sharding = #sdy.sharding<@mesh, [{"a"}, {}]>'),
    ],
)
def test_shardings_of_one_device_are_read(mesh: str, sharding: str) -> None:
    graph = stablehlo.parse(DIVIDED.format(devices=1, mesh=mesh, sharding=sharding).encode())
    assert [i.opcode for i in graph.entry_computation.instructions] == ["parameter", "tanh"]
