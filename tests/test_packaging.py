"""The source distribution and the wheel hold all that memplan needs, and nothing under another name."""

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DUMP = "memplan/workloads/dumps/lstm.tpu-v5e.default.hlo.txt.gz"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds both as `python -m build` does: the wheel from the source distribution, so that nothing lacks in that.

    It starts from a copy, since setuptools leaves its own files beside what it builds.
    """
    source, out = tmp_path_factory.mktemp("source") / "memplan", tmp_path_factory.mktemp("dist")
    for folder in PYPROJECT["tool"]["setuptools"]["package-dir"].values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", *PYPROJECT["project"]["license-files"]):
        shutil.copy(ROOT / name, source)
    isolation = ["--no-isolation"] if has_build_backend() else []
    run(sys.executable, "-m", "build", *isolation, "--outdir", out, source)
    return out


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (built,) = distributions.glob("memplan-*.whl")
    return built


def has_build_backend() -> bool:
    """Whether what builds the wheel is installed here; it is fetched for the purpose otherwise."""
    (requirement,) = PYPROJECT["build-system"]["requires"]
    name, _, oldest = requirement.partition(">=")
    try:
        return int(importlib.metadata.version(name).split(".")[0]) >= int(oldest)
    except importlib.metadata.PackageNotFoundError:
        return False


def environment(folder: Path, with_pip: bool) -> Path:
    """Returns the folder of commands of a new virtual environment."""
    venv.create(folder, with_pip=with_pip, symlinks=True)
    return folder / "bin"


def plan_a_dump(commands: Path, folder: Path) -> None:
    """Runs the installed command, away from the checkout, on a dump that came with it."""
    installed = Path(run(commands / "python", "-c", "import memplan; print(memplan.__file__)", cwd=folder).strip())
    assert installed.is_relative_to(commands.parent)
    assert run(commands / "memplan", "--version", cwd=folder) == f"memplan {PYPROJECT['project']['version']}\n"
    arguments = ("plan", installed.parents[1] / DUMP, "--planner", "slow", "--json")
    out = run(commands / "memplan", *arguments, cwd=folder)
    assert '"schema": "memplan.report/1"' in out


def test_every_package_of_the_checkout_is_declared() -> None:
    """A folder with Python files that pyproject.toml does not list would be missing from the wheel alone."""
    declared = set(PYPROJECT["tool"]["setuptools"]["packages"])
    for folder in ("backends", "cli", "compiler", "passes", "planners", "rl_agent", "workloads"):
        for file in (ROOT / folder).rglob("*.py"):
            package = "memplan." + ".".join(file.parent.relative_to(ROOT).parts)
            assert package in declared, f"{file.relative_to(ROOT)}: pyproject.toml does not list {package}"


@pytest.mark.slow
def test_the_wheel_holds_everything_under_one_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"memplan"}
    for needed in ("memplan/__init__.py", "memplan/__main__.py", "memplan/py.typed", "memplan/cli/main.py"):
        assert needed in names
    for target in (ROOT / "compiler/hardware/targets").glob("*.toml"):
        assert f"memplan/compiler/hardware/targets/{target.name}" in names
    for dump in (ROOT / "workloads/dumps").glob("*.gz"):
        assert f"memplan/workloads/dumps/{dump.name}" in names


def test_both_carry_licence_and_notice(wheel: Path, distributions: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    fields = HeaderParser().parsestr(archive.read(metadata).decode())
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields.get_all("License-File") == ["LICENSE", "NOTICE"]
    (source,) = distributions.glob("memplan-*.tar.gz")
    with tarfile.open(source) as packed_source:
        held = packed_source.getnames()
    for name in ("LICENSE", "NOTICE"):
        packed = archive.read(metadata.replace("METADATA", f"licenses/{name}"))
        assert packed == (ROOT / name).read_bytes()
        assert f"{source.name.removesuffix('.tar.gz')}/{name}" in held


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {PYPROJECT['project']['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_wheel_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    """What it depends on is that of the tests' environment: the package index is not asked."""
    commands = environment(tmp_path / "environment", with_pip=False)
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        commands / "python",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
    )
    (packages,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    plan_a_dump(commands, tmp_path)


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    commands = environment(tmp_path / "environment", with_pip=True)
    run(commands / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    plan_a_dump(commands, tmp_path)
