import pytest

from memplan.compiler.frontends import hlo_statement
from memplan.compiler.frontends.hlo_lexical import MalformedText
from memplan.compiler.frontends.hlo_statement import attributes_at, statement_at, with_elements_taken
from memplan.compiler.ir import Shape

F32 = Shape("f32")


def new_name(opcode: str) -> str:
    return f"{opcode}.anon"


def statement(text: str):
    found, end = statement_at(text, 0, {}, new_name)
    assert text[end:].strip() in ("", "}")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "  ROOT %y = f32[] add(%a, %b), k=1",
        "ROOT y=f32[] add( a,b ) , k=1 }",
        "\n/* c */ ROOT %y = f32[] add(f32[] %a, /*index=1*/f32[] %b), k=1",
        "ROOT y = f32[]\n add(((f32[2]{0:T(8)}, (s32[], (u32[])))) a, f32[] b),\n k=1\n",
    ],
)
def test_spellings_of_one_statement(text: str) -> None:
    found = statement(text)
    assert (found.name, found.opcode, found.shape, found.operands) == ("y", "add", F32, ["a", "b"])
    assert (found.attributes, found.is_root, found.payload) == ([("k", "1")], True, "")
    assert text[found.name_at] == "y"
    assert text[found.operands_at - 1] == "("


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("%p = f32[] parameter(0)", "0"),
        ("%c = s32[2,2] constant({\n  {1, 2},\n  /*i=1*/{3, 4}\n})", "{\n  {1, 2},\n  /*i=1*/{3, 4}\n}"),
        ("%c = c64[] constant((1, -2))", "(1, -2)"),
        ("%c = f32[] constant(nan(0x7fc00001))", "nan(0x7fc00001)"),
    ],
)
def test_payloads_are_kept_as_they_are(text: str, payload: str) -> None:
    found = statement(text)
    assert (found.payload, found.operands) == (payload, [])


def test_no_operands() -> None:
    assert statement("%i = f32[8] iota(), iota_dimension=0").operands == []
    assert statement("%i = f32[8] iota( /* none */ )").operands == []


def test_closing_brace_ends_the_computation() -> None:
    assert statement_at("  // done\n } rest", 0, {}, new_name) == (None, 12)


def test_deep_attributes_and_shapes_take_the_slow_way() -> None:
    deep = "{" * 12 + "}" * 12
    found = statement(f"%a = ((((f32[])))) custom-call(((((f32[])))) %x), x={deep}, y=2")
    assert found.attributes == [("x", deep), ("y", "2")]
    assert found.shape.at((0, 0, 0)) == Shape("tuple", elements=(F32,))
    assert found.operands == ["x"]


def test_values_with_a_deep_tail() -> None:
    value = "[2]<=[4]" + "(" * 5 + ")" * 5
    assert attributes_at(f", a={value}, b=1", 0)[0] == [("a", value, 4), ("b", "1", len(value) + 8)]


