"""What lies at one place, and which copies are needed where it cannot."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.analysis.aliasing import _add, _overlaps

from .helpers import DATA, copies, flat, storage


def together(text: str, *values: str) -> bool:
    """Tells whether the values lie in one storage."""
    program = flat(text)
    return len({storage(program, value).name for value in values}) == 1


LOOP = """
body {{
  p = (f32[8], f32[8]) parameter(0)
  x = f32[8] get-tuple-element(p), index=0
  y = f32[8] get-tuple-element(p), index=1
  {body}
}}
check {{ q = (f32[8], f32[8]) parameter(0) ROOT c = pred[] custom-call(q), custom_call_target="k" }}
ENTRY e {{
  a = f32[8] parameter(0)
  {before}
  w = (f32[8], f32[8]) while(t), condition=check, body=body
  v = f32[8] get-tuple-element(w), index=0
  u = f32[8] get-tuple-element(w), index=1
  ROOT o = f32[8] add(v, u)
}}"""
FRESH = "i = f32[8] negate(a) j = f32[8] abs(a) t = (f32[8], f32[8]) tuple(i, j)"


def test_a_loop_carries_its_values_in_one_place() -> None:
    text = LOOP.format(
        before=FRESH, body="m = f32[8] negate(x) n = f32[8] abs(y) ROOT r = (f32[8], f32[8]) tuple(m, n)"
    )
    assert together(text, "i", "x", "m", "v")
    assert together(text, "j", "y", "n", "u")
    assert not together(text, "i", "j")
    assert copies(flat(text)) == []


def test_values_that_change_places_are_copied() -> None:
    text = LOOP.format(before=FRESH, body="ROOT r = (f32[8], f32[8]) tuple(y, x)")
    assert copies(flat(text)) == [("r", "j", "w{0}"), ("r", "i", "w{1}")]


def test_a_result_that_is_computed_while_the_old_value_is_read_out_of_order_is_copied() -> None:
    body = "m = f32[8] reverse(x), dimensions={0} n = f32[8] abs(y) ROOT r = (f32[8], f32[8]) tuple(m, n)"
    text = LOOP.format(before=FRESH, body=body)
    assert copies(flat(text)) == [("r", "m", "w{0}")]
    # The compiler that scheduled a module knows better, for instance that its `reverse` may be done in place.
    assert copies(flat("HloModule m, is_scheduled=true\n" + text)) == []


def test_a_new_value_that_appears_before_the_old_one_was_last_read_is_copied() -> None:
    body = "m = f32[8] negate(x) n = f32[8] add(y, x) ROOT r = (f32[8], f32[8]) tuple(m, n)"
    assert copies(flat(LOOP.format(before=FRESH, body=body))) == [("r", "m", "w{0}")]


def test_one_value_for_two_places_is_copied_once() -> None:
    body = "m = f32[8] add(x, y) ROOT r = (f32[8], f32[8]) tuple(m, m)"
    assert copies(flat(LOOP.format(before=FRESH, body=body))) == [("r", "i", "w{1}")]
    once = "i = f32[8] negate(a) t = (f32[8], f32[8]) tuple(i, i)"
    body = "m = f32[8] negate(x) n = f32[8] abs(y) ROOT r = (f32[8], f32[8]) tuple(m, n)"
    assert copies(flat(LOOP.format(before=once, body=body))) == [("t", "i", "w{1}")]


def test_arguments_and_constants_are_copied_where_a_loop_would_overwrite_them() -> None:
    before = "k = f32[8] constant({...}) t = (f32[8], f32[8]) tuple(a, k)"
    body = "m = f32[8] negate(x) n = f32[8] abs(y) ROOT r = (f32[8], f32[8]) tuple(m, n)"
    assert copies(flat(LOOP.format(before=before, body=body))) == [("t", "a", "w{0}"), ("t", "k", "w{1}")]
    body = "m = f32[8] negate(x) ROOT r = (f32[8], f32[8]) tuple(m, y)"
    assert copies(flat(LOOP.format(before=before, body=body))) == [("t", "a", "w{0}")]


def test_a_value_that_is_needed_after_the_loop_is_copied_before_it() -> None:
    body = "m = f32[8] negate(x) n = f32[8] abs(y) ROOT r = (f32[8], f32[8]) tuple(m, n)"
    text = LOOP.format(before=FRESH, body=body).replace("add(v, u)", "add(v, i)")
    assert copies(flat(text)) == [("t", "i", "w{0}")]


def test_an_update_of_what_a_loop_carries_is_in_place() -> None:
    body = (
        "s = f32[1] slice(y), slice={[0:1]} z = s32[] constant(0) m = f32[8] dynamic-update-slice(x, s, z)"
        " n = f32[8] abs(y) ROOT r = (f32[8], f32[8]) tuple(m, n)"
    )
    text = LOOP.format(before=FRESH, body=body)
    assert together(text, "i", "m", "v")
    assert copies(flat(text)) == []


UPDATE = "ENTRY e {{ a = f32[8] parameter(0) x = f32[8] negate(a) i = s32[] parameter(1) u = f32[2] slice(a), slice={{[0:2]}} d = f32[8] dynamic-update-slice({x}, u, i) ROOT o = f32[8] {last} }}"


@pytest.mark.parametrize(
    ("x", "last", "expected"),
    [("x", "negate(d)", True), ("x", "add(d, x)", False), ("a", "negate(d)", False)],
    ids=["nobody else", "still needed", "the caller's"],
)
def test_an_update_is_in_place_if_nobody_needs_the_old_content(x: str, last: str, expected: bool) -> None:
    assert together(UPDATE.format(x=x, last=last), x, "d") == expected


def test_an_update_with_a_part_of_what_is_updated() -> None:
    text = (
        "ENTRY e { a = f32[8] parameter(0) i = s32[] parameter(1) x = f32[8] negate(a)"
        " d = f32[8] dynamic-update-slice(x, x, i) ROOT o = f32[8] negate(d) }"
    )
    assert not together(text, "x", "d")


CONDITIONAL = """
left {{ l = f32[8] parameter(0) {left} }}
right {{ g = f32[8] parameter(0) {right} }}
ENTRY e {{ i = s32[] parameter(0) a = f32[8] parameter(1) b = f32[8] negate(a)
  c = f32[8] conditional(i, b, b), branch_computations={{left, right}} ROOT o = f32[8] {last} }}
