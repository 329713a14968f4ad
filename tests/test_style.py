"""What linters, the type checker and a look at the text can say about the whole repository."""

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = (
    "api",
    "backends",
    "cli",
    "compiler",
    "passes",
    "planners",
    "rl_agent",
    "workloads",
    "scripts",
    "tests",
    "docs",
    ".ci",
)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, env=os.environ | environment
    )


def python_files() -> list[str]:
    """Returns what ruff shall look at: Python scripts have no ending that tells."""
    scripts = [
        path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.read_bytes()[:64].startswith(b"#!")
    ]
    return [".", *(str(path) for path in scripts if b"python" in path.read_bytes().split(b"\n", 1)[0])]


def test_ruff_check() -> None:
    done = run("ruff", "check", *python_files())
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_format() -> None:
    done = run("ruff", "format", "--check", *python_files())
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy(tmp_path: Path) -> None:
    """Types are right in the package as it is installed: one tree called memplan, laid out by pyproject.toml.

    The tree is made of links, so that it is the checkout that is checked, however the package under test was installed.
    """
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = pyproject["tool"]["setuptools"]["package-dir"]
    (tmp_path / "memplan").mkdir()
    for file in (ROOT / folders["memplan"]).iterdir():
        (tmp_path / "memplan" / file.name).symlink_to(file)
    for package, folder in folders.items():
        if package != "memplan":
            (tmp_path / package.replace(".", "/")).symlink_to(ROOT / folder)
    done = run(
        "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", "--cache-dir", os.devnull, "-p", "memplan", MYPYPATH=str(tmp_path)
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.replace(str(tmp_path), "") + done.stderr


CODE = ("api", "backends", "cli", "compiler", "passes", "planners", "rl_agent", "workloads", "tests")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 450, 80


def code_files() -> list[Path]:
    scripts = [ROOT / name for name in python_files() if name != "."]
    return [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))] + scripts


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in code_files()}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}": node.end_lineno - node.lineno + 1
        for path in code_files()
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    }
    assert {name: length for name, length in found.items() if length > MAX_FUNCTION_LINES} == {}


def test_no_two_classes_share_a_name() -> None:
    """So that a name found by grep is one thing."""
    places = defaultdict(list)
    for path in code_files():
        if path.relative_to(ROOT).parts[0] in CODE[:-1]:
            for node in nodes_of(path):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_two_test_files_share_a_name() -> None:
    """Test folders are no packages, so pytest imports files by their names alone."""
    places = defaultdict(list)
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name != "conftest.py":
            places[path.name].append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_times_are_taken_from_monotonic_clocks() -> None:
    """The time of day jumps: a deadline or a duration that is taken from it is wrong then."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in code_files()
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "time.time_ns", "datetime.now")
    ]
    assert found == []


def text_files() -> list[Path]:
    binary = {".gz", ".png", ".pb", ".pyc", ".mlirbc"}
    return [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and path.suffix not in binary and not {"__pycache__", ".hypothesis"} & set(path.parts)
    ] + [path for path in sorted(ROOT.iterdir()) if path.is_file() and path.suffix in (".md", ".toml")]


# The words are put together here, so that this file does not contain them.
FORBIDDEN = {
    "a path of some machine": re.compile(
        r"(?<![\w.$})/])/(?:" + "|".join(["wor" + "k", "tm" + "p", "hom" + "e", "roo" + "t"]) + r")/\w"
    ),
    "a package registry's host": re.compile("pypi" + r"\.org|files\.python" + r"hosted|registry\.npm" + "js"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_contains(what: str) -> None:
    found = []
    for path in text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if FORBIDDEN[what].search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_the_forbidden_would_be_found() -> None:
    assert FORBIDDEN["a path of some machine"].search("see " + "/wor" + "k/main/x")
    assert not FORBIDDEN["a path of some machine"].search("tests/data/wor" + "k/x and jit(f)/hom" + "e/x")
