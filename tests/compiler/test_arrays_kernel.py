"""Plain loops over arrays do what NumPy does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler import arrays_kernel
from memplan.compiler.kernels import entry

argsort = entry(arrays_kernel.argsort.py_func)
copy_to = entry(arrays_kernel.copy_to.py_func)
fill = entry(arrays_kernel.fill.py_func)


@pytest.mark.parametrize("kind", [np.int64, np.float64])
@given(data=st.data())
def test_argsort_is_stable(kind: type, data: st.DataObject) -> None:
    keys = np.array(data.draw(st.lists(st.integers(-9, 9), max_size=100)), kind)
    count = data.draw(st.integers(0, len(keys)))
    order, spare = np.full(len(keys), -1), np.empty(len(keys), np.int64)
    argsort(keys, count, order, spare)
    assert order[:count].tolist() == np.argsort(keys[:count], kind="stable").tolist()
    assert (order[count:] == -1).all()


@given(size=st.integers(0, 2000), seed=st.integers(0, 9))
def test_argsort_of_many_keys(size: int, seed: int) -> None:
    keys = np.random.default_rng(seed).standard_normal(size)
    order, spare = np.empty(size, np.int64), np.empty(size, np.int64)
    argsort(keys, size, order, spare)
    assert order.tolist() == np.argsort(keys).tolist()


def test_fill_and_copy() -> None:
    source, target = np.arange(5), np.zeros(5, np.int64)
    copy_to(target, source)
    assert target.tolist() == source.tolist()
    fill(target, 7)
    assert target.tolist() == [7] * 5
