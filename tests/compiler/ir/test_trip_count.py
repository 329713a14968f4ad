import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir import Graph
from memplan.compiler.ir.trip_count import ASSUMED_TRIP_COUNT, trip_count


def count(text: str) -> tuple[float, bool]:
    """Returns the trip count of the first `while` of a module."""
    return count_of(parse_hlo(text))


def count_of(graph: Graph, name: str = "") -> tuple[float, bool]:
    for computation, instruction in graph.instructions():
        if instruction.opcode == "while" and name in ("", instruction.name):
            return trip_count(graph, instruction, computation)
    raise AssertionError("no while")


UNKNOWN = (ASSUMED_TRIP_COUNT, False)

LOOP = """
condition {
  c = (s32[], f32[8], s32[]) parameter(0)
  ci = s32[] get-tuple-element(c), index=0
  cn = s32[] get-tuple-element(c), index=2
  limit = s32[] constant(12)
  ROOT go = pred[] compare(ci, limit), direction=LT
}
body {
  b = (s32[], f32[8], s32[]) parameter(0)
  bi = s32[] get-tuple-element(b), index=0
  bx = f32[8] get-tuple-element(b), index=1
  bn = s32[] get-tuple-element(b), index=2
  step = s32[] constant(1)
  next = s32[] add(bi, step)
  y = f32[8] negate(bx)
  ROOT all = (s32[], f32[8], s32[]) tuple(next, y, bn)
}
ENTRY e {
  x = f32[8] parameter(0)
  n = s32[] constant(40)
  zero = s32[] constant(0)
  start = (s32[], f32[8], s32[]) tuple(zero, x, n)
  ROOT w = (s32[], f32[8], s32[]) while(start), condition=condition, body=body
}
"""


def test_counted_loop() -> None:
    assert count(LOOP) == (12.0, True)


@pytest.mark.parametrize(
    "stated",
    [
        'backend_config={"known_trip_count":{"n":"7"}}',
        'backend_config={"known_init_step":{"init":"0","step":"1"},"known_trip_count":{"n":7}}',
        r'backend_config="{\"known_trip_count\":{\"n\":\"7\"}}"',
        'backend_config={ "known_trip_count" : { "n" : "7" } }',
        'backend_config="known_trip_count { n: 7 }"',
    ],
)
def test_stated_count_wins(stated: str) -> None:
    assert count(LOOP.replace("body=body", "body=body, " + stated)) == (7.0, True)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("compare(ci, limit), direction=LT", "compare(ci, limit), direction=LE", 13),
        ("compare(ci, limit), direction=LT", "compare(ci, limit), direction=NE", 12),
        ("compare(ci, limit), direction=LT", "compare(limit, ci), direction=GT", 12),
        ("compare(ci, limit), direction=LT", "compare(limit, ci), direction=GE", 13),
        ("compare(ci, limit), direction=LT", "compare(ci, limit), direction=EQ", 0),
        ("compare(ci, limit), direction=LT", "compare(ci, limit), direction=GT", 0),
        ("compare(ci, limit), direction=LT", "compare(ci, cn), direction=LT", 40),  # the limit comes through the tuple
        ("step = s32[] constant(1)", "step = s32[] constant(5)", 3),
        ("step = s32[] constant(1)", "step = s32[] constant(-1)", None),  # never ends
        ("step = s32[] constant(1)", "step = s32[] constant(0)", None),
        ("zero = s32[] constant(0)", "zero = s32[] constant(10)", 2),
        ("zero = s32[] constant(0)", "zero = s32[] constant(20)", 0),
        ("zero = s32[] constant(0)", "zero = s32[] parameter(1)", None),
        ("limit = s32[] constant(12)", "limit = s32[] constant({12})", 12),
        ("add(bi, step)", "multiply(bi, step)", None),
        ("add(bi, step)", "subtract(bi, step)", None),
        ("tuple(next, y, bn)", "tuple(bn, y, next)", None),  # rotated: not a counter
        ("next = s32[] add(bi, step)", "next0 = s32[] add(bi, step) next = s32[] add(step, next0)", 6),
    ],
)
def test_variations(old: str, new: str, expected: int | None) -> None:
    assert old in LOOP
    assert count(LOOP.replace(old, new)) == (UNKNOWN if expected is None else (float(expected), True))


def test_counting_down() -> None:
    text = LOOP.replace("add(bi, step)", "subtract(bi, step)").replace(
        "zero = s32[] constant(0)", "zero = s32[] constant(9)"
    )
    text = text.replace("limit = s32[] constant(12)", "limit = s32[] constant(0)")
    assert count(text.replace("direction=LT", "direction=GT")) == (9.0, True)
    assert count(text.replace("direction=LT", "direction=GE")) == (10.0, True)


def test_unsigned_arithmetic_wraps() -> None:
    text = LOOP.replace("s32", "u32").replace("constant(1)", "constant(4294967295)")
    text = text.replace("zero = u32[] constant(0)", "zero = u32[] constant(9)").replace("constant(12)", "constant(0)")
    assert count(text.replace("direction=LT", "direction=GT")) == (9.0, True)


