"""Where compiled code is kept, and when it is compiled again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memplan.compiler import cache as caches
from memplan.compiler import kernels
from memplan.compiler.cache import Cache, CacheWarning, opened
from memplan.compiler.kernels import fingerprint

KERNEL = """from memplan.planners import rules
from memplan.planners.tables import (
    Tables,
)
"""

# Scores a small plan, which takes the emulator's kernel, and prints where numba keeps it.
PROGRAM = """
import sys, warnings
warnings.simplefilter("always")
from memplan.compiler.emulator import timing_kernel
from memplan.compiler import kernels
import numba
kernel = kernels.entry(timing_kernel.append.py_func)
assert numba.config.CACHE_DIR == "", "the cache of others moved"
print(kernels._CACHE.folder / kernels.FOLDER)
"""


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    planners = tmp_path / "planners"
    planners.mkdir()
    for name, text in (("some_kernel", KERNEL), ("rules", "A = 1"), ("tables", "B = 1"), ("greedy", "C = 1")):
        (planners / f"{name}.py").write_text(text)
    return {"planners": planners}


@pytest.mark.parametrize("name", ["some_kernel", "rules", "tables"])
def test_a_change_of_a_kernel_or_of_what_it_imports_gives_another_fingerprint(
    folders: dict[str, Path], name: str
) -> None:
    before = fingerprint(folders)
    with (folders["planners"] / f"{name}.py").open("a") as file:
        file.write("\n")
    assert fingerprint(folders) != before


def test_a_change_of_another_file_or_of_the_place_gives_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    before = fingerprint(folders)
    (folders["planners"] / "greedy.py").write_text("C = 2")
    assert fingerprint(folders) == before
    moved = folders["planners"].rename(tmp_path / "elsewhere")
    assert fingerprint({"planners": moved}) == before


def run(cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment | {"MEMPLAN_CACHE": str(cache)}, capture_output=True, text=True
    )


def test_compiled_code_is_kept_in_the_cache_folder(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "kernels")
    assert not done.stderr


def test_older_fingerprints_are_forgotten(tmp_path: Path) -> None:
    (installation,) = {Path(run(tmp_path).stdout.strip()).parent}
    current = next(installation.iterdir())
    shutil.rmtree(current)
    for number in range(5):
        (installation / str(number)).mkdir()
        os.utime(installation / str(number), (number, number))
    assert run(tmp_path).returncode == 0
    assert {path.name for path in installation.iterdir()} == {current.name, "4", "3"}


def test_without_a_cache_folder_kernels_work_and_that_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no cache in") == 1


def added(a: int, b: int) -> int:
    return a + b


def flip(content: bytes) -> bytes:
    """Changes a bit of the machine code."""
    place = content.index(b"ELF") + 100
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [flip, lambda content: content[:-1], lambda content: b"", lambda content: b"x" * 99])
def test_damaged_code_is_not_run_and_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(kernels, "_CACHE", Cache(tmp_path))
    monkeypatch.setattr(caches, "_said", set())
    assert kernels.entry(added)(2, 3) == 5
    (entry,) = (path for path in tmp_path.rglob("*") if path.is_file())
    whole = entry.read_bytes()
    assert kernels.entry(added)(2, 3) == 5
    assert entry.read_bytes() == whole
    entry.write_bytes(damage(whole))
    again = kernels.entry(added)
    with pytest.warns(CacheWarning, match="damaged entry"):
        assert again(2, 3) == 5
    assert opened(entry.read_bytes())
    compiled: list[None] = []
    with kernels.telling_of_compiles(lambda: compiled.append(None)):
        assert kernels.entry(added)(2, 3) == 5
    assert not compiled


def test_each_signature_has_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_CACHE", Cache(tmp_path))
    for _ in range(2):
        function = kernels.entry(added)
        assert [repr(function(2, 3)), repr(function(2.0, 3)), repr(function(2.0, 3.5))] == ["5", "5.0", "5.5"]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


def test_all_packages_with_kernels_are_in_the_fingerprint() -> None:
    root = Path(__file__).parent.parent.parent
    holding = {path.relative_to(root).parts[0] for path in root.glob("[a-z]*/**/*_kernel.py")} - {"tests"}
    assert holding == set(kernels._folders())