"""
CHANGE = "z = s32[] constant(0) u = f32[2] slice(l), slice={[0:2]} ROOT d = f32[8] dynamic-update-slice(l, u, z)"


def test_branches_leave_their_results_in_one_place() -> None:
    text = CONDITIONAL.format(left="ROOT x = f32[8] negate(l)", right="ROOT y = f32[8] abs(g)", last="negate(c)")
    assert together(text, "x", "y", "c")
    assert copies(flat(text)) == []


def test_one_branch_may_change_in_place_what_the_other_returns() -> None:
    text = CONDITIONAL.format(left=CHANGE, right="ROOT y = f32[8] bitcast(g)", last="negate(c)")
    assert together(text, "b", "d", "y", "c")
    assert copies(flat(text)) == []


def test_a_branch_that_returns_what_is_needed_afterwards_copies_it() -> None:
    text = CONDITIONAL.format(left="ROOT x = f32[8] negate(l)", right="ROOT y = f32[8] bitcast(g)", last="add(c, b)")
    assert copies(flat(text)) == [("y", "b", "c")]


DONATED = "HloModule m, input_output_alias={{ {{}}: (0, {{}}, {kind}) }}\nENTRY e {{ a = f32[8] parameter(0) {body} }}"


@pytest.mark.parametrize("kind", ["may-alias", "must-alias"])
def test_a_result_lies_in_the_donated_argument(kind: str) -> None:
    text = DONATED.format(kind=kind, body="b = f32[8] negate(a) ROOT r = f32[8] abs(b)")
    assert together(text, "a", "r")
    assert copies(flat(text)) == []
    assert storage(flat(text), "a").result_indices == ((),)


def test_a_donation_that_cannot_share_copies_only_if_it_must() -> None:
    body = (
        "b = f32[8] negate(a) c = f32[8] reverse(b), dimensions={{0}} s = f32[8] add(a, c) ROOT r = f32[8] bitcast(b)"
    )
    body = body.replace("{{", "{").replace("}}", "}")
    program = flat(DONATED.format(kind="may-alias", body=body))
    assert copies(program) == []
    assert storage(program, "a").result_indices == ()
    program = flat(DONATED.format(kind="must-alias", body=body))
    assert copies(program) == [("r", "b", "r")]
    assert storage(program, "a").result_indices == ((),)


def test_results_have_places_of_their_own() -> None:
    program = flat(
        "ENTRY e { a = f32[8] parameter(0) k = f32[8] constant({...}) b = f32[8] negate(a)"
        " ROOT r = (f32[8], f32[8], f32[8], f32[8]) tuple(a, b, b, k) }"
    )
    assert copies(program) == [("r", "a", "r{0}"), ("r", "b", "r{2}"), ("r", "k", "r{3}")]
    assert [s.result_indices for s in program.storages if s.result_indices] == [((1,),), ((0,),), ((2,),), ((3,),)]


def test_xla_inserts_the_copies_that_are_found_to_be_needed() -> None:
    """XLA's own copies in the optimized module, against those found in the module as it was before."""
    before, after = (
        flat((DATA / f"scan_rnn.{stage}.txt").read_text())
        for stage in ("before_optimizations", "cpu_after_optimizations")
    )
    entry = [step for step in after.steps if step.region == 0 and step.instruction.opcode == "copy"]
    into_loops = [copy for copy in before.copies if before.steps[copy.time].region == 0]
    assert sorted(step.instruction.shape.bytes for step in entry) == sorted(copy.bytes for copy in into_loops)
    assert after.copies == ()


intervals = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 6)).map(lambda pair: (pair[0], sum(pair))), max_size=12
)


@given(intervals, st.tuples(st.integers(0, 40), st.integers(1, 6)))
def test_interval_lists_are_sets_of_times(parts: list[tuple[int, int]], extra: tuple[int, int]) -> None:
    merged: list[tuple[int, int]] = []
    for part in parts:
        _add(merged, part)
    times = {t for start, end in parts for t in range(start, end)}
    assert {t for start, end in merged for t in range(start, end)} == times
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))
    start, end = extra[0], sum(extra)
    assert _overlaps(merged, (start, end)) == bool(times & set(range(start, end)))
