"""The wheel holds all that memplan needs, and nothing under another name."""

import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel from a copy: setuptools leaves a build folder beside what it builds."""
    import shutil

    source, out = tmp_path_factory.mktemp("source") / "memplan", tmp_path_factory.mktemp("wheel")
    folders = PYPROJECT["tool"]["setuptools"]["package-dir"].values()
    for folder in folders:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    isolation = ["--no-build-isolation"] if has_build_backend() else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation, "-w", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("memplan-*.whl")
    return built


def has_build_backend() -> bool:
    """Whether what builds the wheel is installed here; pip fetches it for the purpose otherwise."""
    (requirement,) = PYPROJECT["build-system"]["requires"]
    name, _, oldest = requirement.partition(">=")
    try:
        return int(importlib.metadata.version(name).split(".")[0]) >= int(oldest)
    except importlib.metadata.PackageNotFoundError:
        return False


def test_every_package_of_the_checkout_is_declared() -> None:
    """A folder with Python files that pyproject.toml does not list would be missing from the wheel alone."""
    declared = set(PYPROJECT["tool"]["setuptools"]["packages"])
    for folder in ("backends", "cli", "compiler", "passes", "planners", "rl_agent", "workloads"):
        for file in (ROOT / folder).rglob("*.py"):
            package = "memplan." + ".".join(file.parent.relative_to(ROOT).parts)
            assert package in declared, f"{file.relative_to(ROOT)}: pyproject.toml does not list {package}"


def test_the_wheel_holds_everything_under_one_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"memplan"}
    for needed in ("memplan/__init__.py", "memplan/__main__.py", "memplan/py.typed", "memplan/cli/main.py"):
        assert needed in names
    for target in (ROOT / "compiler/hardware/targets").glob("*.toml"):
        assert f"memplan/compiler/hardware/targets/{target.name}" in names
    for dump in (ROOT / "workloads/dumps").glob("*.gz"):
        assert f"memplan/workloads/dumps/{dump.name}" in names


def test_the_wheel_works_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    dump = tmp_path / "memplan/workloads/dumps/lstm.tpu-v5e.default.hlo.txt.gz"
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.argv = ['memplan', *sys.argv[2:]]\n"
        "import memplan; assert memplan.__file__.startswith(sys.path[0]), memplan.__file__\n"
        "from memplan.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "plan", str(dump), "--planner", "slow", "--json"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"schema": "memplan.report/1"' in done.stdout
