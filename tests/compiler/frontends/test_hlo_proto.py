import gzip
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxlib import _hlo
from sample_modules import CPU_PROTOS, EVERY_OPCODE, OTHER_TEXTS, TPU_TEXTS, name_of, readable_by_jaxlib, text_of
from test_protobuf import field, varint

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends import hlo_proto, hlo_text, parse_hlo, protobuf
from memplan.compiler.ir import Source
from memplan.compiler.ir.printer import print_graph


def proto_of(text: str) -> bytes:
    return _hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto()


def content_of(file: Path) -> bytes:
    content = file.read_bytes()
    return gzip.decompress(content) if file.suffix == ".gz" else content


@pytest.mark.parametrize("file", [EVERY_OPCODE, *readable_by_jaxlib(OTHER_TEXTS), *TPU_TEXTS], ids=name_of)
def test_same_graph_as_the_text_that_xla_prints_of_the_proto(file: Path) -> None:
    data = proto_of(text_of(file))
    printed = _hlo.HloModule.from_serialized_hlo_module_proto(data).to_string()
    graph = hlo_proto.parse(data)
    assert graph == hlo_text.parse(printed)
    assert graph.warnings == ()


@pytest.mark.parametrize("file", CPU_PROTOS, ids=name_of)
def test_dumped_protos_are_the_dumped_texts(file: Path) -> None:
    """An HloProto of `--xla_dump_to` holds the module of the text beside it."""
    graph = hlo_proto.parse(content_of(file), file.name)
    text = hlo_text.parse(text_of(file.parent / re.sub(r"\.hlo\.pb(\.gz)?$", ".txt", file.name)))
    assert (graph.name, graph.entry, graph.is_scheduled) == (text.name, text.entry, text.is_scheduled)
    assert graph.aliases == text.aliases
    assert set(graph.computations) == set(text.computations)
    for name, computation in graph.computations.items():
        ours, theirs = (
            # Newer texts do not name the instructions that take elements of tuples.
            [replace(i, name="", operands=()) for i in c.instructions if i.opcode != "get-tuple-element"]
            for c in (computation, text.computations[name])
        )
        assert [i.opcode for i in ours] == [i.opcode for i in theirs]
        assert [i.shape for i in ours] == [i.shape for i in theirs]
        assert [i.payload for i in ours] == [i.payload for i in theirs]


def test_module_alone_or_wrapped() -> None:
    module = proto_of("HloModule m\nENTRY e {\n  ROOT x = f32[8] parameter(0)\n}\n")
    expected = hlo_proto.parse(module)
    hlo = field(1, module)
    snapshot = field(1, hlo) + field(2, F32) + field(3, field(1, F32)) + field(4, b"cpu")
    for wrapped in (hlo, hlo + field(3, field(1, field(1, 3))), snapshot):
        assert hlo_proto.is_hlo_proto(wrapped)
        assert hlo_proto.parse(wrapped) == expected


@pytest.mark.parametrize(
    "content",
    [b"", b"HloModule m", b"\nHloModule m\n\n%f {", b"\x89PNG\r\n", b"\0" * 20, field(4, 3)],
)
def test_what_is_no_hlo_proto(content: bytes) -> None:
    assert not hlo_proto.is_hlo_proto(content)


def numbers(number: int, *values: int) -> bytes:
    return field(number, b"".join(map(varint, values)))


F32 = field(2, 11) + numbers(3, 8)


def instruction(name: str, opcode: str, identity: int, *operands: int, more: bytes = b"", shape: bytes = F32) -> bytes:
    data = field(1, name.encode()) + field(2, opcode.encode()) + field(3, shape) + field(35, identity)
    return data + (numbers(36, *operands) if operands else b"") + more


def computation(name: str, identity: int, *instructions: bytes, root: int | None = None) -> bytes:
    data = field(1, name.encode()) + b"".join(field(2, i) for i in instructions) + field(5, identity)
    return data if root is None else data + field(6, root)


def module(*computations: bytes, entry: int = 1, more: bytes = b"") -> bytes:
    data = field(1, b"m") + field(2, b"e") + b"".join(field(3, c) for c in computations)
    return data + field(6, entry) + more


X = instruction("x", "parameter", 1)


