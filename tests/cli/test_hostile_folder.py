"""Commands in a folder full of files that have the names of modules: none of them is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from memplan.compiler.cache import cache_folder

# Writes its name beside itself. Names are those of modules, so nothing else imports it.
TRAP = "open(__file__ + '.ran', 'w').close(); raise SystemExit(__name__ + ' of the current folder was imported')\n"

STABLEHLO = "module { func.func @main(%x: tensor<8xf32>) -> tensor<8xf32> { return %x : tensor<8xf32> } }\n"

PROGRAM = """
import json, queue, jax, numpy
import beside_the_program

def tiny():
    return beside_the_program.fun, (jax.ShapeDtypeStruct((128, 128), "float32"),)
"""

COMMAND = Path(sys.executable).with_name("memplan")


@pytest.fixture
def folder(tmp_path: Path, module_text: str, prepared: None) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    for name in sys.stdlib_module_names | set(packages_distributions()) | {"sitecustomize", "usercustomize"}:
        if name.isidentifier():
            (folder / f"{name}.py").write_text(TRAP)
    (folder / "matplotlibrc").write_text("text.usetex: True\n")
    (folder / "step.hlo.txt").write_text(module_text)
    (folder / "step.mlir").write_text(STABLEHLO)
    (folder / "program_of_mine.py").write_text(PROGRAM)
    (folder / "beside_the_program.py").write_text("def fun(x): return x @ x\n")
    assert (folder / "queue.py").exists()
    assert (folder / "jaxlib.py").exists()
    assert (folder / "memplan.py").exists()
    return folder


def finish(folder: Path, *command: object, **environment: str) -> str:
    """Runs a command in the folder and returns what it prints."""
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert [path.name for path in folder.glob("*.ran")] == []
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_traps_work(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import jaxlib"], cwd=folder, capture_output=True)
    assert done.returncode == 1
    # Which one is first depends on what Python's version imports by itself.
    assert list(folder.glob("*.py.ran"))


@pytest.mark.skipif(not COMMAND.exists(), reason="memplan is not installed as a command")
@pytest.mark.parametrize(
    "arguments",
    [
        ["targets"],
        ["planners"],
        ["plan", "step.hlo.txt", "-t", "tpu-v5e", "--planner", "auto", "--time-limit", "5", "--report", "report"],
        pytest.param(
            ["plan", "step.hlo.txt", "-t", "tpu-v5e", "--planner", "ilp", "--time-limit", "5", "-o", "plan.json"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["plan", "step.mlir", "-t", "tpu-v5e", "--planner", "slow"], marks=pytest.mark.slow),
        pytest.param(["bench", "parse", "--sizes", "200"], marks=pytest.mark.slow),
        pytest.param(["compile", "lstm", "--compile-budget", "1"], marks=[pytest.mark.tpu, pytest.mark.slow]),
        pytest.param(
            ["compile", "program_of_mine:tiny", "--compile-budget", "2"], marks=[pytest.mark.tpu, pytest.mark.slow]
        ),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_nothing_of_the_current_folder_is_imported(folder: Path, tmp_path: Path, arguments: list[str]) -> None:
    # A cache of its own, so that the TPU compiler runs; only compiled kernels are there.
    compiled = cache_folder()
    assert compiled is not None
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kernels").symlink_to(compiled / "kernels")
    assert finish(folder, COMMAND, *arguments, MEMPLAN_CACHE=str(tmp_path / "cache"))


def test_the_package_as_a_module(folder: Path) -> None:
    """Before memplan begins, Python looks into the current folder for what `-m` names, unless `-P` is given."""
    assert finish(folder, sys.executable, "-P", "-m", "memplan", "targets")
    for trap in folder.glob("*.py"):
        if trap.stem not in ("queue", "heapq", "jaxlib", "numpy", "rich", "typer", "filelock", "json"):
            trap.unlink()
    assert finish(folder, sys.executable, "-m", "memplan", "targets")
