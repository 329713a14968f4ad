from dataclasses import replace
from pathlib import Path

import pytest
from loop_modules import LOOP, UNKNOWN, count, count_of, loop_of

from memplan.compiler.errors import GraphError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir import Graph
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.ir.trip_count import loops_of, trip_count, why_unknown, with_trip_counts


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
        ("tuple(next, y, bn)", "tuple(bn, y, next)", 1),  # rotated: 0, then the limit's 40
        ("tuple(next, y, bn)", "tuple(step, y, bn)", None),  # 1 in every iteration but the first
        ("tuple(next, y, bn)", "tuple(bi, y, bn)", None),
        ("step = s32[] constant(1)", "one = s32[] constant(1) step = s32[] add(bi, one)", 4),  # 0, 1, 3, 7, 15
        (
            "limit = s32[] constant(12)",
            "three = s32[] constant(3) four = s32[] constant(4) limit = s32[] multiply(three, four)",
            12,
        ),
        ("zero = s32[] constant(0)", "two = s32[] constant(2) zero = s32[] negate(two)", 14),
        ("n = s32[] constant(40)", "n = s32[] constant(40) p = s32[] parameter(1) q = s32[] subtract(p, p)", 12),
        ("compare(ci, limit), direction=LT", "constant(false)", 0),
        ("compare(ci, limit), direction=LT", "constant(true)", None),
        ("compare(ci, limit), direction=LT", "compare(limit, cn), direction=GT", 0),
        ("compare(ci, limit), direction=LT", "compare(limit, cn), direction=LT", None),
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
    # What the first loop leaves in its counter is known too.
    assert count_of(parse_hlo(text.replace("index=2\n      second", "index=0\n      second")), "w2") == (12.0, True)


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


LESS = "ROOT root = pred[] compare(x0, x1), direction=LT"
ONE = "one = s32[] constant(1)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A step that is carried, and never changes.
        (loop_of("s32[];s32[];s32[]", "n = s32[] add(x0, x2) ROOT root = (s32[], s32[], s32[]) tuple(n, x1, x2)", LESS,
                 "z = s32[] constant(0) l = s32[] constant(10) s = s32[] constant(3)", "z, l, s"), 4),
        # A predicate that is carried: true at first, then whether the counter was below 5.
        (loop_of("pred[];s32[]", f"{ONE} n = s32[] add(x1, one) f = s32[] constant(5) g = pred[] compare(x1, f), direction=LT "
                 "ROOT root = (pred[], s32[]) tuple(g, n)", "ROOT root = pred[] copy(x0)",
                 "t = pred[] constant(true) z = s32[] constant(0)", "t, z"), 6),
        # Its opposite, over more iterations than are computed one by one.
        (loop_of("pred[];s32[]", f"{ONE} n = s32[] add(x1, one) f = s32[] constant(1000000) g = pred[] compare(n, f), direction=GE "
                 "ROOT root = (pred[], s32[]) tuple(g, n)", "ROOT root = pred[] not(x0)",
                 "t = pred[] constant(false) z = s32[] constant(0)", "t, z"), 1000000),
        (loop_of("pred[]", "g = pred[] constant(false) ROOT root = (pred[]) tuple(g)", "ROOT root = pred[] copy(x0)",
                 "t = pred[] constant(true)", "t"), 1),
        (loop_of("pred[]", "ROOT root = (pred[]) tuple(x0)", "ROOT root = pred[] copy(x0)", "t = pred[] constant(true)", "t"), None),
        # Two conditions at once.
        (loop_of("s32[];s32[]", f"{ONE} n = s32[] add(x0, one) m = s32[] subtract(x1, one) ROOT root = (s32[], s32[]) tuple(n, m)",
                 "a = pred[] compare(x0, x1), direction=LT z = s32[] constant(0) b = pred[] compare(x1, z), direction=GT "
                 "ROOT root = pred[] and(a, b)", "z = s32[] constant(0) l = s32[] constant(2000000)", "z, l"), 1000000),
        (loop_of("s32[];s32[]", f"{ONE} n = s32[] add(x0, one) ROOT root = (s32[], s32[]) tuple(n, x1)",
                 "a = pred[] compare(x0, x1), direction=LT t = pred[] constant(true) ROOT root = pred[] and(t, a)",
                 "z = s32[] constant(0) l = s32[] constant(7)", "z, l"), 7),
        (loop_of("s32[];s32[]", f"{ONE} n = s32[] add(x0, one) ROOT root = (s32[], s32[]) tuple(n, x1)",
                 "a = pred[] compare(x0, x1), direction=LT t = pred[] compare(x0, x0), direction=GT ROOT root = pred[] or(a, t)",
                 "z = s32[] constant(0) l = s32[] constant(7)", "z, l"), 7),
        # A multiple of the counter.
        (loop_of("s32[]", f"{ONE} n = s32[] add(x0, one) ROOT root = (s32[]) tuple(n)",
                 "e = s32[] constant(8) a = s32[] multiply(x0, e) l = s32[] constant(65536) ROOT root = pred[] compare(a, l), direction=LT",
                 "z = s32[] constant(0)", "z"), 8192),
        # Powers, remainders and shifts.
        (loop_of("s32[];s32[]", "n = s32[] add(x0, x0) ROOT root = (s32[], s32[]) tuple(n, x1)", LESS,
                 "z = s32[] constant(1) l = s32[] constant(1000)", "z, l"), 10),
        (loop_of("s32[];s32[]", f"{ONE} n = s32[] shift-left(x0, one) ROOT root = (s32[], s32[]) tuple(n, x1)", LESS,
                 "z = s32[] constant(1) l = s32[] constant(1000)", "z, l"), 10),
        # A whole number in floating point.
        (loop_of("f32[];f32[]", "one = f32[] constant(1) n = f32[] add(x0, one) ROOT root = (f32[], f32[]) tuple(n, x1)", LESS,
                 "z = f32[] constant(0) l = f32[] constant(10)", "z, l"), 10),
        (loop_of("f32[];f32[]", "one = f32[] constant(0.1) n = f32[] add(x0, one) ROOT root = (f32[], f32[]) tuple(n, x1)", LESS,
                 "z = f32[] constant(0) l = f32[] constant(10)", "z, l"), None),
        # 2^24 + 1 is no f32: the counter stays at 2^24.
        (loop_of("f32[];f32[]", "one = f32[] constant(1) n = f32[] add(x0, one) ROOT root = (f32[], f32[]) tuple(n, x1)", LESS,
                 "z = f32[] constant(0) l = f32[] constant(1e9)", "z, l"), None),
        # Conversions keep a value only where it fits.
        (loop_of("s32[];s8[]", f"{ONE} n = s32[] add(x0, one) ROOT root = (s32[], s8[]) tuple(n, x1)",
                 "c = s8[] convert(x0) ROOT root = pred[] compare(c, x1), direction=LT",
                 "z = s32[] constant(0) l = s8[] constant(100)", "z, l"), 100),
        (loop_of("s32[];s8[]", "one = s32[] constant(100) n = s32[] add(x0, one) ROOT root = (s32[], s8[]) tuple(n, x1)",
                 "c = s8[] convert(x0) ROOT root = pred[] compare(c, x1), direction=LE",
                 "z = s32[] constant(0) l = s8[] constant(100)", "z, l"), 14),  # 1400 is the first whose low byte exceeds 100
        # Constants in a tuple, also as newer versions print them.
        (loop_of("s32[];(s32[], s32[])", "s = s32[] get-tuple-element(x1), index=0 n = s32[] add(x0, s) "
                 "ROOT root = (s32[], (s32[], s32[])) tuple(n, x1)",
                 "l = s32[] get-tuple-element(x1), index=1 ROOT root = pred[] compare(x0, l), direction=LT",
                 "z = s32[] constant(0) l = (s32[], s32[]) constant((2, 10))", "z, l"), 5),
    ],
)  # fmt: skip
def test_forms(text: str, expected: int | None) -> None:
    assert count(text) == (UNKNOWN if expected is None else (float(expected), True))


