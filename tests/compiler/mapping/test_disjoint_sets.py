"""Numbers in sets that are joined one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.mapping.disjoint_sets import DisjointSets


def test_each_number_is_alone_at_first() -> None:
    sets = DisjointSets(3)
    assert [sets.find(i) for i in range(3)] == [0, 1, 2]


def test_a_set_is_represented_as_the_one_that_it_joined() -> None:
    sets = DisjointSets(5)
    sets.join(0, 1)
    sets.join(2, 3)
    sets.join(0, 2)
    assert [sets.find(i) for i in range(5)] == [3, 3, 3, 3, 4]
    sets.join(1, 3)  # they are one set already
    assert [sets.find(i) for i in range(5)] == [3, 3, 3, 3, 4]


def test_a_long_chain() -> None:
    sets = DisjointSets(10_000)
    for i in range(9_999):
        sets.join(i, i + 1)
    assert {sets.find(i) for i in range(10_000)} == {9_999}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_sets_are_those_of_merged_lists(joins: list[tuple[int, int]]) -> None:
    sets = DisjointSets(10)
    expected = {i: {i} for i in range(10)}
    for i, into in joins:
        sets.join(i, into)
        merged = expected[i] | expected[into]
        expected.update(dict.fromkeys(merged, merged))
    for i in range(10):
        assert {j for j in range(10) if sets.find(j) == sets.find(i)} == expected[i]
        assert sets.find(i) in expected[i]
