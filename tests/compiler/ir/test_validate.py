from dataclasses import replace

import pytest

from memplan.compiler.errors import GraphError, ParseError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.ir import Alias, Computation, Graph, Instruction, Shape
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.ir.validate import MAX_NESTING, InstructionError, callees_first, check_graph, same_structure
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.problem import MappingProblem

F32 = Shape("f32", (8,))
PAIR = Shape("tuple", elements=(F32, F32))
X = Instruction("x", "parameter", F32, payload="0")


def graph(*instructions: Instruction, root: int = -1, **fields: object) -> Graph:
    computation = Computation("e", instructions, root % max(len(instructions), 1))
    return replace(Graph("m", {"e": computation}, "e"), **fields)  # type: ignore[arg-type]


def test_a_legal_graph_passes() -> None:
    check_graph(graph(X, Instruction("y", "add", F32, (0, 0))))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (graph(), "at least one instruction"),
        (graph(X, Instruction("x", "negate", F32, (0,))), "e/x: a second instruction of this name"),
        (graph(X, Instruction("y", "add", F32, (0, 2))), "e/y: its operand 2 is not an earlier instruction"),
        (graph(X, Instruction("y", "copy", F32, (0,), control_predecessors=(1,))), "e/y: its predecessor 1"),
        (graph(X, Instruction("y", "add", F32, (0,))), "e/y: add takes 2 operands, found 1"),
        (graph(X, Instruction("y", "dot", F32, (0,))), "e/y: dot takes at least 2 operands, found 1"),
        (graph(replace(X, payload="zero")), "e/x: expected the number of a parameter, found 'zero'"),
        (graph(replace(X, payload="9" * 12)), "e/x: expected the number of a parameter"),
        (graph(X, replace(X, name="y")), "e/y: 'x' is already parameter 0"),
        (graph(replace(X, payload="2")), "e/x: parameter 2 stands here, but parameter 0 is missing"),
        (graph(X, Instruction("y", "get-tuple-element", F32, (0,))), "e/y: takes an element of f32[8], which is no tuple"),
        (
            graph(replace(X, shape=PAIR), Instruction("y", "get-tuple-element", F32, (0,), attributes=(("index", "2"),))),
            "e/y: index '2' is not one of the tuple's 2 elements",
        ),
        (
            graph(replace(X, shape=PAIR), Instruction("y", "get-tuple-element", PAIR, (0,), attributes=(("index", "1"),))),
            "e/y: element 1 of its operand is f32[8], not (f32[8], f32[8])",
        ),
        (graph(X, Instruction("y", "call", F32, (0,), called=("f",))), "e/y: calls 'f', which does not exist"),
        (graph(X, Instruction("y", "call", F32, (0,))), "e/y: call calls one computation, found 0"),
        (graph(X, entry="main"), "the entry computation 'main' does not exist"),
        (graph(X, aliases=(Alias((0,), 0, (), False),)), "the alias of output {0} names an output that does not exist"),
        (graph(X, aliases=(Alias((), 1, (), False),)), "the alias of output {} names parameter 1; there are 1"),
        (graph(X, aliases=(Alias((), 0, (3,), False),)), "the alias of output {} names {3} of parameter 0, which does not"),
        (graph(X, aliases=(Alias((), 0, (), False),) * 2), "the alias of output {} is stated twice"),
    ],
)  # fmt: skip
def test_broken_rules_are_named(broken: Graph, reason: str) -> None:
    with pytest.raises(GraphError) as caught:
        check_graph(broken)
    assert reason in str(caught.value)


LOOP = """
condition { c = (s32[], f32[8]) parameter(0) i = s32[] get-tuple-element(c), index=0
            n = s32[] constant(3) ROOT less = pred[] compare(i, n), direction=LT }
body { b = (s32[], f32[8]) parameter(0) ROOT again = (s32[], f32[8]) copy(b) }
ENTRY e { p = (s32[], f32[8]) parameter(0) ROOT w = (s32[], f32[8]) while(p), condition=condition, body=body }
"""
BRANCHES = """
one { a = f32[8] parameter(0) ROOT ra = f32[8] negate(a) }
two { b = f32[8] parameter(0) ROOT rb = f32[8] copy(b) }
ENTRY e { k = pred[] parameter(0) x = f32[8] parameter(1)
  ROOT r = f32[8] conditional(k, x, x), true_computation=one, false_computation=two }
"""


@pytest.mark.parametrize("legal", [LOOP, BRANCHES])
def test_structured_control_flow_passes(legal: str) -> None:
    check_graph(parse_hlo(legal))


