import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.frontends import hlo_lexical
from memplan.compiler.frontends.hlo_lexical import (
    SHAPE,
    SPACE,
    VALUE,
    MalformedText,
    end_of_brackets,
    end_of_value,
    excerpt,
    line_and_column,
    skip_space,
    unescape,
)

VALUES = [
    "kLoop",
    "%fused_computation.1",
    "b01f_01io->b01f",
    "0_0x0_512",
    "[2,4]<=[8]",
    "[2,2]<=[2,2]T(1,0)",
    "mesh['a'=2,'b'=4] {'a'}",
    '"quoted \\" } text"',
    "{[0:192], [0:768]}",
    '{"a":[{"b":"}{"}],"c":"\\"}"}',
    "{devices=[2,1]0,1 last_tile_dims={manual}}",
    '{empty_mesh = #sdy.mesh<[]>,b="1"}',
    "f32[16]{0}",
    "{{0,1},{2,3}}",
    "L.0@2:4",
    "{size=3x3 pad=-1_0x-1_0}",
    "{}",
    "true",
]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("rest", ["", ", next=1", "\n  %b = f32[] add(%a)", "\n}", "  \n"])
def test_expression_and_scanner_find_the_same_end_of_a_value(value: str, rest: str) -> None:
    match = re.compile(VALUE).match(value + rest)
    assert match is not None
    assert match.group() == value
    assert end_of_value(value + rest, 0) == len(value)


def test_deep_nesting_is_left_to_the_scanner() -> None:
    deep = "{" * 50 + "}" * 50
    assert re.compile(VALUE).match(deep) is None
    assert end_of_value(deep + ", x=1", 0) == 100


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("x={a", "'{' is never closed", 2),
        ('x={"a}', "string without an end", 3),
        ('x="a', "string without an end", 2),
        ("x=, y", "a value is missing", 2),
        ("x={/* }", "comment without an end", 3),
    ],
)
def test_unfinished_values(text: str, message: str, offset: int) -> None:
    with pytest.raises(MalformedText, match=message) as caught:
        end_of_value(text, 2)
    assert caught.value.offset == offset


def test_brackets_in_strings_and_comments_do_not_count() -> None:
    assert end_of_brackets('({")"} /* ) */ (x)) rest', 0) == 19


@given(
    st.recursive(st.just("x"), lambda inner: st.lists(inner, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}"))
)
def test_balanced_braces_end_where_they_close(text: str) -> None:
    if text.startswith("{"):
        assert end_of_brackets(text + "}", 0) == len(text)
        assert end_of_value(text + "}", 0) == len(text)


@pytest.mark.parametrize(
    "shape",
    [
        "f32[]",
        "bf16[2,3]{1,0:T(8,128)(2,1)S(1)}",
        "(f32[2]{0}, s32[], /*index=5*/u8[3]{0:T(1024)(128)(4,1)})",
        "((f32[8]{0:T(128)}), (s32[], u32[]{:S(2)}))",
        "()",
    ],
)
def test_usual_shapes_match(shape: str) -> None:
    assert re.compile(SHAPE).match(shape + " add(").group() == shape  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "end"), [("  /* a * b */ // c\n\tx", 20), ("x", 0), ("/x", 0), ("/* open", 0), ("", 0)]
)  # fmt: skip
def test_skip_space(text: str, end: int) -> None:
    assert skip_space(text, 0) == end
    assert re.compile(SPACE).match(text).end() == end  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        ("params[\\'w\\']", "params['w']"),
        ('a\\nb\\t\\\\\\"', 'a\nb\t\\"'),
        ("caf\\303\\251", "café"),
        ("\\x41", "A"),
        ("plain é", "plain é"),
        ("\\377", "\ufffd"),
    ],
)
def test_unescape(escaped: str, plain: str) -> None:
    assert unescape(escaped) == plain


def test_places() -> None:
    text = "ab\n\ncd"
    assert [line_and_column(text, i) for i in (0, 2, 3, 4, 5, 6)] == [(1, 1), (1, 3), (2, 1), (3, 1), (3, 2), (3, 3)]
    assert excerpt(text, 4) == "'cd'"
    assert excerpt(text, 2) == "the end of the line"
    assert excerpt(text, 6) == "the end of the file"
    assert excerpt("x" * 50, 0, 3) == "'xxx…'"


def test_control_characters_are_escaped_in_strings_and_refused_elsewhere() -> None:
    assert hlo_lexical.plain('a = "x\x1b\u009b"') == 'a = "x\\033\\302\\233"'
    assert hlo_lexical.plain('a = "é" /* é */ // é\n\tb') == 'a = "é" /* é */ // é\n\tb'
    for text, offset in (("v\u010c = f32[]", 1), ('"a" \0', 4), ('"a\x7f" \u2028', 5), ("k=\x7fLoop", 2)):
        with pytest.raises(MalformedText, match=rf"U\+{ord(text[offset]):04X} may stand in strings only") as caught:
            hlo_lexical.plain(text)
        assert caught.value.offset == offset


def test_the_marks_that_xla_prints_stay_beside_other_comments() -> None:
    text = "(f32[], /*index=5*/f32[]) // end"
    assert hlo_lexical.without_comments(text) == "(f32[], /*index=5*/f32[])" + " " * 7
    text = 'k={(f32[], /*index=5*/f32[])}, op_name="a//b/*c"'
    assert hlo_lexical.without_comments(text) == text
