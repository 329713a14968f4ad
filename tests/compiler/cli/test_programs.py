"""Programs by name: workloads, and functions of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from memplan.compiler.cli.programs import Program, find_program, lower_for_tpu
from memplan.compiler.errors import MemplanError

SOURCE = """
import jax, jax.numpy as jnp
from memplan.workloads import Workload

shape = jax.ShapeDtypeStruct((8, 8), jnp.float32)

def tiny():
    return (lambda x: jnp.tanh(x @ x)), (shape,)

workload = Workload("mine", "a test", tiny, donate_argnums=(0,))
number = 3
def nothing():
    return None
def broken():
    raise ValueError("no data\\nat all")
def untraceable():
    return (lambda x: x @ "w"), (shape,)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "programs_of_mine.py").write_text(SOURCE)
    (tmp_path / "programs_that_fail.py").write_text("import no_such_package\n")
    (tmp_path / "programs_that_do_not_parse.py").write_text("def (\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "programs_of_mine", raising=False)
    return tmp_path


def test_a_workload() -> None:
    program = find_program("lstm_train")
    assert program.name == "lstm_train"
    assert program.donate_argnums
    assert lower_for_tpu(find_program("lstm"))[:4] == b"ML\xefR"


def test_a_function_and_a_workload_of_a_module_in_the_current_folder(folder: Path) -> None:
    tiny = find_program("programs_of_mine:tiny")
    assert tiny.donate_argnums == ()
    assert tiny.args[0].shape == (8, 8)
    assert find_program("programs_of_mine:workload").donate_argnums == (0,)
    assert lower_for_tpu(tiny)[:4] == b"ML\xefR"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lsmt", "no workload is called 'lsmt'"),
        ("programs_of_mine:", "neither a workload nor module:function"),
        (":tiny", "neither a workload nor module:function"),
        ("no_such_module:tiny", "there is no module no_such_module, neither installed nor in the current folder"),
        ("programs_of_mine:huge", "programs_of_mine has no huge"),
        ("programs_of_mine:number", "is a int: it must be a function that returns"),
        ("programs_of_mine:nothing", r"returns no \(fun, args\)"),
        ("programs_of_mine:broken", "cannot be built: ValueError: no data$"),
        ("programs_that_fail:f", "programs_that_fail cannot be imported: ModuleNotFoundError"),
        ("programs_that_do_not_parse:f", "cannot be imported: SyntaxError"),
    ],
)
def test_mistakes(folder: Path, name: str, message: str) -> None:
    with pytest.raises(MemplanError, match=message):
        find_program(name)


def test_what_does_not_trace(folder: Path) -> None:
    with pytest.raises(MemplanError, match="programs_of_mine:untraceable does not trace: TypeError"):
        lower_for_tpu(find_program("programs_of_mine:untraceable"))


def test_names_of_programs_are_the_users() -> None:
    assert Program("a", len, ()).name == "a"
