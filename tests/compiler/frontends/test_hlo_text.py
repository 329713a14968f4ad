import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_modules import (
    ALL_TEXTS,
    CPU_TEXTS,
    EVERY_OPCODE,
    OTHER_TEXTS,
    TPU_TEXTS,
    name_of,
    readable_by_jaxlib,
    text_of,
)

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends.hlo_text import parse
from memplan.compiler.ir import Alias, Shape, Source
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.ir.shape import Layout

MODULE = """HloModule jit_f, is_scheduled=true, input_output_alias={ {}: (1, {}, must-alias) }, replica_count=2

FileNames
1 "model.py"

FileLocations
1 {file_name_id=1 line=30}

StackFrames
1 {file_location_id=1}

%halve (a: f32[8]) -> f32[8] {
  %a = f32[8]{0:T(256)S(1)} parameter(0)
  ROOT %b = f32[8]{0:T(256)S(1)} multiply(%a, %a)
}, execution_thread="main"

// the entry
ENTRY %main (x: f32[8], y: f32[8]) -> f32[8] {
  %x = f32[8]{0:T(256)} parameter(0)
  %y = f32[8]{0:T(256)} parameter(1)
  %z = f32[8]{0:T(256)S(1)} fusion(%x), kind=kLoop, calls=%halve, control-predecessors={%y}, metadata={op_name="jit(f)/mul" stack_frame_id=1}
  ROOT %r = f32[8]{0:T(256)} subtract(%z, %y), backend_config={"a":"}"}
}
"""


def test_a_whole_module() -> None:
    graph = parse(MODULE, "m.txt")
    assert (graph.name, graph.entry, graph.is_scheduled, graph.file) == ("jit_f", "main", True, "m.txt")
    assert graph.aliases == (Alias((), 1, (), True),)
    assert graph.attributes == (("replica_count", "2"),)
    assert graph.tables.startswith("FileNames\n1 ")
    assert graph.warnings == ()
    assert list(graph.computations) == ["halve", "main"]
    assert graph.computations["halve"].attributes == (("execution_thread", '"main"'),)
    z = graph.entry_computation.instructions[2]
    assert (z.name, z.opcode, z.operands, z.called, z.control_predecessors) == ("z", "fusion", (0,), ("halve",), (1,))
    assert z.shape == Shape("f32", (8,), Layout((0,), ((256,),), memory_space=1))
    assert z.source == Source("jit(f)/mul", "model.py", 30)
    assert [key for key, _ in z.attributes] == ["kind", "calls", "metadata"]
    root = graph.entry_computation.root_instruction
    assert (root.name, root.operands, root.attribute("backend_config")) == ("r", (2, 1), '{"a":"}"}')


@pytest.mark.parametrize(
    "other",
    [
        MODULE.replace("\n", "\r\n"),
        MODULE.replace("%", ""),
        MODULE.replace("(%x), kind=kLoop, calls=%halve", "(%x),\n    calls=%halve, kind=kLoop").replace("kind=kLoop", "kind=kLoop"),
        re.sub(r"\n *(?=[%R}])", " ", MODULE),  # line breaks mean nothing
        MODULE.replace("subtract(%z, %y)", "subtract(f32[8]{0:T(256)S(1)} %z, /*index=1*/f32[8]{0:T(256)} %y)"),
        MODULE.replace("%main (x: f32[8], y: f32[8]) -> f32[8] {", "%main {"),
    ],
)  # fmt: skip
def test_other_spellings_give_the_same_graph(other: str) -> None:
    def normal(text: str) -> str:
        return print_graph(parse(text)).replace("%", "").replace(", kind=kLoop", "")

    assert normal(other) == normal(MODULE)


def test_computations_without_a_header() -> None:
    graph = parse("f { ROOT a = f32[] parameter(0) }")
    assert (graph.name, graph.entry, graph.is_scheduled) == ("f", "f", False)
    assert parse("a { x = f32[] parameter(0) } b { y = f32[] parameter(0) }").entry == "b"  # the last one, as in XLA


