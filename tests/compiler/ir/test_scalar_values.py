import pytest

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir.scalar_values import Both, Comparison, Evaluator, Linear, Value, carried_element, nothing_known
from memplan.compiler.ir.shape import Shape

S8 = Shape("s8")


def value_of(body: str, path: tuple[int, ...] = ()) -> Value:
    """Returns the value of the root of a computation with one parameter, `x`, an s8 that a loop carries."""
    graph = parse_hlo(f"ENTRY e {{ x = s8[] parameter(0) {body} }}")
    evaluator = Evaluator(graph, lambda *_: None)
    return evaluator.result("e", path, lambda _, at: carried_element(at, S8))


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("ROOT r = s8[] copy(x)", Linear((), 1, 0, -128, 127)),
        ("c = s8[] constant(100) ROOT r = s8[] add(x, c)", Linear((), 1, 100, -128, 27)),
        ("c = s8[] constant(100) ROOT r = s8[] subtract(c, x)", Linear((), -1, 100, -27, 127)),
        ("c = s8[] constant(3) m = s8[] multiply(x, c) ROOT r = s8[] add(m, c)", Linear((), 3, 3, -42, 41)),
        ("ROOT r = s8[] add(x, x)", Linear((), 2, 0, -64, 63)),
        ("ROOT r = s8[] subtract(x, x)", 0),
        ("ROOT r = s8[] negate(x)", Linear((), -1, 0, -127, 127)),
        ("ROOT r = u8[] convert(x)", Linear((), 1, 0, 0, 127)),
        ("ROOT r = f32[] convert(x)", Linear((), 1, 0, -128, 127)),
        ("ROOT r = s8[] multiply(x, x)", None),
        ("ROOT r = pred[] convert(x)", Comparison(Linear((), 1, 0, -128, 127), 0, "NE")),
        ("a = s32[] constant(300) ROOT r = s8[] convert(a)", 44),
        ("a = f32[] constant(0.5) ROOT r = s8[] convert(a)", None),
        ("a = f32[] constant(1000) ROOT r = s8[] convert(a)", None),
        ("a = s32[1,1] constant({ {7} }) b = s32[] reshape(a) ROOT r = s32[1] broadcast(b), dimensions={}", 7),
        ("a = s32[2] constant({7, 7}) ROOT r = s32[1] slice(a), slice={[0:1]}", None),
        ("p = pred[] constant(true) a = s8[] constant(4) ROOT r = s8[] select(p, a, x)", 4),
        ("p = pred[] constant(false) a = s8[] constant(4) ROOT r = s8[] select(p, a, x)", Linear((), 1, 0, -128, 127)),
    ],
)
def test_scalars(body: str, value: Value) -> None:
    assert value_of(body) == value


def test_truths() -> None:
    x = Linear((), 1, 0, -128, 127)
    less, more = Comparison(x, 5, "LT"), Comparison(x, 0, "GT")
    start = "a = s8[] constant(5) z = s8[] constant(0) l = pred[] compare(x, a), direction=LT m = pred[] compare(x, z), direction=GT "
    no = "n = pred[] constant(false) "
    assert value_of(start + "ROOT r = pred[] and(l, m)") == Both((less, more))
    assert value_of(start + "b = pred[] and(l, m) ROOT r = pred[] and(b, l)") == Both((less, more, less))
    assert value_of(start + "ROOT r = pred[] or(l, m)") is None
    assert value_of(start + "ROOT r = pred[] not(l)") == Comparison(x, 5, "GE")
    assert value_of(start + no + "ROOT r = pred[] or(l, n)") == less
    assert value_of(start + no + "ROOT r = pred[] and(n, l)") == 0
    assert value_of(start + no + "ROOT r = pred[] compare(l, n), direction=EQ") == Comparison(x, 5, "GE")
    assert value_of(start + no + "ROOT r = pred[] compare(l, n), direction=NE") == less


@pytest.mark.parametrize(("index", "value"), [(-1, 3), (0, 1), (1, 2), (2, 3), (7, 3)])
def test_branches(index: int, value: int) -> None:
    """An index outside of the range takes the last branch."""
    branches = "".join(f"b{i} {{ p = s8[] parameter(0) ROOT c = s8[] constant({i}) }} " for i in (1, 2, 3))
    text = f"""{branches} ENTRY e {{ x = s8[] parameter(0) i = s32[] constant({index})
      ROOT r = s8[] conditional(i, x, x, x), branch_computations={{b1, b2, b3}} }}"""
    assert Evaluator(parse_hlo(text), lambda *_: None).result("e", (), nothing_known) == value


@pytest.mark.parametrize(("predicate", "value"), [("true", 1), ("false", 2)])
def test_predicates(predicate: str, value: int) -> None:
    text = f"""t {{ p = s8[] parameter(0) ROOT c = s8[] copy(p) }} f {{ p = s8[] parameter(0) ROOT c = s8[] copy(p) }}
    ENTRY e {{ a = s8[] constant(1) b = s8[] constant(2) i = pred[] constant({predicate})
      ROOT r = s8[] conditional(i, a, b), true_computation=t, false_computation=f }}"""
    assert Evaluator(parse_hlo(text), lambda *_: None).result("e", (), nothing_known) == value


@pytest.mark.parametrize(
    ("payload", "path", "value"),
    [
        ("(1, (2, 3))", (0,), 1),
        ("( 1, ( {2}, 3 ) )", (1, 0), 2),
        ("(1, (2, 3))", (1, 1), 3),
        ("{...}", (0,), None),
        ("(1)", (0,), None),
    ],
)
def test_constants_in_tuples(payload: str, path: tuple[int, ...], value: Value) -> None:
    graph = parse_hlo(f"ENTRY e {{ ROOT c = (s32[], (s32[], s32[])) constant({payload}) }}")
    assert Evaluator(graph, lambda *_: None).result("e", path, nothing_known) == value


def test_what_is_unknown_is_named() -> None:
    graph = parse_hlo(
        "ENTRY e { x = s8[] parameter(0) y = s8[] custom-call(x) z = s8[] negate(y) ROOT r = s8[] add(z, z) }"
    )
    evaluator = Evaluator(graph, lambda *_: None)
    assert evaluator.result("e", (), nothing_known) is None
    assert evaluator.unknown is not None
    assert evaluator.unknown.name == "y"
    assert not evaluator.is_exhausted


def test_long_chains_are_given_up() -> None:
    chain = " ".join(f"x{i + 1} = s8[] copy(x{i})" for i in range(5000))
    graph = parse_hlo(f"ENTRY e {{ x0 = s8[] constant(1) {chain} }}")
    assert Evaluator(graph, lambda *_: None).result("e", (), nothing_known) is None
