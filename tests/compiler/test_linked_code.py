"""Functions that only compiled functions call become a part of these, and leave no machine code of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memplan.compiler import kernels
from memplan.compiler.cache import Cache
from memplan.compiler.kernels import entry, inlined, internal
from memplan.compiler.linked_code import _LinkedLibrary


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kernels, "_CACHE", Cache(tmp_path))
    return tmp_path


@inlined
def scaled(values: np.ndarray, i: int, factor: int) -> float:
    return float(values[i] * factor)


@internal
def scaled_twice(values: np.ndarray, i: int) -> float:
    return scaled(values, i, 2) + scaled(values, i, 3)


@internal
def checked(values: np.ndarray, i: int) -> float:
    if i >= len(values):
        raise IndexError("no value", i)
    return scaled_twice(values, i)


def total(values: np.ndarray, count: int) -> float:
    result = 0.0
    for i in range(count):
        result += checked(values, i)
    return result


def test_only_the_entry_has_machine_code_and_is_kept(folder: Path) -> None:
    function = entry(total)
    assert function(np.arange(4.0), 4) == 30.0
    (result,) = function.overloads.values()
    assert b"ELF" in result.library.serialize_using_object_code()[2][0]
    for inner in (scaled, scaled_twice, checked):
        (linked,) = inner.overloads.values()
        assert isinstance(linked.library, _LinkedLibrary)
        assert not linked.library.has_dynamic_globals
    (kept,) = (path for path in folder.rglob("*") if path.is_file())
    assert ".total-" in kept.name


@pytest.mark.parametrize("is_loaded", [False, True])
def test_errors_come_out_of_compiled_and_of_loaded_code(is_loaded: bool) -> None:
    for _ in range(1 + is_loaded):
        function = entry(total)
        with pytest.raises(IndexError, match="no value") as caught:
            function(np.arange(4.0), 5)
        assert caught.value.args == ("no value", 4)


def test_a_literal_has_no_code_of_its_own() -> None:
    @internal
    def chosen(value: int, is_negative: bool) -> int:
        return -value if is_negative else value

    @entry
    def all_of_them(value: int) -> int:
        return chosen(1, True) + chosen(value, False) + chosen(2, value > 1)

    assert all_of_them(3) == 0
    assert len(chosen.signatures) == 1
