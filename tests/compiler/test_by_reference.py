"""Named tuples of arrays in compiled functions: read and written in place, handed on as one address."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numba.core.errors import TypingError

from memplan.compiler import kernels
from memplan.compiler.by_reference import by_reference
from memplan.compiler.cache import Cache
from memplan.compiler.kernels import entry, internal

ROW = np.dtype([("size", np.int64), ("seconds", np.float64), ("is_done", np.bool_)], align=True)


class Inner(NamedTuple):
    table: np.ndarray
    flags: np.ndarray


class Outer(NamedTuple):
    rows: np.ndarray
    inner: Inner
    small: np.ndarray
    every_other: np.ndarray
    factor: float


by_reference(Inner, Outer)


def example() -> Outer:
    rows = np.zeros(4, ROW)
    rows["size"] = [3, 1, 4, 1]
    inner = Inner(np.arange(6.0).reshape(2, 3), np.array([True, False, True]))
    return Outer(rows, inner, np.arange(4, dtype=np.int8), np.arange(8)[::2], 2.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_CACHE", Cache(tmp_path))


@internal
def visit(tables: Outer, i: int) -> float:
    row = tables.rows[i]
    row.seconds = row.size * tables.factor
    row.is_done = tables.inner.flags[i % len(tables.inner.flags)]
    tables.small[i] += 1
    return float(row.seconds + tables.inner.table[1, i % 3] + tables.every_other[i])


def visit_all(tables: Outer) -> float:
    total = 0.0
    for i in range(len(tables.rows)):
        total += visit(tables, i)
    tables.rows[0] = tables.rows[2]
    return total


@pytest.mark.parametrize("is_loaded", [False, True])
def test_fields_are_read_and_written_in_place(is_loaded: bool) -> None:
    for _ in range(1 + is_loaded):
        tables, expected = example(), example()
        total = entry(visit_all)(tables)
        assert total == visit_all_in_python(expected)
        for made, wanted in zip((*tables[:1], *tables[2:4]), (*expected[:1], *expected[2:4]), strict=True):
            assert made.tolist() == wanted.tolist()


def visit_all_in_python(tables: Outer) -> float:
    total = 0.0
    for i, row in enumerate(tables.rows):
        row["seconds"], row["is_done"] = row["size"] * 2.0, tables.inner.flags[i % 3]
        total += row["seconds"] + tables.inner.table[1, i % 3] + tables.every_other[i]
    tables.small[:] += 1
    tables.rows[0] = tables.rows[2]
    return float(total)


def test_negative_numbers_count_from_the_end() -> None:
    @entry
    def last(tables: Outer) -> int:
        return int(tables.rows[-1].size + 10 * tables.small[-2])

    assert last(example()) == 1 + 10 * 2


def test_references_to_arrays_are_neither_lost_nor_kept() -> None:
    function, tables = entry(visit_all), example()
    function(tables)
    before = [sys.getrefcount(field) for field in (*tables, *tables.inner)]
    for _ in range(10):
        function(tables)
    assert [sys.getrefcount(field) for field in (*tables, *tables.inner)] == before


def test_arrays_of_other_types_are_other_tuples() -> None:
    @entry
    def first(tables: Inner) -> float:
        return float(tables.table[0, 0])

    assert first(Inner(np.ones((1, 1)), np.ones(1, np.bool_))) == 1.0
    assert first(Inner(np.full((1, 1), 7, np.int32), np.ones(1, np.bool_))) == 7.0
    assert len(first.signatures) == 2


def test_what_is_no_array_of_its_type_is_refused() -> None:
    function = entry(visit_all)
    with pytest.raises(TypingError, match="size"):
        function(example()._replace(rows=np.zeros(4)))
