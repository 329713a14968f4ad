"""Unusual spellings that XLA's parser takes: what they mean is what XLA prints of them."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from jaxlib import _hlo
from thorough import examples

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends.hlo_text import parse
from memplan.compiler.ir import Graph
from memplan.compiler.ir.printer import print_graph

SUM = "{ a = f32[] parameter(0) b = f32[] parameter(1) ROOT s = f32[] add(a, b) }"
ACCEPTED = {
    "shapes left out": """ENTRY e { a = f32[8,128] parameter(0)
  c = negate(a)
  ROOT t = tuple(a, c) }""",
    "a computation in an attribute": f"""ENTRY e {{ a = f32[64,128] parameter(0)
  z = f32[] constant(0)
  ROOT r = f32[64] reduce(a, z), dimensions={{1}}, to_apply={SUM} }}""",
    "several computations in attributes": f"""ENTRY e {{ a = f32[64,128] parameter(0)
  z = f32[] constant(0)
  r = f32[64] reduce(a, z), dimensions={{1}}, to_apply={SUM}
  q = f32[64] reduce(a, z), to_apply={SUM}, dimensions={{1}}
  ROOT x = f32[64] add(r, q) }}""",
    "a computation in an attribute of a computation in an attribute": f"""ENTRY e {{ a = f32[64,128] parameter(0)
  ROOT f = f32[64] fusion(a), kind=kLoop, calls={{
    p = f32[64,128] parameter(0)
    z = f32[] constant(0)
    ROOT r = reduce(p, z), dimensions={{1}}, to_apply={SUM}
  }} }}""",
    "branches in an attribute": """one { x = f32[8] parameter(0) ROOT y = f32[8] negate(x) }
ENTRY e { i = s32[] parameter(0) a = f32[8] parameter(1)
  ROOT c = f32[8] conditional(i, a, a, a), branch_computations={ one, {
    x = f32[8] parameter(0) ROOT y = f32[8] add(x, x) }, {x = f32[8] parameter(0)} } }""",
    "both branches in attributes": """ENTRY e { i = pred[] parameter(0) a = f32[8] parameter(1)
  ROOT c = f32[8] conditional(i, a, a),
    true_computation={ x = f32[8] parameter(0) ROOT y = f32[8] add(x, x) },
    false_computation={ x = f32[8] parameter(0) ROOT y = f32[8] negate(x) } }""",
    "instructions as operands": "ENTRY e { ROOT r = f32[64] add(f32[64] parameter(0), f32[64] negate(f32[64] parameter(1))) }",
    "instructions as operands without shapes": """ENTRY e { a = f32[64] parameter(0)
  ROOT r = add(a, negate( negate(a) ) ) }""",
    "constants as operands": """ENTRY e { a = f32[2,2] parameter(0)
  ROOT r = add(f32[2,2] a, f32[2,2] constant({ { 1, 2 }, { 3, 4 } })) }""",
    "space before a layout": """ENTRY e { a = f32[64,128] {1, 0} parameter(0)
  ROOT r = f32[64,128] {1, 0} negate(a) }""",
    "space in a shape": """ENTRY e { a = ( f32[ 64 , 128 ]{ 1 , 0 } , s32[] ) parameter( 0 )
  ROOT r = f32[64,128]{0,1:T(2,128)S(5)} get-tuple-element( a ) , index=0 }""",
    "a brace after a signature's shape": """ENTRY %e (a: f32[8]) -> f32[8]{
  %a = f32[8]{0} parameter(0)
  ROOT %r = f32[8]{0} negate(%a)
}""",
    "comments between any two tokens": """/* first */ // "quote
