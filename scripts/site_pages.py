"""Makes the pages of the repository those of the documentation site, without a second copy of any: a hook of mkdocs.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages. The API reference reads the docstrings of this checkout; a
tree of links lays it out as the installed package is. Links in the pages are paths in the repository. They become links
between pages, and a link to a file that is no page, such as a source file, becomes its text.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


@event_priority(100)  # before mkdocstrings reads its own
def on_config(config: Any) -> Any:
    """Shows the API reference where the package is."""
    tree = Path(tempfile.mkdtemp(prefix="memplan-docs-"))
    atexit.register(shutil.rmtree, tree, ignore_errors=True)
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    (tree / "memplan").mkdir()
    for file in (ROOT / folders.pop("memplan")).glob("*.py"):
        (tree / "memplan" / file.name).symlink_to(file)
    for package, folder in folders.items():
        (tree / package.replace(".", "/")).symlink_to(ROOT / folder)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(tree)]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are files at the root of the repository."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Changes the links of a page from paths in the repository to pages of the site."""
    uri = page.file.src_uri
    source = next((ROOT / name for name, made in PAGES.items() if made == uri), ROOT / "docs" / uri)

    def link(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        path = (source.parent / target).resolve()
        if "://" in target or not path.exists():
            return match[0]
        place = path.relative_to(ROOT).as_posix()
        place = PAGES.get(place, place.removeprefix("docs/") if place.startswith("docs/") else "")
        if not place:
            return text
        return f"{image}[{text}]({os.path.relpath(place, os.path.dirname(uri) or '.')}{anchor or ''})"

    return _LINK.sub(link, markdown)
