"""Plans written into files: what is read back, by us and by the package `flatbuffers`, and all that stays."""

import struct

import pytest

pytest.importorskip("flatbuffers")

import flatbuffers
from flatbuffers.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_writer import TfliteFile, small_network

from memplan.backends.tflite.offline_plan import NAME, OfflinePlan, read_offline_plan, with_offline_plan
from memplan.compiler.errors import MemplanError, ParseError
from memplan.compiler.frontends.tflite import parse
from memplan.compiler.frontends.tflite_model import TfliteModel, read_model
from memplan.compiler.ir.printer import print_graph

COUNT = len(small_network().tensors)
PLAN = OfflinePlan(1, 0, tuple(range(-1, COUNT - 1)))


def model_of(*metadata: tuple[str, bytes]) -> TfliteModel:
    file = small_network()
    file.metadata = list(metadata)
    return read_model(file.content(), "m.tflite")


def by_flatbuffers(content: bytes) -> list[tuple[str, bytes]]:
    """Names and contents of the metadata, read by the package that TensorFlow Lite uses."""
    root = Table(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))

    def field(table: Table, slot: int) -> int:
        return table.Offset(4 + 2 * slot)

    def tables(table: Table, slot: int) -> list[Table]:
        at = field(table, slot)
        start = table.Vector(at)
        return [Table(content, table.Indirect(start + 4 * n)) for n in range(table.VectorLen(at))]

    buffers = tables(root, 4)
    found = []
    for entry in tables(root, 6):
        number = entry.Get(flatbuffers.number_types.Uint32Flags, entry.Pos + field(entry, 1))
        buffer = buffers[number]
        start = buffer.Vector(field(buffer, 0))
        assert start % 16 == 0
        name = entry.String(entry.Pos + field(entry, 0)).decode()
        found.append((name, content[start : start + buffer.VectorLen(field(buffer, 0))]))
    return found


def test_the_format() -> None:
    """Version, subgraph, number of offsets, offsets: 32-bit integers."""
    written = with_offline_plan(model_of(), PLAN)
    expected = struct.pack(f"<{3 + COUNT}i", 1, 0, COUNT, *PLAN.offsets)
    assert by_flatbuffers(written) == [(NAME, expected)]
    assert read_offline_plan(read_model(written)) == PLAN
    assert read_offline_plan(model_of()) is None


def test_all_else_stays() -> None:
    before = model_of(("about", b"a word"), ("min_runtime_version", b"1.5.0"))
    written = with_offline_plan(before, PLAN)
    after = read_model(written, "m.tflite")
    assert written.endswith(before.content)
    assert (len(written) - len(before.content)) % 64 == 0
    assert by_flatbuffers(written)[:2] == [("about", b"a word"), ("min_runtime_version", b"1.5.0")]
    assert print_graph(parse(written)) == print_graph(parse(before.content))
    assert after.root.text(3) == "made in a test"
    shift = len(written) - len(before.content)
    for old, new in zip(before.subgraphs[0].tensors, after.subgraphs[0].tensors, strict=True):
        assert new.data == (old.data[0] + shift if old.data[1] else 0, old.data[1])
        assert written[new.data[0] : sum(new.data)] == before.content[old.data[0] : sum(old.data)]


def test_a_plan_of_the_same_size_is_overwritten() -> None:
    once = with_offline_plan(model_of(("about", b"a word")), PLAN)
    other = OfflinePlan(1, 0, tuple(16 * n for n in range(COUNT)))
    twice = with_offline_plan(read_model(once), other)
    assert len(twice) == len(once)
    assert read_offline_plan(read_model(twice)) == other
    assert with_offline_plan(read_model(twice), PLAN) == once


def test_an_older_plan_of_another_size_is_replaced() -> None:
    before = model_of((NAME, bytes(40)), ("about", b"a word"))
    written = with_offline_plan(before, PLAN)
    assert [name for name, _ in by_flatbuffers(written)] == ["about", NAME]
    assert read_offline_plan(read_model(written)) == PLAN


def test_the_bytes_of_a_constant_are_not_overwritten() -> None:
    """A file whose plan lies in the buffer of a tensor, as a deduplicating writer might leave it."""
    file = small_network()
    plan = PLAN.encoded()
    file.tensors[1].data = plan
    file.tensors[1].dims = (len(plan),)
    file.metadata = [(NAME, b"12 bytes long")]
    content = bytearray(file.content())
    model = read_model(bytes(content))
    (entry,) = model.root.tables(6)
    struct.pack_into("<I", content, entry.place(1), 1)
    written = with_offline_plan(read_model(bytes(content)), OfflinePlan(1, 0, (0,) * COUNT))
    tensor = read_model(written).subgraphs[0].tensors[1]
    assert written[tensor.data[0] : sum(tensor.data)] == plan


def test_a_damaged_plan_is_refused() -> None:
    for content in (b"", b"1234567", struct.pack("<4i", 1, 0, 2, 0), struct.pack("<3i", 1, 0, -1)):
        with pytest.raises(ParseError, match=f"m.tflite: its {NAME} has {len(content)} bytes"):
            read_offline_plan(model_of((NAME, content)))


def test_offsets_beyond_31_bits_are_refused() -> None:
    for offset in (2**31, -2):
        with pytest.raises(MemplanError, match="31 bits"):
            with_offline_plan(model_of(), OfflinePlan(1, 0, (offset,) * COUNT))


@given(
    st.lists(st.integers(-1, 2**31 - 1), max_size=40),
    st.lists(st.tuples(st.text(max_size=30), st.binary(max_size=70)), max_size=3),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_any_plan_in_any_file(offsets: list[int], metadata: list[tuple[str, bytes]]) -> None:
    file = TfliteFile(metadata=[entry for entry in metadata if entry[0] != NAME])
    file.inputs = file.outputs = [file.tensor("s8", 3)]
    plan = OfflinePlan(1, 0, tuple(offsets))
    written = with_offline_plan(read_model(file.content()), plan)
    names = [name for name, _ in file.metadata]
    assert [name for name, _ in read_model(written).metadata] == [*names, NAME]
    assert read_offline_plan(read_model(written)) == plan


def test_litert_computes_the_same_before_and_after() -> None:
    """Where LiteRT is installed; memplan does not need it."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    numpy = pytest.importorskip("numpy")
    results = []
    for content in (model_of().content, with_offline_plan(model_of(), PLAN)):
        runtime = interpreter.Interpreter(model_content=content)
        runtime.allocate_tensors()
        image = numpy.arange(256, dtype=numpy.int64).astype(numpy.int8).reshape(1, 8, 8, 4)
        runtime.set_tensor(runtime.get_input_details()[0]["index"], image)
        runtime.invoke()
        results.append(runtime.get_tensor(runtime.get_output_details()[0]["index"]))
    assert (results[0] == results[1]).all()