ENTRY /*here*/ e /* it is */ { // a brace {
  a /**/ = /* a, */ f32[/*rows*/8,/* columns // */128]/* } */{1,/* minor */0} parameter(/*number*/0) // ) }
  ROOT // the root
   r = f32[8,128] negate(/*operand*/a), /* none */ metadata={op_name="//no comment /*"} // end
} // done""",
    "a literal of a custom call": """ENTRY e { a = f32[8] parameter(0)
  ROOT c = f32[8] custom-call(a), custom_call_target="t", literal=f32[] 0.5 }""",
    "a literal with dimensions": """ENTRY e { a = f32[8] parameter(0)
  ROOT c = f32[8] custom-call(a), custom_call_target="t", literal=s32[2,2]{1,0}
    { { 1, 2 }, { 3, 4 } } }""",
    "a literal that is a tuple": """ENTRY e { a = f32[8] parameter(0)
  ROOT c = f32[8] custom-call(a), custom_call_target="t", literal=( s32[2]{0} {1, 2}, (pred[] true, f32[] -inf) ) }""",
    "a sparse convolution": """ENTRY e { a = f32[128,256] parameter(0) v = f32[64,64] parameter(1) i = s32[64,64] parameter(2)
  k = (f32[64,64], s32[64,64]) tuple(v, i)
  ROOT c = f32[128,64] convolution(a, k), dim_labels=bf_io->bf, sparsity_config={rhs={sparsity=1x4 dimension=0 stride=1}} }""",
    "space in an attribute": """ENTRY e { a = f32[8,128] parameter(0)
  ROOT r = f32[8,128] all-reduce(a) , replica_groups= [2,4] <= [ 2,4 ]
    T (1, 0), to_apply= { x = f32[] parameter(0) y = f32[] parameter(1) ROOT s = f32[] add(x, y) } , channel_id= 1 }""",
    "a vectorized convolution": """ENTRY e { a = s8[8,28,28,16,4] parameter(0) k = s8[3,3,16,4,64] parameter(1)
  ROOT c = (s8[8,28,28,16,4], u8[0]) custom-call(a, k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f?_01i?o->b01f?,
    custom_call_target="__cudnn$convForward" }""",
    "a block-scaled product": """ENTRY e { a = f8e4m3fn[16,32] parameter(0) b = f8e4m3fn[16,32] parameter(1)
  sa = f8e8m0fnu[16,1] parameter(2) sb = f8e8m0fnu[16,1] parameter(3)
  ROOT c = bf16[16,16] scaled-dot(a, b, sa, sb), lhs_contracting_dims={1}, rhs_contracting_dims={1} }""",
    "an element in another memory than the tuple": """ENTRY e { t = (f32[8]{0}, f32[8]{0:S(1)}) parameter(0)
  ROOT x = f32[8]{0:S(1)} get-tuple-element(t), index=0 }""",
    "a colon after the module's name": "HloModule comments:\nENTRY e { ROOT a = f32[8] parameter(0) }",
    "carriage returns": "HloModule m\r\nENTRY e {\r\n  a = f32[8] parameter(0)\r\n  ROOT b = negate(a)\r\n}\r\n",
}  # fmt: skip


def module(text: str) -> str:
    return text if "HloModule" in text else f"HloModule m\n{text}"


def meaning(graph: Graph) -> object:
    """Returns what a Graph says without layouts, spellings of attributes, and the order of what is not scheduled."""
    found = {}
    for name, computation in graph.computations.items():
        names = [instruction.name for instruction in computation.instructions]
        found[name] = (
            computation.root_instruction.name,
            {
                i.name: (
                    i.opcode,
                    i.shape.without_layout(),
                    [names[operand] for operand in i.operands],
                    i.called,
                    "".join(i.payload.split()),
                    {(key, "".join(value.replace("%", "").split())) for key, value in i.attributes},
                )
                for i in computation.instructions
            },
        )
    return graph.entry, found


@pytest.mark.parametrize("name", ACCEPTED)
def test_as_xla_understands_it(name: str) -> None:
    text = module(ACCEPTED[name])
    graph = parse(text)
    assert parse(print_graph(graph)) == graph
    printed = _hlo.hlo_module_from_text(text).to_string()
    theirs = parse(printed)
    assert graph.name == theirs.name
    if "attribute" not in name:  # names of instructions are unique in the whole module where XLA prints them
        assert meaning(graph) == meaning(theirs)
    else:
        assert sorted(graph.computations) == sorted(theirs.computations)
        opcodes = [sorted(i.opcode for _, i in g.instructions()) for g in (graph, theirs)]
        assert opcodes[0] == opcodes[1]
    again = _hlo.hlo_module_from_text(print_graph(graph)).to_string()
    # XLA numbers a computation that holds another after that one.
    assert re.sub(r"%_(\.1)?\b", "%_", again) == re.sub(r"%_(\.1)?\b", "%_", printed)


def test_names_are_those_that_xla_gives() -> None:
    graph = parse(module(ACCEPTED["instructions as operands"]))
    names = [instruction.name for instruction in graph.entry_computation.instructions]
    assert names == ["parameter.anon", "parameter.anon.1", "negate.anon", "r"]
    graph = parse(module(ACCEPTED["several computations in attributes"]))
    assert set(graph.computations) == {"_", "_.1", "e"}


