import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.frontends.hlo_lexical import MalformedText
from memplan.compiler.frontends.hlo_shape import parse_shape, shape_at
from memplan.compiler.ir.shape import BITS_PER_ELEMENT, Layout, Shape, print_shape


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("f32[]", Shape("f32")),
        ("f32[]{}", Shape("f32")),
        ("pred[0]", Shape("pred", (0,))),
        ("bf16[8,512]{1,0:T(8,128)(2,1)S(1)}", Shape("bf16", (8, 512), Layout((1, 0), ((8, 128), (2, 1)), 1))),
        ("u32[]{:S(2)}", Shape("u32", (), Layout(memory_space=2))),
        ("s4[9]{0:T(*,4)L(32)E(4)}", Shape("s4", (9,), Layout((0,), ((-1, 4),), 0, 4, "", 32))),
        ("f32[<=8,?]", Shape("f32", (8, -1), None, (True, True))),
        (" f32[ 8 , 4 ] ", Shape("f32", (8, 4))),
        ("f32[2,2]{1,0:D(C+~,D)#(u32)*(u16)}", Shape("f32", (2, 2), Layout((1, 0), extra="D(C+~,D)#(u32)*(u16)"))),
        ("f32[4]{0:S(1)P(f32[4]{0:T(8)})M(16)}", Shape("f32", (4,), Layout((0,), (), 1, 0, "P(f32[4]{0:T(8)})M(16)"))),
        ("f32[4]{0:SC(0:2)T(8)}", Shape("f32", (4,), Layout((0,), ((8,),), extra="SC(0:2)"))),
        ("f32[4]{0:NEW(7)}", Shape("f32", (4,), Layout((0,), extra="NEW(7)"))),  # of a newer XLA: kept
        ("token[]", Shape("token")),
        ("()", Shape("tuple")),
        ("(f32[2]{0}, /*index=5*/(s32[], token[]))",
         Shape("tuple", elements=(Shape("f32", (2,), Layout((0,))), Shape("tuple", elements=(Shape("s32"), Shape("token")))))),
        ("b(f32[8]{0})", Shape("f32", (8,), Layout((0,)), is_buffer=True)),
        ("f8e4m3b11fnuz[3]", Shape("f8e4m3b11fnuz", (3,))),
    ],
)  # fmt: skip
def test_parse(text: str, shape: Shape) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("f31[2]", "data type 'f31' is not known; known are pred", 0),
        ("(f32[], f31[2])", "data type 'f31' is not known", 8),
        ("f32", "expected a shape", 0),
        ("", "expected a shape", 0),
        ("f32[2", "expected a shape", 0),
        ("f32[a]", "expected a dimension of at most 63 bits, found 'a'", 4),
        ("f32[2,]", "expected a dimension", 6),
        ("f32[-1]", "expected a dimension", 4),
        ("f32[99999999999999999999]", "expected a dimension of at most 63 bits", 4),
        ("f32[9223372036854775808]", "exceeds 2^63 - 1", 4),
        ("f32[9223372036854775807]", "more than 2^63 - 1 bytes", 4),
        ("f32[1000000000,1000000000,1000000000]", "more than 2^63 - 1 bytes", 4),
        ("(s8[9223372036854775807], s8[1])", "the tuple takes more than 2^63 - 1 bytes", 26),
        ("f32[1]{0:T(9223372036854775807)}", "more than 2^63 - 1 bytes", 4),
        ("f32[2]{0,1}", "layout {0,1} does not order the 1 dimensions", 7),
        ("f32[2,2]{1,1}", "does not order the 2 dimensions", 9),
        ("f32[2]{}", "does not order the 1 dimensions", 7),
        ("f32[2]{x}", "expected the end of the shape, found '{x}'", 6), ("f32[2]{0x}", "expected the order of dimensions, found '0x'", 7),
        ("f32[2]{0:T(0)}", "a tile's sizes lie between 1 and 2^63 - 1, not (0)", 10),
        ("f32[2]{0:T(8,*)}", "a tile's last size combines with nothing", 10),
        ("f32[2]{0:T}", "expected a layout's attribute", 9),
        ("f32[2]{0:T(a)}", "expected a tile such as (8,128)", 10),
        ("f32[2]{0:S(1)S(2)}", "the layout states S twice", 13),
        ("f32[2]{0:S(x)}", "expected a number in S(x)", 9),
        ("(f32[2] f32[3])", "expected , or ) in a tuple's shape", 8),
        ("(f32[2],)", "expected a shape", 8),
        ("(f32[2]", "expected , or ) in a tuple's shape, found the end of the file", 7),
        ("token[3]", "a token has no dimensions", 6),
        ("b((f32[2]))", "expected one array between b( and )", 0),
        ("f32[2] x", "expected the end of the shape", 7),
        ("(" * 100 + ")" * 100, "nests deeper than 64 tuples", 64),
    ],
)  # fmt: skip
def test_malformed_shapes_are_located(text: str, message: str, offset: int) -> None:
    with pytest.raises(MalformedText) as caught:
        parse_shape(text)
    assert message in caught.value.message
    assert caught.value.offset == offset


def test_equal_texts_give_the_same_object() -> None:
    assert parse_shape("f32[77,5]{1,0}") is parse_shape("f32[77,5]{1,0}")


def test_shape_within_a_text() -> None:
    assert shape_at("x = f32[2]{0} add(", 4) == (Shape("f32", (2,), Layout((0,))), 13)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    if draw(st.integers(0, 3)) == 0:
        return Shape("tuple", elements=tuple(draw(st.lists(shapes(), max_size=7))))
    dtype = draw(st.sampled_from(sorted(BITS_PER_ELEMENT)))
    if dtype in ("token", "opaque"):
        return Shape(dtype)
    dims = tuple(draw(st.lists(st.integers(0, 300), max_size=4)))
    dynamic = tuple(draw(st.booleans()) for _ in dims)
    layout = None
    if draw(st.booleans()):
        tiles = draw(st.lists(st.lists(st.integers(1, 256), min_size=1, max_size=2).map(tuple), max_size=2))
        layout = Layout(
            tuple(draw(st.permutations(range(len(dims))))),
            tuple(tiles),
            draw(st.sampled_from([0, 1, 3])),
            draw(st.sampled_from([0, 4])),
            draw(st.sampled_from(["", "#(u32)", "SC(0:2)"])),
            draw(st.sampled_from([1, 128])),
        )
        if not dims and layout == Layout():
            layout = None  # says nothing, so it is not printed
    return Shape(dtype, dims, layout, dynamic if any(dynamic) else (), is_buffer=draw(st.booleans()))


@given(shapes())
@pytest.mark.slow
def test_parsing_undoes_printing(shape: Shape) -> None:
    assert parse_shape(print_shape(shape)) == shape
