"""The documentation site builds without a warning, and all pages are in it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every broken link, anchor or reference, and every docstring that contradicts its signature, is a warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_navigation(site: Path) -> None:
    front = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert f'href="{name}/"' in front, f"mkdocs.yml: nav does not list {name}.md"
    for notebook in (ROOT / "docs").glob("*.ipynb"):
        assert f'href="{notebook.stem}_notebook/"' in front, (
            f"mkdocs.yml: nav does not list {notebook.stem}_notebook.md"
        )


def test_notebooks_are_pages_with_their_outputs(site: Path) -> None:
    page = (site / "peak_notebook" / "index.html").read_text()
    assert "cheapest way to lower it</th>" in page
    assert 'href="../peak/"' in page
    assert 'href="../peak_notebook/"' in (site / "peak" / "index.html").read_text()


def test_code_is_shown_as_code_under_the_name_of_its_file(site: Path) -> None:
    assert [str(page) for page in site.rglob("*.html") if "<p>```" in page.read_text()] == []
    assert '<span class="filename">training.py</span>' in (site / "fit" / "index.html").read_text()


def test_pages_of_the_repository_are_pages_of_the_site(site: Path) -> None:
    assert 'href="command/"' in (site / "index.html").read_text()
    contributing = (site / "contributing" / "index.html").read_text()
    assert 'href="../architecture/"' in contributing
    assert 'href="docs/' not in contributing


def test_the_reference_shows_docstrings(site: Path) -> None:
    reference = (site / "reference" / "memplan" / "index.html").read_text()
    assert "Returns a plan for a program." in reference
    assert 'id="memplan.pipeline.plan"' in reference
    examples = (site / "reference" / "extending" / "index.html").read_text()
    assert "Equations whose results nobody reads." in examples
    assert "<blockquote>" not in examples