STARTED = """
f { a = f32[] parameter(0) ROOT b = f32[] copy(a) }
ENTRY e { x = f32[] parameter(0) ROOT y = ((f32[]), f32[], s32[]) OPCODE(x), calls=f }
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LOOP.replace("ROOT w = (s32[], f32[8])", "ROOT w = f32[8]"), "the loop carries (s32[], f32[8]), but its result is f32[8]"),
        (LOOP.replace("less = pred[] compare", "less = s32[] compare"), "condition 'condition' returns s32[], not pred[]"),
        (LOOP.replace("ROOT again = (s32[], f32[8])", "ROOT again = s32[]"), "'body' returns s32[], not (s32[], f32[8])"),
        (LOOP.replace("c = (s32[], f32[8])", "c = (s32[], f32[8], f32[8])"), "parameter 0 of 'condition' is (s32[], f32[8], f32[8])"),
        (LOOP.replace(", body=body", ""), "while needs the attribute body=COMPUTATION"),
        (BRANCHES.replace("(k, x, x)", "(k, x)"), "2 branches, but operands for 1"),
        (BRANCHES.replace("ROOT rb = f32[8] copy(b)", "ROOT rb = (f32[8]) tuple(b)"), "'two' returns (f32[8]), not f32[8]"),
        ("f { a = f32[] parameter(0) } ENTRY e { x = f32[] parameter(0) ROOT y = f32[] fusion(x, x), calls=f }", "'f' takes 1 parameters, but is given 2"),
        (STARTED.replace("OPCODE", "async-start").replace("(x)", "(x, x)"), "'f' takes 1 parameters, but is given 2"),
        (STARTED.replace("OPCODE", "fusion-start").replace("(x)", "(x, x)"), "'f' takes 1 parameters, but is given 2"),
        (STARTED.replace("OPCODE", "call-start").replace("calls", "to_apply").replace("(x)", "()"), "'f' takes 1 parameters, but is given 0"),
        (STARTED.replace("OPCODE", "async-start").replace("a = f32[]", "a = (f32[])"), "parameter 0 of 'f' is (f32[]), but is given f32[]"),
    ],
)  # fmt: skip
def test_callees_take_and_return_what_their_callers_expect(text: str, reason: str) -> None:
    with pytest.raises(Exception, match=r"<string>:\d+:\d+: ") as caught:
        parse_hlo(text)
    assert reason in str(caught.value)


def test_callees_first() -> None:
    def calls(name: str, *called: str) -> Computation:
        return Computation(name, (Instruction("r", "custom-call", F32, called=called),), 0)

    order = callees_first({"main": calls("main", "b", "a"), "a": calls("a"), "b": calls("b", "a"), "c": calls("c")})
    assert order == ["a", "b", "main", "c"]
    circular = {"main": calls("main", "a"), "a": calls("a", "b"), "b": calls("b", "a")}
    with pytest.raises(InstructionError, match=r"b/r: computations call each other in a circle: a -> b -> a"):
        callees_first(circular)


def test_callees_first_does_not_recurse() -> None:
    chain = {
        f"c{i}": Computation(f"c{i}", (Instruction("r", "custom-call", F32, called=(f"c{i + 1}",)),), 0)
        for i in range(20_000)
    }
    assert callees_first(chain)[0] == "c19999"


def test_same_structure_ignores_types_and_layouts() -> None:
    assert same_structure(PAIR, Shape("tuple", elements=(Shape("s8"), Shape("token"))))
    assert not same_structure(PAIR, Shape("tuple", elements=(PAIR, F32)))
    assert not same_structure(F32, PAIR)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ("(f32[])", "a tuple of 2 operands cannot be (f32[])"),
        ("(f32[], f32[], f32[])", "a tuple of 2 operands cannot be (f32[], f32[], f32[])"),
        ("f32[]", "a tuple of 2 operands cannot be f32[]"),
        ("((f32[]), f32[])", "element 0 is (f32[]), but its operand is f32[]"),
    ],
)
def test_a_tuple_has_an_element_for_each_operand(shape: str, reason: str) -> None:
    with pytest.raises(ParseError, match=r"^<string>:3:8: ") as caught:
        parse_hlo(f"ENTRY e {{\n  x = f32[] parameter(0)\n  ROOT t = {shape} tuple(x, x)\n}}\n")
    assert reason in str(caught.value)


CALLS = {
    "fusion": "fusion({operand}), kind=kLoop, calls={callee}",
    "call": "call({operand}), to_apply={callee}",
    "while": "while({operand}), condition=never, body={callee}",
}


def nested(kind: str, depth: int) -> str:
    """Returns a module of `depth` computations, each of which calls the one before it."""
    lines = ["HloModule deep", "never { n = f32[8] parameter(0) ROOT no = pred[] constant(false) }"]
    lines.append("c1 { p = f32[8] parameter(0) ROOT r = f32[8] negate(p) }")
    for level in range(2, depth + 1):
        call = CALLS[kind].format(operand="p", callee=f"c{level - 1}")
        entry = "ENTRY " if level == depth else ""
        lines.append(f"{entry}c{level} {{ p = f32[8] parameter(0) ROOT r = f32[8] {call} }}")
    return "\n".join(lines)


@pytest.mark.parametrize("kind", CALLS)
def test_calls_nest_to_a_limit_and_all_stages_take_what_does(kind: str) -> None:
    graph = parse_hlo(nested(kind, MAX_NESTING))
    assert parse_hlo(print_graph(graph)) == graph
    problem = build_problem(scheduled(graph), load_target("tpu-v5e"))
    assert problem.faults == ()
    assert MappingProblem.from_json(problem.to_json()) == problem
    for depth in (MAX_NESTING + 1, 3000):
        with pytest.raises(ParseError, match=rf"computations call each other more than {MAX_NESTING} deep"):
            parse_hlo(nested(kind, depth))
