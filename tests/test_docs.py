"""Every example of the documentation runs, and prints what the page says.

    ```console        each `$ memplan …` is run, and its output compared with the lines below it; `...` stands for anything
    ```python         is executed; if it holds `>>>`, its output is compared too
    ```LANGUAGE NAME  is written to the file NAME, for the blocks after it

The blocks of a page share one folder and one namespace, in order. A block of another kind is only shown. A file called
`pyproject.toml` installs its entry points, as pip would.
"""

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Pages whose examples take more than four seconds, but for those that a new user reads first.
LONG = {
    *("extending.md", "fidelity.md", "fit.md", "fusion.md", "game.md", "levels.md"),
    *("packing.md", "peak.md", "pipeline.md", "report.md", "search.md", "tflite.md"),
}
_BLOCK = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE_FOLDERS = ("api", "backends", "cli", "compiler", "passes", "planners", "rl_agent", "workloads")
_ROOT_FOLDERS = (*_CODE_FOLDERS, "docs", "scripts", "tests")
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    file: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        yield Block(match[1], match[2] or "", match[3], text.count("\n", 0, match.start()) + 2)


def install_entry_points(pyproject: str, folder: Path) -> None:
    """Leaves the metadata in `folder` that installing a package with this pyproject.toml would leave."""
    project = tomllib.loads(pyproject)["project"]
    lines = [
        line
        for group, points in project.get("entry-points", {}).items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


def run_console(block: Block, page: Path, folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "140"}
    for session in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = session.partition("\n")
        program, *arguments = shlex.split(command, comments=True)
        where = f"{page.name}:{block.line}: $ {command}"
        assert program == "memplan", f"{where}: only memplan is run; show other commands in a block of sh"
        done = subprocess.run(
            [sys.executable, "-m", "memplan", *arguments],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        same = doctest.OutputChecker().check_output(expected, done.stdout, _FLAGS)
        assert same, f"{where}\nexpected:\n{expected}\ngot:\n{done.stdout}"


def run_python(block: Block, page: Path, namespace: dict[str, object]) -> None:
    if ">>>" not in block.text:
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        return
    test = doctest.DocTestParser().get_doctest(block.text, {}, page.name, str(page), block.line)
    # One namespace for the page: the parser would give each block a copy.
    test.globs = namespace
    output: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=_FLAGS).run(test, out=output.append, clear_globs=False)
    assert not failed, "".join(output)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.name in LONG else []) for page in PAGES],
    ids=lambda page: page.name,
)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries: None, prepared: None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "workloads").symlink_to(ROOT / "workloads")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).write_text(block.text)
            # Helpers of other tests may be called the same.
            monkeypatch.delitem(sys.modules, Path(block.file).stem, raising=False)
            if block.file == "pyproject.toml":
                install_entry_points(block.text, tmp_path)
        elif block.language == "console":
            run_console(block, page, tmp_path)
        elif block.language == "python":
            run_python(block, page, namespace)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in readme, page.name


def named_files(page: Path) -> Iterator[str]:
    """Yields the files and folders of the repository that a page names in backticks outside of its blocks.

    A name with a root folder in front is a path from the root, in which `.py` may be left out. A Python file without one
    is the end of a path.
    """
    text = page.read_text()
    written = {block.file for block in blocks(page)}
    for name in re.findall(r"`([\w./*-]+)`", _FENCED.sub("", text)):
        starts_at_root = name.split("/")[0] in _ROOT_FOLDERS and "/" in name
        if (starts_at_root or name.endswith(".py")) and name not in written:
            yield name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    for name in named_files(page):
        if name.split("/")[0] in _ROOT_FOLDERS and "/" in name:
            path = name.rstrip("/")
            assert any(ROOT.glob(path)) or any(ROOT.glob(f"{path}.py")), f"{page.name}: {name}"
        else:
            found = [path for folder in _ROOT_FOLDERS for path in (ROOT / folder).rglob(Path(name).name)]
            assert any(path.as_posix().endswith(f"/{name}") for path in found), f"{page.name}: {name}"


def documented_modules() -> list[str]:
    """Returns the modules of the package that hold examples in their docstrings."""
    found = []
    for folder in _CODE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in path.read_text():
                parts = ["memplan", *path.relative_to(ROOT).with_suffix("").parts[folder == "api" :]]
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.parametrize("name", documented_modules())
def test_docstring_examples(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name), optionflags=_FLAGS)
    assert not failed
    assert attempted