def test_the_last_instruction_is_the_root_if_none_says_so() -> None:
    assert parse("ENTRY e { x = f32[] parameter(0) y = f32[] negate(x) }").entry_computation.root == 1


def test_callees_may_stand_after_callers() -> None:
    text = "ENTRY e { x = f32[] parameter(0) ROOT y = f32[] call(x), to_apply=f } f { ROOT a = f32[] parameter(0) }"
    assert list(parse(text).computations) == ["f", "e"]


def test_names_may_repeat_in_other_computations() -> None:
    text = "f { ROOT x = f32[] parameter(0) } ENTRY e { x = f32[] parameter(0) ROOT f = f32[] call(x), to_apply=f }"
    assert parse(text).entry_computation.root_instruction.called == ("f",)


def test_operands_may_stand_after_users_in_a_module_without_schedule() -> None:
    text = "ENTRY e { ROOT z = f32[] add(y, x) y = f32[] negate(x) x = f32[] parameter(0) }"
    entry = parse(text).entry_computation
    assert [i.name for i in entry.instructions] == ["x", "y", "z"]
    assert (entry.root_instruction.name, entry.root_instruction.operands) == ("z", (1, 0))
    with pytest.raises(
        ParseError, match=r"<string>:1:\d+: the module says is_scheduled=true, but an operand stands after"
    ):
        parse("HloModule m, is_scheduled=true " + text)


def test_unknown_opcodes_are_kept_with_one_warning_each() -> None:
    text = "ENTRY e {\n x = f32[] parameter(0)\n y = f32[] frobnicate(x), speed=9\n z = f32[] frobnicate(y)\n ROOT w = f32[] zap(z)\n}"
    graph = parse(text, "m.txt")
    assert graph.warnings == (
        "m.txt:3:12: opcode 'frobnicate' is not known: kept as opaque",
        "m.txt:5:17: opcode 'zap' is not known: kept as opaque",
    )
    y = graph.entry_computation.instructions[1]
    assert (y.opcode, y.attribute("speed")) == ("frobnicate", "9")


