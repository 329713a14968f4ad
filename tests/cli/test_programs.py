"""Programs by name: workloads, and functions of the user's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from memplan.cli.programs import Program, find_program, lower_for_tpu, parse_mesh, tpu_program
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import load_target

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
def leaving():
    raise SystemExit(0)
def late():
    from neighbour_of_mine import fun
    return fun, (shape,)
def untraceable():
    return (lambda x: x @ "w"), (shape,)
def divided(mesh):
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x", "y"))
    return (lambda x: x @ x.T), (shape.update(sharding=sharding),)
def named():
    return (lambda x: jax.lax.with_sharding_constraint(x @ x, jax.sharding.PartitionSpec("x"))), (shape,)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "programs_of_mine.py").write_text(SOURCE)
    (tmp_path / "programs_that_fail.py").write_text("import no_such_package\n")
    (tmp_path / "programs_that_do_not_parse.py").write_text("def (\n")
    (tmp_path / "programs_that_leave.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "neighbour_of_mine.py").write_text("def fun(x): return x + 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
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


def test_what_a_function_imports_when_it_is_called_is_found_as_well(folder: Path) -> None:
    assert lower_for_tpu(find_program("programs_of_mine:late"))[:4] == b"ML\xefR"


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
        ("programs_of_mine:leaving", "cannot be built: SystemExit: 0$"),
        ("programs_that_leave:f", "programs_that_leave cannot be imported: SystemExit: 0$"),
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


def test_a_program_of_several_devices() -> None:
    mesh = jax.sharding.AbstractMesh((2,), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    halves = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding)
    with pytest.raises(MemplanError, match="halved is for 2 devices: memplan plans programs of one device"):
        lower_for_tpu(Program("halved", jnp.sin, (halves,)))


@pytest.mark.parametrize("name", ["divided", "named"])
def test_a_program_on_a_mesh(folder: Path, name: str) -> None:
    """The mesh is the argument of the function that builds the program, or what its names of axes refer to."""
    program = find_program(f"programs_of_mine:{name}", parse_mesh("2x4"))
    made = tpu_program(program, load_target("tpu-v5e"))
    assert made.slice is not None
    assert made.slice.topology == "v5e:2x4"


def test_a_mesh_over_which_nothing_is_divided(folder: Path) -> None:
    program = find_program("programs_of_mine:tiny", parse_mesh("x=2"))
    with pytest.raises(MemplanError, match="programs_of_mine:tiny has no shardings: nothing of it is divided"):
        tpu_program(program, load_target("tpu-v5e"))
    one = find_program("programs_of_mine:tiny", parse_mesh("x=1"))
    assert tpu_program(one, load_target("tpu-v5e")).slice is None


def test_meshes() -> None:
    assert dict(parse_mesh("2x4").shape) == {"x": 2, "y": 4}
    assert dict(parse_mesh("8").shape) == {"x": 8}
    assert dict(parse_mesh("data=2, model=16").shape) == {"data": 2, "model": 16}


@pytest.mark.parametrize("text", ["2y2", "", "0x2", "a=b", "a=2,3", "2x2x2x2", "1.5", "a=2,b=123456", "2=3"])
def test_what_is_no_mesh(text: str) -> None:
    with pytest.raises(MemplanError, match=r"--mesh .*: must be sizes, as 2x4, or names and sizes"):
        parse_mesh(text)


def test_a_mesh_with_one_axis_twice() -> None:
    with pytest.raises(MemplanError, match="--mesh a=2,a=2: it names an axis twice"):
        parse_mesh("a=2,a=2")


def test_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(MemplanError, match=r"^JAX is not installed: pip install jax$"):
        find_program("lstm")


def test_names_of_programs_are_the_users() -> None:
    assert Program("a", len, ()).name == "a"


def test_what_is_installed_is_not_hidden_by_the_current_folder(folder: Path) -> None:
    for name in ("jax", "numpy", "colorsys"):
        (folder / f"{name}.py").write_text("raise AssertionError('a file of the folder was imported')\n")
    (folder / "programs_of_mine.py").write_text(f"import colorsys, jax, numpy\n{SOURCE}")
    assert lower_for_tpu(find_program("programs_of_mine:late"))[:4] == b"ML\xefR"
    with pytest.raises(MemplanError, match=r"jax is the name of a module that memplan needs itself: rename .*/jax\.py"):
        find_program("jax:tiny")


def test_a_module_that_is_named_hides_what_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    (folder / "this.py").write_text(SOURCE)
    assert lower_for_tpu(find_program("this:tiny"))[:4] == b"ML\xefR"


def test_a_module_of_a_package_of_the_current_folder(folder: Path) -> None:
    for package in ("package_of_mine", "package_without_init"):
        (folder / package).mkdir()
        (folder / package / "inner.py").write_text(SOURCE)
        assert find_program(f"{package}.inner:tiny").args[0].shape == (8, 8)
        (folder / "package_of_mine" / "__init__.py").write_text("")


@pytest.mark.slow
def test_jax_looks_for_no_accelerator_even_if_it_is_imported_already() -> None:
    code = "import jax; from memplan.cli.programs import prepare_jax; prepare_jax(); print(jax.config.jax_platforms)"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "cpu\n"
