"""Which operands are read in the order in which the result is written."""

from __future__ import annotations

import pytest

from memplan.compiler.analysis.elementwise import Elementwise, same_form
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir import Layout, Shape

TEXT = """
inner { u = f32[8] parameter(0) ROOT v = f32[8] negate(u) }

chain {
  a = f32[8] parameter(0)
  b = f32[8] parameter(1)
  c = f32[4] parameter(2)
  s = f32[8] parameter(3)
  n = f32[8] fusion(a), kind=kLoop, calls=inner
  t = f32[8] add(n, s)
  r = f32[8] reverse(b), dimensions={0}
  m = f32[8] multiply(t, r)
  w = f32[8] pad(c, c0), padding=0_4
  c0 = f32[] constant(0)
  k = f32[8] add(m, w)
  ROOT out = (f32[8], f32[8]) tuple(k, t)
}

ENTRY e {
  x = f32[8] parameter(0)
  y = f32[4] parameter(1)
  i = s32[] constant(0)
  sum = f32[8] add(x, x)
  back = f32[8] reverse(x), dimensions={0}
  put = f32[8] dynamic-update-slice(x, y, i)
  sorted = (f32[8], f32[8]) sort(x, sum), dimensions={0}, to_apply=less
  big = f32[8] convert(x)
  ROOT f = (f32[8], f32[8]) fusion(x, x, y, x), kind=kLoop, calls=chain
}

less { l0 = f32[] parameter(0) l1 = f32[] parameter(1) l2 = f32[] parameter(2) l3 = f32[] parameter(3)
  ROOT lt = pred[] compare(l0, l1), direction=LT }
"""


@pytest.fixture(scope="module")
def reads():  # type: ignore[no-untyped-def]
    graph = parse_hlo(TEXT)
    entry = graph.entry_computation
    elementwise = Elementwise(graph)
    return lambda name, operand: elementwise.reads(entry.instructions[entry.index[name]], operand)


def test_arithmetic_reads_element_by_element_and_a_reverse_does_not(reads) -> None:  # type: ignore[no-untyped-def]
    assert reads("sum", 0)
    assert reads("sum", 1)
    assert not reads("back", 0)


def test_an_update_reads_what_it_updates_so_and_nothing_else(reads) -> None:  # type: ignore[no-untyped-def]
    assert [reads("put", k) for k in range(3)] == [True, False, False]


def test_a_fusion_reads_so_what_flows_to_its_results_through_elementwise_operations(reads) -> None:  # type: ignore[no-untyped-def]
    assert [reads("f", k) for k in range(4)] == [True, False, False, True]


def test_a_sort_may_sort_each_operand_where_it_stands() -> None:
    graph = parse_hlo(TEXT)
    entry = graph.entry_computation
    sort = entry.instructions[entry.index["sorted"]]
    shape = entry.instructions[entry.index["x"]].shape
    elementwise = Elementwise(graph)
    found = {(k, j) for k in range(2) for j in range(2) if elementwise.may_share(sort, k, shape, (j,))}
    assert found == {(0, 0), (1, 1)}


def test_forms_differ_by_type_dimensions_order_and_tiles_but_not_by_memory() -> None:
    array = Shape("f32", (2, 3))
    assert same_form(array, Shape("f32", (2, 3), Layout((1, 0))))
    assert same_form(array, array.with_memory_space(1))
    for other in (
        Shape("s32", (2, 3)),
        Shape("f32", (3, 2)),
        Shape("f32", (2, 3), Layout((0, 1))),
        Shape("f32", (2, 3), Layout((1, 0), ((8, 128),))),
    ):
        assert not same_form(array, other)