def test_a_module_by_hand() -> None:
    """Ids are any numbers; fields of tomorrow are skipped; an unknown opcode is kept, with a warning."""
    neg = instruction("y", "negate", 50, 1, more=field(7, field(2, b"jit(f)/neg") + field(15, 1)) + field(999, b"?"))
    new = instruction("z", "frobnicate", 7, 50, 1, more=numbers(37, 50) + field(43, b"{}"))
    tables = (
        field(1, b"a.py") + field(2, b"f") + field(3, field(1, 1) + field(2, 1) + field(3, 33)) + field(4, field(1, 1))
    )
    graph = hlo_proto.parse(module(computation("e", 1, X, neg, new, root=50), more=field(17, tables)), "m.pb")
    assert (graph.name, graph.entry, graph.is_scheduled, graph.origin) == ("m", "e", False, "hlo")
    entry = graph.entry_computation
    assert [(i.name, i.opcode, i.operands) for i in entry.instructions] == [
        ("x", "parameter", ()), ("y", "negate", (0,)), ("z", "frobnicate", (1, 0)),
    ]  # fmt: skip
    assert entry.root == 1
    assert entry.instructions[1].source == Source("jit(f)/neg", "a.py", 33)
    assert entry.instructions[2].control_predecessors == (1,)
    assert graph.warnings == ("m.pb: e/z: opcode 'frobnicate' is not known: kept as opaque",)
    assert "1 {file_name_id=1 function_name_id=1 line=33" in graph.tables


def test_schedule_orders_the_instructions() -> None:
    a, b = instruction("a", "negate", 2, 1), instruction("b", "negate", 3, 1)
    tuple_shape = field(2, 13) + field(4, F32) * 2
    root = instruction("r", "tuple", 4, 2, 3, shape=tuple_shape)
    schedule = field(7, field(1, field(1, 1) + field(2, numbers(1, 1, 3, 2, 4))))
    graph = hlo_proto.parse(module(computation("e", 1, X, a, b, root, root=4), more=schedule))
    assert graph.is_scheduled
    assert [i.name for i in graph.entry_computation.instructions] == ["x", "b", "a", "r"]
    assert graph.entry_computation.root_instruction.operands == (2, 1)


def test_instructions_without_schedule_are_sorted() -> None:
    graph = hlo_proto.parse(module(computation("e", 1, instruction("y", "negate", 2, 1), X, root=2)))
    assert [i.name for i in graph.entry_computation.instructions] == ["x", "y"]
    assert graph.entry_computation.root == 1


SCHEDULE = field(7, field(1, field(1, 1) + field(2, numbers(1, 2, 1))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (module(computation("e", 1, X), entry=5), "'e'"),
        (module(computation("f", 1, X), entry=5), "the entry computation 'e' is not in it"),
        (module(computation("e", 1, X, instruction("y", "negate", 2, 9))), "e/y: its operand has the id 9, which does not exist"),
        (module(computation("e", 1, X, instruction("y", "negate", 2, 1, more=numbers(37, 8)))), "e/y: its control predecessor has the id 8"),
        (module(computation("e", 1, X, instruction("y", "call", 2, 1, more=numbers(38, 4)))), "e/y: it calls the computation with id 4"),
        (module(computation("e", 1, X, instruction("y", "call", 2, 1, more=numbers(38, 1)))), "computations call each other in a circle: e -> e"),
        (module(computation("e", 1, X, X)), "two instructions of 'e' have the same id"),
        (module(computation("e", 1, X, instruction("x", "negate", 2, 1))), "e/x: a second instruction of this name"),
        (module(computation("e", 1, X), computation("f", 1, X)), "two computations have the id 1"),
        (module(computation("e", 1, X), computation("e", 2, X)), "two computations are called 'e'"),
        (module(computation("e", 1, X, instruction("y", "add", 2, 1))), "e/y: add takes 2 operands, found 1"),
        (module(computation("e", 1, instruction("a", "negate", 2, 3), instruction("b", "negate", 3, 2))), "wait for each other in a circle: a -> b -> a"),
        (module(computation("e", 1, instruction("y", "negate", 2, 1), X), more=SCHEDULE), "runs an instruction before its operands"),
        (module(computation("e", 1, X), more=SCHEDULE), "the schedule of 'e' does not name each of its instructions once"),
        (module(computation("e", 1, instruction("x", "parameter", 1, shape=field(2, 98)))), "e/x: a shape has the data type number 98"),
        (module(computation("e", 1)), "computation 'e' has no instructions"),
        (module(computation("e", 1, X), more=field(8, field(1, numbers(1, 3)))), "the alias of output {3} names an output"),
        (module(computation("e", 1, X))[:-20], "damaged HLO proto: "),
        (field(1, b"abc"), "damaged HLO proto: "),
    ],
)  # fmt: skip
def test_mistakes_are_named(data: bytes, message: str) -> None:
    if message == "'e'":  # an entry may be named where its id is wrong
        assert hlo_proto.parse(data).entry == "e"
        return
    with pytest.raises(ParseError) as caught:
        hlo_proto.parse(data, "m.pb")
    assert str(caught.value).startswith("m.pb: ")
    assert message in str(caught.value)