def test_elements_of_what_has_no_shape_or_no_name() -> None:
    """Newer versions of XLA take elements so."""
    text = """ENTRY e { a = f32[8] parameter(0) t = tuple(a, a) u = (f32[8], s32[8]) parameter(1)
  ROOT r = add(multiply(t#0, t#1), convert(u#0)) }"""
    with pytest.raises(ParseError, match="that of 'convert' does not follow"):
        parse(text)
    graph = parse(text.replace("convert", "negate"))
    assert [i.name for i in graph.entry_computation.instructions] == [
        "a", "t", "u", "t_0", "t_1", "multiply.anon", "u_0", "negate.anon", "r",
    ]  # fmt: skip
    assert parse(print_graph(graph)) == graph
    with pytest.raises(ParseError, match=r"its operand is \(f32\[8\], f32\[8\]\), which has no element 7"):
        parse(text.replace("convert", "negate").replace("t#1", "t#7"))


EVERY_OPCODE = Path(__file__).parent / "data" / "every_opcode.hlo"
# Strings, names with the `=` of attributes, labels and patterns of numbers; what stands between two may be spaces.
TOKEN = re.compile(r'-?[\d.]+e[+\-]\d+|"(?:[^"\\]|\\.)*"|\w+_\w+->\w+|->|<=|%?[\w.\-]+=?|\S')
SEPARATORS = ("", " ", "\n", '/* , ( { " */', " // ) }\n", "\t ")


def respelled(line: str, choose: random.Random) -> str:
    """Returns a line with spaces and comments between its tokens, none of them before the `=` of an attribute."""
    parts: list[str] = []
    for token in TOKEN.findall(line):
        glue = choose.choice(SEPARATORS)
        is_word = bool(parts) and re.match(r"[\w%.\-\"]", token[0]) and re.match(r"[\w.\-\"]", parts[-1][-1])
        parts += [glue or " " if is_word else glue, token]
    return "".join(parts) + "\n"


@pytest.mark.parametrize("seed", range(examples(3, 100)))
def test_spaces_and_comments_between_tokens_mean_nothing(seed: int) -> None:
    lines = EVERY_OPCODE.read_text().splitlines(keepends=True)
    expected = meaning(parse("".join(lines)))
    choose = random.Random(seed)
    # JSON may hold no comments, the test knows no comments as tokens, and names of parameters stand before their colon.
    kept = ("backend_config={", "/*", ") -> ", "HloModule")
    changed = [k for k, line in enumerate(lines) if line.strip() and not any(part in line for part in kept)]
    for k in changed:
        spelled = "".join([*lines[:k], respelled(lines[k], choose), *lines[k + 1 :]])
        assert meaning(parse(spelled)) == expected, spelled.splitlines()[k : k + 5]
    whole = [respelled(line, choose) if k in changed else line for k, line in enumerate(lines)]
    assert meaning(parse("".join(whole))) == expected
    _hlo.hlo_module_from_text("".join(whole))


REFUSED = [
    ("ENTRY e { ROOT a = add(b { }", 1, 23, "'(' is never closed"),
    ("ENTRY e { ROOT a = add(negate(b), c) }", 1, 31, "'b', which 'negate.anon' names, is not defined"),
    ("ENTRY e { ROOT a = add(negate(f32[2] =), c) }", 1, 37, "expected an operand's name, found ' ='"),
    ("ENTRY e { ROOT a = add(negate(f32[2] parameter(0)) f32[2] x) }", 1, 52, "expected , after an operand"),
    ("ENTRY e { ROOT a = f32[] call(), to_apply={ x = 1 } }", 1, 49, "expected a shape such as"),
    ("ENTRY e { ROOT a = f32[] call(), to_apply={ x = f32[] constant(0) ", 1, 43, "'{' is never closed"),
    ("ENTRY e { ROOT a = f32[] conditional(i), branch_computations={{x = f32[] y()} =} }", 1, 79, "expected , after a"),
    (
        "ENTRY e { ROOT a = f32[] conditional(i), branch_computations={=} }",
        1,
        63,
        "expected a computation, found '=} }'",
    ),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), REFUSED)
def test_what_is_wrong_is_located(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)


DEEP = {
    "operands": "ENTRY e { a = f32[] parameter(0) ROOT b = " + "negate(" * 3000 + "a" + ")" * 3000 + " }",
    "computations": "ENTRY e { "
    + "a = f32[] parameter(0) ROOT b = call(a), to_apply={ " * 3000
    + "a = f32[] parameter(0)"
    + " }" * 3001,
}


@pytest.mark.parametrize("what", DEEP)
def test_deep_nesting_is_refused(what: str) -> None:
    with pytest.raises(ParseError, match=rf"{what} nest deeper than 64"):
        parse(DEEP[what])


def test_many_instructions_without_names_are_named_in_linear_time() -> None:
    operands = ", ".join(["constant(1)"] * 20_000)
    graph = parse(f"ENTRY e {{ ROOT t = tuple({operands.replace('constant', 'f32[] constant')}) }}")
    assert graph.entry_computation.instructions[-2].name == "constant.anon.19999"