@pytest.mark.parametrize(
    "text",
    [
        "/* c */ ROOT %y = f32[2]{0} add(%a, %b), k={{0,1},{2}} }",
        'y = (f32[2]{0:T(8)}, /*i=1*/(s32[], u8[3])) custom-call(a), a="\\"x\\n", b=x[1,[2]]y(z), /* c */ c=1',
        "y = f32[] add(a), a=mesh['a'=2]    {'b'}   , b=1    }",
        "y = f32[] add(a), a=/x/y // comment\n , b=" + "{" * 10 + "}" * 10,
    ],
)
def test_what_the_expressions_see_changes_no_statement(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = statement_at(text, 0, {}, new_name)
    for window in range(1, len(text) + 2):
        monkeypatch.setattr(hlo_statement, "_WINDOW", window)
        assert statement_at(text, 0, {}, new_name) == whole


@pytest.mark.parametrize("name", ["ROOT", "ROOTS", "ENTRY"])
def test_names_that_look_like_marks(name: str) -> None:
    found = statement(f"ROOT {name} = f32[] add({name}1, b)")
    assert (found.name, found.is_root, found.operands) == (name, True, [name + "1", "b"])


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("", "never closed", 0),
        ("ROOT = f32[] add(%b)", "expected an instruction, found '= f32[]", 5),
        ("%a = f32[] add(%b /* %c)", "expected the name of an operand, found 'b /* %c'", 16),
        ("  ", "never closed", 2),
        ("= f32[]", "expected an instruction, found '= f32[]'", 0),
        ("%a f32[] add(%b)", "expected = after the name 'a', found 'f32[]", 3),
        ("%a = add %b", "expected a shape such as f32[8,128]{1,0}, found 'add %b'", 5),
        ("%a = f99[] add(%b)", "data type 'f99' is not known", 5),
        ("%a = f32[] = add", "expected an opcode, found '= add'", 11),
        ("%a = f32[] add %b", "expected ( after 'add', found '%b'", 15),
        ("%a = f32[] add(%b", "'(' is never closed", 14),
        ("%a = f32[] add(%b %c)", "expected the name of an operand, found 'b %c'", 16),
        ("%a = f32[] add(%b,)", "expected the name of an operand", 18),
        ("%a = f32[] add(f32[] %b,)", "expected an operand, found the end of the file", 24),
        ("%a = f32[] add(f32[] %b, = %c)", "expected an operand, found '= %c': expected a shape", 25),
        ("%a = f32[] add(f32[] %b %c)", "expected an operand's name, found ' %b %c'", 20),
        ("%a = f32[] add(%b), =1", "expected an attribute KEY=VALUE, found '=1'", 20),
        ("%a = f32[] add(%b), metadata", "expected an attribute KEY=VALUE, found 'metadata'", 20),
        ("%a = f32[] add(%b), x=", "a value is missing", 22),
        ("%a = f32[] add(%b), x={1", "'{' is never closed", 22),
    ],
)
def test_malformed_statements_are_located(text: str, message: str, offset: int) -> None:
    with pytest.raises(MalformedText) as caught:
        statement_at(text, 0, {}, new_name)
    assert message in caught.value.message
    assert caught.value.offset == offset


def statements(text: str):
    found, position = [], 0
    while True:
        statement, position = statement_at(text, position, {}, new_name)
        if statement is None:
            return found
        found.append(statement)


def test_elements_become_instructions_before_their_first_user() -> None:
    text = """
    p = ((f32[], s32[2]), f32[]) parameter(0)
    p_1 = f32[] negate(p#1)
    ROOT a = f32[] add(p#0#0, p#1)
    b = (f32[]) custom-call(f32[] p#1, p#0)
    }"""
    found = with_elements_taken(statements(text))
    assert [(s.name, s.opcode, s.operands) for s in found] == [
        ("p", "parameter", []),
        ("p_1_", "get-tuple-element", ["p"]),  # XLA's name for it, p_1, is taken
        ("p_1", "negate", ["p_1_"]),
        ("p_0", "get-tuple-element", ["p"]),
        ("p_0_0", "get-tuple-element", ["p_0"]),
        ("a", "add", ["p_0_0", "p_1_"]),
        ("b", "custom-call", ["p_1_", "p_0"]),
    ]
    assert found[3].shape == Shape("tuple", elements=(F32, Shape("s32", (2,))))
    assert [s.attributes for s in found if s.opcode == "get-tuple-element"] == [[("index", i)] for i in ("1", "0", "0")]
    assert [s.name for s in found if s.is_root] == ["a"]


@pytest.mark.parametrize(
    ("operand", "message"),
    [
        ("p#2", "'p' is (f32[], f32[]), which has no element 2"),
        ("p#0#0", "'p_0' is f32[], which has no element 0"),
        ("q#0", "'q', which 'a' names, is not defined"),
    ],
)
def test_elements_that_do_not_exist(operand: str, message: str) -> None:
    with pytest.raises(MalformedText) as caught:
        with_elements_taken(statements(f"p = (f32[], f32[]) parameter(0) a = f32[] negate({operand}) }}"))
    assert message in caught.value.message
