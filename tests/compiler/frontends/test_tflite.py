"""Reading .tflite files: a Graph in TensorFlow Lite's names, sizes, order and live ranges, and errors with a place."""

import contextlib
import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("flatbuffers")

from tflite_writer import FileOperator, FileTensor, Option, TfliteFile, mobilenet, small_network

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.program import AccessKind, FlatProgram
from memplan.compiler.errors import GraphError, MemplanError, ParseError
from memplan.compiler.frontends.hlo_text import parse as parse_text
from memplan.compiler.frontends.reader import read, read_packed
from memplan.compiler.frontends.tflite import KINDS, parse
from memplan.compiler.hardware.cost_model import work
from memplan.compiler.hardware.target import load_target
from memplan.compiler.hardware.work import Work
from memplan.compiler.ir import Graph
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.report.peak import find_peak

ROOT = Path(__file__).parents[3]
SMALL = small_network().content()
GENERIC, MCU = load_target("generic"), load_target("mcu-256kb")


def operators(graph: Graph) -> list[str]:
    return [i.name for i in graph.entry_computation.instructions if i.opcode not in ("parameter", "constant")]


def live(program: FlatProgram) -> dict[str, tuple[int, int, int]]:
    """Name to bytes and the half-open steps, counted from the first operator, of all that is no constant."""
    first = next(t for t, s in enumerate(program.steps) if s.instruction.opcode not in ("parameter", "constant"))
    return {s.name: (s.size, max(s.start - first, -1), s.end - first) for s in program.storages if not s.is_constant}


def test_names_sizes_order_and_live_ranges_are_those_of_the_file() -> None:
    graph = parse(SMALL, "small.tflite")
    assert operators(graph) == ["conv_Relu6", "depthwise", "residual", "pool", "flat", "logits", "classes"]
    assert graph.is_scheduled
    assert live(flatten(graph)) == {
        "image": (256, -1, 1),
        "conv_Relu6": (512, 0, 3),
        "depthwise": (512, 1, 3),
        "residual": (512, 2, 4),
        "pool": (128, 3, 5),
        "flat": (128, 4, 6),
        "logits": (10, 5, 7),
        "classes": (10, 6, 8),
    }
    constants = [s.size for s in flatten(graph).storages if s.is_constant]
    assert sorted(constants) == sorted([8 * 9 * 4, 8 * 4, 9 * 8, 2 * 4, 10 * 128])


def test_weights_are_in_flash_and_all_else_in_what_can_be_written() -> None:
    problem = build_problem(parse(SMALL), MCU)
    flash, sram = MCU.space_named("flash"), MCU.space_named("sram")
    homes = {buffer.name: (buffer.home, buffer.spaces) for buffer in problem.buffers}
    assert homes["image"] == (sram, (sram,))
    assert homes["w1"][0] == flash
    assert homes["classes"] == (sram, (sram,))
    assert problem.given is not None
    assert not problem.has_given_places


def test_the_peak_of_what_can_be_written_is_the_one_that_counts() -> None:
    """No result lies over an operand, and results that are still to come take nothing."""
    peak = find_peak(parse(SMALL), MCU)
    assert [(memory.name, memory.bytes) for memory in peak.memories] == [("sram", 3 * 512), ("flash", 1680)]
    assert (peak.main.to_come, peak.donations) == (0, ())


def test_a_printed_graph_is_read_back_as_the_same_problem() -> None:
    graph = parse(SMALL)
    again = parse_text(print_graph(graph))
    for target in (GENERIC, MCU):
        assert build_problem(again, target).fingerprint == build_problem(graph, target).fingerprint


