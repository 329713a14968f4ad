"""Results that can be written by changing an operand."""

from __future__ import annotations

import pytest

from memplan.compiler.analysis.in_place import InPlace, InPlacePair
from memplan.compiler.frontends import parse_hlo


def pairs(text: str, name: str = "r") -> tuple[InPlacePair, ...]:
    graph = parse_hlo(text)
    entry = graph.entry_computation
    return InPlace(graph).pairs(entry, entry.instructions[entry.index[name]])


HEAD = "ENTRY e { x = f32[8] parameter(0) u = f32[2] parameter(1) i = s32[] parameter(2)"


def test_an_update_of_a_slice() -> None:
    assert pairs(HEAD + " ROOT r = f32[8] dynamic-update-slice(x, u, i) }") == (InPlacePair(0, (), (), 8),)


def test_an_addition_is_none() -> None:
    assert pairs(HEAD + " ROOT r = f32[8] add(x, x) }") == ()


@pytest.mark.parametrize(("combiner", "touched"), [("add(a, b)", 2 * 8), ("", 8)])
def test_a_scatter_reads_what_it_combines_with(combiner: str, touched: int) -> None:
    root = f"ROOT c = f32[] {combiner}" if combiner else ""
    mark = "" if combiner else "ROOT "
    text = (
        f"f {{ a = f32[] parameter(0) {mark}b = f32[] parameter(1) {root} }}"
        "ENTRY e { x = f32[8] parameter(0) u = f32[2] parameter(1) i = s32[2,1] parameter(2)"
        " ROOT r = f32[8] scatter(x, i, u), update_window_dims={}, inserted_window_dims={0},"
        " scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=f }"
    )
    assert pairs(text) == (InPlacePair(0, (), (), touched),)


def fused(body: str, result: str = "f32[8]", operands: str = "x, u, i") -> tuple[InPlacePair, ...]:
    parameters = "p = f32[8] parameter(0) q = f32[2] parameter(1) j = s32[] parameter(2) "
    return pairs(f"f {{ {parameters} {body} }} {HEAD} ROOT r = {result} fusion({operands}), kind=kLoop, calls=f }}")


def test_a_fusion_that_ends_in_an_update_of_a_parameter() -> None:
    assert fused("n = f32[2] negate(q) ROOT d = f32[8] dynamic-update-slice(p, n, j)") == (InPlacePair(0, (), (), 8),)


def test_bitcasts_do_not_hide_it() -> None:
    body = (
        "b = f32[2,4] bitcast(p) c = f32[1,2] bitcast(q) z = s32[] constant(0)"
        "d = f32[2,4] dynamic-update-slice(b, c, j, z) ROOT o = f32[8] bitcast(d)"
    )
    assert fused(body) == (InPlacePair(0, (), (), 8),)


def test_each_output_of_a_fusion_is_looked_at() -> None:
    body = "n = f32[2] negate(q) d = f32[8] dynamic-update-slice(p, q, j) ROOT o = (f32[2], f32[8]) tuple(n, d)"
    assert fused(body, "(f32[2], f32[8])") == (InPlacePair(0, (), (1,), 8),)


def test_two_updates_one_after_another_touch_both_parts() -> None:
    body = "d = f32[8] dynamic-update-slice(p, q, j) ROOT o = f32[8] dynamic-update-slice(d, q, j)"
    assert fused(body) == (InPlacePair(0, (), (), 16),)


def test_a_fusion_inside_a_fusion() -> None:
    inner = "g { a = f32[8] parameter(0) b = f32[2] parameter(1) c = s32[] parameter(2) ROOT d = f32[8] dynamic-update-slice(a, b, c) } "
    text = (
        inner + "f { p = f32[8] parameter(0) q = f32[2] parameter(1) j = s32[] parameter(2)"
        " ROOT o = f32[8] fusion(p, q, j), kind=kLoop, calls=g }" + HEAD
    )
    assert pairs(text + " ROOT r = f32[8] fusion(x, u, i), kind=kLoop, calls=f }") == (InPlacePair(0, (), (), 8),)


def test_an_update_of_something_computed_is_none() -> None:
    assert fused("n = f32[8] negate(p) ROOT d = f32[8] dynamic-update-slice(n, q, j)") == ()


def test_a_parameter_that_is_read_besides_is_marked() -> None:
    body = "n = f32[8] negate(p) d = f32[8] dynamic-update-slice(p, q, j) ROOT o = (f32[8], f32[8]) tuple(d, n)"
    assert fused(body, "(f32[8], f32[8])") == (InPlacePair(0, (), (0,), 8, exclusive=False),)


def test_one_operand_is_given_away_once() -> None:
    body = (
        "d = f32[8] dynamic-update-slice(p, q, j) c = f32[8] dynamic-update-slice(p, q, j)"
        "ROOT o = (f32[8], f32[8]) tuple(d, c)"
    )
    assert fused(body, "(f32[8], f32[8])") == (InPlacePair(0, (), (0,), 8, exclusive=False),)


def test_what_a_custom_call_states() -> None:
    stated = "output_to_operand_aliasing={{0}: (1, {}), {1}: (0, {2})}"
    text = (
        "ENTRY e { t = (f32[1], f32[2], f32[8]) parameter(0) u = f32[2] parameter(1)"
        f' ROOT r = (f32[2], f32[8]) custom-call(t, u), custom_call_target="k", {stated} }}'
    )
    assert pairs(text) == (InPlacePair(1, (), (0,), -1), InPlacePair(0, (2,), (1,), -1))


def test_statements_that_are_malformed_are_left_out() -> None:
    stated = f"output_to_operand_aliasing={{{{0}}: (1, {{}}), {{1 0}}: (0, {{2}}), {{1}}: ({'9' * 5000}, {{}})}}"
    text = f'ENTRY e {{ u = f32[2] parameter(0) ROOT r = (f32[2], f32[8]) custom-call(u), custom_call_target="k", {stated} }}'
    assert pairs(text) == (InPlacePair(1, (), (0,), -1),)


def test_an_update_of_unknown_size_on_the_way_is_one_of_unknown_size() -> None:
    text = (
        "g { p = f32[8] parameter(0) ROOT c = f32[8] copy(p) }"
        "f { p = f32[8] parameter(0) q = f32[2] parameter(1) j = s32[] parameter(2)"
        " c = f32[8] fusion(p), kind=kLoop, output_to_operand_aliasing={{}: (0, {})}, calls=g"
        " ROOT d = f32[8] dynamic-update-slice(c, q, j) }"
    )
    assert pairs(text + HEAD + " ROOT r = f32[8] fusion(x, u, i), kind=kLoop, calls=f }") == (
        InPlacePair(0, (), (), -1),
    )


def test_an_asynchronous_update_gives_its_result_in_element_one() -> None:
    text = HEAD + (
        " s = ((f32[8], f32[2], s32[]), f32[8], u32[]) dynamic-update-slice-start(x, u, i)"
        " ROOT r = f32[8] dynamic-update-slice-done(s) }"
    )
    assert pairs(text, "s") == (InPlacePair(0, (), (1,), 8),)