NESTED = """
inner_condition {{ p = (s32[], s32[]) parameter(0) i = s32[] get-tuple-element(p), index=0
  n = s32[] get-tuple-element(p), index=1 ROOT go = pred[] compare(i, n), direction=LT }}
inner_body {{ p = (s32[], s32[]) parameter(0) i = s32[] get-tuple-element(p), index=0
  n = s32[] get-tuple-element(p), index=1 one = s32[] constant(1) j = s32[] add(i, one) ROOT r = (s32[], s32[]) tuple(j, n) }}
outer_condition {{ p = (s32[], s32[]) parameter(0) i = s32[] get-tuple-element(p), index=0
  n = s32[] constant(3) ROOT go = pred[] compare(i, n), direction=LT }}
outer_body {{ p = (s32[], s32[]) parameter(0) i = s32[] get-tuple-element(p), index=0
  n = s32[] get-tuple-element(p), index=1 zero = s32[] constant(0) start = (s32[], s32[]) tuple(zero, {bound})
  inner = (s32[], s32[]) while(start), condition=inner_condition, body=inner_body
  one = s32[] constant(1) j = s32[] add(i, one) last = s32[] get-tuple-element(inner), index=0 ROOT r = (s32[], s32[]) tuple(j, {kept}) }}
ENTRY e {{ zero = s32[] constant(0) six = s32[] constant(6) start = (s32[], s32[]) tuple(zero, six)
  ROOT outer = (s32[], s32[]) while(start), condition=outer_condition, body=outer_body }}"""


def test_what_an_outer_loop_carries_is_known_in_the_inner_one() -> None:
    graph = parse_hlo(NESTED.format(bound="n", kept="n"))
    assert count_of(graph, "inner") == (6.0, True)
    assert count_of(graph, "outer") == (3.0, True)
    # Here the bound of the inner loop is the outer counter, which differs from iteration to iteration.
    assert count_of(parse_hlo(NESTED.format(bound="i", kept="n")), "inner") == UNKNOWN
    # Here it is what the inner loop left.
    changing = parse_hlo(NESTED.format(bound="n", kept="last"))
    assert count_of(changing, "inner") == UNKNOWN
    assert count_of(changing, "outer") == (3.0, True)