def test_it_is_told_apart_by_content(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(gzip.compress(SMALL))
    assert operators(read(path)) == operators(parse(SMALL))
    with pytest.raises(ParseError, match="leaves no dimension open"):
        read(path, dims={"arg0.0": 2})


# -- One operator at a time ----------------------------------------------------------------------------------------


def one(
    kind: str,
    inputs: Sequence[FileTensor],
    output: FileTensor | Sequence[FileTensor],
    options: Sequence[Option] | None = None,
) -> TfliteFile:
    """A file of one operator; its inputs without data are inputs of the model."""
    outputs = [output] if isinstance(output, FileTensor) else list(output)
    file = TfliteFile([*inputs, *outputs])
    file.inputs = [n for n, tensor in enumerate(inputs) if not tensor.data and not tensor.is_variable]
    file.outputs = list(range(len(inputs), len(file.tensors)))
    file.operators = [FileOperator(kind, list(range(len(inputs))), file.outputs, options)]
    return file


def f32(*dims: int, size: int = 0) -> FileTensor:
    return FileTensor("f32", dims, data=bytes(size))


def s8(*dims: int, size: int = 0) -> FileTensor:
    return FileTensor("s8", dims, data=bytes(size), scales=(0.5,))


def s32(*numbers: int) -> FileTensor:
    return FileTensor("s32", (len(numbers),), data=b"".join(n.to_bytes(4, "little", signed=True) for n in numbers))


SAME: Option = (0, "b", 0)
VALID: Option = (0, "b", 1)
STRIDE_2: list[Option] = [(1, "i", 2), (2, "i", 2)]
STRIDE_1: list[Option] = [(1, "i", 1), (2, "i", 1)]

# Operator, the multiply-adds of its product, the elementwise operations, the transcendental ones.
CASES = [
    (one("CONV_2D", [f32(1, 9, 9, 3), f32(8, 3, 3, 3, size=864), f32(8, size=32)], f32(1, 4, 4, 8), [VALID, *STRIDE_2, (3, "b", 1)]),
     16 * 8 * 27, 2 * 128, 0),
    (one("CONV_2D", [f32(1, 5, 5, 8), f32(4, 1, 1, 4, size=64)], f32(1, 5, 5, 4), [SAME, *STRIDE_1]), 25 * 4 * 4, 0, 0),
    (one("DEPTHWISE_CONV_2D", [f32(1, 6, 6, 4), f32(1, 3, 3, 8, size=288)], f32(1, 2, 2, 8), [VALID, *STRIDE_1, (5, "i", 2), (6, "i", 2)]),
     4 * 8 * 9, 0, 0),
    (one("CONV_2D", [s8(1, 5, 5, 1), s8(2, 3, 3, 1, size=18)], s8(1, 5, 5, 2), [SAME, *STRIDE_1]), 2 * 13 * 13, 50 * 5, 0),
    (one("TRANSPOSE_CONV", [s32(1, 6, 6, 2), f32(2, 2, 2, 3, size=96), f32(1, 3, 3, 3)], f32(1, 6, 6, 2), [SAME, *STRIDE_2]),
     9 * 4 * 3 * 2, 0, 0),
    (one("FULLY_CONNECTED", [f32(2, 3, 4), f32(5, 12, size=240)], f32(2, 5)), 2 * 5 * 12, 0, 0),
    (one("BATCH_MATMUL", [f32(3, 2, 4), f32(5, 4, size=80)], f32(3, 2, 5), [(1, "?", True)]), 3 * 2 * 4 * 5, 0, 0),
    (one("MAX_POOL_2D", [s8(1, 6, 6, 2)], s8(1, 3, 3, 2), [VALID, *STRIDE_2, (3, "i", 2), (4, "i", 2)]), 0, 18 * 3, 0),
    (one("MEAN", [f32(1, 4, 4, 8), s32(1, 2)], f32(1, 8)), 0, 120 + 8, 0),
    (one("MEAN", [f32(1, 4, 4, 8), s32(-3, -2)], f32(1, 1, 1, 8)), 0, 120 + 8, 0),
    (one("ADD", [f32(2, 3), f32(3, size=12)], f32(2, 3), [(0, "b", 3)]), 0, 12, 0),
    (one("ADD", [s8(2, 3), s8(2, 3)], s8(2, 3)), 0, 6 * (2 + 2 + 1 + 4), 0),
    (one("MUL", [f32(2, 1, 3), f32(4, 1)], f32(2, 4, 3)), 0, 24, 0),
    (one("LESS", [f32(4), f32(4)], FileTensor("pred", (4,))), 0, 4, 0),
    (one("SOFTMAX", [f32(2, 10)], f32(2, 10), [(0, "f", 1.0)]), 0, 2 * (9 + 10 + 9 + 10), 20),
    (one("LOGISTIC", [f32(7)], f32(7)), 0, 0, 7),
    (one("TANH", [f32(7)], f32(7)), 0, 0, 7),
    (one("RELU", [f32(7)], f32(7)), 0, 7, 0),
    (one("RELU6", [f32(7)], f32(7)), 0, 7, 0),
    (one("HARD_SWISH", [f32(7)], f32(7)), 0, 28, 0),
    (one("PRELU", [f32(2, 7), f32(7, size=28)], f32(2, 7)), 0, 3 * 14, 0),
    (one("QUANTIZE", [f32(5)], s8(5)), 0, 5 * 4, 0),
    (one("DEQUANTIZE", [s8(5)], f32(5)), 0, 5 * 2, 0),
    (one("DEQUANTIZE", [FileTensor("f16", (5,), data=bytes(10))], f32(5)), 0, 5, 0),
    (one("RESHAPE", [f32(2, 3), s32(6)], f32(6)), 0, 0, 0),
    (one("TRANSPOSE", [f32(2, 3), s32(1, 0)], f32(3, 2)), 0, 0, 0),
    (one("PAD", [f32(2, 3), s32(0, 1, 1, 0)], f32(3, 4)), 0, 0, 0),
    (one("CONCATENATION", [f32(2, 3), f32(2, 1)], f32(2, 4), [(0, "i", -1)]), 0, 0, 0),
    (one("PACK", [f32(2, 3), f32(2, 3)], f32(2, 2, 3), [(0, "i", 2), (1, "i", 1)]), 0, 0, 0),
    (one("STRIDED_SLICE", [f32(8, 3), s32(0, 0), s32(2, 3), s32(1, 1)], f32(2, 3)), 0, 0, 0),
    (one("SPLIT", [s32(1), f32(2, 4)], [f32(2, 2), f32(2, 2)], [(0, "i", 2)]), 0, 0, 0),
    (one("GATHER", [f32(9, 3), FileTensor("s32", (2,))], f32(2, 3)), 0, 0, 0),
    (one("RESIZE_BILINEAR", [f32(1, 2, 2, 3), s32(4, 4)], f32(1, 4, 4, 3)), 0, 48 * 7, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "products", "flops", "others"),
    CASES,
    ids=lambda x: x.operators[0].kind if isinstance(x, TfliteFile) else "",
)
def test_what_an_operator_computes(file: TfliteFile, products: int, flops: int, others: int) -> None:
    graph = parse(file.content())
    entry = graph.entry_computation
    total = [work(graph, entry, i) for i in entry.instructions if i.opcode == "fusion"]
    assert len(total) == 1
    found: Work = total[0]
    assert (sum(part.flops for part in found.matrix) / 2, found.flops, found.transcendentals) == (
        products,
        flops,
        others,
    )
    again = parse_text(print_graph(graph))
    assert not again.warnings
    assert build_problem(again, GENERIC).fingerprint == build_problem(graph, GENERIC).fingerprint


def test_a_slice_reads_only_what_it_takes() -> None:
    file = one("STRIDED_SLICE", [f32(8, 3), s32(0, 0), s32(2, 3), s32(1, 1)], f32(2, 3))
    (operation,) = build_problem(parse(file.content()), GENERIC).operations
    assert [(access.kind, access.bytes) for access in operation.accesses if access.bytes] == [
        (AccessKind.READ, 24),
        (AccessKind.WRITE, 24),
    ]


def test_weights_of_four_bits_are_packed() -> None:
    weights = FileTensor("s4", (3, 4), data=bytes(6), scales=(1.0,))
    graph = parse(one("FULLY_CONNECTED", [s8(2, 4), weights], s8(2, 3)).content())
    assert [s.size for s in flatten(graph).storages if s.is_constant] == [6]


# -- Variables ---------------------------------------------------------------------------------------------------------


def test_the_state_of_svdf_is_updated_in_place() -> None:
    state = FileTensor("f32", (1, 12), name="state", is_variable=True)
    file = one(
        "SVDF", [f32(1, 5), f32(4, 5, size=80), f32(4, 3, size=48), f32(2, size=8), state], f32(1, 2), [(0, "i", 2)]
    )
    program = flatten(parse(file.content()))
    (kept,) = [s for s in program.storages if "state" in s.values]
    assert (kept.size, kept.start, kept.end) == (48, 0, len(program.steps) + 1)
    assert kept.values == ("state", "svdf.0{1}", "svdf.0.state")


def streaming() -> TfliteFile:
    """A window over the last three inputs, kept in a variable that a handle names."""
    file = TfliteFile()
    x = file.tensor("s8", 1, 4, name="new")
    handle = file.tensor("resource", name="handle")
    old, both = file.tensor("s8", 2, 4, name="old"), file.tensor("s8", 3, 4, name="window")
    newer = file.tensor("s8", 2, 4, name="newer")
    file.inputs, file.outputs = [x], [both]
    file.operator("CALL_ONCE", [], [])
    file.operator("VAR_HANDLE", [], handle, [(0, "s", ""), (1, "s", "stream")])
    file.operator("READ_VARIABLE", [handle], old)
    file.operator("CONCATENATION", [old, x], both, [(0, "i", 0)])
    bounds = [file.integers(*pair) for pair in ((1, 0), (3, 4), (1, 1))]
    file.operator("STRIDED_SLICE", [both, *bounds], newer)
    file.operator("ASSIGN_VARIABLE", [handle, newer], [])
    return file


def test_a_variable_with_a_handle_is_read_and_assigned_in_its_own_memory() -> None:
    graph = parse(streaming().content())
    assert operators(graph) == ["old", "window", "newer", "assign_variable.5", "results"]
    assert any("CALL_ONCE" in warning for warning in graph.warnings)
    program = flatten(graph)
    (kept,) = [s for s in program.storages if s.name == "stream"]
    assert (kept.size, kept.start, kept.end) == (8, 0, len(program.steps) + 1)
    problem = build_problem(graph, MCU)
    (buffer,) = [b for b in problem.buffers if b.name == "stream"]
    assert buffer.persistent
    assert buffer.home == MCU.space_named("sram")


# -- Errors --------------------------------------------------------------------------------------------------------------


def test_an_operator_without_a_rule_is_named_with_its_place() -> None:
    file = small_network()
    odd = file.tensor("s8", 1, 10, name="odd")
    file.operator("LSTM", [file.outputs[0]], odd)
    with pytest.raises(ParseError, match=r"m.tflite: operator 7 \(LSTM\) has no rule, which makes tensor 13 \('odd'\)"):
        parse(file.content(), "m.tflite")
    file.operators[-1] = FileOperator("CUSTOM", [0], [odd], None, "ethos-u")
    with pytest.raises(ParseError, match=r"operator 7 \(CUSTOM ethos-u\) has no rule"):
        parse(file.content())


def broken(change: str) -> TfliteFile:
    file = small_network()
    conv = file.operators[0]
    match change:
        case "unwritten":
            file.operators[1], file.operators[2] = file.operators[2], file.operators[1]
        case "twice":
            file.operators.append(file.operators[2])
        case "no output":
            file.outputs = [file.tensor("s8", 1, name="never")]
        case "no outputs":
            file.outputs = []
        case "missing tensor":
            file.operators[2] = FileOperator("ADD", [99, 1], [0])
        case "missing output":
            file.outputs = [-1]
        case "negative":
            file.tensors[0].dims = (1, 8, -1, 4)
        case "huge":
            file.tensors[0].dims = (2**31 - 1,) * 4
        case "version":
            file.version = 2
        case "string":
            file.tensors[0].dtype = "str"
        case "content":
            file.tensors[1].data += b"x"
        case "shape":
            file.tensors[3].dims = (1, 8, 8, 7)
        case "stride":
            file.operators[0] = FileOperator(
                conv.kind, conv.inputs, conv.outputs, [(0, "b", 0), (1, "i", 0), (2, "i", 1)]
            )
        case "activation":
            file.operators[0] = FileOperator(
                conv.kind, conv.inputs, conv.outputs, [*(conv.options or [])[:3], (3, "b", 9)]
            )
        case "few inputs":
            file.operators[0] = FileOperator(conv.kind, conv.inputs[:1], conv.outputs, conv.options)
        case "no outputs of one":
            file.operators[0] = FileOperator(conv.kind, conv.inputs, [], conv.options)
        case "ranks":
            file.tensors[0].dims = (256,)
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unwritten", r"operator 1 \(ADD\) reads tensor 5 \('depthwise'\), which nothing has written"),
        ("twice", r"operator 7 \(ADD\) writes tensor 6 \('residual'\), which is written already"),
        ("no output", r"the output tensor 13 \('never'\) is written by no operator"),
        ("no outputs", "its first subgraph has no output"),
        ("missing tensor", r"inputs of subgraph 0: operator 2 \(ADD\): tensor 99 does not exist; there are 13"),
        ("missing output", "outputs of subgraph 0: tensor -1 does not exist"),
        ("negative", r"tensor 0 \('image'\) has the shape \[1, 8, -1, 4\], which has a negative dimension"),
        ("huge", "more bytes than any memory"),
        ("version", "has version 2 of the schema"),
        ("string", r"tensor 0 \('image'\) is of a type that has no rule"),
        ("content", "has 288 bytes, but its content has 289"),
        (
            "shape",
            r"operator 0 \(CONV_2D\), which makes tensor 3 \('conv/Relu6'\): an output of \[1, 8, 8, 7\] does not",
        ),
        ("stride", "its window .* has strides"),
        ("activation", "its activation function 9 has no rule"),
        ("few inputs", "its input 1 is missing"),
        ("no outputs of one", "its output 0 is missing"),
        ("ranks", r"a shape of 4 dimensions is needed, not \[256\]"),
    ],
)
def test_an_error_names_the_place(change: str, message: str) -> None:
    with pytest.raises(ParseError, match=rf"m.tflite: .*{message}"):
        parse(broken(change).content(), "m.tflite")


