"""Which positions hold the same content."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memplan.compiler.analysis.dataflow import find_values
from memplan.compiler.analysis.elementwise import Elementwise
from memplan.compiler.analysis.in_place import InPlace
from memplan.compiler.analysis.schedule import lay_out
from memplan.compiler.analysis.values import PHASES, Values
from memplan.compiler.errors import GraphError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.hlo_shape import parse_shape
from memplan.compiler.ir import Graph


def values_of(text: str, pointer_bytes: int = 0) -> Values:
    return values_in(parse_hlo(text), pointer_bytes)


def values_in(graph: Graph, pointer_bytes: int = 0) -> Values:
    return find_values(lay_out(graph), InPlace(graph), Elementwise(graph), pointer_bytes)


def groups(values: Values) -> list[set[str]]:
    """Returns the names of all positions that hold the same value, by value."""
    found: dict[int, set[str]] = {}
    for position, value in enumerate(values.of):
        if value >= 0:
            found.setdefault(values.find(value), set()).add(values.positions.name(position))
    return [found[value] for value in sorted(found)]


def test_tuples_elements_bitcasts_and_barriers_hold_what_they_are_given() -> None:
    values = values_of(
        """ENTRY e {
          a = f32[8] parameter(0)
          b = f32[8] negate(a)
          t = (f32[8], (f32[8])) tuple(a, s)
          s = (f32[8]) tuple(b)
          o = (f32[8], (f32[8])) opt-barrier(t)
          g = (f32[8]) get-tuple-element(o), index=1
          h = f32[8] get-tuple-element(g), index=0
          ROOT v = f32[2,4] bitcast(h)
        }"""
    )
    assert groups(values) == [{"a", "t{0}", "o{0}"}, {"b", "s{0}", "t{1,0}", "o{1,0}", "g{0}", "h", "v"}]


def test_tuples_own_a_table_of_pointers_if_asked() -> None:
    text = "ENTRY e { a = f32[8] parameter(0) t = (f32[8]) tuple(a) ROOT g = f32[8] get-tuple-element(t), index=0 }"
    assert groups(values_of(text)) == [{"a", "t{0}", "g"}]
    assert groups(values_of(text, 8)) == [{"a", "t{0}", "g"}, {"t"}]


def test_tokens_and_opaque_handles_hold_nothing() -> None:
    text = 'ENTRY e { a = f32[8] parameter(0) t = token[] after-all() ROOT s = (token[], opaque[]) custom-call(a, t), custom_call_target="k" }'
    assert groups(values_of(text)) == [{"a"}]


RESHAPED = "ENTRY e {{ a = f32[8,2]{{{order}}} parameter(0) ROOT r = f32[16]{{0}} reshape(a) }}"


def test_a_reshape_that_moves_nothing_is_a_view_until_a_compiler_decided_otherwise() -> None:
    assert groups(values_of(RESHAPED.format(order="1,0"))) == [{"a", "r"}]
    assert groups(values_of(RESHAPED.format(order="0,1"))) == [{"a"}, {"r"}]
    scheduled = "HloModule m, is_scheduled=true\n" + RESHAPED.format(order="1,0")
    assert groups(values_of(scheduled)) == [{"a"}, {"r"}]


LOOP = """
body {
  p = (f32[8], f32[8], f32[8]) parameter(0)
  p0 = f32[8] get-tuple-element(p), index=0
  p1 = f32[8] get-tuple-element(p), index=1
  p2 = f32[8] get-tuple-element(p), index=2
  n = f32[8] add(p0, p1)
  ROOT r = (f32[8], f32[8], f32[8]) tuple(n, p1, p1)
}
condition { q = (f32[8], f32[8], f32[8]) parameter(0) ROOT c = pred[] custom-call(q), custom_call_target="k" }
ENTRY e {
  a = f32[8] parameter(0)
  b = f32[8] parameter(1)
  t = (f32[8], f32[8], f32[8]) tuple(a, b, a)
  ROOT w = (f32[8], f32[8], f32[8]) while(t), condition=condition, body=body
}"""


def test_what_a_loop_carries_unchanged_is_the_value_outside() -> None:
    assert groups(values_of(LOOP)) == [
        {"a", "t{0}", "t{2}"},
        {"b", "t{1}", "q{1}", "p{1}", "p1", "r{1}", "r{2}", "w{1}"},
        {"q{0}", "p{0}", "p0"},
        {"q{2}", "p{2}", "p2"},
        {"c"},
        {"n", "r{0}"},
        {"w{0}"},
        {"w{2}"},
    ]


def test_what_a_loop_changes_is_handed_over_in_one_place() -> None:
    values = values_of(LOOP)
    names = values.positions.name

    def handed(handovers):  # type: ignore[no-untyped-def]
        steps = values.positions.schedule.steps
        return [
            (names(values.position[values.find(h.value)]), names(h.position), steps[h.time].instruction.name)
            for h in handovers
        ]

    assert handed(values.entries) == [("a", "w{0}", "t"), ("a", "w{2}", "t")]
    assert handed(values.back_edges) == [("n", "w{0}", "r"), ("b", "w{2}", "r")]
    assert len(values.same_place) == 4


def test_a_loop_in_a_loop_that_changes_nothing() -> None:
    values = values_of(
        """
        inner { p = (f32[8], s32[]) parameter(0) x = f32[8] get-tuple-element(p), index=0
          i = s32[] get-tuple-element(p), index=1 j = s32[] add(i, i) ROOT r = (f32[8], s32[]) tuple(x, j) }
        check { q = (f32[8], s32[]) parameter(0) ROOT c = pred[] custom-call(q), custom_call_target="k" }
        outer { p.1 = (f32[8], s32[]) parameter(0)
          ROOT w.1 = (f32[8], s32[]) while(p.1), condition=check, body=inner }
        check.1 { q.1 = (f32[8], s32[]) parameter(0) ROOT c.1 = pred[] custom-call(q.1), custom_call_target="k" }
        ENTRY e { t = (f32[8], s32[]) parameter(0)
          ROOT w = (f32[8], s32[]) while(t), condition=check.1, body=outer }
        """
    )
    assert {"t{0}", "q.1{0}", "p.1{0}", "q{0}", "p{0}", "x", "r{0}", "w.1{0}", "w{0}"} in groups(values)


def test_branches_join_unless_all_return_what_they_were_given() -> None:
    values = values_of(
        """
        same { p = (f32[8], f32[8]) parameter(0) ROOT r = (f32[8], f32[8]) bitcast(p) }
        swap { q = (f32[8], f32[8]) parameter(0) x = f32[8] get-tuple-element(q), index=0
          n = f32[8] negate(x) ROOT s = (f32[8], f32[8]) tuple(x, n) }
        ENTRY e { i = s32[] parameter(0) t = (f32[8], f32[8]) parameter(1)
          ROOT c = (f32[8], f32[8]) conditional(i, t, t), branch_computations={same, swap} }
        """
    )
    assert groups(values) == [
        {"i"},
        {"t{0}", "p{0}", "r{0}", "q{0}", "x", "s{0}", "c{0}"},
        {"t{1}", "p{1}", "r{1}", "q{1}"},
        {"n", "s{1}"},
        {"c{1}"},
    ]
    assert [values.positions.name(h.position) for h in values.exits] == ["c{1}", "c{1}"]


def test_the_only_branch_does_not_give_its_own_value_away() -> None:
    values = values_of(
        "b { p = f32[8] parameter(0) ROOT n = f32[8] negate(p) }"
        "ENTRY e { i = s32[] parameter(0) x = f32[8] parameter(1)"
        " ROOT c = f32[8] conditional(i, x), branch_computations={b} }"
    )
    assert groups(values) == [{"i"}, {"x", "p"}, {"n"}, {"c"}]


def test_a_call_gives_what_its_callee_returns() -> None:
    values = values_of(
        "f { a = f32[8] parameter(0) b = f32[8] parameter(1) n = f32[8] negate(b) ROOT t = (f32[8], f32[8]) tuple(a, n) }"
        "ENTRY e { x = f32[8] parameter(0) ROOT c = (f32[8], f32[8]) call(x, x), to_apply=f }"
    )
    assert groups(values) == [{"x", "a", "b", "t{0}", "c{0}"}, {"n", "t{1}", "c{1}"}]


COPIES = """HloModule m, is_scheduled=true
ENTRY e {
  a = f32[8]{0} parameter(0)
  s = (f32[8]{0:S(1)}, f32[8]{0}, u32[]{:S(2)}) copy-start(a)
  d = f32[8]{0:S(1)} copy-done(s)
  ROOT n = f32[8]{0} negate(d)
}"""


def test_an_asynchronous_copy_has_a_source_a_destination_and_a_semaphore() -> None:
    values = values_of(COPIES)
    assert groups(values) == [{"a", "s{1}"}, {"s{0}", "d"}, {"s{2}"}, {"n"}]
    waits = [
        (values.positions.name(values.position[values.find(r.value)]), r.waits) for r in values.reads if r.time == 2
    ]
    assert waits == [("s{0}", True), ("a", True), ("s{2}", True)]


def test_slices_that_are_put_side_by_side_are_one_value() -> None:
    values = values_of(
        """HloModule m, is_scheduled=true
        ENTRY e {
          a = f32[16]{0} parameter(0)
          s = ((f32[16]{0}), f32[8]{0:S(1)}, s32[]{:S(2)}) slice-start(a), slice={[0:8]}
          t = ((f32[16]{0}), f32[8]{0:S(1)}, s32[]{:S(2)}) slice-start(a), slice={[8:16]}
          d = f32[8]{0:S(1)} slice-done(s)
          f = f32[8]{0:S(1)} slice-done(t)
          w = f32[16]{0:S(1)} custom-call(d, f), custom_call_target="ConcatBitcast"
          ROOT n = f32[16]{0} negate(w)
        }"""
    )
    assert groups(values)[:2] == [{"a", "s{0,0}", "t{0,0}"}, {"s{1}", "t{1}", "d", "f", "w"}]


@pytest.mark.parametrize(
    ("start", "shape", "result"),
    [
        ("all-gather-start", "(f32[8], f32[16])", "{1}"),
        ("collective-permute-start", "(f32[8], f32[16], u32[], u32[])", "{1}"),
        ("all-reduce-start", "f32[16]", ""),
        ("async-start", "((f32[8]), f32[16], s32[])", "{1}"),
    ],
)
def test_other_asynchronous_operations(start: str, shape: str, result: str) -> None:
    calls = ", calls=f" if start == "async-start" else ""
    values = values_of(
        "f { p = f32[8] parameter(0) ROOT c = f32[16] concatenate(p, p), dimensions={0} }"
        f"ENTRY e {{ a = f32[8] parameter(0) s = {shape} {start}(a){calls}"
        f" d = f32[16] {start.removesuffix('start')}done(s) ROOT n = f32[16] negate(d) }}"
    )
    held = {name for group in groups(values) if "d" in group for name in group}
    assert held == {"s" + result, "d"}
    assert ("s{0}" in groups(values)[0] or "s{0,0}" in groups(values)[0]) == (start != "all-reduce-start")


def test_send_and_receive() -> None:
    values = values_of(
        """ENTRY e {
          a = f32[8] parameter(0)
          k = token[] after-all()
          s = (f32[8], u32[], token[]) send(a, k), channel_id=1
          x = token[] send-done(s), channel_id=1
          r = (f32[8], u32[], token[]) recv(k), channel_id=2
          y = (f32[8], token[]) recv-done(r), channel_id=2
          ROOT g = f32[8] get-tuple-element(y), index=0
        }"""
    )
    assert groups(values) == [{"a", "s{0}"}, {"s{1}"}, {"r{0}", "y{0}", "g"}, {"r{1}"}]


def test_a_value_is_in_the_memory_of_its_definition() -> None:
    """XLA reads modules in which the shape of a tuple or of a view says otherwise."""
    values = values_of("ENTRY e { a = f32[8]{0} parameter(0) ROOT b = f32[8]{0:S(1)} bitcast(a) }")
    assert groups(values)[0] == {"a", "b"}
    assert values.space[values.find(values.of[0])] == 0
    values = values_of(
        "ENTRY e { a = f32[8]{0:S(1)} parameter(0) t = (f32[8]) tuple(a)"
        " g = f32[8] get-tuple-element(t), index=0 ROOT n = f32[8] negate(g) }"
    )
    assert groups(values)[0] == {"a", "t{0}", "g"}
    assert values.space[values.find(values.of[0])] == 1


def test_what_a_loop_carries_is_in_the_memory_of_its_parameter() -> None:
    values = values_of(LOOP.replace("w = (f32[8], f32[8], f32[8])", "w = (f32[8]{0:S(1)}, f32[8], f32[8])"))
    held = [values.of[p] for p in range(len(values.of)) if values.positions.name(p) == "w{0}"]
    assert [values.space[values.find(value)] for value in held] == [0]


def test_an_alias_of_what_does_not_exist_is_an_error() -> None:
    with pytest.raises(GraphError, match=r"'r' has no operand 3\{\}"):
        values_of(
            'ENTRY e { a = f32[8] parameter(0) ROOT r = f32[8] custom-call(a), custom_call_target="k",'
            " output_to_operand_aliasing={{}: (3, {})} }"
        )


def test_reads_that_may_be_overwritten_end_before_the_result_begins() -> None:
    text = "ENTRY e { a = f32[8] parameter(0) n = f32[8] negate(a) ROOT r = f32[8] reverse(n), dimensions={0} }"
    values = values_of(text)
    assert [(v, p) for v, p, _ in values.uses[:2]] == [(0, PHASES * 1 + 1), (1, PHASES * 2 + 2)]
    trusted = values_of("HloModule m, is_scheduled=true\n" + text)
    assert [(v, p) for v, p, _ in trusted.uses[:2]] == [(0, PHASES * 1 + 1), (1, PHASES * 2 + 1)]


def test_a_send_done_with_an_array_gives_what_was_sent() -> None:
    """A text's gives a token alone, whatever it states, but a proto may have such."""
    graph = parse_hlo(
        """ENTRY e { a = f32[16] parameter(0) t = token[] after-all()
          s = (f32[16], u32[], token[]) send(a, t), channel_id=1
          ROOT d = token[] send-done(s), channel_id=1 }"""
    )
    entry = graph.entry_computation
    done = replace(entry.root_instruction, shape=parse_shape("(f32[16], token[])"))
    entry = replace(entry, instructions=(*entry.instructions[:-1], done))
    values = values_in(replace(graph, computations={"e": entry}))
    assert {"a", "s{0}", "d{0}"} in groups(values)