def entry(body: str) -> str:
    return f"HloModule m\n\nENTRY e {{\n  x = f32[8] parameter(0)\n  {body}\n}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1:1: the file is empty"),
        (" \n\n", ":1:1: the file is empty"),
        ("HloModule m\n", ":2:1: there is no computation: is the file truncated?"),
        ("Hello, world", ":1:1: expected HLO text (HloModule …), found 'Hello, world'"),
        ("{}", ":1:1: expected HLO text (HloModule …), found '{}'"),
        ("HloModule m\nENTRY { ROOT x = f32[] parameter(0) }", ":2:1: expected HLO text (HloModule …), found 'ENTRY {"),
        ('{"HloModule": 1}', ":1:1: expected HLO text (HloModule …)"),
        ("HloModule m, x={1", ":1:16: '{' is never closed: is the file truncated?"),
        ("HloModule m, input_output_alias={ {0}: 3 }\nENTRY e { x = f32[] parameter(0) }", ":1:34: expected an alias such as"),
        ("HloModule m, input_output_alias={ {0}: (0, {}) }\nENTRY e { x = f32[] parameter(0) }", ":1:33: the alias of output {0} names an output that does not exist"),
        ("HloModule m\nFileNames\n1 nameless\n", ":3:1: malformed row of FileNames: '1 nameless'"),
        ("HloModule m\nx = f32[] parameter(0)", ":2:1: an instruction stands outside of any computation"),
        ("f { x = f32[] parameter(0) } g [", ":1:32: expected { to begin computation 'g', found '['"),
        ("f (x: f32[]) { x = f32[] parameter(0) }", ":1:14: expected -> after the parameters, found '{ x ="),
        ("f (x: f32[] -> f32[] { x = f32[] p }", ":1:3: '(' is never closed"),
        ("f { x = f32[] parameter(0)", ":1:27: the computation is never closed: is the file truncated?"),
        ("ENTRY e { }", ":1:7: a computation has at least one instruction"),
        (MODULE + MODULE, f":{MODULE.count(chr(10)) + 1}:1: a second HloModule: a file holds one module"),
        ("f { x = f32[] parameter(0) } f { x = f32[] parameter(0) }", ":1:30: a second computation is called 'f'"),
        ("ENTRY f { x = f32[] parameter(0) } ENTRY g { x = f32[] parameter(0) }", ":1:42: a second ENTRY; the first is 'f'"),
        (entry("x = f32[8] negate(x)"), ":5:3: a second instruction is called 'x'"),
        (entry("ROOT a = f32[8] negate(x) ROOT b = f32[8] negate(x)"), ":5:34: a second ROOT; the first is 'a'"),
        (entry("y = f32[8] negate(q)"), ":5:21: 'q', which 'y' names, is not defined in its computation"),
        (entry("y = f32[8] negate(x), control-predecessors={%q}"), ":5:48: 'q', which 'y' names, is not defined"),
        (entry("y = f32[8] call(x), to_apply=%g"), ":5:3: computation 'g' is not defined"),
        (entry("y = f32[8] call(x), to_apply=%e"), ":5:3: computations call each other in a circle: e -> e"),
        (entry("y = f32[8] add(x, z) z = f32[8] negate(y)"), ":5:3: instructions wait for each other in a circle: y -> z -> y"),
        (entry("y = f32[8] add(x)"), ":5:3: add takes 2 operands, found 1"),
        (entry("y = f32[8] parameter(7)"), ":5:3: parameter 7 stands here, but parameter 1 is missing"),
        (entry("y = f32[8] parameter(0)"), ":5:3: 'x' is already parameter 0"),
        (entry("y = f32[8] parameter(-1)"), ":5:3: expected the number of a parameter, found '-1'"),
        (entry("y = f32[8] get-tuple-element(x), index=0"), ":5:3: takes an element of f32[8], which is no tuple"),
        (entry("y = q7[8] negate(x)"), ":5:7: data type 'q7' is not known"),
        (entry("y = f32[99999999999999999999] negate(x)"), ":5:11: expected a dimension of at most 63 bits"),
        (entry("y = f32[8 negate(x)"), ":5:7: expected a shape"),
        (entry('y = f32[8] negate(x), metadata={op_name="a}'), ":5:43: string without an end"),
        (entry("y = f32[8] negate(x) garbage"), ":6:1: expected = after the name 'garbage', found '}'"),
    ],
)  # fmt: skip
def test_mistakes_are_located(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text, "m.txt")
    assert str(caught.value).startswith("m.txt" + message)


def test_columns_do_not_count_carriage_returns() -> None:
    with pytest.raises(ParseError, match=r"m.txt:5:3: add takes 2 operands"):
        parse(entry("y = f32[8] add(x)").replace("\n", "\r\n"), "m.txt")


def snake(opcode: object) -> str:
    """`HloOpcode.kDynamicSlice` to `dynamic-slice`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", str(opcode).rpartition(".k")[2]).lower()


SPELLINGS = {
    "exponential": "exp", "exponential-minus-one": "expm1", "log-plus-one": "log1p", "cosine": "cos", "sine": "sin",
    "count-leading-zeros": "clz", "opt-barrier": "optimization-barrier", "popcnt": "population-count",
}  # fmt: skip


@pytest.mark.parametrize("file", readable_by_jaxlib(ALL_TEXTS), ids=name_of)
def test_same_as_the_parser_of_xla(file) -> None:
    """jaxlib's own parser finds the same computations, and in each the same instructions, operands and order."""
    from jaxlib import _hlo

    graph = parse(text_of(file), file.name)
    module = _hlo.hlo_module_from_text(text_of(file))
    theirs = {computation.name: computation for computation in module.computations()}
    # Of an asynchronous instruction the text shows the operation, XLA a computation that wraps it. Some of what is in
    # there takes the name of an instruction of the text, which XLA then renames: so instructions are told by place.
    assert set(graph.computations) == {name for name in theirs if not name.startswith("async_wrapped")}
    renamed = 0
    for name, computation in graph.computations.items():
        instructions = theirs[name].instructions()
        if graph.is_scheduled and not is_fusion_body(graph, name):
            instructions = module.schedule().sequence(theirs[name])
        assert len(instructions) == len(computation.instructions)
        place = {i.name: k for k, i in enumerate(instructions)}
        for ours, their in zip(computation.instructions, instructions, strict=True):
            renamed += ours.name != their.name
            assert list(ours.operands) == [place[o.name] for o in their.operands()]
            opcode = snake(their.opcode)
            if opcode.startswith("async-"):
                assert ours.opcode.endswith(opcode.removeprefix("async"))
            else:
                assert SPELLINGS.get(ours.opcode, ours.opcode) == opcode
    assert renamed < 0.02 * sum(1 for _ in graph.instructions()) + 1