CONTENTS = [SMALL, streaming().content(), *(file.content() for file, *_ in CASES)]


@given(
    st.sampled_from(CONTENTS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0.2, 1),
)
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_read_or_refused(content: bytes, changes: list[tuple[float, int]], kept: float) -> None:
    damaged = bytearray(content if kept > 0.5 else content[: int(len(content) * 2 * kept)])
    for place, byte in changes:
        damaged[int(place * len(damaged))] = byte
    damaged[4:8] = b"TFL3"
    try:
        graph = read_packed(bytes(damaged), "m.tflite")
    except ParseError as error:
        assert str(error).startswith("m.tflite: ")
        return
    except GraphError:
        pytest.fail("what the reader returns keeps the rules of Graphs")
    with contextlib.suppress(MemplanError):
        build_problem(graph, MCU)


def test_the_documentation_lists_the_operators_that_have_rules() -> None:
    text = (ROOT / "docs/tflite.md").read_text().split("These operators have rules: ")[1].split(".")[0]
    assert text.replace("\n", " ").split(", ") == sorted(KINDS)


def test_the_example_is_what_the_writer_makes() -> None:
    stored = gzip.decompress((ROOT / "workloads/tflite/mobilenet.tflite.gz").read_bytes())
    assert stored == mobilenet().content()