def test_asynchronous_wrappers_read_as_their_operation() -> None:
    text = """HloModule m
ENTRY e {
  x = f32[8]{0} parameter(0)
  s = ((f32[8]{0}), f32[4]{0}, s32[]) slice-start(x), slice={[0:4]}
  ROOT d = f32[4]{0} slice-done(s)
}
"""
    graph = hlo_proto.parse(proto_of(text))
    assert list(graph.computations) == ["e"]
    start, done = graph.entry_computation.instructions[1:]
    assert (start.opcode, start.attribute("slice"), start.called) == ("slice-start", "{[0:4]}", ())
    assert (done.opcode, done.attributes) == ("slice-done", ())


@st.composite
def damaged_protos(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SMALL)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([1, 2, 10, 300]))
        kind = draw(st.sampled_from(["cut", "end", "byte", "double"]))
        if kind == "cut":
            del data[start : start + length]
        elif kind == "end":
            del data[start:]
        elif kind == "byte" and start < len(data):
            data[start] = draw(st.integers(0, 255))
        else:
            data[start:start] = data[start : start + length]
    return bytes(data)


SMALL = [proto_of(text_of(EVERY_OPCODE)), *(content_of(file) for file in CPU_PROTOS)]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged_protos())
def test_damage_ends_in_an_error_or_a_graph(data: bytes) -> None:
    try:
        graph = hlo_proto.parse(data, "m.pb")
    except ParseError as error:
        assert str(error).startswith("m.pb: ")
    else:
        assert graph.entry in graph.computations


def test_every_field_of_the_damaged_kind_is_reachable() -> None:
    """The seeds of the fuzzing above are whole."""
    for data in SMALL:
        assert hlo_proto.is_hlo_proto(data)
        assert protobuf.read_message(data)


def test_control_characters_in_a_proto_are_escaped_in_strings_and_refused_elsewhere() -> None:
    config = field(43, b'{"a\x7f":"\x1b"}')
    graph = hlo_proto.parse(module(computation("e", 1, instruction("x", "parameter", 1, more=config))))
    assert graph.entry_computation.instructions[0].attribute("backend_config") == '{"a\\177":"\\033"}'
    with pytest.raises(ParseError, match="the attribute backend_config holds"):
        hlo_proto.parse(module(computation("e", 1, instruction("x", "parameter", 1, more=field(43, b"{a\x7f}")))))


@pytest.mark.parametrize(
    ("file", "function", "line"),
    [
        ("a.py", "f", 2**31 - 1),
        ("a.py", "f", 2**31),
        ("a.py", "f", 2**40 + 7),
        ('"a\\b.py', 'lam"da>', 3),
        ("ä.py", "λ", 3),
    ],
)
def test_tables_of_any_names_and_numbers_print_as_text_that_is_read_again(file: str, function: str, line: int) -> None:
    location = field(1, 1) + field(2, 1) + field(3, line) + field(4, 2**35)
    tables = field(1, file.encode()) + field(2, function.encode()) + field(3, location) + field(4, field(1, 1))
    place = field(2, b"op") + field(3, file.encode()) + field(4, line)
    given = (
        instruction("y", "negate", 2, 1, more=field(7, place)),
        instruction("z", "abs", 3, 2, more=field(7, field(15, 1))),
    )
    graph = hlo_proto.parse(module(computation("e", 1, X, *given), more=field(17, tables)))
    assert graph.entry_computation.instructions[2].source.file == file
    again = parse_hlo(print_graph(graph))
    assert (again.computations, again.tables) == (graph.computations, graph.tables)


def test_an_unknown_size_is_dynamic_whether_the_proto_says_so_or_not() -> None:
    for more in (b"", numbers(6, 1)):
        shape = field(2, 11) + numbers(3, 2**64 - 2**63) + more
        graph = hlo_proto.parse(module(computation("e", 1, instruction("x", "parameter", 1, shape=shape))))
        assert graph.entry_computation.root_instruction.shape.dynamic == (True,)
        assert parse_hlo(print_graph(graph)).computations == graph.computations


@pytest.mark.parametrize("padding", [7, 2**31 - 1, 2**40, 2**63 - 1])
def test_a_long_tail_padding_prints_as_text_that_is_read_again(padding: int) -> None:
    shape = field(2, 11) + numbers(3, 8) + field(5, numbers(1, 0) + field(16, padding))
    try:
        graph = hlo_proto.parse(module(computation("e", 1, instruction("x", "parameter", 1, shape=shape))))
    except ParseError as error:
        assert padding > 2**60, error
        return
    assert parse_hlo(print_graph(graph)).computations == graph.computations