def is_fusion_body(graph, name: str) -> bool:
    """Only what runs instruction by instruction has a schedule."""
    callers = {i.opcode for _, i in graph.instructions() if name in i.called}
    return not (name == graph.entry or callers & {"while", "conditional", "call", "async-start"})


@pytest.mark.parametrize("file", readable_by_jaxlib(ALL_TEXTS), ids=name_of)
def test_shapes_are_those_of_xla(file) -> None:
    """jaxlib's parser prints every shape as we read it."""
    from jaxlib import _hlo

    graph = parse(text_of(file), file.name)
    again = parse(_hlo.hlo_module_from_text(text_of(file)).to_string(), file.name)
    for name, computation in graph.computations.items():
        ours, theirs = computation.instructions, again.computations[name].instructions
        if not graph.is_scheduled:  # XLA prints these in an order of its own
            ours, theirs = (sorted(some, key=lambda i: i.name) for some in (ours, theirs))
        for our, their in zip(ours, theirs, strict=True):
            if our.opcode != "constant":  # of these, jaxlib drops the size of packed elements
                assert our.shape == their.shape


@pytest.mark.parametrize("file", [f for f in CPU_TEXTS if "jax012" in f.name], ids=name_of)
def test_elements_of_tuples_as_newer_versions_print_them(file) -> None:
    graph = parse(text_of(file), file.name)
    taken = [i for _, i in graph.instructions() if i.opcode == "get-tuple-element"]
    assert len(taken) == len(
        {(c.name, i.operands, i.attribute("index")) for c, i in graph.instructions() if i in taken}
    )
    assert "#" in text_of(file)
    assert taken
    assert parse(print_graph(graph)) == graph


@pytest.mark.parametrize("file", ALL_TEXTS, ids=name_of)
def test_no_warnings_and_the_identity_of_printing(file) -> None:
    graph = parse(text_of(file), file.name)
    assert graph.warnings == ()
    assert parse(print_graph(graph), file.name) == graph


SMALL = [EVERY_OPCODE, *CPU_TEXTS, *OTHER_TEXTS, *(file for file in TPU_TEXTS if file.name.startswith("lstm."))]


