import pytest
from test_protobuf import field, varint

from memplan.compiler.frontends.hlo_lexical import unescape
from memplan.compiler.frontends.proto_metadata import (
    dictionary_or_escaped,
    escaped,
    metadata_text,
    original_value_text,
)
from memplan.compiler.frontends.protobuf import MalformedMessage, read_message


def test_escaping() -> None:
    assert escaped('a "b"\n\t\\') == '"a \\"b\\"\\n\\t\\\\"'
    assert escaped("é") == '"\\303\\251"'
    assert unescape(escaped("é 'x' \0 \"")[1:-1]) == "é 'x' \0 \""


def test_metadata() -> None:
    assert metadata_text(b"") == ""
    assert metadata_text(field(2, b"") + field(4, 0)) == ""
    data = field(15, 4) + field(2, b"jit(f)/add") + field(1, b"add") + field(3, b"f.py") + field(4, 7) + field(99, 1)
    assert (
        metadata_text(data) == '{op_type="add" op_name="jit(f)/add" source_file="f.py" source_line=7 stack_frame_id=4}'
    )


def test_metadata_without_a_name_or_a_place_says_nothing_of_an_instruction() -> None:
    data = field(4, 7) + field(12, b"d")
    assert metadata_text(data) == ""
    assert metadata_text(data, is_shardings=True) == 'source_line=7 deduplicated_name="d"'


@pytest.mark.parametrize("text", ["{}", "{a: 1} ", '{"}"}', r'{"\"}"}', "{{a}, {{{b}}}}", '{ a = "{" }'])
def test_dictionaries_stand_as_they_are(text: str) -> None:
    assert dictionary_or_escaped(text.encode(), 43) == text


@pytest.mark.parametrize("text", ["", "a", "{", "{}{}", "{}x", '{"}', "{{}", '{"\n'])
def test_what_is_no_dictionary_is_quoted(text: str) -> None:
    assert dictionary_or_escaped(text.encode(), 43) == escaped(text)


def test_dictionaries_are_text() -> None:
    assert dictionary_or_escaped(b"\xff", 43) == '"\\377"'
    with pytest.raises(MalformedMessage, match="field 43 is not UTF-8"):
        dictionary_or_escaped(b"{\xff}", 43)


def array(name: bytes, *index: int) -> bytes:
    return field(2, field(1, name) + (field(2, b"".join(map(varint, index))) if index else b""))


def at(*path: int) -> bytes:
    return field(1, b"".join(map(varint, path)))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (field(1, array(b"x")), '{{"x"}}'),
        (field(1, array(b"x", 1, 0)), '{{"x" {1,0}}}'),
        (field(1, at(1) + array(b"y")) + field(1, at(0, 0) + array(b"x")) + field(1, at(0, 1)), '{(({"x"}, {}), {"y"})}'),
        (field(2, 1), "{[synthetic_call]}"),
        (b"", "{()}"),
    ],
)  # fmt: skip
def test_original_values(data: bytes, text: str) -> None:
    assert original_value_text(read_message(data)) == text


@pytest.mark.parametrize(
    "data",
    [
        field(1, at(*[0] * 100) + array(b"x")),
        field(1, at(0) + array(b"x")) + field(1, at(0, 1) + array(b"y")),
    ],
)
def test_original_values_that_are_none(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="original value"):
        original_value_text(read_message(data))