def test_both_sides_move() -> None:
    text = LOOP.replace("compare(ci, limit)", "compare(ci, cn)").replace("tuple(next, y, bn)", "tuple(next, y, less)")
    text = text.replace("y = f32[8] negate(bx)", "y = f32[8] negate(bx) less = s32[] subtract(bn, step)")
    assert count(text) == (20.0, True)


def test_values_are_followed_through_copies_fusions_and_calls() -> None:
    text = """
    add_one { p = s32[]{:T(128)} parameter(0) o = s32[]{:T(128)} constant(1) ROOT s = s32[]{:T(128)} add(p, o) }
    compared { q = s32[] parameter(0) l = s32[] constant(6) ROOT t = pred[] compare(q, l), direction=LT }
    not_less { u = s32[] parameter(0) v = pred[] fusion(u), kind=kLoop, calls=compared m = pred[] not(v) ROOT z = pred[] not(m) }
    condition {
      c = (s32[], f32[8]) parameter(0)
      ci = s32[] get-tuple-element(c), index=0
      ROOT go = pred[] call(ci), to_apply=not_less
    }
    body {
      b = (s32[], f32[8]) parameter(0)
      bi = s32[] get-tuple-element(b), index=0
      copied = s32[]{:T(128)S(6)} copy(bi)
      bx = f32[8] get-tuple-element(b), index=1
      start = (s32[]{:S(1)}, s32[], u32[]{:S(2)}) copy-start(copied)
      done = s32[]{:S(1)} copy-done(start)
      cast = s32[] bitcast(done)
      ROOT all = (s32[], f32[8]) tuple(next, bx)
      next = s32[]{:T(128)} fusion(cast), kind=kLoop, calls=add_one
    }
    ENTRY e {
      x = f32[8] parameter(0)
      two = s32[] constant(2)
      begun = (s32[]{:S(1)}, s32[], u32[]{:S(2)}) copy-start(two)
      moved = s32[]{:S(1)} copy-done(begun)
      start = (s32[], f32[8]) tuple(moved, x)
      kept = (s32[], f32[8]) opt-barrier(start)
      ROOT w = (s32[], f32[8]) while(kept), condition=condition, body=body
    }"""
    assert count(text) == (4.0, True)


def test_values_pass_through_an_earlier_loop() -> None:
    """The limit of the second loop is carried, unchanged, by the first."""
    text = LOOP.replace("ROOT w = ", "w = ").rstrip().removesuffix("}")
    text += """
      kept = s32[] get-tuple-element(w), index=2
      second = (s32[], f32[8], s32[]) tuple(zero, x, kept)
      ROOT w2 = (s32[], f32[8], s32[]) while(second), condition=condition2, body=body
    }
    condition2 {
      c2 = (s32[], f32[8], s32[]) parameter(0)
      ci2 = s32[] get-tuple-element(c2), index=0
      cn2 = s32[] get-tuple-element(c2), index=2
      ROOT go2 = pred[] compare(ci2, cn2), direction=LT
    }"""
    graph = parse_hlo(text)
    assert count_of(graph, "w") == (12.0, True)
    assert count_of(graph, "w2") == (40.0, True)
    assert count_of(parse_hlo(text.replace("index=2\n      second", "index=0\n      second")), "w2") == UNKNOWN


def test_data_dependent_loop_is_unknown() -> None:
    text = LOOP.replace(
        "limit = s32[] constant(12)", "cx = f32[8] get-tuple-element(c), index=1 limit = s32[] custom-call(cx)"
    )
    assert count(text) == UNKNOWN


def test_calls_that_double_at_each_level_are_given_up() -> None:
    levels = ["f0 { p = s32[] parameter(0) ROOT r = s32[] add(p, p) }"]
    for i in range(1, 60):
        levels.append(
            f"f{i} {{ p = s32[] parameter(0) a = s32[] call(p), to_apply=f{i - 1} b = s32[] call(a), to_apply=f{i - 1} "
            "ROOT r = s32[] add(a, b) }"
        )
    text = "\n".join(levels) + LOOP.replace("add(bi, step)", "call(bi), to_apply=f59")
    assert count(text) == UNKNOWN


DIRECTIONS = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
}


@given(
    st.integers(-20, 20), st.integers(-5, 5), st.integers(-20, 20), st.integers(-5, 5), st.sampled_from(sorted(DIRECTIONS))
)  # fmt: skip
def test_count_is_that_of_running_the_loop(start: int, step: int, limit: int, limit_step: int, direction: str) -> None:
    text = LOOP.replace("compare(ci, limit), direction=LT", f"compare(ci, cn), direction={direction}")
    text = text.replace("zero = s32[] constant(0)", f"zero = s32[] constant({start})")
    text = text.replace("n = s32[] constant(40)", f"n = s32[] constant({limit})")
    text = text.replace(
        "step = s32[] constant(1)", f"step = s32[] constant({step}) lstep = s32[] constant({limit_step})"
    )
    text = text.replace("tuple(next, y, bn)", "tuple(next, y, moved) moved = s32[] add(bn, lstep)")
    i, n, iterations = start, limit, 0
    while DIRECTIONS[direction](i, n) and iterations < 1000:
        i, n, iterations = i + step, n + limit_step, iterations + 1
    assert count(text) == (UNKNOWN if iterations == 1000 else (float(iterations), True))