@st.composite
def damaged_modules(draw: st.DrawFn) -> str:
    """A real module with some chunks cut, doubled, moved or overwritten."""
    text = text_of(draw(st.sampled_from(SMALL)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([1, 2, 5, 40, 1000]))
        chunk = text[start : start + length]
        kind = draw(st.sampled_from(["cut", "end", "double", "replace", "swap"]))
        if kind == "cut":
            text = text[:start] + text[start + length :]
        elif kind == "end":
            text = text[:start]
        elif kind == "double":
            text = text[:start] + chunk + chunk + text[start + length :]
        elif kind == "replace":
            text = (
                text[:start]
                + draw(st.sampled_from([*'{}()[]",=%#*/\\-\n ', "/*", "//", "9" * 30, "é", "\0"]))
                + text[start + 1 :]
            )
        else:
            other = draw(st.integers(0, len(text)))
            text = text[:start] + text[other : other + length] + text[start + length :]
    return text


def test_a_name_that_xla_does_not_take_is_made_legal() -> None:
    graph = parse("HloModule {a{b\n\nENTRY e {\n  ROOT x = f32[] parameter(0)\n}\n", "m.txt")
    assert graph.name == "_a_b"
    assert parse(print_graph(graph), "m.txt") == graph


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged_modules())
def test_damage_ends_in_a_located_error_or_a_graph(text: str) -> None:
    try:
        graph = parse(text, "m.txt")
    except ParseError as error:
        assert re.match(r"m\.txt:\d+:\d+: \S", str(error))
        assert error.line <= text.count("\n") + 1
    else:
        assert parse(print_graph(graph), "m.txt") == graph


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from(list('HloModule ENTRY ROOT x={}()[],%/*"\n-1f32')), max_size=60))
def test_noise_ends_in_an_error(text: str) -> None:
    try:
        parse("HloModule " + text)
    except ParseError:
        return


HOSTILE = {
    "open braces": "HloModule m, x=" + "{" * 200_000,
    "open parentheses": entry("y = f32[8] constant(" + "(" * 200_000),
    "deep tuple": entry("y = " + "(" * 200_000 + "f32[]" + ")" * 200_000 + " negate(x)"),
    "long tuple": entry("y = (" + "f32[], " * 100_000 + "f32[]) custom-call(x)"),
    "unclosed strings": "HloModule m" + ', a="' * 100_000,
    "open comments": "/* " * 200_000,
    "many unknown opcodes": entry("\n".join(f"y{i} = f32[8] op{i}(x)" for i in range(20_000))),
    "many predecessors": entry("y = f32[8] negate(x), control-predecessors={" + ", ".join(["x"] * 100_000) + "}"),
    "many operands": entry("y = f32[8] custom-call(" + ", ".join(["x"] * 100_000) + ")"),
    "long chain": entry("\n".join(f"y{i} = f32[8] negate({'x' if i == 0 else f'y{i - 1}'})" for i in range(20_000))),
    "long chain backwards": entry("\n".join(f"y{i} = f32[8] negate({'x' if i == 0 else f'y{i - 1}'})" for i in range(20_000, -1, -1))),
    "deep elements": entry("y = f32[] negate(x" + "#0" * 100_000 + ")"),
    "many dimensions": entry("y = f32[" + "2," * 200_000 + "2] negate(x)"),
    "large tile": entry("y = f32[8]{0:T(" + "2," * 200_000 + "2)} negate(x)"),
    "long digits": entry("y = f32[" + "9" * 200_000 + "] negate(x)"),
    "long name": entry("y" * 200_000 + " = f32[8] negate(x)"),
    "many aliases": "HloModule m, input_output_alias={" + ", ".join(f"{{{i}}}: (0, {{}})" for i in range(50_000)) + "}",
    "open comments among operands": entry("y = f32[8] add(" + "/* " * 100_000 + ")"),
    "open string of quotes": "HloModule m // x\n" + '"' + '\\"' * 100_000,
    "open quotes": "HloModule m // x\n" + "'" + "\\'" * 100_000,
    "comments of stars": entry("y = f32[8] negate(/*" + "* " * 100_000 + "*/x), /*" + "* " * 100_000 + "*/k=1"),
    "long value": entry("y = f32[8] negate(x), k={" + '{"\\\\"}' * 100_000 + "}"),
    "many long spaces": entry("y = f32[8] negate(x)" + ", k=1" + " " * 200_000),
    "many tiles": entry("y = f32[8]{0:T" + "(2)" * 50_000 + "} negate(x)"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_neither_hang_nor_crash(name: str) -> None:
    """Anything worse than linear would take minutes to hours here; the runner's patience is the limit."""
    try:
        graph = parse(HOSTILE[name])
    except ParseError as error:
        assert error.line > 0
    else:
        assert graph.entry == "e"