def test_parameters_are_known_where_all_callers_agree() -> None:
    text = loop_of("s32[];s32[]", f"{ONE} n = s32[] add(x0, one) ROOT root = (s32[], s32[]) tuple(n, x1)", LESS,
                   "limit = s32[] parameter(0) z = s32[] constant(0)", "z, limit").replace("ENTRY e", "f")  # fmt: skip
    entry = """ENTRY main {{ a = s32[] constant(9) b = s32[] constant({other}) c = (s32[], s32[]) call(a), to_apply=f
      d = (s32[], s32[]) call(b), to_apply=f ROOT r = ((s32[], s32[]), (s32[], s32[])) tuple(c, d) }}"""
    assert count(text + entry.format(other=9)) == (9.0, True)
    assert count(text + entry.format(other=8)) == UNKNOWN


@pytest.mark.parametrize("name", ["scan_rnn", "scan_rnn.jax012"])
def test_what_xla_states_is_found_without_it(name: str) -> None:
    file = Path(__file__).parents[2] / f"data/hlo/{name}.cpu_after_optimizations.txt"
    graph = parse_hlo(file.read_text())
    ((computation, loop),) = loops_of(graph)
    assert "known_trip_count" in loop.attribute("backend_config")
    silent = replace(loop, attributes=tuple(pair for pair in loop.attributes if pair[0] != "backend_config"))
    assert trip_count(graph, silent, computation) == trip_count(graph, loop, computation)


def reason(text: str) -> str:
    graph = parse_hlo(text)
    computation, loop = next(loops_of(graph))
    return why_unknown(graph, loop, computation)


def test_reasons() -> None:
    assert reason(LOOP) == ""
    endless = "its condition is always true"
    assert reason(LOOP.replace("step = s32[] constant(1)", "step = s32[] constant(0)")) == endless
    assert reason(LOOP.replace("compare(ci, limit), direction=LT", "constant(true)")) == endless
    argument = LOOP.replace("zero = s32[] constant(0)", "zero = s32[] parameter(1)")
    assert reason(argument) == "its condition depends on zero (parameter), which is known only when the program runs"
    call = LOOP.replace("limit = s32[] constant(12)", "limit = s32[] custom-call()")
    assert reason(call) == "its condition depends on limit (custom-call), which is known only when the program runs"
    long = LOOP.replace("s32", "s64").replace("constant(12)", f"constant({2**62})")
    assert reason(long) == f"it would run {2**62} times"
    around = LOOP.replace("step = s32[] constant(1)", "step = s32[] constant(-1)")
    assert "its counter overflows" in reason(around)


class TestGivenCounts:
    def given(self, text: str, **counts: int) -> Graph:
        return with_trip_counts(parse_hlo(text), counts)

    def test_a_given_count_overrules_the_program(self) -> None:
        assert count_of(self.given(LOOP, w=100)) == (100.0, True)
        assert count_of(self.given(LOOP, w=0)) == (0.0, True)
        stated = LOOP.replace("body=body", 'body=body, backend_config={"known_trip_count":{"n":"7"}}')
        assert count_of(self.given(stated, w=8)) == (8.0, True)

    def test_it_is_part_of_the_text(self) -> None:
        for extra in ("", ', frontend_attributes={a="b",c={d}}', ', metadata={op_name="x"}'):
            graph = self.given(LOOP.replace("body=body", "body=body" + extra), w=9)
            assert parse_hlo(print_graph(graph)) == graph
            assert count_of(parse_hlo(print_graph(graph))) == (9.0, True)
            again = with_trip_counts(graph, {"w": 10})
            assert count_of(again) == (10.0, True)
            assert print_graph(again) == print_graph(graph).replace('="9"', '="10"')
            assert ('a="b",c={d}' in print_graph(graph)) == ("frontend" in extra)

    def test_names(self) -> None:
        nested = parse_hlo(NESTED.format(bound="i", kept="n"))
        assert count_of(with_trip_counts(nested, {"outer_body/inner": 2}), "inner") == (2.0, True)
        both = parse_hlo(NESTED.format(bound="i", kept="n").replace("outer =", "inner ="))
        counts = with_trip_counts(both, {"inner": 4, "e/inner": 5})
        assert [trip_count(counts, loop, computation) for computation, loop in loops_of(counts)] == [
            (4.0, True),
            (5.0, True),
        ]
        assert with_trip_counts(nested, {}) is nested

    def test_mistakes(self) -> None:
        with pytest.raises(GraphError, match=r"no loop is called v: the loops are e/w$"):
            self.given(LOOP, v=3)
        with pytest.raises(GraphError, match="no loop is called w: the program has no loop"):
            self.given("ENTRY e { ROOT x = f32[] parameter(0) }", w=3)
        for wrong in (-1, 2**60):
            with pytest.raises(GraphError, match="must be between 0 and 2\\^53"):
                self.given(LOOP, w=wrong)
